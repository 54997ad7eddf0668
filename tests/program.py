"""Drive `run_bots.py` as a user does: a process with an env file, signals and exit codes."""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import shutil
import signal
import socket
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import forks
from .local_discord import Account, LocalDiscord, signals

SCRIPT = Path(__file__).parent.parent / "run_bots.py"
# What Python and aiohttp print when something was not closed or not awaited, and what no user
# should see.
STRAY = re.compile(
    "Traceback|Unclosed|never awaited|Task was destroyed|never retrieved|Exception ignored|Error in"
)

EXTENSION = """
import asyncio, logging, os, time
from discord.ext import commands

log = logging.getLogger("extension")


class Extension(commands.Cog):
    def __init__(self, bot):
        self.bot = bot

    @commands.Cog.listener("on_message")
    async def answer(self, message):
        if message.content == "ping":
            await message.channel.send("pong")

%s

async def setup(bot):
    await bot.add_cog(Extension(bot))
"""


def needs(thing: str, is_there: bool) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not is_there, reason=f"needs {thing}")


# What not every system has, and Windows least of all.
needs_posix_signals = needs("the signals of POSIX", hasattr(signal, "SIGHUP"))
needs_terminal = needs("a pseudo-terminal", hasattr(os, "openpty"))
needs_file_modes = needs("the file modes of POSIX", os.name == "posix")
needs_unix_sockets = needs("Unix sockets", hasattr(socket, "AF_UNIX"))
needs_windows = needs("Windows", os.name == "nt")


async def until(condition: Callable[[], object], timeout: float = 20) -> None:
    """Wait until the condition holds. The timeout only says when a test has failed."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)


def contents(bot: Account) -> list[str]:
    """The texts of what a bot has said."""
    return [message["content"] for message in bot.messages]


def write(program: Program, name: str, code: str) -> None:
    """Write a file of a bot's code."""
    path = program.folder / name
    path.write_text(textwrap.dedent(code), encoding="utf-8")


def clean_environment() -> dict[str, str]:
    """The tests' own environment, without what would change how the script runs."""
    environment = {"PYTHONPATH": str(SCRIPT.parent), "PYTHONIOENCODING": "utf-8"}
    for name, value in os.environ.items():
        if not name.startswith(("DISCORD_", "PYTHON")):
            environment[name] = value
    return environment


class Program:
    """One run of the script, in a folder of its own."""

    def __init__(self, folder: Path, discord: LocalDiscord | None = None) -> None:
        self.folder = folder
        self.script = SCRIPT
        self.discord = discord
        self.redirect_options: tuple[str, ...] = ()
        self.environment = clean_environment()
        self.encoding = "utf-8"  # of its output
        self.stderr = ""
        self.stdout = ""
        self.process: asyncio.subprocess.Process | forks.Forked | None = None
        self._readers: list[asyncio.Task[None]] = []

    def write_env(self, *accounts: Account, extra: str = "") -> None:
        """Write an env file with these bots, numbered from 1 and called by their users' names."""
        text = ""
        for number, account in enumerate(accounts, 1):
            text += f"DISCORD_BOT_TOKEN{number}={account.token}\n"
            text += f"DISCORD_BOT_NAME{number}={account.user.name}\n"
        env_file = self.folder / ".env"
        env_file.write_text(text + extra, encoding="utf-8")
        env_file.chmod(0o600)

    def copy_script(self) -> None:
        """Run a copy of the script, which is alone in its folder."""
        if self.script == SCRIPT:
            copy = shutil.copy(self.script, self.folder)
            self.script = Path(copy)

    def change_script(self, old: str, new: str) -> None:
        """Run a copy of the script in which this is replaced."""
        self.copy_script()
        text = self.script.read_text(encoding="utf-8")
        assert text.count(old) == 1
        changed = text.replace(old, new)
        self.script.write_text(changed, encoding="utf-8")

    def extend(self, methods: str) -> None:
        """Give all bots an extension, whose cog has these methods."""
        self.environment["DISCORD_BOT_EXTENSIONS"] = "extension"
        methods = textwrap.dedent(methods)
        code = EXTENSION % textwrap.indent(methods, "    ")
        write(self, "extension.py", code)

    def command(
        self, *arguments: str, python: str = sys.executable, options: tuple[str, ...] = ()
    ) -> list[str]:
        """The command that runs the script, pointed at the local Discord if there is one."""
        command = [python, *options]
        if self.discord is not None:
            command += ["-m", "tests.local_discord.redirect"]
            command += signals.OPTIONS
            command += self.redirect_options
            command.append(self.discord.url)
        command.append(str(self.script))
        command += arguments
        return command

    async def start(self, *arguments: str, **interpreter: Any) -> Program:
        """Start it. `interpreter` is what `command` takes besides."""
        command = self.command(*arguments, **interpreter)
        if self._can_be_forked(interpreter):
            # Without the three words: python -m tests.local_discord.redirect
            self.process = await forks.fork(command[3:], self.folder, self.environment)
        else:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self.folder,
                env=self.environment,
                stdin=signals.STDIN,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        reading = (self._read("stdout"), self._read("stderr"))
        self._readers = [asyncio.create_task(coroutine) for coroutine in reading]
        return self

    def _can_be_forked(self, interpreter: dict[str, Any]) -> bool:
        """Whether nothing of this run is decided before a fork begins."""
        if not forks.IS_HERE or interpreter or self.redirect_options or self.discord is None:
            return False
        return forks.early(self.environment) == forks.early(clean_environment())

    async def _read(self, name: str) -> None:
        stream = getattr(self.process, name)
        decoder = codecs.getincrementaldecoder(self.encoding)()
        while data := await stream.read(65536):
            text = decoder.decode(data).replace("\r\n", "\n")
            so_far = getattr(self, name)
            setattr(self, name, so_far + text)

    async def logged(self, text: str, times: int = 1, timeout: float = 20) -> None:
        """Wait until a line of the log has this text."""

        def is_logged() -> bool:
            return self.stderr.count(text) >= times

        try:
            await until(lambda: is_logged() or self.ended, timeout)
        except AssertionError:
            raise AssertionError(f"{text!r} was not logged:\n{self.stderr}") from None
        assert is_logged(), f"{text!r} was not logged before the end:\n{self.stderr}"

    async def printed(self, text: str) -> None:
        """Wait until this is on stdout: what comes there and what is logged have no order."""
        await until(lambda: text in self.stdout)

    @property
    def ended(self) -> bool:
        if self.process is None or self.process.returncode is None:
            return False
        return all(reader.done() for reader in self._readers)

    def send(self, number: int | str = signal.SIGTERM) -> None:
        assert self.process is not None
        signals.send(self.process, number)

    async def end(self, timeout: float = 20) -> int:
        """Wait for the end. Returns the exit code."""
        assert self.process is not None
        try:
            async with asyncio.timeout(timeout):
                code = await self.process.wait()
                await asyncio.gather(*self._readers)
                return code
        except TimeoutError:
            raise AssertionError(f"the program did not end:\n{self.stderr}") from None

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop, and wait. Returns the exit code."""
        self.send(number)
        return await self.end()

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.end()

    def lines_of(self, name: str) -> list[str]:
        """The log lines of one bot."""
        in_brackets = f"[{name}]"
        lines = []
        for line in self.stderr.splitlines():
            if in_brackets in line:
                lines.append(line)
        return lines

    def assert_clean(self) -> None:
        """Nothing was printed that should not be."""
        assert not STRAY.search(self.stderr), self.stderr
