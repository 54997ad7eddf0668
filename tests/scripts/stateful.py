"""What it remembers shows which client answers, and how often the script has run."""

import discord

counted = 0
client = discord.Client(intents=discord.Intents.all())
print("the script runs")


@client.event
async def on_message(message):
    global counted
    if message.content == "count":
        counted += 1
        await message.channel.send(f"count {counted}")


client.run("TOKEN")
