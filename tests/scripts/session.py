"""main() has something of its own around the bot, and closes it afterwards."""

import asyncio

import aiohttp
import discord
from discord.ext import commands


class SessionBot(commands.Bot):
    def __init__(self, *, session):
        super().__init__("x!", intents=discord.Intents.all())
        self.session = session

    async def on_message(self, message):
        if message.content == "session":
            await message.channel.send(f"closed: {self.session.closed}")
        if message.content == "session close":
            await self.close()


async def main():
    async with aiohttp.ClientSession() as session, SessionBot(session=session) as bot:
        try:
            await bot.start("TOKEN")
        finally:
            await asyncio.sleep(0.05)
            print("closing what is mine")


if __name__ == "__main__":
    with asyncio.Runner() as runner:
        runner.run(main())
