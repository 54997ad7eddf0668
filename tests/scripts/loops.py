"""Background work in each of the usual places."""

import asyncio

import discord
from discord.ext import commands, tasks


class Loops(commands.Bot):
    def __init__(self):
        super().__init__("l!", intents=discord.Intents.all())
        self.ticks = 0

    async def setup_hook(self):
        self.loop.create_task(self.background())
        self.tick.start()

    async def background(self):
        await self.wait_until_ready()
        while not self.is_closed():
            await asyncio.sleep(0.05)

    @tasks.loop(seconds=0.05)
    async def tick(self):
        self.ticks += 1

    @tick.before_loop
    async def before_tick(self):
        await self.wait_until_ready()

    async def on_ready(self):
        if not later.is_running():
            later.start(self)

    async def on_message(self, message):
        if message.content == "loops":
            while not self.ticks or not later.current_loop:
                await asyncio.sleep(0.01)
            await message.channel.send("both loops run")


@tasks.loop(seconds=0.05)
async def later(bot):
    bot.latest = later.current_loop


bot = Loops()
bot.run("TOKEN")
