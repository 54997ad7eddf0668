"""`--check` and `--sync-commands`: each row as soon as it is known; no bot keeps another's back."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import textwrap
import time
from typing import Any

import pytest

from .local_discord import Account, LocalDiscord, faults
from .program import Program, until, write

MODES = ["--check", "--sync-commands"]
NEEDS_TIME = pytest.mark.timeout(90)


def rows(program: Program) -> dict[str, str]:
    """The row of each bot, by its name."""
    found = {}
    for line in program.stdout.splitlines():
        number, name, *rest = [*line.split(), "", ""]
        if number.isdigit() and name != "of":  # "2 of 2 bots …" is the last line
            found[name] = " ".join([number, name, *rest])
    return found


def give(program: Program, bots: list[Account], **codes: str) -> None:
    """Write the env file, and the code of those bots that have some."""
    names = [bot.user.name for bot in bots]
    extra = ""
    for name, code in codes.items():
        write(program, f"{name}.py", code)
        extra += f"DISCORD_BOT_EXTENSIONS{names.index(name) + 1}={name}\n"
    program.write_env(*bots, extra=extra)


# What the code of bot `slow` does in its setup, and for how long that lasts if nobody ends it.
SLOW = {
    "hangs": "import asyncio\nasync def setup(bot):\n    await asyncio.sleep(3600)",
    "does not let itself be cancelled": """
        import asyncio

        async def setup(bot):
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass
        """,
    "waits until it is ready": "async def setup(bot):\n    await bot.wait_until_ready()",
    "has taken the signal": """
        import asyncio, signal

        async def setup(bot):
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, print)
            await asyncio.sleep(3600)
        """,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", SLOW)
async def test_a_setup_keeps_no_other_bots_row_back_and_ctrl_c_ends_it_with_130_if_it(
    what: str, mode: str, program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(name) for name in ("one", "slow", "three")]
    give(program, bots, slow=SLOW[what])
    await program.start(mode)
    await until(lambda: {"one", "three"} <= set(rows(program)), timeout=10)
    assert "slow" not in rows(program)
    started = time.monotonic()
    assert await program.stop(signal.SIGINT) == 130
    assert time.monotonic() - started < 10
    program.assert_clean()


async def test_a_setup_that_blocks_the_event_loop_does_not_keep_ctrl_c_from_ending_it_with_130(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("slow")]
    give(program, bots, slow="import time\nasync def setup(bot):\n    time.sleep(3600)")
    await program.start("--check")
    await until(lambda: "GET /oauth2/applications/@me" in bots[0].requests)
    await asyncio.sleep(0.5)
    assert await program.stop(signal.SIGINT) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_it_has_no_result_and_ends_with_130(
    number: int, program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("one"), discord.add_bot("slow")]
    bots[1].fail("GET /users/@me", faults.hang())
    program.write_env(*bots)
    await program.start("--check")
    await until(lambda: "one" in rows(program))
    code = await program.stop(number)
    assert code == 130
    assert "bots are all right" not in program.stdout
    program.assert_clean()


@pytest.mark.parametrize("mode", MODES)
async def test_a_long_rate_limit_of_one_bot_keeps_no_other_row_back(
    mode: str, program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("one"), discord.add_bot("limited"), discord.add_bot("three")]
    bots[1].fail("GET /users/@me", faults.rate_limited(600))
    program.write_env(*bots)
    await program.start(mode)
    await until(lambda: {"one", "three"} <= set(rows(program)), timeout=10)
    assert await program.end(timeout=30) == 78
    assert "wait 600 s" in rows(program)["limited"]


FAILING_SETUPS = {
    "raises CancelledError": """
        import asyncio

        async def setup(bot):
            raise asyncio.CancelledError
        """,
    "raises KeyboardInterrupt": "async def setup(bot):\n    raise KeyboardInterrupt",
    "calls exit": "async def setup(bot):\n    exit()",
    "cancels its task": """
        import asyncio

        async def setup(bot):
            asyncio.current_task().cancel()
            await asyncio.sleep(0)
        """,
}


@pytest.mark.parametrize("what", FAILING_SETUPS)
async def test_a_setup_is_a_problem_of_its_bot_alone_if_it(
    what: str, program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(name) for name in ("one", "bad", "three")]
    give(program, bots, bad=FAILING_SETUPS[what])
    await program.start("--check")
    assert await program.end() == 78
    assert set(rows(program)) == {"one", "bad", "three"}
    assert [name for name, row in rows(program).items() if "PROBLEM" in row] == ["bad"]
    assert "DISCORD_BOT_EXTENSIONS2 (.env, line 7): " in rows(program)["bad"]
    assert "This is a bug" not in program.stderr


@pytest.mark.parametrize("mode", MODES)
async def test_a_thread_that_is_no_daemon_does_not_keep_the_end_from_coming(
    mode: str, program: Program, discord: LocalDiscord
) -> None:
    code = """
        import threading, time

        async def setup(bot):
            threading.Thread(target=time.sleep, args=[3600]).start()
        """
    bots = [discord.add_bot("one"), discord.add_bot("two")]
    give(program, bots, one=code)
    await program.start(mode)
    assert await program.end(timeout=15) == 0
    assert set(rows(program)) == {"one", "two"}


@pytest.mark.parametrize("mode", MODES)
async def test_twenty_bots_are_visited_at_a_time(
    mode: str, program: Program, discord: LocalDiscord
) -> None:
    now, most = 0, 0

    async def count(_request: Any) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.2)
        now -= 1

    discord.fail("GET /users/@me", count)
    program.write_env(*[discord.add_bot(f"bot{number}") for number in range(50)])
    await program.start(mode)
    assert await program.end() == 0
    assert most == 20
    assert len(rows(program)) == 50


async def test_a_port_that_the_running_program_has_is_no_problem_of_the_settings(
    program: Program, discord: LocalDiscord
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code = f"""
            import asyncio

            async def setup(bot):
                await asyncio.start_server(print, "127.0.0.1", {taken.getsockname()[1]})
            """
        bot = discord.add_bot("one")
        give(program, [bot], one=textwrap.dedent(code))
        await program.start("--check")
        assert await program.end() == 0
    assert str(bot.user.id) in rows(program)["one"]
    assert "PROBLEM" not in program.stdout
    assert "Is it the running program that has it?" in program.stderr


async def test_settings_and_code_are_checked_without_a_network_which_is_told_once(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(name) for name in ("one", "two", "broken", "missing")]
    write(program, "broken.py", "def oops(:")
    program.write_env(
        *bots, extra="DISCORD_BOT_EXTENSIONS3=broken\nDISCORD_BOT_EXTENSIONS4=missing"
    )
    await discord.stop()
    await program.start("--check")
    assert await program.end() == 78
    said = program.stdout + program.stderr
    assert "SyntaxError" in rows(program)["broken"]
    assert "Extension 'missing'" in rows(program)["missing"]
    assert said.count("Discord cannot be reached") == 1, said
    assert "logging in using static token" not in said
    program.assert_clean()


async def test_code_that_uploads_its_commands_is_no_problem_where_there_is_no_network(
    program: Program, discord: LocalDiscord
) -> None:
    code = "async def setup(bot):\n    await bot.tree.sync()\n"
    write(program, "syncs.py", code)
    program.write_env(discord.add_bot("one"), extra="DISCORD_BOT_EXTENSIONS1=syncs")
    await discord.stop()
    await program.start("--check")
    assert await program.end() == 78
    assert "Discord cannot be reached" in rows(program)["one"]
    assert "application_id" not in program.stdout + program.stderr


async def test_check_does_not_print_the_same_error_twice(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("one"), discord.add_bot("bad", token_reset=True))
    await program.start("--check")
    assert await program.end() == 78
    assert (program.stdout + program.stderr).count("Discord refuses this token") == 1


async def test_a_problem_of_several_lines_is_one_row(
    program: Program, discord: LocalDiscord
) -> None:
    write(program, "one.py", "async def setup(bot):\n    raise ConnectionError('no\\nbase')\n")
    program.write_env(discord.add_bot("one"), extra="DISCORD_BOT_EXTENSIONS1=one")
    await program.start("--check")
    assert await program.end() == 78
    _, row, count = program.stdout.splitlines()
    assert "ConnectionError: no base (one.py, line 2, in setup)." in row
    assert count == "0 of 1 bots are all right"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (0, "3 of 3 bots are all right"),
        (1, "2 of 3 bots are all right"),
        (3, "0 of 3 bots are all right"),
    ],
)
async def test_the_last_line_of_check_counts(
    bad: int, words: str, program: Program, discord: LocalDiscord
) -> None:
    program.write_env(*[discord.add_bot(f"b{n}", token_reset=n < bad) for n in range(3)])
    await program.start("--check")
    assert await program.end() == (78 if bad else 0)
    assert program.stdout.splitlines()[-1].startswith(words)


async def test_the_columns_of_check_hold_at_80_columns(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("a name of thirty-two characters."), discord.add_bot("b")]
    program.write_env(*bots)
    await program.start("--check")
    assert await program.end() == 0
    header, *lines = program.stdout.splitlines()
    for bot in bots:
        (row,) = [line for line in lines if str(bot.user.id) in line and "invite" not in line]
        assert row.index(str(bot.user.id)) == header.index("id ")
        assert max(len(header), len(row)) <= 80, row


async def test_help_fits_80_columns_and_says_that_check_runs_the_setup(program: Program) -> None:
    program.environment["COLUMNS"] = "80"
    await program.start("--help")
    assert await program.end() == 0
    assert not [line for line in program.stdout.splitlines() if len(line) > 80]
    about = program.stdout[program.stdout.rindex("--check") :]
    assert re.search(r"\bsetup\b", about[: about.index("--sync-commands")])


@pytest.mark.parametrize("what", ["a page", "nothing"])
async def test_trouble_with_discords_count_is_no_fault_of_the_bot(
    what: str, program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("one")
    bot.fail("GET /gateway/bot", faults.captive_portal() if what == "a page" else faults.hang())
    program.change_script("CONNECT_TIMEOUT = 30", "CONNECT_TIMEOUT = 1")
    program.write_env(bot)
    await program.start("--check")
    assert await program.end() == 78
    expected = "the answer is not from Discord" if what == "a page" else "Discord does not answer"
    assert expected in program.stdout
    program.assert_clean()
