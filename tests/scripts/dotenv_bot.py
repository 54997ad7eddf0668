"""python-dotenv, and an error that is caught."""

import os

import discord
from dotenv import load_dotenv

load_dotenv()
TOKEN = os.getenv("DOTENV_TOKEN")
ANSWER = os.getenv("DOTENV_ANSWER")

client = discord.Client(intents=discord.Intents.all())


@client.event
async def on_message(message):
    if message.content == "dotenv":
        await message.channel.send(ANSWER)


try:
    client.run(TOKEN)
except discord.LoginFailure:
    print("The token is wrong!")
except discord.PrivilegedIntentsRequired:
    print("Switch the intents on!")
