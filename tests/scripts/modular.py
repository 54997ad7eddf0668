"""A subclass of Bot that loads every cog of a folder in its setup_hook."""

import os

import discord
from discord.ext import commands


class MyBot(commands.Bot):
    def __init__(self):
        intents = discord.Intents.default()
        intents.message_content = True
        super().__init__(command_prefix="m!", intents=intents, help_command=None)

    async def setup_hook(self):
        for filename in os.listdir("./cogs"):
            if filename.endswith(".py") and not filename.startswith("__"):
                await self.load_extension(f"cogs.{filename[:-3]}")

    async def on_ready(self):
        print("------")


bot = MyBot()

if __name__ == "__main__":
    bot.run(os.getenv("MODULAR_TOKEN"))
