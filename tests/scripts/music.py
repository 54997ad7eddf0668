"""The usual first bot: a commands.Bot, and bot.run at the end."""

import os

import discord
from discord.ext import commands

intents = discord.Intents.default()
intents.message_content = True

bot = commands.Bot(command_prefix="?", intents=intents)


@bot.event
async def on_ready():
    print(f"Logged in as {bot.user}")


@bot.command()
async def play(ctx):
    await ctx.send("music plays")


bot.run(os.environ["TOKEN"])
