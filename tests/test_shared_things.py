"""What one bot's code takes that belongs to all harms no other bot, and is named with its place."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from .local_discord import Account, LocalDiscord
from .local_discord.world import make_token
from .program import (
    EXTENSION,
    Program,
    contents,
    needs_posix_signals,
    needs_terminal,
    until,
    write,
)

LISTENER = """
@commands.Cog.listener("on_message")
async def go(self, message):
    if message.content == "go":
%s
"""


def give_code(program: Program, methods: str) -> None:
    """Write the extension `one`, whose cog has these methods."""
    write(program, "one.py", EXTENSION % textwrap.indent(textwrap.dedent(methods), "    "))


def at_go(code: str) -> str:
    """A method of a cog that runs this code when somebody says `go`."""
    return LISTENER % textwrap.indent(textwrap.dedent(code).strip("\n"), " " * 8)


def at_load(code: str) -> str:
    """A method of a cog that runs this code as the cog is loaded."""
    return "async def cog_load(self):\n" + textwrap.indent(textwrap.dedent(code), "    ")


async def start_two(
    program: Program, discord: LocalDiscord, methods: str, extra: str = ""
) -> list[Account]:
    """Bot one has this code. Bot two has none, and answers `ping`."""
    bots = [discord.add_bot("one"), discord.add_bot("two")]
    give_code(program, methods)
    program.write_env(*bots, extra=f"DISCORD_BOT_EXTENSIONS1=one\n{extra}")
    await program.start()
    await until(lambda: all(bot.ready for bot in bots))
    return bots


async def assert_unharmed(program: Program, discord: LocalDiscord, bot: Account) -> None:
    """This bot still answers in its first session, and a stop takes ten seconds at most."""
    answers = len(bot.messages)
    await discord.say("ping")
    await until(lambda: len(bot.messages) > answers)
    assert len(bot.identifies) == 1
    started = time.monotonic()
    assert await program.stop() == 0, program.stderr
    assert time.monotonic() - started < 10
    assert bot.client_closes == [1000]


def line_of(program: Program, words: str) -> str:
    """The place of bot one's code that has these words, as the log names it."""
    lines = (program.folder / "one.py").read_text(encoding="utf-8").splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if words in line]
    return f"one.py, line {number}"


# --- Signals

SIGNAL_THIEVES = {
    "loop.add_signal_handler": """
        stop = lambda: asyncio.ensure_future(self.bot.close())
        self.bot.loop.add_signal_handler(signal.SIGTERM, stop)
        """,
    "loop.remove_signal_handler": """
        self.bot.loop.add_signal_handler(signal.SIGTERM, print)
        self.bot.loop.remove_signal_handler(signal.SIGTERM)
        """,
    "signal.signal": """
        stop = lambda *_: asyncio.ensure_future(self.bot.close())
        signal.signal(signal.SIGTERM, stop)
        """,
    "SIG_IGN": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "SIG_DFL": "signal.signal(signal.SIGTERM, signal.SIG_DFL)",
    "set_wakeup_fd": "signal.set_wakeup_fd(-1)",
}


@needs_posix_signals
@pytest.mark.parametrize("way", SIGNAL_THIEVES)
async def test_a_stop_is_everybodys_though_a_bot_takes_the_signal_as_it_loads(
    way: str, program: Program, discord: LocalDiscord
) -> None:
    one, two = await start_two(
        program, discord, at_load("import signal\n" + textwrap.dedent(SIGNAL_THIEVES[way]))
    )
    await assert_unharmed(program, discord, two)
    assert one.client_closes == [1000]
    program.assert_clean()


@needs_posix_signals
@pytest.mark.parametrize("way", ["loop.add_signal_handler", "SIG_DFL"])
async def test_a_stop_is_everybodys_a_second_after_a_running_bot_has_taken_the_signal(
    way: str, program: Program, discord: LocalDiscord
) -> None:
    code = "import signal\n" + textwrap.dedent(SIGNAL_THIEVES[way]) + "\nlog.info('taken')"
    one, two = await start_two(program, discord, at_go(code))
    await discord.say("go")
    await program.logged("taken")
    await asyncio.sleep(1.5)  # the next look at the files
    await assert_unharmed(program, discord, two)
    assert one.client_closes == [1000]
    program.assert_clean()


@needs_posix_signals
async def test_sighup_and_sigusr1_still_work_after_a_bot_has_taken_them(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import signal
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        """
    _, two = await start_two(program, discord, at_load(code))
    await program.logged("2 of 2 bots are ready")
    program.send(signal.SIGUSR1)
    await program.logged("2 of 2 bots are ready", times=2)
    program.send(signal.SIGHUP)
    await program.logged(".env: nothing changed")
    await assert_unharmed(program, discord, two)


# --- The current folder, and the files that are followed


async def test_every_path_stays_what_it_was_after_a_bot_has_changed_the_folder(
    program: Program, discord: LocalDiscord
) -> None:
    secret, late = discord.add_bot("three"), discord.add_bot("late")
    (program.folder / "elsewhere").mkdir()
    (program.folder / "secret").write_text(secret.token)
    (program.folder / "late.py").write_text("async def setup(bot):\n    print('late is here')\n")
    extra = "DISCORD_BOT_TOKEN3_FILE=secret\nDISCORD_BOT_NAME3=three\n"
    one, two = await start_two(program, discord, at_load("os.chdir('elsewhere')"), extra)
    await until(lambda: secret.ready)
    more = f"DISCORD_BOT_TOKEN4={late.token}\nDISCORD_BOT_NAME4=late\nDISCORD_BOT_EXTENSIONS4=late"
    program.write_env(one, two, extra=f"DISCORD_BOT_EXTENSIONS1=one\n{extra}{more}")
    await program.logged(".env: added late")
    await until(lambda: late.ready)
    await assert_unharmed(program, discord, two)
    assert "late is here" in program.stdout
    assert "cannot be read" not in program.stderr


async def test_an_env_file_that_is_made_after_a_start_without_one_is_followed(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    program.copy_script()  # so that nobody's .env is beside it
    program.environment["DISCORD_BOT_TOKEN7"] = one.token
    await program.start()
    await program.logged("ready as one")
    program.write_env(two)
    await until(lambda: two.ready)
    assert len(one.identifies) == 1
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_token_file_that_gets_another_token_is_followed(
    program: Program, discord: LocalDiscord
) -> None:
    old, new, other = (discord.add_bot(name) for name in ("old", "new", "other"))
    (program.folder / "secret").write_text(old.token)
    program.write_env(other, extra="DISCORD_BOT_TOKEN9_FILE=secret\n")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    (program.folder / "secret").write_text(new.token)
    await until(lambda: new.ready and old.client_closes == [1000])
    assert len(other.identifies) == 1
    assert await program.stop() == 0
    program.assert_clean()


# --- Logging

LOGGING_THIEVES = {
    "dictConfig": """
        logging.config.dictConfig({"version": 1})
        """,
    "dictConfig with a root": """
        handler = {"class": "logging.StreamHandler", "level": "CRITICAL"}
        root = {"level": "CRITICAL", "handlers": ["own"]}
        logging.config.dictConfig({"version": 1, "handlers": {"own": handler}, "root": root})
        """,
    "basicConfig by force": """
        logging.basicConfig(force=True, level=logging.CRITICAL, filename="own.log")
        """,
    "no handlers": "logging.getLogger().handlers.clear()",
    "disable": "logging.disable(logging.CRITICAL)",
    "all other loggers are silenced": """
        for name in logging.root.manager.loggerDict:
            logging.getLogger(name).setLevel(logging.CRITICAL)
            logging.getLogger(name).propagate = False
        """,
    "all handlers are set up": """
        import io
        for handler in logging.root.handlers:
            handler.setLevel(logging.CRITICAL)
            handler.setFormatter(logging.Formatter("%(guild)s"))
            handler.setStream(io.StringIO())
        """,
    "stderr is made anew": """
        import io, sys
        sys.stderr = io.TextIOWrapper(sys.stderr.detach(), encoding="utf-8")
        """,
}


@pytest.mark.parametrize("way", LOGGING_THIEVES)
async def test_the_program_says_what_it_says_whatever_a_bot_does_to_logging(
    way: str, program: Program, discord: LocalDiscord
) -> None:
    code = "import logging.config\n" + textwrap.dedent(LOGGING_THIEVES[way])
    _, two = await start_two(program, discord, at_load(code))
    await program.logged("2 of 2 bots are ready")
    await assert_unharmed(program, discord, two)
    assert len([line for line in program.lines_of("two") if "ready as two" in line]) == 1
    assert program.stderr.count("Stopping all bots (SIGTERM)") == 1
    assert "stopped: as asked" in program.lines_of("two")[-1]


@pytest.mark.parametrize("code", ["raise RuntimeError('no running event loop')", "exit()"])
async def test_a_handler_of_a_bot_that_fails_harms_nobody_who_logs(
    code: str, program: Program, discord: LocalDiscord
) -> None:
    handler = f"""
        class Handler(logging.Handler):
            def emit(self, record):
                {code}

        logging.getLogger().addHandler(Handler())
        """
    one, two = await start_two(program, discord, at_go(handler))
    await discord.say("go")
    await assert_unharmed(program, discord, two)
    assert one.client_closes == [1000]
    assert "stopped: as asked" in program.lines_of("two")[-1]


@pytest.mark.parametrize(
    "code",
    [
        "logging.basicConfig(level=logging.INFO)",
        "import discord\ndiscord.utils.setup_logging()",
        "log.addHandler(logging.StreamHandler())",
    ],
)
async def test_no_line_is_printed_twice_with_two_names(
    code: str, program: Program, discord: LocalDiscord
) -> None:
    _, two = await start_two(program, discord, at_load(code))
    await program.logged("2 of 2 bots are ready")
    await assert_unharmed(program, discord, two)
    assert program.stderr.count("ready as two") == 1


NAMELESS = {
    "a task that nobody waits for": (
        """
        async def fail():
            raise ValueError("nobody waits")
        asyncio.create_task(fail())
        """,
        "Task exception was never retrieved",
    ),
    "a future that nobody waits for": (
        "self.bot.loop.create_future().set_exception(ValueError('nobody waits'))",
        "Future exception was never retrieved",
    ),
    "a callback": (
        "self.bot.loop.call_later(0.01, lambda: 1 / 0)",
        "Exception in callback",
    ),
    "run_in_executor": (
        "await self.bot.loop.run_in_executor(None, log.info, 'from the executor')",
        "from the executor",
    ),
    "a thread": (
        "import threading\nthreading.Thread(target=log.info, args=['from a thread']).start()",
        "from a thread",
    ),
    "a timer": (
        "import threading\nthreading.Timer(0.01, log.info, ['from a timer']).start()",
        "from a timer",
    ),
    "a thread that fails": (
        "import threading\nthreading.Thread(target=int, args=['x']).start()",
        "Exception in thread",
    ),
    "a thread that hands something to the loop": (
        """
        import threading
        async def work():
            log.info("handed over")
        arguments = [work(), self.bot.loop]
        threading.Thread(target=lambda: asyncio.run_coroutine_threadsafe(*arguments)).start()
        """,
        "handed over",
    ),
    "a thread that calls the loop": (
        """
        import threading
        arguments = [log.info, "called"]
        threading.Thread(target=lambda: self.bot.loop.call_soon_threadsafe(*arguments)).start()
        """,
        "called",
    ),
    "what is never awaited": (
        "message.channel.send('never')",
        "was never awaited",
    ),
}


@pytest.mark.parametrize("way", NAMELESS)
async def test_a_line_has_its_bots_name_though_it_comes_from(
    way: str, program: Program, discord: LocalDiscord
) -> None:
    code, words = NAMELESS[way]
    _, two = await start_two(
        program, discord, at_go(f"{textwrap.dedent(code)}\nimport gc; gc.collect()")
    )
    await discord.say("go")
    await program.logged(words)
    await assert_unharmed(program, discord, two)
    said = [line for line in program.stderr.splitlines() if words in line]
    assert all("[one]" in line for line in said), said


async def test_add_cog_without_await_is_told_with_the_bots_name_and_what_to_do(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        from discord.ext import commands

        class Cog(commands.Cog):
            pass

        async def setup(bot):
            bot.add_cog(Cog())  # here
        """
    bots = [discord.add_bot("one"), discord.add_bot("two")]
    write(program, "one.py", code)
    program.write_env(*bots, extra="DISCORD_BOT_EXTENSIONS1=one")
    await program.start()
    await program.logged("add_cog")
    (line,) = [line for line in program.stderr.splitlines() if "add_cog" in line]
    assert "[one]" in line
    assert "await" in line
    assert line_of(program, "# here") in line
    assert "RuntimeWarning" not in program.stderr
    await program.stop()


# --- The event loop


async def test_code_that_blocks_all_bots_is_named_once_with_its_place(
    program: Program, discord: LocalDiscord
) -> None:
    discord.heartbeat_interval_ms = 500
    compute = """
        def compute(self):
            import subprocess, sys
            subprocess.run([sys.executable, "-c", "import time; time.sleep(12)"])  # here
        """
    going = at_go("await message.channel.send('going')\nself.compute()")
    one, two = await start_two(program, discord, going + textwrap.dedent(compute))
    await discord.say("go")
    await until(lambda: contents(one) == ["going"])
    await program.logged(line_of(program, "# here"), timeout=14)
    await asyncio.sleep(0.5)
    await discord.say("ping")
    await until(lambda: contents(two) == ["pong"])
    lines = [line for line in program.stderr.splitlines() if line_of(program, "# here") in line]
    assert len(lines) == 1, lines
    assert "compute" in lines[0]
    assert "block" in lines[0]
    assert "[two]" not in lines[0]  # whose heartbeat is late, too
    assert "heartbeat blocked" not in program.stderr
    assert "subprocess.py" not in program.stderr
    assert await program.stop() == 0


async def test_code_that_keeps_a_stop_from_its_end_is_named(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        async def cog_unload(self):
            while True: pass  # here
        """
    await start_two(program, discord, code)
    assert await program.stop() == 0
    (line,) = [line for line in program.stderr.splitlines() if "does not stop" in line]
    assert line_of(program, "# here") in line


# --- The output


class Unread:
    """An output that nobody reads: a pipe, or a terminal."""

    def __init__(self, kind: str) -> None:
        self.end, self.writable = os.openpty() if kind == "terminal" else os.pipe()

    def close(self) -> None:
        os.close(self.end)
        os.close(self.writable)


@needs_posix_signals
@pytest.mark.parametrize("kind", ["pipe", pytest.param("terminal", marks=needs_terminal)])
@pytest.mark.parametrize("stream", ["stderr", "stdout"])
async def test_bots_answer_and_leave_though_nobody_reads(
    stream: str, kind: str, program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("one"), discord.add_bot("two")]
    give_code(
        program,
        at_go(
            """
            for _ in range(2000):
                log.info("a long line" * 20)
                print("a long line" * 20)
            """
        ),
    )
    program.write_env(*bots, extra="DISCORD_BOT_EXTENSIONS1=one")
    unread = Unread(kind)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: unread.writable}
    process = await asyncio.create_subprocess_exec(
        *program.command(),
        cwd=program.folder,
        env=program.environment,
        stdin=subprocess.DEVNULL,
        **streams,
    )
    try:
        await until(lambda: all(bot.ready for bot in bots))
        await discord.say("go")
        await asyncio.sleep(0.5)
        await discord.say("ping")
        await until(lambda: contents(bots[1]) == ["pong"], timeout=5)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0
        assert [bot.client_closes for bot in bots] == [[1000], [1000]]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        unread.close()


async def test_a_reader_that_comes_late_gets_every_line(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(*[discord.add_bot(f"bot {number:04}") for number in range(150)])
    read, write_end = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *program.command("--help"), cwd=program.folder, env=program.environment, stdout=write_end
    )
    os.close(write_end)
    await asyncio.sleep(1)
    output = b""
    while data := await asyncio.to_thread(os.read, read, 65536):
        output += data
    os.close(read)
    assert await process.wait() == 0
    assert output.count(b"\n") > 20


# --- What ends the loop

ENDERS = {
    "exit() in a handler": "exit()  # here",
    "exit() in a task": """
        async def leave():
            exit()  # here
        asyncio.create_task(leave())
        """,
    "exit() in a callback": """
        def leave():
            exit()  # here
        self.bot.loop.call_soon(leave)
        """,
    "KeyboardInterrupt in a handler": "raise KeyboardInterrupt  # here",
    "KeyboardInterrupt in a callback": """
        def leave():
            raise KeyboardInterrupt  # here
        self.bot.loop.call_later(0.01, leave)
        """,
    "loop.stop()": "self.bot.loop.stop()  # here",
    "loop.stop() later": """
        def leave():
            self.bot.loop.stop()  # here
        self.bot.loop.call_later(0.01, leave)
        """,
    "all tasks cancelled": """
        for task in asyncio.all_tasks():
            task.cancel()  # here
        """,
    "all tasks that asyncio itself finds cancelled": """
        for task in asyncio.tasks.all_tasks(self.bot.loop):
            task.cancel()  # here
        """,
    "all other tasks cancelled, and waited for": """
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()  # here
        await asyncio.gather(*others, return_exceptions=True)
        """,
    "loop.close()": "self.bot.loop.close()  # here",
    "run_until_complete": "self.bot.loop.run_until_complete(asyncio.sleep(0))  # here",
}


@pytest.mark.parametrize("way", ENDERS)
async def test_nothing_in_one_bots_code_ends_the_others(
    way: str, program: Program, discord: LocalDiscord
) -> None:
    one, two = await start_two(program, discord, at_go(ENDERS[way]))
    await program.logged("2 of 2 bots are ready")
    await discord.say("go")
    await asyncio.sleep(0.3)
    await assert_unharmed(program, discord, two)
    assert "This is a bug" not in program.stderr
    assert "never retrieved" not in program.stderr
    number = line_of(program, "# here").split()[-1]
    place = rf'one\.py"?, line {number}\b'  # as a sentence has it, or a traceback
    is_named = re.search(place, program.stderr)
    is_harmless = way.startswith("all ") and one.client_closes == [1000]  # as it was cancelled
    assert is_named or is_harmless, program.stderr


LOAD_ENDERS = ["exit()", "raise KeyboardInterrupt", "asyncio.get_running_loop().stop()"]


@pytest.mark.parametrize("code", LOAD_ENDERS)
async def test_nothing_in_one_bots_set_up_or_clean_up_ends_the_others(
    code: str, program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(name) for name in ("one", "two", "three")]
    write(program, "one.py", f"import asyncio\n\nasync def setup(bot):\n    {code}\n")
    teardown = "async def setup(bot):\n    pass\n\nasync def teardown(bot):\n"
    write(program, "three.py", f"import asyncio\n\n{teardown}    {code}\n")
    extra = "DISCORD_BOT_EXTENSIONS1=one\nDISCORD_BOT_EXTENSIONS3=three\n"
    program.write_env(*bots, extra=extra)
    await program.start()
    await until(lambda: bots[1].ready and bots[2].ready)
    program.write_env(*bots[:2], extra="DISCORD_BOT_EXTENSIONS1=one")
    await until(lambda: bots[2].client_closes == [1000])
    await assert_unharmed(program, discord, bots[1])
    assert "This is a bug" not in program.stderr


SHELL_WINDOW = """
import os, pty, sys, time
child, window = pty.fork()
if child == 0:
    os.execvp("bash", ["bash", "--norc", "-i"])
os.write(window, sys.argv[1].encode() + b"\\n")
while True:
    os.read(window, 65536)
"""


@needs_terminal
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("background", [False, True])
async def test_a_window_with_a_shell_that_is_closed_stops_the_bots_each_time(
    background: bool, program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(f"bot{number}") for number in range(6)]
    give_code(program, "async def cog_unload(self):\n    await asyncio.sleep(0.5)\n")
    windows = []
    for number, bot in enumerate(bots):
        program.write_env(bot, extra="DISCORD_BOT_EXTENSIONS=one")
        (program.folder / ".env").rename(program.folder / f"{number}.env")
        command = " ".join(program.command("--env-file", f"{number}.env"))
        windows.append(
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", SHELL_WINDOW, f"{command}{' &' * background}",
                cwd=program.folder, env=program.environment,
            )
        )  # fmt: skip
    await until(lambda: all(bot.ready for bot in bots), timeout=40)
    for window in windows:
        window.kill()
        await window.wait()
    await until(lambda: not any(bot.online for bot in bots))
    assert [bot.client_closes for bot in bots] == [[1000]] * len(bots)


@needs_posix_signals
async def test_ctrl_c_after_the_bots_while_a_thread_lives_is_silent(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import threading
        threading.Thread(target=time.sleep, args=[5]).start()
        await self.bot.close()
        """
    program.write_env(discord.add_bot("one"), extra="DISCORD_BOT_EXTENSIONS=one")
    give_code(program, at_go(code))
    await program.start()
    await program.logged("1 of 1 bots are ready")
    await discord.say("go")
    await program.logged("stopped: it closed itself")
    await asyncio.sleep(0.5)
    started = time.monotonic()
    assert await program.stop(signal.SIGINT) == 0
    assert time.monotonic() - started < 10
    assert "Event loop is closed" not in program.stderr
    program.assert_clean()


# --- Threads


async def test_a_thread_of_a_client_that_has_ended_hands_nothing_more_to_the_loop(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        async def cog_load(self):
            import threading
            threading.Thread(target=self.tick, daemon=True).start()

        async def ticked(self):
            log.info("tick of %s, closed: %s", self.bot.command_prefix, self.bot.is_closed())

        def tick(self):
            while True:
                asyncio.run_coroutine_threadsafe(self.ticked(), self.bot.loop)
                time.sleep(0.05)
        """
    one, two = await start_two(program, discord, code)
    await program.logged("[one] tick of !, closed: False", times=3)
    program.write_env(one, two, extra="DISCORD_BOT_EXTENSIONS1=one\nDISCORD_BOT_PREFIX1=?")
    await program.logged("[one] tick of ?, closed: False", times=20)
    after = program.stderr.partition("tick of ?")[2]
    assert "tick of !" not in after
    assert "closed: True" not in program.stderr
    await assert_unharmed(program, discord, two)


@pytest.mark.parametrize(
    "code",
    [
        "for _ in range(40): self.bot.loop.run_in_executor(None, time.sleep, 8)",
        "await self.bot.loop.shutdown_default_executor()",
        """
        from concurrent.futures import ThreadPoolExecutor
        executor = ThreadPoolExecutor()
        self.bot.loop.set_default_executor(executor)
        executor.shutdown()
        """,
    ],
)
async def test_a_bot_that_uses_up_the_threads_leaves_the_others_theirs(
    code: str, program: Program, discord: LocalDiscord
) -> None:
    other = """
        async def setup(bot):
            @bot.listen()
            async def on_message(message):
                if message.content == "look up":
                    await bot.loop.getaddrinfo("localhost", 80)
                    await message.channel.send("found")
                    await bot.loop.run_in_executor(None, print, "in a thread")
        """
    write(program, "two.py", other)
    _, two = await start_two(program, discord, at_go(code), "DISCORD_BOT_EXTENSIONS2=two")
    await discord.say("go")
    await discord.say("look up")
    await until(lambda: contents(two) == ["found"], timeout=5)
    await program.printed("in a thread")
    assert await program.stop() == 0
    assert two.client_closes == [1000]


async def test_a_loop_of_a_thread_has_its_own_tasks(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import threading
        async def wait():
            await asyncio.sleep(60)
        async def count():
            print("tasks:", len(asyncio.all_tasks()))
        self.tasks = [asyncio.create_task(wait()), asyncio.create_task(wait())]
        threading.Thread(target=lambda: asyncio.run(count())).start()
        """
    _, two = await start_two(program, discord, at_go(code))
    await discord.say("go")
    await program.printed("tasks: 1\n")
    await assert_unharmed(program, discord, two)


# --- Odd files

needs_fifos = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")


@needs_fifos
@pytest.mark.parametrize(
    ("name", "called"), [(".env", ".env"), ("secret", "DISCORD_BOT_TOKEN3_FILE")]
)
async def test_a_fifo_in_the_place_of_a_file_keeps_no_bot_from_its_work(
    name: str, called: str, program: Program, discord: LocalDiscord
) -> None:
    one, two, three = (discord.add_bot(bot_name) for bot_name in ("one", "two", "three"))
    (program.folder / "secret").write_text(three.token)
    extra = "DISCORD_BOT_TOKEN3_FILE=secret\n"
    program.write_env(one, two, extra=extra)
    await program.start()
    await program.logged("3 of 3 bots are ready")
    (program.folder / name).unlink()
    os.mkfifo(program.folder / name)
    if name == "secret":
        program.write_env(one, two, extra=f"{extra}# saved")
    await program.logged("The bots keep running as they are")
    await discord.say("ping")
    await until(lambda: contents(two) == contents(three) == ["pong"], timeout=5)
    assert called in program.stderr.partition("The bots keep running as they are")[2]
    assert await program.stop() == 0
    program.assert_clean()


@pytest.mark.skipif(os.name != "posix", reason="needs /dev/stdin")
async def test_the_settings_can_come_through_stdin(program: Program, discord: LocalDiscord) -> None:
    bot = discord.add_bot("one")
    process = await asyncio.create_subprocess_exec(
        *program.command("--env-file", "/dev/stdin"),
        cwd=program.folder,
        env=program.environment,
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    program.process = process
    await asyncio.sleep(0.1)
    process.stdin.write(f"DISCORD_BOT_TOKEN1={bot.token}\n".encode())  # type: ignore[union-attr]
    process.stdin.close()  # type: ignore[union-attr]
    await until(lambda: bot.ready or process.returncode is not None)
    assert bot.ready, await process.stderr.read()  # type: ignore[union-attr]
    await asyncio.sleep(2.5)  # it cannot be read again, and nobody looks
    process.terminate()
    _, stderr = await process.communicate()
    assert process.returncode == 0
    assert b"keep running" not in stderr


async def test_a_variable_that_is_taken_out_of_the_file_leaves_the_environment(
    program: Program, discord: LocalDiscord
) -> None:
    program.environment["FROM_BOTH"] = "process"
    code = at_go(
        "await message.channel.send(f\"{os.environ.get('KEY')} {os.environ['FROM_BOTH']}\")"
    )
    extra = "KEY=first\nFROM_BOTH=file\n"
    one, two = await start_two(program, discord, code, extra)
    await discord.say("go")
    await until(lambda: contents(one) == ["first process"])
    program.write_env(one, two, extra="DISCORD_BOT_EXTENSIONS1=one\nKEY=second\n")
    await program.logged(".env: ")
    await discord.say("go")
    await until(lambda: contents(one)[1:] == ["second process"])
    program.write_env(one, two, extra="DISCORD_BOT_EXTENSIONS1=one\n")
    await program.logged(".env: ", times=2)
    await discord.say("go")
    await until(lambda: contents(one)[2:] == ["None process"])
    assert await program.stop() == 0


async def test_a_thousand_variables_that_nobody_reads_do_not_hold_the_bots_up(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        async def slowest(self):
            worst = 0
            while True:
                before = time.thread_time()
                await asyncio.sleep(0)
                worst = max(worst, time.thread_time() - before)
                if os.path.exists("measured"):
                    print(f"slowest {worst:.3f}")
                    return

        async def cog_load(self):
            self.task = asyncio.create_task(self.slowest())
        """
    many = "\n".join(f"DISCORD_BOT_COLOUR_OF_THE_{number}TH_BOT=blue" for number in range(1000))
    one, two = await start_two(program, discord, code, many)
    await asyncio.sleep(0.2)
    program.write_env(one, two, extra=f"DISCORD_BOT_EXTENSIONS1=one\n{many}\n# saved")
    await program.logged(".env: nothing changed")
    (program.folder / "measured").touch()
    await program.printed("slowest")
    assert float(program.stdout.split("slowest ")[1].split()[0]) < 0.4
    assert await program.stop() == 0


def test_the_token_of_these_tests_has_the_form_of_discords() -> None:
    assert re.fullmatch(r"[MNO][\w-]{20,}\.[\w-]{5,8}\.[\w-]{20,}", make_token(10**17))


async def test_a_bots_own_pool_of_processes_works(program: Program, discord: LocalDiscord) -> None:
    code = """
        import concurrent.futures, math

        with concurrent.futures.ProcessPoolExecutor(1) as pool:
            result = await asyncio.get_running_loop().run_in_executor(pool, math.sqrt, 16)
        await message.channel.send(str(result))
        """
    one, two = await start_two(program, discord, at_go(code))
    await discord.say("go")
    await until(lambda: contents(one) == ["4.0"])
    await assert_unharmed(program, discord, two)


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no folder that is in use")
async def test_the_file_is_followed_though_the_current_folder_is_deleted(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
        await message.channel.send("gone")
        """
    one, two = await start_two(program, discord, at_go(code))
    await discord.say("go")
    await until(lambda: contents(one) == ["gone"])
    late = discord.add_bot("late")
    program.write_env(one, two, late, extra="DISCORD_BOT_EXTENSIONS1=one")
    await program.logged("ready as late")
    await assert_unharmed(program, discord, two)
