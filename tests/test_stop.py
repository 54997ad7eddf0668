"""A stop: at any moment, clean, at once offline, and never longer than ten seconds."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest

from .local_discord import Account, LocalDiscord, faults
from .program import Program, needs_posix_signals, needs_terminal, needs_windows, until, write

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_closes_every_bot_with_1000(
    number: int, program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(name) for name in ("one", "two")]
    program.write_env(*bots)
    await program.start()
    await program.logged("2 of 2 bots are ready")
    assert await program.stop(number) == 0
    assert [bot.client_closes for bot in bots] == [[1000], [1000]]
    assert not any(bot.online for bot in bots)
    assert "stopped: " in program.lines_of("one")[-1]
    assert "stopped: " in program.lines_of("two")[-1]
    program.assert_clean()


MOMENTS = {
    "in the login": ("GET /users/@me", faults.hang()),
    "in the second request of the login": ("GET /oauth2/applications/@me", faults.hang()),
    "before the gateway's upgrade": ("upgrade", faults.hang()),
    "before HELLO": ("connect", faults.hang()),
    "before READY": ("identify", faults.hang()),
    "in the backoff": ("GET /users/@me", faults.status(503)),
    "while the gateway comes and goes": ("ready", faults.close(4000)),
    "while sessions are invalid": ("identify", faults.invalid_session()),
}


@pytest.mark.parametrize("name", MOMENTS)
async def test_a_stop_is_clean(name: str, program: Program, discord: LocalDiscord) -> None:
    bots = [discord.add_bot(f"bot{n}") for n in range(5)]
    discord.fail(*MOMENTS[name])
    program.write_env(*bots)
    await program.start()
    await until(lambda: len(discord.requests) >= 5)
    await asyncio.sleep(random.uniform(0.1, 1.5))
    started = time.monotonic()
    assert await program.stop() == 0
    assert time.monotonic() - started < 5
    program.assert_clean()
    assert not any(bot.live for bot in bots)


@needs_posix_signals
@pytest.mark.parametrize("number", SIGNALS)
async def test_a_stop_during_the_imports_is_silent(number: int, program: Program) -> None:
    program.discord = None
    await program.start("--env-file", "there is none", options=("-X", "importtime"))
    await program.logged(" argparse\n")  # the first import of the script that takes long
    assert await program.stop(number) == 0
    assert "discord.ext" not in program.stderr
    program.assert_clean()


async def test_a_stop_right_after_ready_is_clean(program: Program, discord: LocalDiscord) -> None:
    bots = [discord.add_bot(f"bot{n}") for n in range(10)]
    program.write_env(*bots)
    program.extend(
        """
        @commands.Cog.listener()
        async def on_ready(self):
            pass
        """
    )
    await program.start()
    await program.logged("ready as")
    assert await program.stop() == 0
    program.assert_clean()
    assert not any(bot.online for bot in bots)


async def test_a_stop_over_tls_reaches_discord_as_1000(
    tls_program: Program, tls_discord: LocalDiscord
) -> None:
    bots = [tls_discord.add_bot(f"bot{n}") for n in range(30)]
    tls_program.write_env(*bots)
    await tls_program.start()
    await tls_program.logged("30 of 30 bots are ready")
    assert await tls_program.stop() == 0
    await until(lambda: all(bot.client_closes for bot in bots))
    assert [bot.client_closes for bot in bots] == [[1000]] * 30
    tls_program.assert_clean()


async def test_a_handler_that_runs_at_the_stop_leaves_no_line(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    program.write_env(bot)
    program.extend(
        """
        @commands.Cog.listener("on_message")
        async def chatter(self, message):
            while True:
                await message.channel.send("again")
        """
    )
    await program.start()
    await program.logged("ready as bot")
    await discord.say("go on")
    await until(lambda: len(bot.messages) > 5)
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_bots_own_clean_up_runs(program: Program, discord: LocalDiscord) -> None:
    program.write_env(discord.add_bot("bot"))
    program.extend(
        """
        async def cog_unload(self):
            await asyncio.sleep(0.1)
            log.info("cleaned up")
        """
    )
    await program.start()
    await program.logged("ready as bot")
    assert await program.stop() == 0
    assert "[bot] cleaned up" in program.stderr
    program.assert_clean()


async def test_a_clean_up_can_wait_for_the_bots_tasks(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot"))
    program.extend(
        """
        async def cog_load(self):
            self.queue = asyncio.Queue()
            for item in range(5):
                self.queue.put_nowait(item)
            self.worker = asyncio.create_task(self.work())

        async def work(self):
            await self.bot.wait_until_ready()
            while True:
                await self.queue.get()
                await asyncio.sleep(0.1)
                self.queue.task_done()

        async def cog_unload(self):
            await self.queue.join()
            log.info("all items are done")
        """
    )
    await program.start()
    await program.logged("ready as bot")
    assert await program.stop() == 0
    assert "[bot] all items are done" in program.stderr
    program.assert_clean()


SAVES_AT_ITS_END = """
    async def cog_load(self):
        log.info("loaded %s", open("state").read() if os.path.exists("state") else "nothing")
        self.task = asyncio.create_task(self.work())

    async def work(self):
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.3)
            open("state", "w").write("what was saved")
    """


async def test_a_task_can_save_as_it_is_cancelled_before_the_next_client_begins(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    program.write_env(bot)
    program.extend(SAVES_AT_ITS_END)
    await program.start()
    await program.logged("loaded nothing")
    await program.logged("ready as bot")
    program.write_env(bot, extra="DISCORD_BOT_PREFIX=?")
    await program.logged("loaded what was saved")
    await program.logged("ready as bot", times=2)
    (program.folder / "state").unlink()
    assert await program.stop() == 0
    assert (program.folder / "state").read_text() == "what was saved"
    program.assert_clean()


async def test_a_clean_up_can_still_use_the_gateway(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    program.write_env(bot)
    program.extend(
        """
        async def cog_unload(self):
            await self.bot.change_presence(status="dnd")
            await self.bot.guilds[0].change_voice_state(channel=None)
            await self.bot.guilds[0].text_channels[0].send("goodbye")
        """
    )
    await program.start()
    await program.logged("ready as bot")
    assert await program.stop() == 0
    assert [update["op"] for update in bot.updates] == [3, 4]
    assert [message["content"] for message in bot.messages] == ["goodbye"]
    assert bot.client_closes == [1000]
    program.assert_clean()


async def test_a_thread_that_saves_has_time_and_what_was_printed_is_written(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot"))
    program.extend(
        """
        def save(self):
            time.sleep(3)
            open("state", "w").write("saved")
            print("printed by the thread")

        async def cog_unload(self):
            import threading
            threading.Thread(target=self.save).start()
            print("printed by the clean-up")
        """
    )
    await program.start()
    await program.logged("ready as bot")
    assert await program.stop() == 0
    assert (program.folder / "state").read_text() == "saved"
    assert program.stdout.split("\n")[:2] == ["printed by the clean-up", "printed by the thread"]
    program.assert_clean()


async def test_what_was_printed_is_written_also_by_a_program_that_has_to_be_cut_off(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot"))
    program.change_script("STOP_TIMEOUT = 9", "STOP_TIMEOUT = 1")
    program.extend("async def cog_unload(self):\n    print('printed')\n    time.sleep(3600)\n")
    await program.start()
    await program.logged("ready as bot")
    assert await program.stop() == 0
    assert "The program ends without it" in program.stderr
    assert program.stdout == "printed\n"


@needs_posix_signals
async def test_a_stop_ends_though_nobody_reads_the_output(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    program.write_env(bot)
    program.change_script("STOP_TIMEOUT = 9", "STOP_TIMEOUT = 1")
    program.extend(
        """
        async def cog_unload(self):
            for _ in range(1_000_000):
                os.write(2, b"x")
        """
    )
    unread, stderr = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *program.command(), cwd=program.folder, env=program.environment, stderr=stderr
    )
    os.close(stderr)
    try:
        await until(lambda: bot.ready)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        os.close(unread)


BLOCKING_OUTPUT = """
    import sys, threading, time

    class Blocking:
        def write(self, text):
            time.sleep(100)

        flush = write

    async def setup(bot):
        sys.stderr = Blocking()
        %s
"""


@pytest.mark.parametrize("thread", ["", "threading.Thread(target=time.sleep, args=[100]).start()"])
@pytest.mark.parametrize("signals", [1, pytest.param(2, marks=needs_posix_signals)])
async def test_a_stop_ends_though_code_has_replaced_the_output_by_something_that_blocks(
    signals: int, thread: str, program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    write(program, "blocking.py", BLOCKING_OUTPUT % thread)
    program.write_env(bot, extra="DISCORD_BOT_EXTENSIONS=blocking")
    program.change_script("STOP_TIMEOUT = 9", f"STOP_TIMEOUT = {2 if signals == 1 else 30}")
    await program.start()
    await until(lambda: bot.ready)
    program.send()
    await until(lambda: bot.client_closes == [1000])
    await asyncio.sleep(1)  # then only the end of Python is left
    if signals == 2:
        program.send(signal.SIGINT)
    assert await program.end(10) == signals - 1


async def test_code_behind_a_bots_own_close_still_runs(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    program.write_env(bot)
    program.extend(
        """
        @commands.Cog.listener("on_message")
        async def goodbye(self, message):
            await self.bot.close()
            log.info("closed by myself: %s", self.bot.is_closed())
        """
    )
    await program.start()
    await program.logged("ready as bot")
    await discord.say("goodbye")
    assert await program.end() == 0
    assert "closed by myself: True" in program.stderr
    assert bot.client_closes == [1000]
    program.assert_clean()


async def test_a_bot_can_close_itself_in_its_setup(program: Program, discord: LocalDiscord) -> None:
    bot = discord.add_bot("bot")
    (program.folder / "closing.py").write_text("async def setup(bot):\n    await bot.close()\n")
    program.write_env(bot, extra="DISCORD_BOT_EXTENSIONS=closing")
    await program.start()
    assert await program.end() == 0
    assert "[bot] stopped: it closed itself" in program.stderr
    assert not bot.identifies
    program.assert_clean()


HANGS = {
    "waits": "await asyncio.sleep(3600)",
    "does not let itself be cancelled": """
        for _ in range(100):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
        """,
    "blocks the event loop": "time.sleep(3600)",
    "blocks a thread": "await asyncio.to_thread(time.sleep, 3600)",
}
STUBBORN = """
import asyncio, time
from discord.ext import commands

class Stubborn(commands.Cog):
    def __init__(self, bot):
        self.bot = bot

    @commands.Cog.listener()
    async def on_message(self, message):
        await self.bot.close()

    async def cog_unload(self):
%s

async def setup(bot):
    await bot.add_cog(Stubborn(bot))
"""


def make_stubborn(folder: Path, discord: LocalDiscord, name: str) -> tuple[Program, list[Account]]:
    """Two bots whose clean-up does not end."""
    bots = [discord.add_bot(f"{name} 1"), discord.add_bot(f"{name} 2")]
    folder.mkdir()
    program = Program(folder, discord)
    (folder / "stubborn.py").write_text(
        STUBBORN % textwrap.indent(textwrap.dedent(HANGS[name]), " " * 8)
    )
    program.write_env(*bots, extra="DISCORD_BOT_EXTENSIONS=stubborn")
    return program, bots


async def start_stubborn(
    folder: Path, discord: LocalDiscord, name: str
) -> tuple[Program, list[Account]]:
    program, bots = make_stubborn(folder, discord, name)
    await program.start()
    await program.logged("2 of 2 bots are ready")
    return program, bots


async def test_a_stop_takes_ten_seconds_at_the_most_whatever_a_clean_up_does(
    tmp_path: Path, discord: LocalDiscord
) -> None:
    async def stop(name: str) -> None:
        program, bots = await start_stubborn(tmp_path / name, discord, name)
        started = time.monotonic()
        assert await program.stop() == 0
        assert time.monotonic() - started < 10
        program.assert_clean()
        blocks = name == "blocks the event loop"
        assert ("The program ends without it" in program.stderr) == (name != "waits")
        assert blocks or "clean-up took more than" in program.stderr
        assert blocks or not any(bot.online for bot in bots)

    await asyncio.gather(*map(stop, HANGS))


async def test_a_stop_takes_ten_seconds_at_the_most_while_a_long_c_call_keeps_the_main_thread(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot"))
    program.extend(
        """
        @commands.Cog.listener("on_message")
        async def compute(self, message):
            import hashlib
            log.info("computing")
            hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)
        """
    )
    await program.start()
    await program.logged("ready as bot")
    await discord.say("go")
    await program.logged("computing")
    started = time.monotonic()
    assert await program.stop() == 0
    assert time.monotonic() - started < 10
    assert "The program ends without it" in program.stderr


async def test_bots_that_close_themselves_end_whatever_their_clean_up_does(
    tmp_path: Path, discord: LocalDiscord
) -> None:
    async def close(name: str) -> None:
        program, bots = await start_stubborn(tmp_path / name, discord, name)
        waiting.remove(name)
        await until(lambda: not waiting)  # the message is for all of them
        await discord.say("goodbye")
        assert await program.end() == 0
        assert "[" + bots[0].user.name + "] stopped: it closed itself" in program.stderr
        program.assert_clean()

    waiting = [name for name in HANGS if name != "blocks the event loop"]
    await asyncio.gather(*map(close, list(waiting)))


async def test_a_refused_bot_ends_whatever_its_clean_up_does(
    tmp_path: Path, discord: LocalDiscord
) -> None:
    program, bots = await start_stubborn(
        tmp_path / "bots", discord, "does not let itself be cancelled"
    )
    for bot in bots:
        bot.token_reset = True
        await bot.live[0].close(4004)
    assert await program.end() == 78
    program.assert_clean()


async def test_a_bot_that_reconnects_leaves_whatever_its_clean_up_does(
    tmp_path: Path, discord: LocalDiscord
) -> None:
    program, (bot, other) = await start_stubborn(tmp_path / "bots", discord, "waits")
    discord.fail("upgrade", faults.hang())
    await bot.live[0].close(4000)
    await program.logged("The gateway connection was lost")
    program.write_env(other)
    await program.logged(f"[{bot.user.name}] stopped: as asked")
    assert await program.stop() == 0
    assert "The program ends without it" not in program.stderr
    program.assert_clean()


BUSY = """
import asyncio, threading, time
from discord import app_commands
from discord.ext import commands, tasks

class Busy(commands.Cog):
    def __init__(self, bot):
        self.bot = bot
        self.chatter.start()
        asyncio.create_task(self.wait())

    async def wait(self):
        await self.bot.wait_for("typing")

    @tasks.loop(seconds=0.01)
    async def chatter(self):
        await self.bot.wait_until_ready()
        for guild in self.bot.guilds:
            for channel in guild.text_channels:
                await channel.send("chatter")

    @commands.Cog.listener()
    async def on_message(self, message):
        if message.content == "quit":
            raise SystemExit("a handler must not end the program")
        if message.content == "thread":
            await asyncio.to_thread(time.sleep, 3600)

    @commands.command()
    async def slow(self, ctx):
        while True:
            await ctx.send("slow")

    @app_commands.command(description="slow")
    async def slower(self, interaction):
        while True:
            await interaction.channel.send("slower")

async def setup(bot):
    await bot.add_cog(Busy(bot))
"""


async def test_what_a_bot_is_doing_ends_with_it_and_leaves_no_line(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("one"), discord.add_bot("two")]
    (program.folder / "busy.py").write_text(BUSY)
    program.write_env(*bots, extra="DISCORD_BOT_EXTENSIONS=busy")
    await program.start()
    await until(lambda: all(bot.messages for bot in bots))
    await discord.say("!slow")
    await discord.call(bots[0], "slower")
    await discord.say("thread")
    await asyncio.sleep(0.5)
    await bots[0].live[0].close(4000)
    await program.logged("ready as one", times=2)
    started = time.monotonic()
    assert await program.stop() == 0
    assert time.monotonic() - started < 10  # the thread has that long
    program.assert_clean()
    assert "ERROR" not in program.stderr


async def test_a_client_that_is_replaced_leaves_no_task_behind(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    (program.folder / "busy.py").write_text(BUSY)
    program.write_env(bot, extra="DISCORD_BOT_EXTENSIONS=busy")
    await program.start()
    await program.logged("ready as bot")
    program.write_env(bot, extra="DISCORD_BOT_EXTENSIONS=busy\nDISCORD_BOT_PREFIX=?")
    await program.logged("ready as bot", times=2)
    assert await program.stop() == 0
    program.assert_clean()


async def test_exit_in_a_handler_ends_that_bot_alone(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("one"), discord.add_bot("two")]
    (program.folder / "busy.py").write_text(BUSY)
    program.write_env(*bots, extra="DISCORD_BOT_EXTENSIONS1=busy")
    await program.start()
    await until(lambda: bots[0].messages and bots[1].ready)
    await discord.say("quit")
    await program.logged("[one] stopped: it closed itself")
    assert "[one] Some code calls exit()" in program.stderr
    assert bots[0].client_closes == [1000]
    assert bots[1].ready
    assert await program.stop() == 0
    program.assert_clean()


# A terminal window: a command in a session of its own, on a pseudo-terminal that is gone when this
# ends.
WINDOW = """
import os, pty, sys, time
if pty.fork()[0] == 0:
    os.execv(sys.argv[1], sys.argv[1:])
time.sleep(60)
"""


@needs_terminal
async def test_closing_the_terminal_stops_the_bots(program: Program, discord: LocalDiscord) -> None:
    bot = discord.add_bot("bot")
    program.write_env(bot)
    window = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WINDOW,
        *program.command(),
        cwd=program.folder,
        env=program.environment,
    )
    await until(lambda: bot.ready)
    window.kill()
    await window.wait()
    await until(lambda: not bot.online)
    assert bot.client_closes == [1000]


@needs_windows
async def test_closing_the_console_window_stops_the_bots(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("one"), discord.add_bot("two")]
    program.write_env(*bots)
    await program.start()
    await program.logged("2 of 2 bots are ready")
    program.send("close")
    assert await program.end(timeout=5) == 0
    assert [bot.client_closes for bot in bots] == [[1000], [1000]]
    program.assert_clean()


async def test_a_second_signal_ends_the_program_at_once(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot"))
    program.extend("async def cog_unload(self):\n    time.sleep(3600)\n")
    await program.start()
    await program.logged("ready as bot")
    program.send()
    await program.logged("Stopping all bots (SIGTERM)")
    started = time.monotonic()
    assert await program.stop(signal.SIGINT) == 1
    assert time.monotonic() - started < 3
    program.assert_clean()


async def test_a_gateway_that_does_not_answer_the_close_holds_nothing_up(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot"))
    await program.start()
    await program.logged("ready as bot")
    discord.deaf = True
    started = time.monotonic()
    assert await program.stop() == 0
    assert time.monotonic() - started < 8
    program.assert_clean()


async def test_the_program_ends_with_0_when_every_bot_closed_itself(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("one"), discord.add_bot("two")]
    program.write_env(*bots)
    program.extend(
        """
        @commands.Cog.listener("on_message")
        async def goodbye(self, message):
            await self.bot.close()
        """
    )
    await program.start()
    await program.logged("2 of 2 bots are ready")
    await discord.say("goodbye")
    assert await program.end() == 0
    assert [bot.client_closes for bot in bots] == [[1000], [1000]]
    assert "stopped: it closed itself" in program.lines_of("one")[-1]
    program.assert_clean()


async def test_stops_at_random_moments_are_clean(tmp_path: Path, discord: LocalDiscord) -> None:
    chance = random.Random()
    for attempt in range(8):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        bots = [discord.add_bot(f"bot{attempt}-{n}") for n in range(20)]
        program = Program(folder, discord)
        program.write_env(*bots)
        before = len(discord.requests)
        await program.start("--log-level", "debug" if attempt % 2 else "info")
        await until(lambda before=before: len(discord.requests) > before)
        await asyncio.sleep(chance.uniform(0, 0.6))
        assert await program.stop(chance.choice(SIGNALS)) == 0
        program.assert_clean()
        await until(lambda bots=bots: not any(bot.online for bot in bots))
