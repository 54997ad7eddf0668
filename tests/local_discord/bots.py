"""run_bots.py as the playground runs it: the person's own settings, made-up tokens, a new start after each save."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from dotenv.parser import parse_stream

from . import Account, LocalDiscord, signals
from .world import PRIVILEGED_FLAGS

ROOT = Path(__file__).parents[2]
MADE_UP_NAMES = ("anna", "ben", "carla")  # of the bots where no settings name one
NUMBERED = re.compile(
    r"DISCORD_BOT_(?:TOKEN|NAME|PREFIX|EXTENSIONS|INTENTS)([1-9][0-9]*)(?:_FILE)?"
)
# Lines of the log: that every bot has come up or failed; and those that only say how it comes up.
SETTLED = re.compile(r"\[INFO    \] run_bots: \d+ of \d+ bots are ready")
COMING_UP = re.compile(r"\[INFO    \] (?:run_bots|discord[.\w]*): ")
LOOK_INTERVAL = (
    0.5  # seconds: how often the files are looked at, and how long they have to lie still
)
STOP_TIMEOUT = 12  # seconds; run_bots.py takes 10 at the most


def listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def python_files(folder: Path) -> Iterator[Path]:
    """The Python files in a folder and below, but for hidden folders and virtual environments."""
    for path, folders, files in os.walk(folder):
        folders[:] = [
            it
            for it in folders
            if not it.startswith(".") and not Path(path, it, "pyvenv.cfg").exists()
        ]
        yield from (Path(path, file) for file in files if file.endswith(".py"))


class Bots:
    """The process of run_bots.py. `tell` gets each line that a person should read."""

    def __init__(
        self, discord: LocalDiscord, env_file: str | None, tell: Callable[[str], None]
    ) -> None:
        self.settled = asyncio.Event()  # every bot is ready, or has ended
        self.restart_asked = asyncio.Event()
        self.ended = asyncio.Event()  # the process has, by itself
        self._stopping = False
        self.accounts: dict[int, Account] = {}
        self._discord = discord
        self._env_file = env_file
        self._tell = tell

    async def run(self) -> None:
        """Run the bots, and start them again after each change, until this is cancelled."""
        while True:
            before = self._stamps()
            process = await self._start()
            reading = asyncio.create_task(self._read(process))
            waits = [
                asyncio.create_task(wait)
                for wait in (self._wait_for_save(before), self.restart_asked.wait())
            ]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waits:
                    task.cancel()
                self.settled.clear()
                self._stopping = True
                await self._stop(process, reading)
            self.restart_asked.clear()

    def _find_env_file(self) -> Path | None:
        """The file that run_bots.py will read, if there is one."""
        candidates = [Path(self._env_file)] if self._env_file else [Path(".env"), ROOT / ".env"]
        return next((path for path in candidates if path.is_file()), None)

    def _environment(self) -> dict[str, str]:
        """Make an account for each bot that the settings name. Returns the environment that has their tokens.

        The environment wins over the env file, so the tokens that stand there are never used.
        """
        values = dict(os.environ)
        env_file = self._find_env_file()
        if env_file is not None:
            data = env_file.read_bytes()
            text = data.decode(
                "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig",
                errors="replace",
            )
            # What is wrong in the file, run_bots.py says itself.
            found = {it.key: it.value or "" for it in parse_stream(io.StringIO(text)) if it.key}
            values = found | values
        named = {int(match[1]): False for name in values if (match := NUMBERED.fullmatch(name))}
        for name, text in values.items():
            if text.strip() and (match := NUMBERED.fullmatch(name)):
                named[int(match[1])] = True
        # An empty token means no such bot. In a fresh copy of .env.example they are all empty.
        numbers = [number for number, has_value in named.items() if has_value] or list(named)
        environment = dict(os.environ)
        if not numbers:
            numbers = list(range(1, len(MADE_UP_NAMES) + 1))
            names = {
                f"DISCORD_BOT_NAME{number}": name for number, name in enumerate(MADE_UP_NAMES, 1)
            }
            values |= names
            environment |= names
        accounts = {}
        for number in sorted(numbers):
            name = values.get(f"DISCORD_BOT_NAME{number}", "").strip() or f"bot{number}"
            account = self.accounts.get(number) or self._discord.add_bot(
                name, privileged=set(PRIVILEGED_FLAGS)
            )
            account.user.name = name
            accounts[number] = account
            environment |= {
                f"DISCORD_BOT_TOKEN{number}": account.token,
                f"DISCORD_BOT_TOKEN{number}_FILE": "",
            }
        self.accounts = accounts
        self._discord.accounts = {account.token: account for account in accounts.values()}
        return environment

    async def _start(self) -> asyncio.subprocess.Process:
        environment = self._environment()
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
        )
        environment |= {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        redirect = [
            "-m",
            "tests.local_discord.redirect",
            *signals.OPTIONS,
            "--sync-commands",
            self._discord.url,
        ]
        # The tokens of a saved env file must not be read by the bots that run: no watching, they start again.
        script = [str(ROOT / "run_bots.py"), "--no-watch"]
        self._stopping = False
        self.ended.clear()
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *redirect,
            *script,
            *(["--env-file", self._env_file] if self._env_file else []),
            env=environment,
            stdin=signals.STDIN,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=2**24,  # a line may be long
            # Ctrl-C in the terminal must not reach it: it gets our signal too, and would end at once at the second one.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        )

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Show the log, and find out in it when the bots have settled."""
        assert process.stdout is not None
        async for data in process.stdout:
            line = data.decode(errors="replace").rstrip()
            if SETTLED.search(line):  # once more when those that had to try again have settled
                self._report()
                self.settled.set()
            elif self.settled.is_set() or not COMING_UP.search(line):
                self._tell(line)
        code = await process.wait()
        if not self._stopping:
            self._tell(
                f"run_bots.py has ended with code {code}. Mend what it says above, save, and it starts again."
            )
            self.settled.set()
            self.ended.set()

    def _report(self) -> None:
        """Say which bots are ready, and with which slash commands."""
        ready = [account for account in self.accounts.values() if account.ready]
        if ready:
            names = [account.user.name for account in ready]
            self._tell(f"{listed(names)} {'is' if len(names) == 1 else 'are'} ready.")
        if missing := [
            account.user.name for account in self.accounts.values() if not account.ready
        ]:
            are = "is" if len(missing) == 1 else "are"
            self._tell(
                f"{listed(missing)} {are} not ready. Mend what the log says, save, and the bots start again."
            )

    async def _stop(self, process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
        signals.send(process)
        await asyncio.wait({reading}, timeout=STOP_TIMEOUT)
        if not reading.done():
            reading.cancel()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _stamps(self) -> dict[Path, int]:
        """When each file that the bots are made of was saved."""
        stamps = {}
        env_file = self._find_env_file()
        files = {file for folder in {Path.cwd(), ROOT} for file in python_files(folder)}
        for file in files | ({env_file} if env_file else set()):
            with contextlib.suppress(OSError):  # it has just been removed
                stamps[file] = file.stat().st_mtime_ns
        return stamps

    async def _wait_for_save(self, before: dict[Path, int]) -> None:
        """Wait until files have been saved, and lie still since."""
        last, now = before, before
        while now == before or now != last:
            await asyncio.sleep(LOOK_INTERVAL)
            last, now = now, await asyncio.to_thread(self._stamps)
        saved = sorted({path.name for path in before | now if before.get(path) != now.get(path)})
        self._tell(
            f"{listed(saved)} {'was' if len(saved) == 1 else 'were'} changed. The bots start again."
        )
