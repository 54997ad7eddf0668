"""It sets up logging in all the ways there are."""

import asyncio
import logging

import discord
from discord.ext import commands

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
logger = logging.getLogger("logs")


class LogBot(commands.Bot):
    async def on_message(self, message):
        if message.content == "log":
            logger.info("somebody wants a line")
            await message.channel.send("logged")


async def main():
    discord.utils.setup_logging(level=logging.INFO, root=False)
    bot = LogBot(command_prefix="!", intents=discord.Intents.all())
    async with bot:
        await bot.start("TOKEN")


asyncio.run(main())
