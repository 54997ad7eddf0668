"""The bots' code is followed as the env file is; one bot's code is not taken from another."""

from __future__ import annotations

import asyncio
import signal

import pytest

from .local_discord import Account, LocalDiscord
from .program import Program, contents, needs_posix_signals, until, write

COG = """
    from discord.ext import commands

    class Answers(commands.Cog):
        @commands.Cog.listener()
        async def on_message(self, message):
            if message.content == "which":
                await message.channel.send("{answer}")

    async def setup(bot):
        await bot.add_cog(Answers())
"""


def write_cog(program: Program, name: str, answer: str) -> None:
    write(program, name, COG.format(answer=answer))


async def start(
    program: Program, *bots: Account, extra: str, arguments: tuple[str, ...] = ()
) -> None:
    program.write_env(*bots, extra=extra)
    await program.start(*arguments)
    await program.logged(f"{len(bots)} of {len(bots)} bots are ready", timeout=40)


async def answers(discord: LocalDiscord, *bots: Account) -> list[str]:
    """What each bot answers now."""
    before = [len(bot.messages) for bot in bots]
    await discord.say("which")
    await until(lambda: all(len(bot.messages) > n for bot, n in zip(bots, before, strict=True)))
    return [contents(bot)[-1] for bot in bots]


def untouched(*bots: Account) -> bool:
    return all(len(bot.identifies) == 1 and not bot.resumes and bot.ready for bot in bots)


# --- a saved extension


async def test_a_saved_extension_is_loaded_again_by_every_bot_that_has_it_and_none_leaves(
    program: Program, discord: LocalDiscord
) -> None:
    one, two, other = (discord.add_bot(name) for name in ("one", "two", "other"))
    write_cog(program, "shared.py", "old")
    write_cog(program, "own.py", "own")
    extra = "DISCORD_BOT_EXTENSIONS=shared\nDISCORD_BOT_EXTENSIONS3=own"
    await start(program, one, two, other, extra=extra)
    assert await answers(discord, one, two, other) == ["old", "old", "own"]
    write_cog(program, "shared.py", "new")
    await program.logged("shared.py: reloaded one, two")
    assert await answers(discord, one, two, other) == ["new", "new", "own"]
    assert untouched(one, two, other)
    (line,) = [line for line in program.stderr.splitlines() if "shared.py" in line]
    assert "run_bots: shared.py: reloaded one, two" in line
    assert await program.stop() == 0
    program.assert_clean()


async def test_saves_of_the_same_size_within_one_second_are_seen(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    write_cog(program, "fast.py", "v1")
    await start(program, bot, extra="DISCORD_BOT_EXTENSIONS=fast")
    for turn in range(2, 5):
        write_cog(program, "fast.py", f"v{turn}")
        await program.logged("fast.py: reloaded bot", times=turn - 1)
        assert await answers(discord, bot) == [f"v{turn}"]
    assert untouched(bot)
    assert await program.stop() == 0


BROKEN = {
    "is no Python": ("def oops(:", "SyntaxError"),
    "fails": ("raise ValueError('of mine')", "ValueError: of mine"),
    "fails in its setup": (
        "async def setup(bot):\n    raise ValueError('of mine')",
        "ValueError: of mine",
    ),
    "exits": ("import sys\nsys.exit('stop')", "SystemExit: stop"),
    "exits in its setup": ("async def setup(bot):\n    exit('stop')", "SystemExit: stop"),
    "has no setup": ("x = 1", "has no 'setup' function"),
    "is gone": (None, "no such file"),
}


async def test_the_old_code_runs_on_where_a_saved_extension_does_not_load(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(f"bot{n}") for n in range(len(BROKEN))]
    for number in range(len(BROKEN)):
        write_cog(program, f"cog{number}.py", "old")
    extra = "\n".join(f"DISCORD_BOT_EXTENSIONS{n + 1}=cog{n}" for n in range(len(BROKEN)))
    await start(program, *bots, extra=extra)
    for number, (code, _) in enumerate(BROKEN.values()):
        if code is None:
            (program.folder / f"cog{number}.py").unlink()
        else:
            write(program, f"cog{number}.py", code)
    await program.logged("did not load bot0, bot1")
    for number, (how, (_, words)) in enumerate(BROKEN.items()):
        lines = program.lines_of(f"bot{number}")
        (line,) = [line for line in lines if "The old code keeps running" in line]
        place = f"DISCORD_BOT_EXTENSIONS{number + 1} (.env, line "
        head = f"Extension 'cog{number}'"
        assert all(word in line for word in (place, head, words)), f"{how}: {line}"
    assert await answers(discord, *bots) == ["old"] * len(bots)
    for number in range(len(BROKEN)):
        write_cog(program, f"cog{number}.py", "mended")
    await program.logged(": reloaded bot0, bot1")
    assert await answers(discord, *bots) == ["mended"] * len(bots)
    assert untouched(*bots)
    assert await program.stop() == 0


async def test_an_extension_that_is_written_in_pieces_is_loaded_when_it_is_whole(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    write_cog(program, "cog.py", "old")
    await start(program, bot, extra="DISCORD_BOT_EXTENSIONS1=cog")
    text = (program.folder / "cog.py").read_text().replace("old", "new")
    with (program.folder / "cog.py").open("w") as file:
        for begin in range(0, len(text), 40):
            file.write(text[begin : begin + 40])
            file.flush()
            await asyncio.sleep(0.3)
    await program.logged("cog.py: reloaded bot")
    assert await answers(discord, bot) == ["new"]
    assert program.stderr.count("cog.py: ") == 1
    assert "The old code keeps running" not in program.stderr
    assert await program.stop() == 0


async def test_files_that_are_saved_together_are_one_change_and_one_line(
    program: Program, discord: LocalDiscord
) -> None:
    one, two, new = (discord.add_bot(name) for name in ("one", "two", "new"))
    write_cog(program, "first.py", "first")
    write_cog(program, "second.py", "second")
    extra = "DISCORD_BOT_EXTENSIONS1=first\nDISCORD_BOT_EXTENSIONS2=second"
    await start(program, one, two, extra=extra)
    for turn in range(3):
        write_cog(program, "first.py", f"first {turn}")
        write_cog(program, "second.py", f"second {turn}")
        program.write_env(one, two, new, extra=extra)
        await asyncio.sleep(0.2)
    await program.logged(".env, first.py, second.py: added new; reloaded one, two")
    await program.logged("3 of 3 bots are ready")
    assert await answers(discord, one, two) == ["first 2", "second 2"]
    assert program.stderr.count("reloaded") == 1
    assert untouched(one, two, new)
    assert await program.stop() == 0
    program.assert_clean()


async def test_an_extension_that_did_not_load_starts_its_bot_when_it_is_mended(
    program: Program, discord: LocalDiscord
) -> None:
    wrong, refused, fine = (discord.add_bot(name) for name in ("wrong", "refused", "fine"))
    refused.token_reset = True
    write(program, "cog.py", "def oops(:")
    program.write_env(wrong, refused, fine, extra="DISCORD_BOT_EXTENSIONS1=cog")
    await program.start()
    await program.logged("1 of 3 bots are ready")
    write_cog(program, "cog.py", "mended")
    await program.logged("cog.py: restarted wrong")
    await program.logged("2 of 3 bots are ready")
    assert await answers(discord, wrong) == ["mended"]
    assert refused.requests == ["GET /users/@me"]
    assert untouched(wrong, fine)
    assert await program.stop() == 0


async def test_an_extension_that_was_missing_starts_its_bot_when_it_comes(
    program: Program, discord: LocalDiscord
) -> None:
    wrong, fine = discord.add_bot("wrong"), discord.add_bot("fine")
    program.write_env(wrong, fine, extra="DISCORD_BOT_EXTENSIONS1=late")
    await program.start()
    await program.logged("1 of 2 bots are ready")
    write_cog(program, "late.py", "here")
    await program.logged("restarted wrong")
    await program.logged("2 of 2 bots are ready")
    assert await answers(discord, wrong) == ["here"]
    assert await program.stop() == 0


async def test_a_part_of_a_package_is_followed_with_its_extension(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    (program.folder / "music").mkdir()
    write(program, "music/words.py", "WORD = 'old'")
    code = COG.replace('"{answer}"', "WORD").replace(
        "from discord.ext", "from .words import WORD\n    from discord.ext"
    )
    write(program, "music/__init__.py", code)
    await start(program, bot, extra="DISCORD_BOT_EXTENSIONS1=music")
    write(program, "music/words.py", "WORD = 'new'")
    await program.logged("words.py: reloaded bot")
    assert await answers(discord, bot) == ["new"]
    assert untouched(bot)
    assert await program.stop() == 0


async def test_a_bot_without_changes_keeps_what_it_remembers_while_others_are_edited(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(f"bot{n}") for n in range(20)]
    for number in range(20):
        write_cog(program, f"cog{number}.py", "old")
    extra = "\n".join(f"DISCORD_BOT_EXTENSIONS{n + 1}=cog{n}" for n in range(20))
    await start(program, *bots, extra=extra)
    write_cog(program, "cog7.py", "new")
    await program.logged("cog7.py: reloaded bot7")
    expected = ["new" if number == 7 else "old" for number in range(20)]
    assert await answers(discord, *bots) == expected
    assert untouched(*bots)
    assert await program.stop() == 0
    program.assert_clean()


@needs_posix_signals
async def test_no_watch_leaves_a_saved_extension_until_sighup(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    write_cog(program, "cog.py", "old")
    await start(program, bot, extra="DISCORD_BOT_EXTENSIONS=cog", arguments=("--no-watch",))
    write_cog(program, "cog.py", "new")
    await asyncio.sleep(2.5)
    assert await answers(discord, bot) == ["old"]
    program.send(signal.SIGHUP)
    await program.logged("cog.py: reloaded bot")
    assert await answers(discord, bot) == ["new"]
    assert untouched(bot)
    assert await program.stop() == 0


async def test_nothing_is_read_while_nothing_is_saved(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(f"bot{n}") for n in range(30)]
    write_cog(program, "cog.py", "old")
    code = """
        import logging, os, sys, time

        log = logging.getLogger("counts")
        counts = {"open": 0, "os.listdir": 0, "stat": 0}
        stat = os.stat

        def count_stat(*arguments, **options):
            counts["stat"] += 1
            return stat(*arguments, **options)

        def hook(name, arguments):
            if name in counts:
                counts[name] += 1

        async def on_message(message):
            if message.content == "begin":
                os.stat = count_stat
                sys.addaudithook(hook)
                log.info("begun")
            if message.content == "end":
                log.info("counted %s", counts)

        async def setup(bot):
            bot.add_listener(on_message)
        """
    write(program, "counts.py", code)
    extra = "DISCORD_BOT_EXTENSIONS=cog\nDISCORD_BOT_EXTENSIONS1=counts"
    await start(program, *bots, extra=extra)
    await asyncio.sleep(1.5)
    await discord.say("begin")
    await program.logged("begun")
    await asyncio.sleep(3)
    await discord.say("end")
    await program.logged("counted ")
    (line,) = [line for line in program.stderr.splitlines() if "counted " in line]
    counted = eval(line.partition("counted ")[2])
    assert counted["open"] == counted["os.listdir"] == 0
    # The env file, two extensions and the current folder, each once a second, by two calls.
    assert 6 <= counted["stat"] <= 27
    assert await program.stop() == 0


# --- one bot's module is not another's


HOLDER = """
    import logging, pickle
    log = logging.getLogger("holder")
    state = []

    class Thing:
        pass

    def has_module():
        import holder
        from holder import state as found
        return found is state and pickle.loads(pickle.dumps(Thing())).__class__ is Thing

    async def on_message(message):
        if message.content == "which":
            await message.channel.send(str(has_module()))

    async def setup(bot):
        state.append(bot)
        bot.add_listener(on_message)
        if bot.user.name in __import__("os").environ.get("FAILS", ""):
            raise ValueError("not for this bot")
"""


@pytest.mark.parametrize("how", ["refused", "removed", "reloaded"])
async def test_an_extension_of_two_bots_stays_importable_when_one_is(
    how: str, program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    write(program, "holder.py", HOLDER)
    write_cog(program, "other.py", "x")
    await start(program, one, two, extra="DISCORD_BOT_EXTENSIONS=holder")
    if how == "refused":
        two.token_reset = True
        await two.live[0].close(4004)
        await program.logged("[two] stopped: ")
    elif how == "removed":
        program.write_env(one, extra="DISCORD_BOT_EXTENSIONS=holder")
        await program.logged("[two] stopped: ")
    else:
        program.write_env(
            one, two, extra="DISCORD_BOT_EXTENSIONS=holder\nDISCORD_BOT_EXTENSIONS2=other"
        )
        await program.logged("restarted two")
        await program.logged("2 of 2 bots are ready", times=2)
    assert await answers(discord, one) == ["True"]
    assert untouched(one)
    assert await program.stop() == 0


async def test_an_extension_that_fails_in_one_bot_stays_importable_for_the_other(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    write(program, "holder.py", HOLDER)
    extra = "DISCORD_BOT_EXTENSIONS=holder\nFAILS=two"
    await start(program, one, extra=extra)
    program.write_env(one, two, extra=extra)
    await program.logged("[two] stopped: ")
    assert await answers(discord, one) == ["True"]
    assert await program.stop() == 0


PACKAGE = """
    import sys
    from . import part

    async def on_message(message):
        if message.content == "which":
            await message.channel.send(str(sys.modules.get(part.__name__) is part))

    async def setup(bot):
        bot.add_listener(on_message)
"""
DROPPER = """
    async def on_message(message):
        if message.content == "drop":
            await bot.unload_extension(%s)
            await message.channel.send("dropped")

    async def setup(it):
        global bot
        bot = it
        bot.add_listener(on_message)
"""


@pytest.mark.parametrize("name", ["'cogs.box'", "'.box', package='cogs'"])
async def test_the_parts_of_a_package_of_two_bots_stay_importable_when_one_unloads_it(
    name: str, program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    (program.folder / "cogs" / "box").mkdir(parents=True)
    write(program, "cogs/box/__init__.py", PACKAGE)
    write(program, "cogs/box/part.py", "")
    write(program, "dropper.py", DROPPER % name)
    extra = "DISCORD_BOT_EXTENSIONS1=cogs.box\nDISCORD_BOT_EXTENSIONS2=cogs.box,dropper"
    await start(program, one, two, extra=extra)
    await discord.say("drop")
    await until(lambda: contents(two) == ["dropped"])
    assert await answers(discord, one) == ["True"]
    assert await program.stop() == 0


HELPED = """
    import asyncio, discord
    import helper

    class Client(discord.Client):
        async def close(self):
            await asyncio.sleep(1)
            await super().close()

        async def on_message(self, message):
            if message.content == "which":
                await message.channel.send(helper.WORD)

    intents = discord.Intents.default()
    intents.message_content = True
    Client(intents=intents).run("unused")
"""


async def test_a_helper_of_two_scripts_is_new_for_both_though_an_extension_loads_meanwhile(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(name) for name in ("one", "two", "three")]
    slow = "import asyncio\n\nasync def setup(bot):\n    await asyncio.sleep(0.3)\n"
    for name in ("two", "three"):
        write(program, f"{name}.py", HELPED)
    write(program, "helper.py", "WORD = 'old'")
    write(program, "slow.py", slow)
    extra = "DISCORD_BOT_EXTENSIONS1=slow\n"
    extra += "DISCORD_BOT_SCRIPT2=two.py\nDISCORD_BOT_SCRIPT3=three.py"
    await start(program, *bots, extra=extra)
    write(program, "slow.py", f"{slow}# saved")
    write(program, "helper.py", "WORD = 'new'")
    await program.logged("restarted two, three")
    await program.logged("ready as two", times=2)
    await program.logged("ready as three", times=2)
    await discord.say("which")
    await until(lambda: contents(bots[1]) == contents(bots[2]) == ["new"])
    assert await program.stop() == 0


# --- every extension of a folder


async def test_a_star_is_every_extension_of_the_folder(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    (program.folder / "cogs" / "third").mkdir(parents=True)
    write_cog(program, "cogs/first.py", "first")
    write_cog(program, "cogs/second.py", "second")
    write_cog(program, "cogs/third/__init__.py", "third")
    write(program, "cogs/helper.py", "WORD = 'no extension'")
    for name in ("second", "third/__init__"):
        path = program.folder / "cogs" / f"{name}.py"
        path.write_text(path.read_text().replace("Answers", name.partition("/")[0].title()))
    await start(program, bot, extra="DISCORD_BOT_EXTENSIONS=cogs.*")
    await discord.say("which")
    await until(lambda: sorted(contents(bot)) == ["first", "second", "third"])
    assert await program.stop() == 0
    program.assert_clean()


async def test_an_extension_that_comes_into_the_folder_is_loaded(
    program: Program, discord: LocalDiscord
) -> None:
    bot, other = discord.add_bot("bot"), discord.add_bot("other")
    (program.folder / "cogs").mkdir()
    write_cog(program, "cogs/first.py", "first")
    await start(program, bot, other, extra="DISCORD_BOT_EXTENSIONS1=cogs.*")
    await asyncio.sleep(2.5)
    assert "nothing changed" not in program.stderr  # __pycache__ is no news
    write(program, "cogs/second.py", COG.format(answer="second").replace("Answers", "Second"))
    await program.logged("restarted bot")
    await program.logged("2 of 2 bots are ready", times=2)
    await discord.say("which")
    await until(lambda: sorted(contents(bot)) == ["first", "second"])
    assert untouched(other)
    assert await program.stop() == 0


async def test_a_star_of_a_folder_without_extensions_is_refused(
    program: Program, discord: LocalDiscord
) -> None:
    (program.folder / "cogs").mkdir()
    program.write_env(discord.add_bot("bot"), extra="DISCORD_BOT_EXTENSIONS1=cogs.*")
    await program.start()
    assert await program.end() == 78
    assert "DISCORD_BOT_EXTENSIONS1 (.env, line 3): There is no extension in cogs" in program.stderr
    program.assert_clean()


@pytest.mark.parametrize("package", [True, False])
async def test_a_folder_alone_is_told_of_the_star(
    package: bool, program: Program, discord: LocalDiscord
) -> None:
    (program.folder / "cogs").mkdir()
    write_cog(program, "cogs/first.py", "first")
    if package:
        write(program, "cogs/__init__.py", "")
    program.write_env(discord.add_bot("bot"), extra="DISCORD_BOT_EXTENSIONS1=cogs")
    await program.start()
    assert await program.end() == 78
    (line,) = [line for line in program.lines_of("bot") if "stopped: " in line]
    assert "If it is a folder" in line
    assert "cogs.*" in line
    program.assert_clean()


# --- slash commands of single servers


GUILD_COMMANDS = """
    import os, discord
    from discord import app_commands
    from discord.ext import commands

    class Secrets(commands.Cog):
        @app_commands.command(description="here alone")
        @app_commands.guilds(int(os.environ["TEST_GUILD"]))
        async def secret(self, interaction: discord.Interaction):
            pass

    async def setup(bot):
        await bot.add_cog(Secrets())
"""


async def test_sync_commands_uploads_those_of_single_servers_and_leaves_the_global_ones(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    bot.commands = [{"id": "1", "name": "global", "type": 1, "version": "1", "description": "x"}]
    write(program, "secrets_cog.py", GUILD_COMMANDS)
    extra = f"DISCORD_BOT_EXTENSIONS1=secrets_cog\nTEST_GUILD={discord.guild.id}"
    program.write_env(bot, extra=extra)
    await program.start("--sync-commands")
    assert await program.end() == 0
    guild = str(discord.guild.id)
    names = {(command["name"], command.get("guild_id")) for command in bot.commands}
    assert names == {("global", None), ("secret", guild)}
    assert "/secret" in program.stdout
    assert guild in program.stdout
    assert "none" not in program.stdout
    program.assert_clean()


async def test_what_a_bot_of_ones_own_has_can_be_set_in_setup(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    code = """
        import discord
        from discord.ext import commands

        async def setup(bot):
            bot.activity = discord.Game("chess")
            bot.status = discord.Status.idle
            bot.case_insensitive = True
            bot.owner_ids = {1, 2}
            bot.allowed_mentions = discord.AllowedMentions.none()
            bot.help_command = commands.MinimalHelpCommand()

            @bot.command()
            async def owners(ctx):
                await ctx.send(str(sorted(bot.owner_ids)))
        """
    write(program, "own.py", code)
    await start(program, bot, extra="DISCORD_BOT_EXTENSIONS1=own")
    await discord.say("!owners")
    await until(lambda: contents(bot) == ["[1, 2]"])
    assert await program.stop() == 0
    program.assert_clean()


async def test_code_that_is_saved_beside_settings_that_are_not_valid_is_taken(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    write_cog(program, "cog.py", "old")
    await start(program, bot, extra="DISCORD_BOT_EXTENSIONS=cog")
    write_cog(program, "cog.py", "new")
    program.write_env(bot, extra="DISCORD_BOT_EXTENSIONS=cog\nDISCORD_BOT_INTENTS1=nonsense")
    await program.logged("The settings are not valid")
    await program.logged("cog.py: reloaded bot")
    await discord.say("which")
    await until(lambda: [message["content"] for message in bot.messages] == ["new"])
    assert untouched(bot)
    assert await program.stop() == 0


async def test_two_bots_can_have_an_extension_that_is_an_installed_package(
    program: Program, discord: LocalDiscord
) -> None:
    (program.folder / "installed" / "third_party").mkdir(parents=True)
    write_cog(program, "installed/third_party/__init__.py", "here")
    write(
        program,
        "installs.py",
        "import sys\nsys.path.append('installed')\nasync def setup(bot):\n    pass\n",
    )
    one, two = discord.add_bot("one"), discord.add_bot("two")
    await start(program, one, two, extra="DISCORD_BOT_EXTENSIONS=installs,third_party")
    assert await answers(discord, one, two) == ["here", "here"]
    program.write_env(one, extra="DISCORD_BOT_EXTENSIONS=installs,third_party")
    await program.logged("[two] stopped: as asked")
    program.write_env(one, two, extra="DISCORD_BOT_EXTENSIONS=installs,third_party")
    await program.logged("ready as two", times=2)
    assert untouched(one)
    assert await program.stop() == 0
    program.assert_clean()
