"""The env file is followed while the bots run: what changed moves, and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import textwrap
import time

import pytest

from .local_discord import Account, LocalDiscord, faults
from .program import Program, needs_posix_signals, until


async def start(
    program: Program, *bots: Account, arguments: tuple[str, ...] = (), extra: str = ""
) -> None:
    program.write_env(*bots, extra=extra)
    await program.start(*arguments)
    await program.logged(f"{len(bots)} of {len(bots)} bots are ready", timeout=40)


def untouched(*bots: Account) -> bool:
    """Whether each bot has had one session, and no other, since the start."""
    return all(
        len(bot.identifies) == 1 and not bot.resumes and not bot.client_closes and bot.ready
        for bot in bots
    )


async def test_a_new_bot_logs_in_and_a_removed_one_leaves_with_1000(
    program: Program, discord: LocalDiscord
) -> None:
    stays, goes, comes = (discord.add_bot(name) for name in ("stays", "goes", "comes"))
    await start(program, stays, goes)
    program.write_env(stays, extra=f"DISCORD_BOT_TOKEN7={comes.token}\nDISCORD_BOT_NAME7=comes")
    await until(lambda: comes.ready and goes.client_closes == [1000])
    assert not goes.online
    assert untouched(stays)
    (line,) = [line for line in program.stderr.splitlines() if ".env: " in line]
    assert line.endswith(".env: added comes; removed goes")
    await program.logged("2 of 2 bots are ready", times=2)
    assert await program.stop() == 0
    program.assert_clean()


@pytest.mark.parametrize(
    "setting", ["PREFIX2=?", "INTENTS2=guilds", "EXTENSIONS2=extra", "NAME9=x", "PREFIX=!"]
)
async def test_a_changed_setting_restarts_that_bot_alone(
    setting: str, program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    (program.folder / "extra.py").write_text("async def setup(bot):\n    pass\n")
    await start(program, one, two)
    two.fail("identify", never_two_sessions(two))
    program.write_env(one, two, extra=f"DISCORD_BOT_{setting}")
    if setting in ("NAME9=x", "PREFIX=!"):  # changes nothing
        await asyncio.sleep(3)
        assert untouched(one, two)
    else:
        await program.logged(".env: restarted two")
        await program.logged("2 of 2 bots are ready", times=2)
        assert (len(two.identifies), two.client_closes) == (2, [1000])
        assert untouched(one)
    assert await program.stop() == 0
    program.assert_clean()


def never_two_sessions(bot: Account):  # type: ignore[no-untyped-def]
    async def action(_connection: object) -> None:
        assert not bot.live

    return action


async def test_a_new_token_of_a_bot_is_taken(program: Program, discord: LocalDiscord) -> None:
    one, other = discord.add_bot("one"), discord.add_bot("other")
    await start(program, one)
    program.write_env(other)
    await until(lambda: other.ready)
    assert one.client_closes == [1000]
    assert await program.stop() == 0


async def test_bots_whose_tokens_only_change_places_are_not_touched(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    await start(program, one, two)
    program.write_env(two, one)
    await program.logged(".env: nothing changed")
    assert untouched(one, two)
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_comment_an_order_and_a_name_change_nothing_in_discord(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    await start(program, one, two)
    lines = [f"DISCORD_BOT_TOKEN2={two.token}", "# a comment", f"DISCORD_BOT_TOKEN1={one.token}"]
    (program.folder / ".env").write_text(
        "\n".join([*lines, "DISCORD_BOT_NAME1=first", "DISCORD_BOT_NAME2=two"])
    )
    await asyncio.sleep(3)
    assert untouched(one, two)
    await faults.ask_to_reconnect()(one.live[0])
    await program.logged("[first] ")
    assert await program.stop() == 0
    program.assert_clean()


BAD = {
    "is not valid": lambda path: path.write_text("DISCORD_BOT_TOKEN1=your token"),
    "is empty": lambda path: path.write_text(""),
    "has an unclosed quote": lambda path: path.write_text(path.read_text() + '\nA="'),
    "is no text": lambda path: path.write_bytes(b"\0\0"),
    "is gone": lambda path: path.unlink(),
    "is a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("how", BAD)
async def test_the_bots_run_on_when_the_file(
    how: str, program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    await start(program, one)
    path = program.folder / ".env"
    BAD[how](path)
    await program.logged("The bots keep running")
    await asyncio.sleep(1.5)
    assert untouched(one)
    assert program.stderr.count("The bots keep running") == 1
    if path.is_dir():
        path.rmdir()
    program.write_env(one, two)
    await until(lambda: two.ready)
    assert untouched(one)
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_file_that_is_written_in_pieces_is_read_when_it_is_whole(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    await start(program, one)
    text = (
        f"DISCORD_BOT_TOKEN1={one.token}\nDISCORD_BOT_NAME1=one\nDISCORD_BOT_TOKEN2={two.token}\n"
    )
    with (program.folder / ".env").open("w") as file:
        for start_at in range(0, len(text), 12):
            file.write(text[start_at : start_at + 12])
            file.flush()
            await asyncio.sleep(0.3)
    await until(lambda: two.ready)
    assert discord.invalid_requests == 0
    assert untouched(one)
    assert "keep running" not in program.stderr
    assert await program.stop() == 0


async def test_a_file_that_is_replaced_is_followed(program: Program, discord: LocalDiscord) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    await start(program, one)
    for bots in ((one, two), (one,), (one, two)):
        before = (program.folder / ".env").stat()
        program.write_env(*bots)
        (program.folder / ".env").rename(program.folder / "new")
        # A sync tool may leave the times as they were.
        os.utime(program.folder / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
        (program.folder / "new").rename(program.folder / ".env")
        await until(lambda bots=bots: two.ready == (two in bots))
    assert untouched(one)
    assert await program.stop() == 0


async def test_the_file_is_opened_only_after_a_save(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    program.extend(
        """
        async def cog_load(self):
            import sys
            def hook(name, arguments):
                if name == "open" and str(arguments[0]).endswith(".env"):
                    log.info("opened")
            sys.addaudithook(hook)
        """
    )
    await start(program, bot)
    await asyncio.sleep(2.5)
    assert "opened" not in program.stderr
    program.write_env(bot, extra="# saved")
    await program.logged("opened")
    assert await program.stop() == 0


async def test_many_saves_in_a_row_end_with_the_last(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(f"bot{n}") for n in range(6)]
    await start(program, bots[0])
    for turn in range(40):
        program.write_env(bots[0], bots[1 + turn % 5])
        await asyncio.sleep(0.05)
    program.write_env(*bots[:3])
    await until(lambda: [bot.ready for bot in bots] == [True] * 3 + [False] * 3)
    assert untouched(bots[0])
    assert await program.stop() == 0
    program.assert_clean()


async def test_ten_bots_more_do_not_touch_the_fifty(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(f"bot{n}") for n in range(60)]
    await start(program, *bots[:50])
    program.write_env(*bots)
    saved = time.monotonic()
    await until(lambda: all(bot.ready for bot in bots))
    assert time.monotonic() - saved < 10
    assert untouched(*bots)
    assert await program.stop() == 0
    program.assert_clean()


@pytest.mark.parametrize("delay", [1.2, 1.4, 1.6])
async def test_a_stop_in_the_middle_of_a_change_is_clean(
    delay: float, program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(f"bot{n}") for n in range(20)]
    discord.round_trip = 0.1
    await start(program, *bots[:10])
    program.write_env(*bots[5:])
    await asyncio.sleep(delay)
    assert await program.stop() == 0
    assert not any(bot.online for bot in bots)
    program.assert_clean()


async def test_the_process_environment_still_wins(program: Program, discord: LocalDiscord) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    program.environment["DISCORD_BOT_TOKEN1"] = one.token
    await start(program, one)
    program.write_env(two)
    await asyncio.sleep(3)
    assert untouched(one)
    assert not two.requests
    assert await program.stop() == 0


@needs_posix_signals
async def test_sighup_follows_the_file_and_starts_the_bots_that_had_stopped(
    program: Program, discord: LocalDiscord
) -> None:
    one, two, off = (
        discord.add_bot("one"),
        discord.add_bot("two"),
        discord.add_bot("off", privileged=set()),
    )
    program.write_env(one, off)
    await program.start("--no-watch")
    await program.logged("1 of 2 bots are ready")
    program.write_env(one, off, two)
    await asyncio.sleep(2)
    assert not two.requests
    off.privileged.add("message_content")
    program.send(signal.SIGHUP)
    await program.logged("3 of 3 bots are ready")
    assert untouched(one)
    assert "added two; restarted off" in program.stderr
    program.send(signal.SIGHUP)
    await asyncio.sleep(0.5)
    assert untouched(one, two)
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_save_starts_the_bots_that_had_stopped(
    program: Program, discord: LocalDiscord
) -> None:
    one, refused, good = (
        discord.add_bot("one"),
        discord.add_bot("bot", token_reset=True),
        discord.add_bot("bot"),
    )
    program.write_env(one, refused)
    await program.start()
    await program.logged("1 of 2 bots are ready")
    refused.token_reset = False
    program.write_env(one, refused, extra="# a comment")
    await program.logged(".env: restarted bot")
    await program.logged("2 of 2 bots are ready")
    refused.token_reset = True
    await refused.live[0].close(4004)
    await program.logged("[bot] stopped: ", times=2)
    program.write_env(one, good)
    await program.logged("2 of 2 bots are ready", times=2)
    assert untouched(one, good)
    assert await program.stop() == 0


async def test_the_program_ends_when_the_bots_that_came_later_have_ended_too(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    await start(program, one)
    program.write_env(one, two)
    await program.logged("2 of 2 bots are ready")
    one.token_reset = two.token_reset = True
    await one.live[0].close(4004)
    await program.logged("[one] stopped: ")
    assert not program.ended
    await two.live[0].close(4004)
    assert await program.end() == 78


async def test_a_file_that_is_gone_for_a_moment_is_no_alarm(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    await start(program, one)
    (program.folder / ".env").unlink()
    await asyncio.sleep(0.6)
    program.write_env(one, two)
    await until(lambda: two.ready)
    assert untouched(one)
    assert "keep running" not in program.stderr
    assert await program.stop() == 0


async def test_a_variable_that_the_environment_cannot_hold_does_no_harm(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    await start(program, one, extra="NOTE=a\0b")
    program.write_env(one, two, extra="NOTE=b\0c")
    await until(lambda: two.ready)
    assert await program.stop() == 0
    program.assert_clean()


@needs_posix_signals
async def test_a_reload_during_a_stop_starts_nothing(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    code = """
        import asyncio
        async def setup(bot):
            pass
        async def teardown(bot):
            await asyncio.sleep(2)
        """
    (program.folder / "slow.py").write_text(textwrap.dedent(code))
    await start(program, one, two, extra="DISCORD_BOT_EXTENSIONS1=slow")
    program.send()
    await program.logged("[two] stopped")
    program.send(signal.SIGHUP)
    assert await program.end() == 0
    assert [bot.client_closes for bot in (one, two)] == [[1000], [1000]]
    program.assert_clean()


async def test_a_bot_that_only_names_can_be_removed(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    await start(program, one, two, arguments=("--only", "1,2"))
    program.write_env(one)
    await until(lambda: two.client_closes == [1000])
    await program.logged("There is no bot 2")
    assert untouched(one)
    assert await program.stop() == 0


async def test_only_holds_after_a_change(program: Program, discord: LocalDiscord) -> None:
    bots = [discord.add_bot(f"bot{n}") for n in range(1, 5)]
    program.write_env(*bots[:2])
    await program.start("--only", "2-3")
    await program.logged("1 of 1 bots are ready")
    program.write_env(*bots)
    await until(lambda: bots[2].ready)
    assert [bool(bot.requests) for bot in bots] == [False, True, True, False]
    assert await program.stop() == 0
