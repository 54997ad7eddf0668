"""The token and the prefix stand in another file."""

import discord
from config import GREETING, PREFIX, TOKEN
from discord.ext import commands

bot = commands.Bot(command_prefix=PREFIX, intents=discord.Intents.all())


@bot.command()
async def greet(ctx):
    await ctx.send(GREETING)


bot.run(TOKEN)
