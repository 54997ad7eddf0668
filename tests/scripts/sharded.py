import discord
from discord.ext import commands

bot = commands.AutoShardedBot(command_prefix="s!", intents=discord.Intents.all())


@bot.listen("on_message")
async def answer(message):
    if message.content == "shards":
        await message.channel.send(f"{bot.shard_count} shards")


bot.run("x")
