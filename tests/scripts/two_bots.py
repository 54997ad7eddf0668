import asyncio

import discord

one = discord.Client(intents=discord.Intents.default())
two = discord.Client(intents=discord.Intents.default())


async def main():
    await asyncio.gather(one.start("TOKEN1"), two.start("TOKEN2"))


asyncio.run(main())
