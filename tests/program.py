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

import pytest

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

# What not every system has, and Windows least of all.
needs_posix_signals = pytest.mark.skipif(
    not hasattr(signal, "SIGHUP"), reason="needs the signals of POSIX"
)
needs_terminal = pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
needs_file_modes = pytest.mark.skipif(os.name != "posix", reason="needs the file modes of POSIX")
needs_unix_sockets = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
needs_windows = pytest.mark.skipif(os.name != "nt", reason="needs Windows")


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
    (program.folder / name).write_text(textwrap.dedent(code), encoding="utf-8")


class Program:
    """One run of the script, in a folder of its own."""

    def __init__(self, folder: Path, discord: LocalDiscord | None = None) -> None:
        self.folder = folder
        self.script = SCRIPT
        self.discord = discord
        self.redirect_options: tuple[str, ...] = ()
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DISCORD_", "PYTHON"))
        }
        self.environment |= {"PYTHONPATH": str(SCRIPT.parent), "PYTHONIOENCODING": "utf-8"}
        self.encoding = "utf-8"  # of its output
        self.stderr = ""
        self.stdout = ""
        self.process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []

    def write_env(self, *accounts: Account, extra: str = "") -> None:
        """Write an env file with these bots, numbered from 1 and called by their users' names."""
        lines = []
        for number, account in enumerate(accounts, 1):
            lines += [
                f"DISCORD_BOT_TOKEN{number}={account.token}",
                f"DISCORD_BOT_NAME{number}={account.user.name}",
            ]
        (self.folder / ".env").write_text("\n".join([*lines, extra]), encoding="utf-8")
        (self.folder / ".env").chmod(0o600)

    def copy_script(self) -> None:
        """Run a copy of the script, which is alone in its folder."""
        if self.script == SCRIPT:
            self.script = Path(shutil.copy(self.script, self.folder))

    def change_script(self, old: str, new: str) -> None:
        """Run a copy of the script in which this is replaced."""
        self.copy_script()
        text = self.script.read_text(encoding="utf-8")
        assert text.count(old) == 1
        self.script.write_text(text.replace(old, new), encoding="utf-8")

    def extend(self, methods: str) -> None:
        """Give all bots an extension, whose cog has these methods."""
        self.environment["DISCORD_BOT_EXTENSIONS"] = "extension"
        code = EXTENSION % textwrap.indent(textwrap.dedent(methods), "    ")
        (self.folder / "extension.py").write_text(code, encoding="utf-8")

    def command(
        self, *arguments: str, python: str = sys.executable, options: tuple[str, ...] = ()
    ) -> list[str]:
        """The command that runs the script, pointed at the local Discord if there is one."""
        redirect = []
        if self.discord is not None:
            redirect = [
                "-m",
                "tests.local_discord.redirect",
                *signals.OPTIONS,
                *self.redirect_options,
            ]
            redirect.append(self.discord.url)
        return [python, *options, *redirect, str(self.script), *arguments]

    async def start(
        self, *arguments: str, python: str = sys.executable, options: tuple[str, ...] = ()
    ) -> Program:
        self.process = await asyncio.create_subprocess_exec(
            *self.command(*arguments, python=python, options=options),
            cwd=self.folder,
            env=self.environment,
            stdin=signals.STDIN,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._readers = [
            asyncio.create_task(self._read("stdout")),
            asyncio.create_task(self._read("stderr")),
        ]
        return self

    async def _read(self, name: str) -> None:
        stream = getattr(self.process, name)
        decoder = codecs.getincrementaldecoder(self.encoding)()
        while data := await stream.read(65536):
            setattr(self, name, getattr(self, name) + decoder.decode(data).replace("\r\n", "\n"))

    async def logged(self, text: str, times: int = 1, timeout: float = 20) -> None:
        """Wait until a line of the log has this text."""
        try:
            await until(lambda: self.stderr.count(text) >= times or self.ended, timeout)
        except AssertionError:
            raise AssertionError(f"{text!r} was not logged:\n{self.stderr}") from None
        assert self.stderr.count(text) >= times, (
            f"{text!r} was not logged before the end:\n{self.stderr}"
        )

    async def printed(self, text: str) -> None:
        """Wait until this is on stdout: what comes there and what is logged have no order."""
        await until(lambda: text in self.stdout)

    @property
    def ended(self) -> bool:
        return (
            self.process is not None
            and self.process.returncode is not None
            and all(r.done() for r in self._readers)
        )

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
        return [line for line in self.stderr.splitlines() if f"[{name}]" in line]

    def assert_clean(self) -> None:
        """Nothing was printed that should not be."""
        assert not STRAY.search(self.stderr), self.stderr
