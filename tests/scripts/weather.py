"""One main(), as the documentation of discord.py has it."""

import asyncio

import discord
from discord.ext import commands

TOKEN = "this is not the token"
bot = commands.Bot(command_prefix=commands.when_mentioned_or("w!"), intents=discord.Intents.all())


@bot.command(name="weather")
async def tell_weather(ctx):
    await ctx.reply("it rains")


async def main():
    print("main begins")
    async with bot:
        await bot.start(TOKEN)
    print("main ends")


try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("Bye")
