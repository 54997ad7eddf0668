"""Its settings are in a file beside it; the bot is made and run in a function."""

import json
from pathlib import Path

import discord

settings = json.loads(Path(__file__).with_name("settings.json").read_text())


def main():
    client = discord.Client(intents=discord.Intents.all())

    @client.event
    async def on_message(message):
        if message.content == "json":
            await message.channel.send(settings["answer"])

    client.run(settings["token"])


if __name__ == "__main__":
    main()
