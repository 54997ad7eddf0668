import discord

client = discord.Client(intents=discord.Intents.default())

if __name__ == "__amin__":
    client.run("TOKEN")
