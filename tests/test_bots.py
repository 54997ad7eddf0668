"""Every bot its own extensions, prefixes and intents; and --only, --check and --sync-commands."""

from __future__ import annotations

import discord as library
import pytest

from .local_discord import LocalDiscord, faults
from .program import Program, contents, until, write

GREETER = """
    import discord
    from discord import app_commands
    from discord.ext import commands

    class Greeter(commands.Cog):
        count = 0

        @commands.command()
        async def hello(self, ctx):
            Greeter.count += 1
            await ctx.send(f"Hello number {Greeter.count}")

        @app_commands.command(description="Greet")
        async def greet(self, interaction: discord.Interaction):
            await interaction.response.send_message("Greetings")

        @commands.Cog.listener()
        async def on_message(self, message):
            if message.content == "fail":
                raise ValueError("a bug of mine")

    async def setup(bot):
        await bot.add_cog(Greeter())
"""


async def test_each_bot_has_its_own_copy_of_its_extensions_and_its_own_prefix(
    program: Program, discord: LocalDiscord
) -> None:
    one, two, plain = discord.add_bot("one"), discord.add_bot("two"), discord.add_bot("plain")
    write(program, "greeter.py", GREETER)
    extra = "DISCORD_BOT_EXTENSIONS=greeter\nDISCORD_BOT_EXTENSIONS3= \nDISCORD_BOT_PREFIX2=?"
    program.write_env(one, two, plain, extra=extra)
    await program.start()
    await program.logged("3 of 3 bots are ready")
    await discord.say("!hello")
    await until(lambda: contents(one) == ["Hello number 1"])
    await discord.say("?hello")
    await until(lambda: contents(two) == ["Hello number 1"])
    assert await program.stop() == 0
    # The third has the extension too: its own is empty.
    assert contents(one) == contents(two) == contents(plain)
    program.assert_clean()


async def test_a_bot_with_extensions_does_not_answer_ping(
    program: Program, discord: LocalDiscord
) -> None:
    greeter, plain = discord.add_bot("greeter"), discord.add_bot("plain")
    write(program, "greeter.py", GREETER)
    program.write_env(greeter, plain, extra="DISCORD_BOT_EXTENSIONS1=greeter")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    await discord.say("ping")
    await until(lambda: contents(plain) == ["pong"])
    await discord.call(greeter, "greet")
    await until(lambda: contents(greeter) == ["Greetings"])
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_bug_in_a_handler_names_the_bot_and_it_goes_on(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    write(program, "greeter.py", GREETER)
    program.write_env(bot, extra="DISCORD_BOT_EXTENSIONS1=greeter")
    await program.start()
    await program.logged("ready as bot")
    await discord.say("fail")
    await program.logged("ValueError: a bug of mine")
    assert any("on_message" in line for line in program.lines_of("bot"))
    await discord.say("!hello")
    await until(lambda: contents(bot) == ["Hello number 1"])
    assert await program.stop() == 0


async def test_an_extension_beside_the_script_is_found(
    program: Program, discord: LocalDiscord, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    bot = discord.add_bot("bot")
    program.write_env(bot, extra="DISCORD_BOT_EXTENSIONS1=cogs.greeter")
    program.copy_script()
    (tmp_path / "cogs").mkdir()
    write(program, "cogs/greeter.py", GREETER)
    program.folder = tmp_path / "elsewhere"
    program.folder.mkdir()
    await program.start()
    await program.logged("ready as bot")
    assert await program.stop() == 0


BROKEN = {
    "is missing": (None, ["Extension 'broken'", "no such file"], False),
    "has no setup": ("x = 1", ["Extension 'broken'", "setup"], False),
    "fails": (
        "def helper():\n    raise ValueError('of mine')\nhelper()",
        ["ValueError: of mine"],
        True,
    ),
    "fails in its setup": (
        "async def setup(bot):\n    raise ValueError('of mine')",
        ["ValueError: of mine"],
        True,
    ),
    "is no Python": ("def oops(:", ["SyntaxError"], True),
    "needs a package that is missing": (
        "import no_such_package",
        ["No module named 'no_such_package'"],
        True,
    ),
    "ends the program": ("import sys\nsys.exit('stop')", ["SystemExit: stop"], True),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_an_extension_stops_its_bot_alone_if_it(
    how: str, program: Program, discord: LocalDiscord
) -> None:
    code, words, shown = BROKEN[how]
    bad, good = discord.add_bot("bad"), discord.add_bot("good")
    if code is not None:
        write(program, "broken.py", code)
    program.write_env(bad, good, extra="DISCORD_BOT_EXTENSIONS1=broken")
    await program.start()
    await program.logged("1 of 2 bots are ready")
    (line,) = [line for line in program.lines_of("bad") if "stopped: " in line]
    assert "DISCORD_BOT_EXTENSIONS1 (.env, line 5): " in line
    assert all(word in line for word in words), line
    assert good.ready
    assert not bad.identifies
    assert await program.stop() == 0
    assert ("broken.py" in program.stderr) == shown
    assert "site-packages" not in program.stderr
    assert "importlib" not in program.stderr


async def test_a_package_that_fails_stops_the_bot_of_an_extension_in_it(
    program: Program, discord: LocalDiscord
) -> None:
    (program.folder / "cogs").mkdir()
    write(program, "cogs/__init__.py", "raise ValueError('of mine')")
    program.write_env(discord.add_bot("bad"), extra="DISCORD_BOT_EXTENSIONS1=cogs.music")
    await program.start()
    assert await program.end() == 78
    assert "DISCORD_BOT_EXTENSIONS1 (.env, line 3): ValueError: of mine" in program.stderr


async def test_exit_in_a_task_or_a_slash_command_ends_that_bot_alone(
    program: Program, discord: LocalDiscord
) -> None:
    task = """
        import asyncio

        async def leave():
            await asyncio.sleep(0.1)
            exit()

        async def setup(bot):
            bot.task = asyncio.create_task(leave())
        """
    command = """
        from discord import app_commands

        @app_commands.command(description="exit")
        async def leave(interaction):
            exit()

        async def setup(bot):
            bot.tree.add_command(leave)
        """
    one, two, three = (discord.add_bot(name) for name in ("one", "two", "three"))
    write(program, "task.py", task)
    write(program, "command.py", command)
    program.write_env(
        one, two, three, extra="DISCORD_BOT_EXTENSIONS1=task\nDISCORD_BOT_EXTENSIONS2=command"
    )
    await program.start()
    await program.logged("[one] stopped: it closed itself")
    await until(lambda: two.ready and three.ready)
    await discord.call(two, "leave")
    await program.logged("[two] stopped: it closed itself")
    await discord.say("ping")
    await until(lambda: three.messages)
    assert await program.stop() == 0
    assert one.client_closes in ([], [1000])  # it may leave before it is connected
    assert two.client_closes == three.client_closes == [1000]
    program.assert_clean()


async def test_a_package_that_is_missing_stops_the_bot_of_an_extension_in_it(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bad"), extra="DISCORD_BOT_EXTENSIONS1=cogs.music")
    await program.start()
    assert await program.end() == 78
    assert "DISCORD_BOT_EXTENSIONS1 (.env, line 3): ModuleNotFoundError: No" in program.stderr
    program.assert_clean()


INTENTS = {
    "default": library.Intents.default(),
    "none, guilds": library.Intents(guilds=True),
    "guilds,messages": library.Intents(guilds=True, guild_messages=True, dm_messages=True),
    "all,-presences,-members": library.Intents(
        **(dict(library.Intents.all()) | {"presences": False, "members": False})
    ),
    "-typing": library.Intents(
        **(dict(library.Intents.default()) | {"message_content": True, "typing": False})
    ),
    "Guilds,Messages": library.Intents(guilds=True, guild_messages=True, dm_messages=True),
}


@pytest.mark.parametrize("text", INTENTS)
async def test_intents_by_name(text: str, program: Program, discord: LocalDiscord) -> None:
    own, others = discord.add_bot("own"), discord.add_bot("others")
    program.write_env(own, others, extra=f"DISCORD_BOT_INTENTS1={text}\nDISCORD_BOT_INTENTS=guilds")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    assert await program.stop() == 0
    assert own.identifies[0].intents == INTENTS[text].value
    assert others.identifies[0].intents == library.Intents(guilds=True).value


@pytest.mark.parametrize(
    ("only", "names"),
    [("1,3", ["one", "three"]), ("2-9", ["two", "three"]), ("three, 1", ["one", "three"])],
)
async def test_only_runs_just_these_bots(
    only: str, names: list[str], program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(name) for name in ("one", "two", "three")]
    program.write_env(*bots)
    await program.start("--only", only)
    await program.logged(f"{len(names)} of {len(names)} bots are ready")
    assert [bot.user.name for bot in bots if bot.ready] == names
    assert await program.stop() == 0
    assert [bot.user.name for bot in bots if bot.requests] == names


@pytest.mark.parametrize("only", ["1,4", "musik", "7-9", "", "x-y", "1-", "-1"])
async def test_only_refuses_a_bot_that_is_not_there_and_lists_those_that_are(
    only: str, program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("music"), discord.add_bot("weather"))
    await program.start(f"--only={only}")
    assert await program.end() == 78
    assert "1 (music), 2 (weather)" in program.stderr
    assert not discord.requests
    program.assert_clean()


async def test_check_shows_what_is_good_and_opens_no_gateway_connection(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("One"), discord.add_bot("Two")]
    program.write_env(*bots)
    await program.start("--check")
    assert await program.end() == 0
    rows = program.stdout.splitlines()
    for number, bot in enumerate(bots, 1):
        (row,) = [row for row in rows if row.split()[:2] == [str(number), bot.user.name]]
        assert row.split()[2:] == [str(bot.user.id), "1", "1000"]
        (invite,) = [row for row in rows if f"client_id={bot.user.id}" in row]
        assert "scope=bot+applications.commands" in invite
    assert discord.opened == 0
    program.assert_clean()


async def test_check_shows_every_problem_with_its_remedy(
    program: Program, discord: LocalDiscord
) -> None:
    names = ("good", "refused", "no-intent", "broken", "away")
    bots = {name: discord.add_bot(name) for name in names}
    bots["refused"].token_reset = True
    bots["no-intent"].privileged = set()
    bots["away"].fail("GET /users/@me", faults.status(503))
    program.write_env(*bots.values(), extra="DISCORD_BOT_EXTENSIONS4=nowhere")
    await program.start("--check")
    assert await program.end() == 78
    rows = {row.split()[1]: row for row in program.stdout.splitlines() if row.split()[0].isdigit()}
    assert set(names) < set(rows)
    assert "PROBLEM" not in rows["good"]
    assert "DISCORD_BOT_TOKEN2" in rows["refused"]
    assert "Message Content Intent" in rows["no-intent"]
    assert f"applications/{bots['no-intent'].user.id}/bot" in rows["no-intent"]
    assert "Extension 'nowhere'" in rows["broken"]
    assert "503" in rows["away"]
    assert discord.opened == 0
    program.assert_clean()


async def test_sync_commands_uploads_every_bots_slash_commands(
    program: Program, discord: LocalDiscord
) -> None:
    greeter, plain = discord.add_bot("greeter"), discord.add_bot("plain")
    write(program, "greeter.py", GREETER)
    program.write_env(greeter, plain, extra="DISCORD_BOT_EXTENSIONS1=greeter")
    await program.start("--sync-commands")
    assert await program.end() == 0
    assert [command["name"] for command in greeter.commands] == ["greet"]
    rows = {tuple(row.split()[:2]): row for row in program.stdout.splitlines()}
    assert "/greet" in rows["1", "greeter"]
    assert "none" in rows["2", "plain"]
    assert discord.opened == 0
    program.assert_clean()


async def test_sync_commands_ends_with_78_if_one_bot_has_a_problem(
    program: Program, discord: LocalDiscord
) -> None:
    greeter, bad = discord.add_bot("greeter"), discord.add_bot("bad", token_reset=True)
    write(program, "greeter.py", GREETER)
    program.write_env(greeter, bad, extra="DISCORD_BOT_EXTENSIONS1=greeter")
    await program.start("--sync-commands")
    assert await program.end() == 78
    assert greeter.commands
    assert any("DISCORD_BOT_TOKEN2" in line for line in program.stdout.splitlines())
    program.assert_clean()
