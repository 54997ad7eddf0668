from discord.ext import commands


class Fun(commands.Cog):
    def __init__(self, bot):
        self.bot = bot
        self.count = 0

    @commands.command()
    async def roll(self, ctx):
        self.count += 1
        await ctx.send(f"roll {self.count}")

    @commands.command()
    async def shutdown(self, ctx):
        await ctx.send("bye")
        await self.bot.close()


async def setup(bot):
    await bot.add_cog(Fun(bot))
