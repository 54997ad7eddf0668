"""run_bots.py as the playground runs it.

It has the person's own settings with made-up tokens, and starts again after each save.
"""

from __future__ import annotations

import asyncio
import codecs
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
    r"DISCORD_BOT_(?:TOKEN|NAME|SCRIPT|PREFIX|EXTENSIONS|INTENTS)([1-9][0-9]*)(?:_FILE)?"
)
# Lines of the log: that every bot has come up or failed; and those that only say how it comes up.
SETTLED = re.compile(r"\[INFO    \] run_bots: \d+ of \d+ bots are ready")
COMING_UP = re.compile(r"\[INFO    \] (?:run_bots|discord[.\w]*): ")
# Seconds: how often the files are looked at, and how long they have to lie still.
LOOK_INTERVAL = 0.5
STOP_TIMEOUT = 12  # seconds; run_bots.py takes 10 at the most
MEND_IT = "Fix what the log says, save, and the bots start again."
MEND_IT_AFTER_THE_END = "Fix what it says above, save, and it starts again."


def listed(names: list[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    *others, last = names
    return f"{', '.join(others)} and {last}"


def listed_with_verb(names: list[str], singular: str, plural: str) -> str:
    verb = singular if len(names) == 1 else plural
    return f"{listed(names)} {verb}"


def python_files(folder: Path) -> Iterator[Path]:
    """The Python files in a folder and below, but for hidden folders and virtual environments."""
    for path, folders, files in os.walk(folder):
        for name in list(folders):
            if not is_bots_folder(Path(path, name)):
                folders.remove(name)  # os.walk then leaves it out
        for name in files:
            if name.endswith(".py"):
                yield Path(path, name)


def is_bots_folder(folder: Path) -> bool:
    is_hidden = folder.name.startswith(".")
    is_virtual_environment = (folder / "pyvenv.cfg").exists()
    return not is_hidden and not is_virtual_environment


# --- the person's settings


def read_env_file(path: Path) -> dict[str, str]:
    """The settings in an env file. What is wrong in it, run_bots.py says itself."""
    data = path.read_bytes()
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if is_utf16 else "utf-8-sig"
    text = data.decode(encoding, errors="replace")
    settings = {}
    for line in parse_stream(io.StringIO(text)):
        if line.key:
            settings[line.key] = line.value or ""
    return settings


def numbers_of_bots(settings: dict[str, str]) -> list[int]:
    """The numbers of the bots that the settings name.

    An empty token means no such bot. In a fresh copy of .env.example they are all empty.
    """
    named, with_value = set(), set()
    for name, text in settings.items():
        numbered = NUMBERED.fullmatch(name)
        if numbered:
            number = int(numbered[1])
            named.add(number)
            if text.strip():
                with_value.add(number)
    return sorted(with_value or named)


# A text command in an extension, or in a script, which may have its own prefix.
TEXT_COMMAND = re.compile(
    r"@\w+\.command\(.*\)\s+(?:@.*\s+)*async def (\w+)\(\s*(?:self,\s*)?\w+(?:: [\w.]+)?\)"
)
OWN_PREFIX = re.compile(r"command_prefix=[\"']([^\"']+)[\"']")


def text_command_of(number: int, settings: dict[str, str]) -> str:
    """A command without options that this bot answers, with its prefix; "" if none is found."""

    def setting(name: str) -> str:
        of_all = settings.get(f"DISCORD_BOT_{name}", "")
        return settings.get(f"DISCORD_BOT_{name}{number}") or of_all

    files = [setting("SCRIPT")]
    for name in setting("EXTENSIONS").split(","):
        module = name.strip().replace(".", "/")
        files.append(f"{module}.py")
    for file in files:
        for path in (Path(file), ROOT / file):
            with contextlib.suppress(OSError, UnicodeError):
                code = path.read_text(encoding="utf-8")
                own_prefix = OWN_PREFIX.search(code)
                prefix = own_prefix[1] if own_prefix else setting("PREFIX") or "!"
                command = TEXT_COMMAND.search(code)
                if command:
                    return prefix + command[1]
    return ""


def made_up_settings() -> dict[str, str]:
    names = enumerate(MADE_UP_NAMES, 1)
    return {f"DISCORD_BOT_NAME{number}": name for number, name in names}


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
        self.text_commands: list[str] = []
        self._discord = discord
        self._env_file = env_file
        self._tell = tell

    async def run(self) -> None:
        """Run the bots, and start them again after each change, until this is cancelled."""
        while True:
            before = self._stamps()
            process = await self._start()
            reading = asyncio.create_task(self._read(process))
            saved = asyncio.create_task(self._wait_for_save(before))
            asked = asyncio.create_task(self.restart_asked.wait())
            reasons = [saved, asked]
            try:
                await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
            finally:
                saved.cancel()
                asked.cancel()
                self.settled.clear()
                self._stopping = True
                await self._stop(process, reading)
            self.restart_asked.clear()

    def _find_env_file(self) -> Path | None:
        """The file that run_bots.py will read, if there is one."""
        candidates = [Path(".env"), ROOT / ".env"]
        if self._env_file:
            candidates = [Path(self._env_file)]
        for path in candidates:
            if path.is_file():
                return path
        return None

    def _environment(self) -> dict[str, str]:
        """Make an account for each bot that the settings name.

        Returns the environment that has their tokens. It wins over the env file, so the tokens
        that stand there are never used.
        """
        env_file = self._find_env_file()
        settings = {} if env_file is None else read_env_file(env_file)
        environment = dict(os.environ)
        settings |= environment
        if not numbers_of_bots(settings):
            settings |= made_up_settings()
            environment |= made_up_settings()
        accounts, by_token, text_commands = {}, {}, []
        for number in numbers_of_bots(settings):
            account = self._account(number, settings)
            accounts[number] = account
            by_token[account.token] = account
            environment[f"DISCORD_BOT_TOKEN{number}"] = account.token
            environment[f"DISCORD_BOT_TOKEN{number}_FILE"] = ""
            text_command = text_command_of(number, settings)
            text_commands.append(text_command)
        self.accounts = accounts
        self.text_commands = text_commands
        self._discord.accounts = by_token
        return environment

    def _account(self, number: int, settings: dict[str, str]) -> Account:
        """The bot of this number: the one that it was so far, under the name that it has now."""
        name = settings.get(f"DISCORD_BOT_NAME{number}", "").strip()
        if not name:
            name = f"bot{number}"
        account = self.accounts.get(number)
        if account is None:
            account = self._discord.add_bot(name, privileged=set(PRIVILEGED_FLAGS))
        account.user.name = name
        return account

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "tests.local_discord.redirect", *signals.OPTIONS]
        command += ["--sync-commands", self._discord.url]
        # The tokens of a saved env file must not be read by the bots that run: no watching, they
        # start again.
        command += [str(ROOT / "run_bots.py"), "--no-watch"]
        if self._env_file:
            command += ["--env-file", self._env_file]
        return command

    async def _start(self) -> asyncio.subprocess.Process:
        environment = self._environment()
        environment |= {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        paths = [str(ROOT), os.environ.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._stopping = False
        self.ended.clear()
        command = self._command()
        # Ctrl-C in the terminal must not reach it: it gets our signal too, and would end at once at
        # the second one.
        new_group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # on Windows
        return await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=signals.STDIN,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=2**24,  # a line may be long
            start_new_session=True,
            creationflags=new_group,
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
            self._tell(f"run_bots.py has ended with code {code}. {MEND_IT_AFTER_THE_END}")
            self.settled.set()
            self.ended.set()

    def _report(self) -> None:
        """Say which bots are ready, and which are not."""
        ready: list[str] = []
        missing: list[str] = []
        for account in self.accounts.values():
            names = ready if account.ready else missing
            names.append(account.user.name)
        if ready:
            are = listed_with_verb(ready, "is", "are")
            self._tell(f"{are} ready.")
        if missing:
            are = listed_with_verb(missing, "is", "are")
            self._tell(f"{are} not ready. {MEND_IT}")

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
        files = {*python_files(Path.cwd()), *python_files(ROOT)}
        env_file = self._find_env_file()
        if env_file is not None:
            files.add(env_file)
        stamps = {}
        for file in files:
            with contextlib.suppress(OSError):  # it has just been removed
                stamps[file] = file.stat().st_mtime_ns
        return stamps

    async def _wait_for_save(self, before: dict[Path, int]) -> None:
        """Wait until files have been saved, and lie still since."""
        last, now = before, before
        while now == before or now != last:
            await asyncio.sleep(LOOK_INTERVAL)
            last, now = now, await asyncio.to_thread(self._stamps)
        changed = before.items() ^ now.items()
        saved = {path.name for path, _ in changed}
        were = listed_with_verb(sorted(saved), "was", "were")
        self._tell(f"{were} changed. The bots start again. (Elsewhere only the changed one does.)")
