import asyncio

import discord

client = discord.Client(intents=discord.Intents.default())
loop = asyncio.new_event_loop()
try:
    loop.run_until_complete(client.start("TOKEN"))
except KeyboardInterrupt:
    loop.run_until_complete(client.close())
finally:
    loop.close()
