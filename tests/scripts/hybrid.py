"""Hybrid and slash commands, global ones and those of one server, and a context menu."""

import os

import discord
from discord import app_commands
from discord.ext import commands

GUILD = discord.Object(id=int(os.environ["TEST_GUILD"]))


class Hybrid(commands.Bot):
    def __init__(self):
        super().__init__("h!", intents=discord.Intents.all())

    async def setup_hook(self):
        self.tree.copy_global_to(guild=GUILD) if os.getenv("COPY_GLOBAL") else None


bot = Hybrid()


@bot.hybrid_command(description="Say hi")
async def hi(ctx):
    await ctx.send("hi there")


@bot.tree.command(description="For one server", guild=GUILD)
async def secret(interaction: discord.Interaction):
    await interaction.response.send_message("a secret")


@app_commands.context_menu(name="Look")
@app_commands.guilds(GUILD)
async def look(interaction: discord.Interaction, member: discord.Member):
    await interaction.response.send_message(str(member))


bot.tree.add_command(look)
bot.run("TOKEN")
