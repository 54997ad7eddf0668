"""Bots as people have them: whole scripts, unchanged, several in one process."""

from __future__ import annotations

import asyncio
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest

from .local_discord import Account, Guild, LocalDiscord, faults
from .program import Program, contents, needs_posix_signals, until, write

SCRIPTS = Path(__file__).parent / "scripts"
ALL_INTENTS = {"message_content", "members", "presences"}
# Of each kind of script: what else it needs beside it, what a person writes, and what it answers.
KINDS: dict[str, tuple[list[str], str, str]] = {
    "music.py": ([], "?play", "music plays"),
    "modular.py": (["cogs"], "m!roll", "roll 1"),
    "weather.py": ([], "w!weather", "it rains"),
    "plain.py": ([], "plain", "a plain answer"),
    "sharded.py": ([], "shards", "1 shards"),
    "configured.py": (["config.py"], "c!greet", "hello from the config"),
    "from_json.py": (["settings.json"], "json", "an answer from a file"),
    "logs.py": ([], "log", "logged"),
    "dotenv_bot.py": ([], "dotenv", "from the env file"),
    "hybrid.py": ([], "h!hi", "hi there"),
    "loops.py": ([], "loops", "both loops run"),
    "session.py": ([], "session", "closed: False"),
}


def bring(program: Program, discord: LocalDiscord, *names: str, extra: str = "") -> list[Account]:
    """Copy these scripts, and what they need, into the program's folder, and name them."""
    lines = [f"TEST_GUILD={discord.guild.id}", "TOKEN=of no use", "DOTENV_TOKEN=of no use"]
    lines += ["DOTENV_ANSWER=from the env file", "MODULAR_TOKEN=of no use", extra]
    bots = []
    for number, name in enumerate(names, 1):
        needed, _, _ = KINDS.get(name, ([], "", ""))
        for file in (name, *needed):
            if not (SCRIPTS / file).exists():
                continue
            if (SCRIPTS / file).is_dir():
                shutil.copytree(SCRIPTS / file, program.folder / file, dirs_exist_ok=True)
            else:
                shutil.copy(SCRIPTS / file, program.folder / file)
        bots.append(discord.add_bot(Path(name).stem, privileged=set(ALL_INTENTS)))
        lines.append(f"DISCORD_BOT_SCRIPT{number}={name}")
    program.write_env(*bots, extra="\n".join(lines))
    program.environment["PYTHONUNBUFFERED"] = "1"
    return bots


def said(bot: Account, text: str) -> bool:
    return text in contents(bot)


def stop_line(program: Program, name: str) -> str:
    """The line that says why a bot has stopped."""
    (line,) = [line for line in program.lines_of(name) if "stopped: " in line]
    return line


async def test_scripts_of_every_kind_come_up_answer_and_leave_as_they_are_in_one_process(
    program: Program, discord: LocalDiscord
) -> None:
    bots = bring(program, discord, *KINDS)
    await program.start()
    await program.logged(f"{len(KINDS)} of {len(KINDS)} bots are ready")
    for bot, (_, question, answer) in zip(bots, KINDS.values(), strict=True):
        await discord.say(question)
        await until(partial(said, bot, answer))
    assert await program.stop() == 0
    assert [bot.client_closes for bot in bots] == [[1000]] * len(bots)
    assert [len(bot.identifies) for bot in bots] == [1] * len(bots)
    assert [bot.requests.count("GET /users/@me") for bot in bots] == [1] * len(bots)
    program.assert_clean()


async def test_scripts_extensions_and_the_default_bot_run_side_by_side(
    program: Program, discord: LocalDiscord
) -> None:
    write(program, "greeter.py", GREETER)
    bots = bring(program, discord, "music.py", "weather.py")
    greeter, default = discord.add_bot("greeter"), discord.add_bot("default")
    bots += [greeter, default]
    extra = "TOKEN=x\nDISCORD_BOT_SCRIPT1=music.py\nDISCORD_BOT_SCRIPT2=weather.py"
    program.write_env(*bots, extra=f"{extra}\nDISCORD_BOT_EXTENSIONS3=greeter")
    await program.start()
    await program.logged("4 of 4 bots are ready")
    for question in ("?play", "w!weather", "!hello", "ping"):
        await discord.say(question)
    await until(lambda: all(bot.messages for bot in bots))
    assert [contents(bot) for bot in bots] == [["music plays"], ["it rains"], ["hello"], ["pong"]]
    assert await program.stop() == 0
    program.assert_clean()


GREETER = """
    from discord.ext import commands

    class Greeter(commands.Cog):
        @commands.command()
        async def hello(self, ctx):
            await ctx.send("hello")

    async def setup(bot):
        await bot.add_cog(Greeter())
"""


# --- how a script is run


async def test_a_script_sees_what_python_would_show_it(
    program: Program, discord: LocalDiscord
) -> None:
    (program.folder / "bots").mkdir()
    code = """
        import sys, discord
        client = discord.Client(intents=discord.Intents.default())
        print("seen:", __name__, sys.argv, sys.path[0], __file__)
        client.run("TOKEN")
        """
    write(program, "bots/seen.py", code)
    bring(program, discord, "bots/seen.py")
    await program.start("--log-level", "info")
    await program.logged("ready as seen")
    folder = program.folder / "bots"
    script = folder / "seen.py"
    assert f"seen: __main__ {[str(script)]} {folder} {script}" in program.stdout
    assert await program.stop() == 0


async def test_a_script_beside_run_bots_is_found_from_another_folder(
    program: Program, discord: LocalDiscord
) -> None:
    bring(program, discord, "music.py")
    program.copy_script()
    program.folder = program.folder / "elsewhere"
    program.folder.mkdir()
    await program.start("--env-file", str(program.folder.parent / ".env"))
    await program.logged("ready as music")
    await program.printed("Logged in as music")
    assert await program.stop() == 0


async def test_a_script_that_changes_the_folder_is_told_of_it_and_moves_nobody(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import os, discord
        os.chdir(os.path.dirname(os.path.abspath(__file__)))
        client = discord.Client(intents=discord.Intents.default())
        client.run("TOKEN")
        """
    (program.folder / "bots").mkdir()
    write(program, "bots/mover.py", code)
    bots = bring(program, discord, "bots/mover.py", "music.py")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    (line,) = [line for line in program.lines_of("mover") if "WARNING" in line]
    assert "current folder" in line
    assert "with_name" in line
    path = program.folder / ".env"
    path.write_text(path.read_text() + "\n# saved")
    await program.logged(".env: nothing changed")
    assert [len(bot.identifies) for bot in bots] == [1, 1]
    assert await program.stop() == 0
    program.assert_clean()


async def test_load_dotenv_in_a_script_brings_no_token_into_the_environment(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import os, discord
        from dotenv import load_dotenv
        load_dotenv()
        client = discord.Client(intents=discord.Intents.all())

        @client.event
        async def on_message(message):
            if message.content == "which":
                names = [name for name, text in os.environ.items() if "made-up" in text]
                await message.channel.send(str(names))

        client.run("TOKEN")
        """
    write(program, "loader.py", code)
    bot, _ = bring(program, discord, "loader.py", "dotenv_bot.py")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    await discord.say("which")
    await until(lambda: contents(bot) == ["[]"])
    assert await program.stop() == 0


async def test_the_bots_token_is_the_entrys_and_never_the_scripts(
    program: Program, discord: LocalDiscord
) -> None:
    other = discord.add_bot("other")
    code = f"""
        import discord
        print("the script runs")
        client = discord.Client(intents=discord.Intents.default())
        client.run("{other.token}")
        """
    write(program, "own.py", code)
    (bot,) = bring(program, discord, "own.py")
    await program.start()
    await program.logged("ready as own")
    assert await program.stop() == 0
    assert "the script runs" in program.stdout
    assert bot.identifies
    assert not other.requests
    assert not other.identifies


async def test_what_follows_the_start_in_main_comes_after_the_bots_end(
    program: Program, discord: LocalDiscord
) -> None:
    (bot,) = bring(program, discord, "session.py")
    await program.start()
    await program.logged("ready as session")
    assert "closing what is mine" not in program.stdout
    await discord.say("session close")
    await program.logged("[session] stopped: it closed itself")
    await program.printed("closing what is mine")
    assert await program.end() == 0
    assert bot.client_closes == [1000]
    program.assert_clean()


async def test_a_stop_lets_main_finish_and_ends_it_if_it_does_not(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import asyncio, discord
        client = discord.Client(intents=discord.Intents.default())

        async def main():
            try:
                async with client:
                    await client.start("TOKEN")
            except asyncio.CancelledError:
                print("cancelled, as Ctrl-C does")
                await asyncio.sleep(1000)

        asyncio.run(main())
        """
    write(program, "slow.py", code)
    bots = bring(program, discord, "slow.py", "weather.py")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    assert await program.stop() == 0
    assert "cancelled, as Ctrl-C does" in program.stdout
    assert [bot.client_closes for bot in bots] == [[1000], [1000]]
    assert "stopped: as asked" in stop_line(program, "slow")
    program.assert_clean()


async def test_code_behind_the_start_does_not_run_while_the_bot_lives(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import os, discord
        print("the script runs")
        client = discord.Client(intents=discord.Intents.default())
        try:
            client.run("TOKEN")
        except Exception:
            os._exit(3)
        print("the bot has ended")
        raise SystemExit(1)
        """
    write(program, "behind.py", code)
    bring(program, discord, "behind.py")
    await program.start()
    await program.logged("ready as behind")
    await program.printed("the script runs")
    assert "the bot has ended" not in program.stdout
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_bare_except_around_run_does_not_keep_the_bot_from_coming_up(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import sys, discord
        print("the script runs")
        client = discord.Client(intents=discord.Intents.default())
        try:
            client.run("TOKEN")
        except:
            sys.exit("it does not start")
        """
    write(program, "bare.py", code)
    bring(program, discord, "bare.py")
    await program.start()
    await program.logged("ready as bare")
    await program.printed("the script runs")
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_refused_token_reaches_the_except_of_main(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import asyncio, discord
        client = discord.Client(intents=discord.Intents.default())

        async def main():
            try:
                await client.start("TOKEN")
            except discord.LoginFailure:
                print("my token is wrong")

        asyncio.run(main())
        """
    write(program, "refused.py", code)
    (bot,) = bring(program, discord, "refused.py")
    bot.token_reset = True
    await program.start()
    assert await program.end() == 78
    assert "my token is wrong" in program.stdout
    assert "Discord refuses this token" in stop_line(program, "refused")
    assert bot.requests == ["GET /users/@me"]
    program.assert_clean()


async def test_logging_that_a_script_sets_up_prints_no_line_twice(
    program: Program, discord: LocalDiscord
) -> None:
    (bot, other) = bring(program, discord, "logs.py", "music.py")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    await discord.say("log")
    await until(lambda: contents(bot) == ["logged"])
    assert await program.stop() == 0
    lines = program.stderr.splitlines()
    (line,) = [line for line in lines if "somebody wants a line" in line]
    assert "[logs] somebody wants a line" in line
    for name in ("logs", "music"):
        assert len([line for line in lines if f"[{name}] ready as" in line]) == 1
    assert other.client_closes == [1000]


# --- a bot's life, when it is a script


async def test_a_script_resumes_after_an_outage_with_what_it_remembers(
    program: Program, discord: LocalDiscord
) -> None:
    (bot,) = bring(program, discord, "stateful.py")
    await program.start()
    await program.logged("ready as stateful")
    await discord.say("count")
    await until(lambda: contents(bot) == ["count 1"])
    await discord.stop()
    await program.logged("Discord cannot be reached")
    await discord.start()
    await program.logged("ready as stateful", times=2)
    await discord.say("count")
    await until(lambda: contents(bot) == ["count 1", "count 2"])
    assert len(bot.identifies) == 1
    assert await program.stop() == 0
    assert program.stdout.count("the script runs") == 1
    program.assert_clean()


async def test_a_log_in_that_fails_runs_the_script_again(
    program: Program, discord: LocalDiscord
) -> None:
    troubled, fine = bring(program, discord, "stateful.py", "music.py")
    troubled.fail("GET /users/@me", faults.status(503), times=2)
    await program.start()
    await program.logged("ready as stateful")
    assert await program.stop() == 0
    assert program.stdout.count("the script runs") == 3
    assert len(troubled.identifies) == len(fine.identifies) == 1
    program.assert_clean()


async def test_what_main_cannot_reach_is_tried_again(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import asyncio, pathlib, discord
        client = discord.Client(intents=discord.Intents.default())

        async def main():
            if not pathlib.Path("database").exists():
                raise ConnectionRefusedError("the database is away")
            await client.start("TOKEN")

        asyncio.run(main())
        """
    write(program, "database.py", code)
    (bot,) = bring(program, discord, "database.py")
    await program.start()
    await program.logged("the database is away (database.py, line 7")
    (program.folder / "database").touch()
    await program.logged("ready as database")
    assert await program.stop() == 0
    assert len(bot.identifies) == 1
    program.assert_clean()


WORKER = """
import asyncio, discord

client = discord.Client(intents=discord.Intents.default())

async def work():
    await client.wait_until_ready()
    raise %s

async def main():
    await asyncio.gather(client.start("TOKEN"), work())

asyncio.run(main())
"""


async def test_main_that_fails_while_the_bot_runs_ends_it_and_starts_it_again(
    program: Program, discord: LocalDiscord
) -> None:
    write(program, "worker.py", WORKER % 'RuntimeError("my work has failed")')
    bot, fine = bring(program, discord, "worker.py", "music.py")
    await program.start()
    await program.logged("my work has failed")
    await program.logged("ready as worker", times=2)
    assert bot.client_closes[0] == 1000
    assert len(fine.identifies) == 1
    assert await program.stop() == 0


async def test_an_error_of_main_is_not_told_as_one_of_discord(
    program: Program, discord: LocalDiscord
) -> None:
    write(program, "worker.py", WORKER % 'ConnectionRefusedError("the database is away")')
    (bot,) = bring(program, discord, "worker.py")
    await program.start()
    await program.logged("the database is away")
    await program.logged("Trying again in")
    assert "Discord cannot be reached" not in program.stderr
    assert bot.client_closes[0] == 1000
    assert await program.stop() == 0


async def test_a_script_that_starts_its_bot_again_and_again_keeps_no_other_from_its_work(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import asyncio, discord

        client = discord.Client(intents=discord.Intents.default())

        async def main():
            while True:
                try:
                    await client.start("TOKEN")
                except Exception as error:
                    print(error)

        asyncio.run(main())
        """
    write(program, "again.py", code)
    again, music = bring(program, discord, "again.py", "music.py")
    again.token_reset = True
    await program.start()
    await program.logged("ready as music")
    await program.logged("[again] stopped: ")
    await discord.say("?play")
    await until(lambda: said(music, "music plays"))
    assert again.requests == ["GET /users/@me"]
    assert await program.stop() == 0


async def test_exit_in_a_command_of_a_script_closes_that_bot_alone(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import discord
        client = discord.Client(intents=discord.Intents.all())

        @client.event
        async def on_message(message):
            if message.content == "exit":
                exit()

        client.run("TOKEN")
        """
    write(program, "leaver.py", code)
    leaver, music = bring(program, discord, "leaver.py", "music.py")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    await discord.say("exit")
    await program.logged("[leaver] stopped: it closed itself")
    await discord.say("?play")
    await until(lambda: music.messages)
    assert leaver.client_closes == [1000]
    assert await program.stop() == 0


async def test_a_shutdown_command_in_a_cog_of_a_script_ends_that_bot_alone(
    program: Program, discord: LocalDiscord
) -> None:
    modular, music = bring(program, discord, "modular.py", "music.py")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    await discord.say("m!shutdown")
    await program.logged("[modular] stopped: it closed itself")
    assert modular.client_closes == [1000]
    assert music.ready
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_plain_client_that_needs_shards_is_told_what_to_use(
    program: Program, discord: LocalDiscord
) -> None:
    (bot,) = bring(program, discord, "plain.py")
    bot.fail("identify", faults.close(4011))
    await program.start()
    assert await program.end() == 78
    assert "Use AutoShardedBot" in stop_line(program, "plain")
    assert len(bot.identifies) == 1


async def test_a_sharded_script_runs_with_its_shards(
    program: Program, discord: LocalDiscord
) -> None:
    (bot,) = bring(program, discord, "sharded.py")
    bot.guilds = [Guild(f"server {n}", id=(n << 22) + 1) for n in range(1, 7)]
    bot.shards, bot.sharding_required = 2, True
    await program.start()
    await program.logged("ready as sharded")
    assert [identify.shard for identify in bot.identifies] == [(0, 2), (1, 2)]
    await discord.say("shards", channel_id=bot.guilds[0].channel_id)
    await until(lambda: contents(bot) == ["2 shards"])
    assert await program.stop() == 0
    assert bot.client_closes == [1000, 1000]
    program.assert_clean()


async def test_a_missing_intent_of_a_script_is_to_be_changed_in_the_script(
    program: Program, discord: LocalDiscord
) -> None:
    (bot,) = bring(program, discord, "music.py")
    bot.privileged = set()
    await program.start()
    assert await program.end() == 78
    line = stop_line(program, "music")
    assert "Message Content Intent" in line
    assert "the intents (music.py)" in line
    assert len(bot.identifies) == 1


# --- what is wrong with a script


RUN = "client.run('TOKEN')"
CLIENT = "import discord\nclient = discord.Client(intents=discord.Intents.default())\n"
WRONG: dict[str, tuple[str, list[str]]] = {
    "starts no bot": (CLIENT, ["It starts no bot"]),
    "ends before its bot": (
        f"{CLIENT}import asyncio\nasync def main():\n    pass\nasyncio.run(main())",
        ["It starts no bot"],
    ),
    "waits before its bot": (
        f"{CLIENT}import asyncio\nasyncio.run(asyncio.sleep(0.1))\n{RUN}",
        ["has started no bot", "one asyncio.run(main())"],
    ),
    "prints what its main raises, and exits": (
        f"{CLIENT}import asyncio\nasync def main():\n    x = 1 / 0\n"
        "try:\n    asyncio.run(main())\nexcept Exception as error:\n    exit(error)",
        ["ZeroDivisionError", "wrong.py, line 5"],
    ),
    "calls exit": (
        f"{CLIENT}exit('no token')\n",
        ["It calls exit(no token)", "wrong.py, line 3"],
    ),
    "fails": (f"{CLIENT}x = 1 / 0\n{RUN}", ["ZeroDivisionError", "wrong.py, line 3"]),
    "is no Python": (f"{CLIENT}def oops(:\n", ["SyntaxError", "wrong.py, line 3"]),
    "needs a package that is missing": (
        f"import no_such_package\n{CLIENT}{RUN}",
        ["No module named 'no_such_package'", "wrong.py, line 1"],
    ),
    "reads a variable that is not set": (
        f"import os\n{CLIENT}client.run(os.environ['MY_TOKEN'])",
        ["MY_TOKEN", "wrong.py, line 4", "env file", "DISCORD_BOT_TOKEN9"],
    ),
    "starts two": (
        (SCRIPTS / "two_bots.py").read_text(),
        ["It starts two bots", "wrong.py, line 10"],
    ),
    "uses run_until_complete": (
        (SCRIPTS / "old_style.py").read_text(),
        ["run_until_complete", "asyncio.run(main())", "wrong.py, line 8"],
    ),
    "uses the loop of old": (
        f"{CLIENT}import asyncio\nloop = asyncio.get_event_loop()\n"
        "loop.run_until_complete(client.start('TOKEN'))",
        ["run_until_complete", "wrong.py, line 5"],
    ),
    "starts its bot in a thread": (
        f"{CLIENT}import threading\nthreading.Thread(target={RUN[:-9]}, args=['T']).start()",
        ["It starts no bot"],
    ),
}


async def test_a_script_that_is_wrong_stops_its_bot_alone_and_the_log_says_where_and_why(
    program: Program, discord: LocalDiscord
) -> None:
    for number, (code, _) in enumerate(WRONG.values()):
        (program.folder / f"wrong{number}.py").write_text(code, encoding="utf-8")
    *wrong, music = bring(
        program, discord, *(f"wrong{n}.py" for n in range(len(WRONG))), "music.py"
    )
    await program.start()
    await program.logged(f"1 of {len(WRONG) + 1} bots are ready")
    for number, (how, (_, words)) in enumerate(WRONG.items()):
        line = stop_line(program, f"wrong{number}")
        place = f"DISCORD_BOT_SCRIPT{number + 1} (.env, line "
        expected = [place, *(word.replace("wrong.py", f"wrong{number}.py") for word in words)]
        missing = [word for word in expected if word not in line]
        assert not missing, f"a script that {how}: {line}"
    assert not any(bot.identifies for bot in wrong)
    assert music.ready
    assert await program.stop() == 0
    assert "never awaited" not in program.stderr
    assert "importlib" not in program.stderr


async def test_a_script_that_asks_for_its_token_where_nobody_answers_is_told_so(
    program: Program, discord: LocalDiscord
) -> None:
    write(program, "asks.py", f"{CLIENT}client.run(input())")
    bring(program, discord, "asks.py")
    await program.start()
    assert await program.end() == 78
    assert "asks.py, line 3" in stop_line(program, "asks")
    assert "leave input() out" in stop_line(program, "asks")


PATHS = {
    "nowhere.py": ["There is no file", "nowhere.py"],
    "bots": ["There is no file bots.", "Name the script itself"],
    "bots.music": ["There is no file bots.music.", "such as bots/music.py"],
    "music": ["There is no file music.", "such as bots/music.py"],
}


async def test_a_script_has_to_be_a_file_and_the_log_says_how_to_name_one(
    program: Program, discord: LocalDiscord
) -> None:
    (program.folder / "bots").mkdir()
    shutil.copy(SCRIPTS / "music.py", program.folder / "bots" / "music.py")
    shutil.copy(SCRIPTS / "music.py", program.folder / "music.py")
    bots = [discord.add_bot(f"bot{n}") for n in range(1, len(PATHS) + 1)]
    lines = [f"DISCORD_BOT_SCRIPT{n}={path}" for n, path in enumerate(PATHS, 1)]
    program.write_env(*bots, discord.add_bot("fine"), extra="\n".join(lines))
    await program.start()
    await program.logged("1 of 5 bots are ready")
    for number, words in enumerate(PATHS.values(), 1):
        line = stop_line(program, f"bot{number}").replace("\\", "/")
        assert all(word in line for word in words), line
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_script_and_extensions_of_one_number_are_refused(
    program: Program, discord: LocalDiscord
) -> None:
    bring(program, discord, "music.py", extra="DISCORD_BOT_EXTENSIONS1=greeter")
    await program.start()
    assert await program.end() == 78
    assert "DISCORD_BOT_EXTENSIONS1 (.env, line " in program.stderr
    assert "DISCORD_BOT_SCRIPT1 (.env, line " in program.stderr
    assert not discord.requests


async def test_settings_for_all_bots_do_not_concern_a_script(
    program: Program, discord: LocalDiscord
) -> None:
    extra = "DISCORD_BOT_EXTENSIONS=nowhere\nDISCORD_BOT_PREFIX=!!\nDISCORD_BOT_INTENTS=none"
    (bot,) = bring(program, discord, "music.py", extra=extra)
    await program.start()
    await program.logged("ready as music")
    await discord.say("?play")
    await until(lambda: bot.messages)
    assert "not used" not in program.stderr
    assert await program.stop() == 0


@pytest.mark.parametrize("setting", ["PREFIX1=!", "INTENTS1=all"])
async def test_a_prefix_or_intents_of_a_script_are_warned_of(
    setting: str, program: Program, discord: LocalDiscord
) -> None:
    bring(program, discord, "music.py", extra=f"DISCORD_BOT_{setting}")
    await program.start()
    await program.logged("ready as music")
    (line,) = [line for line in program.stderr.splitlines() if "WARNING" in line]
    assert f"DISCORD_BOT_{setting[:-2].rstrip('=').split('=')[0]} (.env, line " in line
    assert "not used" in line
    assert await program.stop() == 0


# --- two folders


def two_folders(
    program: Program, discord: LocalDiscord, config: str = "config.py"
) -> list[Account]:
    """Two bots, each with a folder of its own and a module in it."""
    for name in ("one", "two"):
        folder = program.folder / name
        folder.mkdir()
        file = folder / config
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"ANSWER = '{name}'\n")
        module = config.removesuffix(".py").replace("/", ".")
        code = f"""
            import discord
            print("{name} runs")
            from {module} import ANSWER
            client = discord.Client(intents=discord.Intents.all())

            @client.event
            async def on_message(message):
                if message.content == "who":
                    await message.channel.send(ANSWER)

            client.run("TOKEN")
            """
        write(program, f"{name}/main.py", code)
    bots = [discord.add_bot(name, privileged=set(ALL_INTENTS)) for name in ("one", "two")]
    extra = "DISCORD_BOT_SCRIPT1=one/main.py\nDISCORD_BOT_SCRIPT2=two/main.py"
    program.write_env(*bots, extra=extra)
    return bots


@pytest.mark.parametrize("config", ["config.py", "utils/tools.py"])
async def test_the_second_bot_with_a_module_of_the_same_name_is_refused_before_it_runs(
    config: str, program: Program, discord: LocalDiscord
) -> None:
    one, two = two_folders(program, discord, config)
    await program.start()
    await program.logged("1 of 2 bots are ready")
    await discord.say("who")
    await until(lambda: contents(one) == ["one"])
    line = stop_line(program, "two")
    name = config.partition("/")[0]
    assert str(program.folder / "one" / name) in line
    assert str(program.folder / "two" / name) in line
    assert "Rename one of them" in line
    assert "--only" in line
    assert "two runs" not in program.stdout
    assert not two.requests
    assert await program.stop() == 0
    program.assert_clean()


@pytest.mark.parametrize("first", ["the script", "the extension"])
async def test_an_extension_and_a_script_with_modules_of_one_name_never_get_each_others(
    first: str, program: Program, discord: LocalDiscord
) -> None:
    for folder in ("one/cogs", "cogs"):
        (program.folder / folder).mkdir(parents=True)
        write(program, f"{folder}/greeter.py", GREETER.replace('"hello"', f'"from {folder}"'))
    shutil.copy(SCRIPTS / "modular.py", program.folder / "one" / "modular.py")
    path = program.folder / "one" / "modular.py"
    path.write_text(path.read_text().replace('"./cogs"', '"./one/cogs"'))
    script, extension = discord.add_bot("script"), discord.add_bot("extension")
    bots = [script, extension] if first == "the script" else [extension, script]
    numbers = bots.index(script) + 1, bots.index(extension) + 1
    extra = "DISCORD_BOT_SCRIPT{}=one/modular.py\nDISCORD_BOT_EXTENSIONS{}=cogs.greeter"
    program.write_env(*bots, extra=extra.format(*numbers))
    await program.start()
    await program.logged("1 of 2 bots are ready")
    await discord.say("!hello")
    await discord.say("m!hello")
    await until(lambda: bots[0].messages)
    assert contents(bots[0]) == ["from one/cogs" if first == "the script" else "from cogs"]
    line = stop_line(program, bots[1].user.name)
    assert str(program.folder / "one" / "cogs") in line
    assert str(program.folder / "cogs") in line
    assert not bots[1].requests
    assert await program.stop() == 0


async def test_a_bot_in_another_folder_can_start_when_the_name_is_free_again(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = two_folders(program, discord)
    third = discord.add_bot("third")
    text = (program.folder / ".env").read_text() + f"\nDISCORD_BOT_TOKEN3={third.token}\n"
    (program.folder / ".env").write_text(text)
    await program.start()
    await program.logged("2 of 3 bots are ready")
    (program.folder / ".env").write_text(text.replace(one.token, ""))
    await program.logged("[one] stopped: as asked")
    (program.folder / ".env").write_text(text.replace(one.token, "") + "# once more")
    await program.logged("ready as two")
    await discord.say("who")
    await until(lambda: contents(two) == ["two"])
    assert one.client_closes == [1000]
    assert await program.stop() == 0


async def test_two_bots_in_two_folders_run_where_their_modules_have_names_of_their_own(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = two_folders(program, discord)
    (program.folder / "two" / "config.py").rename(program.folder / "two" / "settings2.py")
    path = program.folder / "two" / "main.py"
    path.write_text(path.read_text().replace("from config", "from settings2"))
    await program.start()
    await program.logged("2 of 2 bots are ready")
    await discord.say("who")
    await until(lambda: contents(one) == ["one"] and contents(two) == ["two"])
    assert await program.stop() == 0
    program.assert_clean()


async def test_two_bots_of_one_folder_share_its_modules(
    program: Program, discord: LocalDiscord
) -> None:
    write(program, "shared.py", "print('the module is read')\nBOTS = []\n")
    code = """
        import discord, shared
        client = discord.Client(intents=discord.Intents.all())
        shared.BOTS.append(client)

        @client.event
        async def on_message(message):
            if message.content == "how many":
                await message.channel.send(str(len(shared.BOTS)))

        client.run("TOKEN")
        """
    write(program, "one.py", code)
    write(program, "two.py", code)
    bots = bring(program, discord, "one.py", "two.py")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    await discord.say("how many")
    await until(lambda: all(contents(bot) == ["2"] for bot in bots))
    assert await program.stop() == 0
    assert program.stdout.count("the module is read") == 1
    program.assert_clean()


# --- without the gateway


async def test_check_runs_scripts_up_to_their_log_in(
    program: Program, discord: LocalDiscord
) -> None:
    (program.folder / "wrong.py").write_text(CLIENT)
    bots = bring(program, discord, "music.py", "modular.py", "loops.py", "weather.py", "wrong.py")
    bots[3].token_reset = True
    await program.start("--check")
    assert await program.end() == 78
    rows = {row.split()[1]: row for row in program.stdout.splitlines() if row[:4].strip().isdigit()}
    assert all(str(bot.user.id) in rows[bot.user.name] for bot in bots[:3])
    assert "Discord refuses this token" in rows["weather"]
    assert "It starts no bot" in rows["wrong"]
    assert discord.opened == 0
    program.assert_clean()


async def test_sync_commands_uploads_the_commands_of_a_script(
    program: Program, discord: LocalDiscord
) -> None:
    hybrid, plain = bring(program, discord, "hybrid.py", "plain.py")
    await program.start("--sync-commands")
    assert await program.end() == 0
    guild = str(discord.guild.id)
    names = {(command["name"], command.get("guild_id")) for command in hybrid.commands}
    assert names == {("hi", None), ("secret", guild), ("Look", guild)}
    rows = {tuple(row.split()[:2]): row for row in program.stdout.splitlines()}
    assert "/hi" in rows["1", "hybrid"]
    assert "/secret" in rows["1", "hybrid"]
    assert "none" in rows["2", "plain"]
    assert not plain.commands
    assert discord.opened == 0
    program.assert_clean()


# --- live edits


async def test_a_saved_script_starts_its_bot_again_and_no_other(
    program: Program, discord: LocalDiscord
) -> None:
    bots = bring(program, discord, "stateful.py", "music.py", "weather.py")
    await program.start()
    await program.logged("3 of 3 bots are ready")
    path = program.folder / "stateful.py"
    path.write_text(path.read_text().replace('f"count', 'f"new count'))
    await program.logged("stateful.py: restarted stateful")
    await program.logged("ready as stateful", times=2)
    await discord.say("count")
    await until(lambda: contents(bots[0]) == ["new count 1"])
    assert bots[0].client_closes == [1000]
    assert [len(bot.identifies) for bot in bots] == [2, 1, 1]
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_bot_that_had_stopped_starts_once_where_its_settings_and_its_script_are_saved(
    program: Program, discord: LocalDiscord
) -> None:
    music, weather = bring(program, discord, "music.py", "weather.py")
    path = program.folder / "music.py"
    good = path.read_text()
    path.write_text("exit()")
    await program.start()
    await program.logged("[music] stopped:")
    path.write_text(good)
    with (program.folder / ".env").open("a") as file:
        file.write("\n# saved\n")
    await program.logged("ready as music")
    await asyncio.sleep(1)
    assert discord.opened == 2  # connections of the two to the gateway
    assert music.ready
    assert weather.ready
    assert await program.stop() == 0


async def test_a_saved_script_that_is_no_python_leaves_the_old_one_running(
    program: Program, discord: LocalDiscord
) -> None:
    (bot,) = bring(program, discord, "stateful.py")
    await program.start()
    await program.logged("ready as stateful")
    path = program.folder / "stateful.py"
    good = path.read_text()
    path.write_text(good + "\ndef oops(:\n")
    await program.logged("The bot stays as it is")
    await discord.say("count")
    await until(lambda: contents(bot) == ["count 1"])
    path.write_text(good)
    await program.logged("restarted stateful")
    await program.logged("ready as stateful", times=2)
    assert await program.stop() == 0


async def test_a_saved_module_beside_the_script_starts_its_bots_again_with_it(
    program: Program, discord: LocalDiscord
) -> None:
    configured, weather = bring(program, discord, "configured.py", "weather.py")
    (program.folder / "weather").mkdir()
    (program.folder / "weather.py").rename(program.folder / "weather" / "weather.py")
    text = (program.folder / ".env").read_text()
    (program.folder / ".env").write_text(text.replace("=weather.py", "=weather/weather.py"))
    await program.start()
    await program.logged("2 of 2 bots are ready")
    (program.folder / "config.py").write_text("TOKEN = PREFIX = 'c!'\nGREETING = 'a new one'\n")
    await program.logged("config.py: restarted configured")
    await program.logged("ready as configured", times=2)
    await discord.say("c!greet")
    await until(lambda: contents(configured) == ["a new one"])
    assert len(weather.identifies) == 1
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_saved_module_that_two_scripts_share_is_new_in_both(
    program: Program, discord: LocalDiscord
) -> None:
    write(program, "shared.py", "WORD = 'old'")
    for name in ("one", "two"):
        code = """
            import discord, shared
            client = discord.Client(intents=discord.Intents.all())

            @client.event
            async def on_message(message):
                if message.content == "word":
                    await message.channel.send(shared.WORD)

            client.run("TOKEN")
            """
        write(program, f"{name}.py", code)
    bots = bring(program, discord, "one.py", "two.py")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    write(program, "shared.py", "WORD = 'new'")
    await program.logged("shared.py: restarted one, two")
    await program.logged("2 of 2 bots are ready", times=2)
    await discord.say("word")
    await until(lambda: all(contents(bot) == ["new"] for bot in bots))
    assert [len(bot.identifies) for bot in bots] == [2, 2]
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_saved_cog_of_a_script_is_loaded_again_without_leaving_the_gateway(
    program: Program, discord: LocalDiscord
) -> None:
    (bot,) = bring(program, discord, "modular.py")
    await program.start()
    await program.logged("ready as modular")
    path = program.folder / "cogs" / "fun.py"
    path.write_text(path.read_text().replace('f"roll', 'f"new roll'))
    await program.logged("fun.py: reloaded modular")
    await discord.say("m!roll")
    await until(lambda: contents(bot) == ["new roll 1"])
    assert len(bot.identifies) == 1
    assert not bot.client_closes
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_script_that_was_wrong_starts_when_it_is_mended(
    program: Program, discord: LocalDiscord
) -> None:
    (program.folder / "wrong.py").write_text(CLIENT)
    wrong, refused, music = bring(program, discord, "wrong.py", "weather.py", "music.py")
    refused.token_reset = True
    await program.start()
    await program.logged("1 of 3 bots are ready")
    requests = len(refused.requests)
    (program.folder / "wrong.py").write_text(CLIENT + RUN)
    await program.logged("wrong.py: restarted wrong")
    await program.logged("ready as wrong")
    assert len(refused.requests) == requests
    assert len(music.identifies) == len(wrong.identifies) == 1
    assert await program.stop() == 0


async def test_a_script_with_a_module_that_was_wrong_starts_when_that_is_mended(
    program: Program, discord: LocalDiscord
) -> None:
    configured, music = bring(program, discord, "configured.py", "music.py")
    good = (program.folder / "config.py").read_text()
    (program.folder / "config.py").write_text("def oops(:")
    await program.start()
    await program.logged("1 of 2 bots are ready")
    (program.folder / "config.py").write_text(good)
    await program.logged("config.py: restarted configured")
    await program.logged("ready as configured")
    assert len(configured.identifies) == len(music.identifies) == 1
    assert await program.stop() == 0


async def test_a_saved_module_that_is_no_python_leaves_the_old_code_running(
    program: Program, discord: LocalDiscord
) -> None:
    (bot,) = bring(program, discord, "configured.py")
    await program.start()
    await program.logged("ready as configured")
    (program.folder / "config.py").write_text("def oops(:")
    await program.logged("The bot stays as it is")
    await discord.say("c!greet")
    await until(lambda: contents(bot) == ["hello from the config"])
    assert len(bot.identifies) == 1
    assert await program.stop() == 0


async def test_a_script_that_was_missing_starts_when_it_comes(
    program: Program, discord: LocalDiscord
) -> None:
    bot, music = bring(program, discord, "late.py", "music.py")
    await program.start()
    await program.logged("There is no file")
    (program.folder / "late.py").write_text(CLIENT + RUN)
    await program.logged("ready as late")
    assert len(bot.identifies) == len(music.identifies) == 1
    assert await program.stop() == 0


async def test_edits_of_a_script_cost_one_identify_each(
    program: Program, discord: LocalDiscord
) -> None:
    (bot,) = bring(program, discord, "stateful.py")
    await program.start()
    await program.logged("ready as stateful")
    path = program.folder / "stateful.py"
    text = path.read_text()
    for turn in range(10):  # an editor that saves all the time
        path.write_text(f"{text}\n# {turn}")
        await asyncio.sleep(0.1)
    await program.logged("ready as stateful", times=2)
    await asyncio.sleep(2.5)
    assert len(bot.identifies) == 2
    assert await program.stop() == 0


@needs_posix_signals
async def test_no_watch_leaves_a_saved_script_until_sighup(
    program: Program, discord: LocalDiscord
) -> None:
    (bot,) = bring(program, discord, "stateful.py")
    await program.start("--no-watch")
    await program.logged("ready as stateful")
    path = program.folder / "stateful.py"
    path.write_text(path.read_text().replace('f"count', 'f"new count'))
    await asyncio.sleep(2.5)
    assert len(bot.identifies) == 1
    program.send(signal.SIGHUP)
    await program.logged("restarted stateful")
    await program.logged("ready as stateful", times=2)
    assert await program.stop() == 0


async def test_a_script_that_logs_in_by_hand_is_refused_and_costs_no_identify(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import asyncio, discord
        client = discord.Client(intents=discord.Intents.default())

        async def main():
            await client.login("TOKEN")
            await client.connect()

        asyncio.run(main())
        """
    write(program, "by_hand.py", code)
    (bot,) = bring(program, discord, "by_hand.py")
    await program.start()
    assert await program.end() == 78
    assert "It uses login()" in stop_line(program, "by_hand")
    assert "by_hand.py, line 6" in stop_line(program, "by_hand")
    assert not bot.identifies


async def test_check_finds_a_script_that_starts_two_bots(
    program: Program, discord: LocalDiscord
) -> None:
    bring(program, discord, "two_bots.py")
    await program.start("--check")
    assert await program.end() == 78
    assert "It starts two bots" in program.stdout


async def test_a_script_that_wraps_stdout_anew_takes_it_from_nobody(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import io, sys, discord
        sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", line_buffering=True)
        client = discord.Client(intents=discord.Intents.default())
        print("the script runs")
        client.run("TOKEN")
        """
    write(program, "wraps.py", code)
    bring(program, discord, "wraps.py")
    await program.start()
    await program.logged("ready as wraps")
    path = program.folder / "wraps.py"
    path.write_text(path.read_text() + "\n# saved")
    await program.logged("ready as wraps", times=2)
    assert await program.stop() == 0
    assert program.stdout.splitlines() == ["the script runs"] * 2


async def test_a_main_that_waits_for_something_else_ends_with_its_bot(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import asyncio, discord
        client = discord.Client(intents=discord.Intents.default())

        async def main():
            task = asyncio.create_task(client.start("TOKEN"))
            await asyncio.Event().wait()

        asyncio.run(main())
        """
    write(program, "waits.py", code)
    bring(program, discord, "waits.py")
    await program.start()
    await program.logged("ready as waits")
    program.send()
    assert await program.end(timeout=6) == 0
    program.assert_clean()


async def test_a_web_server_in_a_thread_of_a_script_does_not_keep_the_program_from_ending(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import threading, http.server, discord
        server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
        threading.Thread(target=server.serve_forever).start()
        client = discord.Client(intents=discord.Intents.default())
        client.run("TOKEN")
        """
    write(program, "kept_alive.py", code)
    (bot,) = bring(program, discord, "kept_alive.py")
    program.change_script("STOP_TIMEOUT = 9", "STOP_TIMEOUT = 1")
    await program.start()
    await program.logged("ready as kept_alive")
    program.send()
    assert await program.end(timeout=6) == 0
    assert "The program ends without it" in program.stderr
    assert bot.client_closes == [1000]
    program.assert_clean()


async def test_a_script_may_load_its_extensions_in_an_asyncio_run_before_that_of_its_bot(
    program: Program, discord: LocalDiscord
) -> None:
    write(program, "greeter.py", GREETER)
    code = """
        import asyncio, discord
        from discord.ext import commands
        bot = commands.Bot("!", intents=discord.Intents.all())

        async def load():
            await bot.load_extension("greeter")

        asyncio.run(load())
        bot.run("TOKEN")
        """
    write(program, "loads.py", code)
    (bot,) = bring(program, discord, "loads.py")
    await program.start()
    await program.logged("ready as loads")
    await discord.say("!hello")
    await until(lambda: contents(bot) == ["hello"])
    assert len(bot.identifies) == 1
    assert await program.stop() == 0
    program.assert_clean()


async def test_main_of_a_script_reads_the_scripts_own_arguments(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import argparse, asyncio, discord
        client = discord.Client(intents=discord.Intents.default())

        async def main():
            argparse.ArgumentParser().parse_args()
            await client.start("TOKEN")

        asyncio.run(main())
        """
    write(program, "parses.py", code)
    bring(program, discord, "parses.py")
    await program.start("--log-level", "info")
    await program.logged("ready as parses")
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_saved_module_that_one_script_of_a_folder_imports_starts_no_other_one_again(
    program: Program, discord: LocalDiscord
) -> None:
    for name in ("one", "two"):
        (program.folder / f"{name}_words").mkdir()
        write(program, f"{name}_words/__init__.py", f"from {name}_deeper import WORD")
        write(program, f"{name}_deeper.py", f"WORD = '{name}'")
        code = f"""
            import discord
            from {name}_words import WORD
            client = discord.Client(intents=discord.Intents.all())

            @client.event
            async def on_message(message):
                if message.content == "word":
                    await message.channel.send(WORD)

            client.run("TOKEN")
            """
        write(program, f"{name}.py", code)
    one, two = bring(program, discord, "one.py", "two.py")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    write(program, "one_deeper.py", "WORD = 'new'")
    await program.logged("one_deeper.py: restarted one\n")
    await program.logged("ready as one", times=2)
    await discord.say("word")
    await until(lambda: contents(one) == ["new"] and contents(two) == ["two"])
    assert [len(bot.identifies) for bot in (one, two)] == [2, 1]
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_logger_of_a_script_with_a_console_and_a_file_has_each_line_once_in_both(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import logging, discord
        from discord.ext import commands

        logger = logging.getLogger("template")
        logger.setLevel(logging.INFO)
        logger.addHandler(logging.StreamHandler())
        logger.addHandler(logging.FileHandler("template.log"))

        class Template(commands.Bot):
            async def setup_hook(self):
                logger.info("it is set up")

        Template("!", intents=discord.Intents.all()).run("TOKEN")
        """
    write(program, "template.py", code)
    bring(program, discord, "template.py")
    await program.start()
    await program.logged("ready as template")
    path = program.folder / "template.py"
    path.write_text(path.read_text() + "\n# saved")
    await program.logged("ready as template", times=2)
    assert await program.stop() == 0
    assert (program.folder / "template.log").read_text().splitlines() == ["it is set up"] * 2
    lines = [line for line in program.stderr.splitlines() if "it is set up" in line]
    assert len(lines) == 2
    assert all("[template]" in line for line in lines)


async def test_a_module_that_runs_the_bot_as_it_is_imported_is_a_module_of_the_script(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import discord
        WORD = "old"
        client = discord.Client(intents=discord.Intents.all())

        @client.event
        async def on_message(message):
            if message.content == "word":
                import app
                await message.channel.send(app.WORD)

        client.run("TOKEN")
        """
    write(program, "app.py", code)
    write(program, "main.py", "import app")
    (bot,) = bring(program, discord, "main.py")
    await program.start()
    await program.logged("ready as main")
    await discord.say("word")
    await until(lambda: contents(bot) == ["old"])
    write(program, "app.py", code.replace("old", "a new one"))
    await program.logged("app.py: restarted main")
    await program.logged("ready as main", times=2)
    await discord.say("word")
    await until(lambda: contents(bot) == ["old", "a new one"])
    assert len(bot.identifies) == 2
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_script_finds_an_unused_token_in_the_env_file_whatever_its_name_is(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import os, sys, discord
        token = os.getenv("DISCORD_BOT_TOKEN")
        if not token or not os.environ["DISCORD_TOKEN"]:
            sys.exit("there is no token")
        discord.Client(intents=discord.Intents.default()).run(token)
        """
    write(program, "asks.py", code)
    bring(program, discord, "asks.py", extra="DISCORD_BOT_TOKEN=unused\nDISCORD_TOKEN=unused")
    await program.start()
    await program.logged("ready as asks")
    assert "Nothing reads this" not in program.stderr
    assert await program.stop() == 0


@pytest.mark.parametrize("before", ["pass", "await bot.close()"])
async def test_a_script_that_starts_itself_again_does_so_alone(
    before: str, program: Program, discord: LocalDiscord
) -> None:
    code = f"""
        import os, sys, discord
        from discord.ext import commands
        bot = commands.Bot("r!", intents=discord.Intents.all())

        @bot.command()
        async def restart(ctx):
            {before}
            os.execv(sys.executable, ["python", *sys.argv])

        bot.run("TOKEN")
        """
    write(program, "again.py", code)
    bots = bring(program, discord, "again.py", "music.py")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    await discord.say("r!restart")
    await program.logged("ready as again", times=2)
    assert bots[0].client_closes == [1000]
    assert [len(bot.identifies) for bot in bots] == [2, 1]
    assert await program.stop() == 0
    program.assert_clean()


async def test_code_of_a_script_finds_its_own_names_in_main_where_pickle_looks_for_them(
    program: Program, discord: LocalDiscord
) -> None:
    for name in ("one", "two"):
        code = f"""
            import pickle, discord
            client = discord.Client(intents=discord.Intents.all())

            class Player:
                name = "{name}"

            @client.event
            async def on_message(message):
                if message.content == "save":
                    player = pickle.loads(pickle.dumps(Player()))
                    await message.channel.send(player.name)

            client.run("TOKEN")
            """
        write(program, f"{name}.py", code)
    bots = bring(program, discord, "one.py", "two.py")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    await discord.say("save")
    await until(lambda: [contents(bot) for bot in bots] == [["one"], ["two"]])
    assert await program.stop() == 0
    program.assert_clean()
