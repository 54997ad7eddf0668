"""A plain client, from the first page of discord.py's documentation."""

import discord


class MyClient(discord.Client):
    async def on_ready(self):
        print("Logged on as", self.user)

    async def on_message(self, message):
        # don't respond to ourselves
        if message.author == self.user:
            return

        if message.content == "plain":
            await message.channel.send("a plain answer")


intents = discord.Intents.default()
intents.message_content = True
client = MyClient(intents=intents)
client.run("token", log_handler=None)
