"""What the log says of a change, an outage and an end: once, and so that it can be acted upon."""

from __future__ import annotations

import asyncio
import re
import signal

import pytest

from .local_discord import LocalDiscord, faults
from .program import Program, needs_posix_signals, until

SHORT_WAITS = (
    ("HAND_BACK_AFTER = 45", "HAND_BACK_AFTER = 1"),
    ("NETWORK_DELAY = 25", "NETWORK_DELAY = 0.5"),
)


def change_line(program: Program) -> str:
    """The line about the saved file."""
    (line,) = [line for line in program.stderr.splitlines() if " .env: " in line]
    return line


# What is saved, and the words of the line about it.
CHANGES = {
    "another name": ("DISCORD_BOT_NAME1=first", ["renamed first"]),
    "an own variable": ("DISCORD_BOT_NAME1=one\nWEATHER_KEY=2", ["WEATHER_KEY"]),
    "an own variable less": ("DISCORD_BOT_NAME1=one\nOTHER=", ["WEATHER_KEY"]),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_a_change_that_moves_no_bot_is_named(
    what: str, program: Program, discord: LocalDiscord
) -> None:
    text, words = CHANGES[what]
    bot = discord.add_bot("one")
    head = f"DISCORD_BOT_TOKEN1={bot.token}\n"
    (program.folder / ".env").write_text(f"{head}DISCORD_BOT_NAME1=one\nWEATHER_KEY=1\nOTHER=\n")
    (program.folder / ".env").chmod(0o600)
    await program.start()
    await program.logged("ready as one")
    (program.folder / ".env").write_text(f"{head}{text}\n")
    await program.logged(" .env: ")
    assert "nothing changed" not in change_line(program)
    assert all(word in change_line(program) for word in words), change_line(program)
    assert "WEATHER_KEY=" not in change_line(program)
    assert len(bot.identifies) == 1
    assert await program.stop() == 0


async def test_a_comment_is_no_change(program: Program, discord: LocalDiscord) -> None:
    bot = discord.add_bot("one")
    program.write_env(bot, extra="WEATHER_KEY=1")
    await program.start()
    await program.logged("ready as one")
    program.write_env(bot, extra="# a comment\nWEATHER_KEY=1")
    await program.logged(" .env: nothing changed")
    assert await program.stop() == 0


@needs_posix_signals
async def test_the_end_of_a_wait_is_named(program: Program, discord: LocalDiscord) -> None:
    waits, other = discord.add_bot("waits"), discord.add_bot("other")
    waits.fail("GET /users/@me", faults.status(503))
    program.write_env(waits, other)
    await program.start()
    await program.logged("waits (retrying since")
    program.send(signal.SIGHUP)
    await program.logged(" .env: ")
    assert "nothing changed" not in change_line(program)
    assert "waits" in change_line(program)
    assert "other" not in change_line(program)
    assert await program.stop() == 0


@pytest.mark.parametrize(("count", "words"), [(1, "1 bot from .env"), (2, "2 bots from .env")])
async def test_one_is_one_bot_and_two_are_two_bots(
    count: int, words: str, program: Program, discord: LocalDiscord
) -> None:
    program.write_env(*[discord.add_bot(f"b{number}") for number in range(count)])
    await program.start()
    await program.logged("ready as b0")
    assert words in program.stderr
    assert re.search(r"ready as b0 \(\d+\) in 1 server$", program.stderr, re.MULTILINE)
    assert not re.search(
        r"(?<!\d)1 (bots|servers|reconnects)\b", program.stderr.replace("of 1", "")
    )
    assert await program.stop() == 0


async def test_the_same_error_is_told_once_at_a_start(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("one"), discord.add_bot("bad", token_reset=True))
    await program.start()
    await program.logged("1 of 2 bots are ready")
    await asyncio.sleep(0.3)
    assert program.stderr.count("Make a new one at") == 1
    assert await program.stop() == 0


# How the program was started, and how a bot that has ended is started again.
AGAIN = {
    "followed": ((), r"[Ss]ave .*\.env"),
    "not followed": (("--no-watch",), "SIGHUP"),
}


@pytest.mark.parametrize("how", AGAIN)
async def test_a_final_error_ends_with_what_starts_the_bot_again_where_the_file_is(
    how: str, program: Program, discord: LocalDiscord
) -> None:
    arguments, words = AGAIN[how]
    bots = [
        discord.add_bot("good"),
        discord.add_bot("refused", token_reset=True),
        discord.add_bot("off", privileged=set()),
        discord.add_bot("broken"),
    ]
    program.write_env(*bots, extra="DISCORD_BOT_EXTENSIONS4=nowhere")
    await program.start(*arguments)
    await program.logged("1 of 4 bots are ready")
    for name in ("refused", "off", "broken"):
        (line,) = [line for line in program.lines_of(name) if "stopped: " in line]
        sentence = line.rstrip(".").rpartition(". ")[2]
        assert re.search(words, sentence), line
        assert "again" in sentence
    assert await program.stop() == 0


async def test_a_final_error_of_the_only_bot_says_that_a_new_start_is_needed(
    program: Program, discord: LocalDiscord
) -> None:
    program.copy_script()
    program.environment["DISCORD_BOT_TOKEN1"] = discord.add_bot("bad", token_reset=True).token
    await program.start()
    assert await program.end() == 78
    (line,) = [line for line in program.stderr.splitlines() if "stopped: " in line]
    assert "again" in line.rstrip(".").rpartition(". ")[2]


async def test_an_outage_is_told_once_however_long_it_is(
    program: Program, discord: LocalDiscord
) -> None:
    for change in SHORT_WAITS:
        program.change_script(*change)
    bots = [discord.add_bot(f"bot{number}") for number in range(20)]
    program.write_env(*bots)
    await program.start()
    await program.logged("20 of 20 bots are ready")
    before = program.stderr.count("\n")
    await discord.stop()
    await program.logged("Discord cannot be reached")
    await asyncio.sleep(2)
    early = program.stderr.count("\n")
    await asyncio.sleep(3)
    late = program.stderr.count("\n")
    await discord.start()
    await until(lambda: all(bot.ready for bot in bots))
    await program.logged("20 of 20 bots are ready", times=2)
    assert early - before <= 2 * len(bots)
    assert late - early <= 3
    assert program.stderr.count("\n") - before <= 4 * len(bots) + 5
    assert await program.stop() == 0
    assert [len(bot.identifies) for bot in bots] == [1] * len(bots)
    program.assert_clean()


async def test_an_outage_at_the_start_is_told_once_too(
    program: Program, discord: LocalDiscord
) -> None:
    for change in SHORT_WAITS:
        program.change_script(*change)
    bots = [discord.add_bot(f"bot{number}") for number in range(20)]
    program.write_env(*bots)
    await discord.stop()
    await program.start()
    await program.logged("Discord cannot be reached")
    await asyncio.sleep(2)
    assert program.stderr.count("Discord cannot be reached") <= 2 * len(bots)
    early = program.stderr.count("\n")
    await asyncio.sleep(3)
    assert program.stderr.count("\n") - early <= 3
    await discord.start()
    await program.logged("20 of 20 bots are ready")
    assert await program.stop() == 0
    program.assert_clean()


async def test_the_outage_of_one_bot_is_told_while_the_others_are_well(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("one"), discord.add_bot("two")]
    bots[0].fail("GET /users/@me", faults.status(503), times=3)
    program.write_env(*bots)
    await program.start()
    await program.logged("2 of 2 bots are ready")
    assert any("Discord answers with status 503" in line for line in program.lines_of("one"))
    assert await program.stop() == 0
