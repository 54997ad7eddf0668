"""The usual ways to run several bots, each as plain as it is written down where people find it.

python peers.py RECIPE --env-file PATH
"""

import asyncio
import sys
from collections import namedtuple

import discord
from dotenv import dotenv_values


class Pong(discord.Client):
    """What run_bots.py's bots do by default."""

    async def on_message(self, message):
        if message.author.bot:
            return
        if message.content.startswith("ping"):
            await message.channel.send("pong")


def new_client():
    intents = discord.Intents.default()
    intents.message_content = True
    return Pong(intents=intents)


def gather(tokens):
    """Every client in one event loop, side by side."""

    async def main():
        await asyncio.gather(*(new_client().start(token) for token in tokens))

    asyncio.run(main())


def one_process(tokens):
    """discord.py's own way, for one bot; it is started once for each."""
    new_client().run(tokens[0])


Entry = namedtuple("Entry", "client event token")


def issue_516(tokens):
    """The recipe of https://github.com/Rapptz/discord.py/issues/516.

    With what discord.py and asyncio ask for today.
    """

    async def login(entries):
        for entry in entries:
            await entry.client.login(entry.token)

    async def wrapped_connect(entry):
        try:
            await entry.client.connect()
        except Exception as e:
            await entry.client.close()
            print("We got an exception: ", e.__class__.__name__, e)
            entry.event.set()

    async def check_close(entries):
        await asyncio.wait([asyncio.create_task(entry.event.wait()) for entry in entries])

    async def main():
        entries = [
            Entry(client=new_client(), event=asyncio.Event(), token=token) for token in tokens
        ]
        await login(entries)
        connecting = [asyncio.create_task(wrapped_connect(entry)) for entry in entries]
        await check_close(entries)
        await asyncio.gather(*connecting)

    asyncio.run(main())


RECIPES = {"gather": gather, "one_process": one_process, "issue_516": issue_516}

if __name__ == "__main__":
    recipe, _, env_file = sys.argv[1:]
    values = dotenv_values(env_file)
    tokens = [values[name] for name in values if name.startswith("DISCORD_BOT_TOKEN")]
    RECIPES[recipe](tokens)
