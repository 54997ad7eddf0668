#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["discord.py>=2.7.1,<3", "python-dotenv>=1.2.3,<2"]
# ///
"""Run several Discord bots at once: one program, one env file.

Put the bots' tokens into a file named .env, a line for each bot:

    DISCORD_BOT_TOKEN1=the token of your first bot
    DISCORD_BOT_TOKEN2=the token of your second bot

Then start run_bots.py. It logs every bot in, keeps it connected, and stops them
all on Ctrl-C. What a bot does is in its script or its extensions, which are
ordinary discord.py ones. Save the env file or their code while the bots run:
what you changed starts again, and all the others stay connected. All settings
are explained in .env.example.
"""

import os
import signal
import sys

EXIT_OK = 0  # asked to stop, or every bot closed itself
EXIT_BUG = 1  # the program itself failed; also the second signal
EXIT_NO_RESULT = 130  # Ctrl-C while --check or --sync-commands work
EXIT_NEEDS_PERSON = 78  # EX_CONFIG of sysexits.h: a service manager must not start it again
# Not every system has all of them. These stop the program: Ctrl-C; kill, systemd, Docker and
# Kubernetes; Ctrl-Break.
STOP_SIGNALS = [
    number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGBREAK")
]
OTHER_SIGNALS = [number for number in signal.Signals if number.name in ("SIGHUP", "SIGUSR1")]
SIGNALS = [*STOP_SIGNALS, *OTHER_SIGNALS]

PYTHON = sys.version.split()[0]
if sys.version_info < (3, 11):
    print("run_bots.py needs Python 3.11 or newer. This is Python", PYTHON, file=sys.stderr)
    sys.exit(EXIT_NEEDS_PERSON)
if __name__ == "__main__":  # the imports take about a second, and there is nothing to close yet
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: os._exit(EXIT_OK))
    for number in OTHER_SIGNALS:
        signal.signal(number, signal.SIG_IGN)

import argparse
import asyncio
import atexit
import base64
import contextvars
import copy
import dataclasses
import difflib
import enum
import errno
import functools
import gc
import importlib
import io
import json
import logging
import queue
import random
import re
import runpy
import socket
import threading
import time
import traceback
import urllib.request
import warnings
import weakref
from asyncio import sslproto
from collections import ChainMap, defaultdict, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

# A relative path is looked for in the folder where the program was started, then beside
# run_bots.py. That folder is noted here, because a bot's code may leave it.
START_FOLDER = Path.cwd()
FOLDERS = tuple(dict.fromkeys((START_FOLDER, Path(__file__).resolve().parent)))


def file_of(module: object) -> str:
    """The path of a module's file; "" where it has none, such as a built-in module."""
    return getattr(module, "__file__", None) or ""


def explain_import(error: Exception) -> str:
    """Why a package cannot be imported, and what to do."""
    for name, module in sys.modules.items():
        file = Path(file_of(module))
        if file.parent in FOLDERS and file.name != "run_bots.py":
            return f"{file} has the name of a module that is needed: {name}. Rename your file."
    return (
        f"{error}. Start it with the Python in .venv, or run: python -m pip install -r"
        " requirements.txt (before that, if py-cord, nextcord or discord is there: python -m pip"
        " uninstall -y py-cord nextcord discord discord.py)"
    )


try:
    import aiohttp  # discord.py brings it
    import discord
    import discord.app_commands
    import discord.gateway
    import discord.http
    from discord.ext import commands
    from dotenv.parser import parse_stream  # not documented, but only these know line numbers
    from dotenv.variables import parse_variables
except (ImportError, AttributeError) as error:
    print(explain_import(error), file=sys.stderr)
    sys.exit(EXIT_NEEDS_PERSON)

__version__ = "1.0.0"
VERSIONS = f"run_bots {__version__}, discord.py {discord.__version__}, Python {PYTHON}"
STARTED = time.time()
PORTAL = "https://discord.com/developers/applications"
# Numbers of things:
WARNINGS_SHOWN = 20  # about the settings
VISITS_AT_ONCE = 20  # bots that --check and --sync-commands look at side by side
OUTPUT_WAITING = 10_000  # pieces of output that are kept while nobody reads
# A bot may send IDENTIFY_BURST IDENTIFYs at once, then one every IDENTIFY_EVERY. It connects only
# if Discord has IDENTIFY_RESERVE left for it: Discord counts those of other processes too.
IDENTIFY_BURST = 40
IDENTIFY_RESERVE = 500
# All that follow are seconds.
IDENTIFY_EVERY = 360
IDENTIFY_GAP = 5  # between two IDENTIFYs of shards with the same remainder by max_concurrency
# Limits. An attempt that takes longer is made again:
LOGIN_TIMEOUT = 30
SETUP_TIMEOUT = 60
CONNECT_TIMEOUT = 30
HELLO_TIMEOUT = 10  # from the connection to HELLO
READY_TIMEOUT = 60  # from the connection to READY or RESUMED
VISIT_TIMEOUT = SETUP_TIMEOUT + LOGIN_TIMEOUT + SETUP_TIMEOUT  # its client, log-in, setup
HAND_BACK_AFTER = 45  # discord.py gives up its wait for a connection after 60
# Waits between two attempts. After a lost connection the wait is random, up to 1, 2, 4, 8 …
# LOSS_DELAY. One loss is forgotten for each FORGIVE_AFTER without another one.
NETWORK_DELAY = 25  # the longest one while Discord cannot be reached
LOSS_DELAY = 900
FORGIVE_AFTER = 300
BLOCK_DELAY = 60  # where a block of the IP address does not say how long it lasts
BLOCK_SPREAD = 5  # the bots come back one by one in this time
# When each step of a bot's end is cut off, counted from the moment at which its end began:
CLEANUP_UNTIL = 5  # its own clean-up
TASKS_UNTIL = 7.5  # its tasks
CLOSE_UNTIL = 8  # its client
MAIN_UNTIL = 8.5  # the lines of its script behind bot.run
# Other limits:
GOODBYE_TIMEOUT = 1.5  # for Discord's answer to a close
STOP_TIMEOUT = 9  # for the whole program, with the threads of the bots' code
FLUSH_TIMEOUT = 0.5
KEEP_ALIVE = 60  # how long a connection for requests stays open after its last one
SETTLE_TIMEOUT = 30  # the log says then how many bots are ready, even if some still try

# Not from logging.getLogger(): a bot's code may silence every logger that is found there.
log = logging.Logger("run_bots")
log.parent = logging.getLogger()
Report = dict[str, Any]  # how a bot or the program is; times are in seconds since 1970


# --- Whose code is running ----------------------------------------------------------------------
# A context variable names the owner of the running code. Its tasks, callbacks and threads inherit
# it.


class Owner:
    """Whoever code runs for: a bot, with one client after another, or the program itself."""

    name = ""  # for the log; the program has none

    def __init__(self) -> None:
        self.tasks: set[Task] = set()
        self.executor: Any = ThreadPoolExecutor()
        self.modules: dict[str, Path] = {}  # names that no other bot may use, and their files
        self.main_module: Any = None  # the script's `__main__`
        owners.append(self)


owners: list[Owner] = []
PROGRAM = Owner()
code_owner = ContextVar("code_owner", default=PROGRAM)
# The client's life that began the code, or None. A weak reference: a timer of the shared pool keeps
# the bot's context, and would keep an old client in memory.
code_life: ContextVar["weakref.ref[Life] | None"] = ContextVar("code_life", default=None)
main_thread = threading.get_ident()


def life_of_code() -> "Life | None":
    """The life of the client whose code is running; None also where it is long over."""
    reference = code_life.get()
    return reference() if reference else None


# --- The files that are followed ----------------------------------------------------------------
# Where settings and code are, and whether somebody has saved them. It changes no file, and keeps
# none open.


STDIN = Path("/dev/stdin")  # the one pipe that is read, as an env file


class Files(dict[Path, object]):
    """Every file that settings and code come from, with its stamp when it was read."""

    def follow(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if path not in self:
                self[path] = stamp_of(path)

    def changed(self) -> dict[Path, object]:
        """The files whose stamp is different now, with the new one."""
        now = {path: stamp_of(path) for path in self}
        return dict(now.items() - self.items())


files = Files()


def stamp_of(path: Path) -> object:
    """A value that changes when a file is saved, or when a folder gets or loses a file.

    The file is not opened: on Windows an editor could not replace it then.
    """
    with suppress(OSError):
        if path.is_file():
            status = path.stat()
            return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
        return tuple(sorted(path.glob("*.py")))
    return None


def find(name: str) -> Path:
    """The absolute path of a file or folder, whether it is there or not."""
    for folder in FOLDERS:
        path = folder / name.strip()
        if os.path.exists(path):  # Path.exists raises where a folder may not be looked into
            return path
    return START_FOLDER / name.strip()


def shown(path: Path) -> str:
    """A path as the log shows it: without the folder of the start, if it is in there."""
    return str(path).removeprefix(f"{START_FOLDER}{os.sep}")


# --- Settings --------------------------------------------------------------------------------
# From the env file and the process environment to each bot's settings, or a list of problems. It
# notes the files that it reads, and odd tokens, which no log shows.


# A token's three parts, of which the first is the bot's id in base64. Discord does not promise it.
TOKEN_FORM = re.compile(r"(?a)[MNO][\w-]{20,}\.[\w-]{5,8}\.[\w-]{20,}")


class SettingsError(ValueError):
    """The settings are not valid. Each argument is one problem, as a sentence for a person."""


@dataclasses.dataclass
class Variable:
    """A variable that is set, and where."""

    name: str
    text: str
    place: str

    def __str__(self) -> str:
        return f"{self.name} ({self.place})"


Variables = dict[str, Variable]


@dataclasses.dataclass
class BotSettings:
    """What one bot is started with. A bot whose settings equal the new ones is left alone."""

    number: int = dataclasses.field(compare=False)
    sources: Variables = dataclasses.field(compare=False)  # where each field comes from
    name: str = dataclasses.field(compare=False)
    token: str
    prefix: str
    intents: discord.Intents
    script: Path | None = None
    extensions: tuple[str, ...] = ()

    @property
    def code_source(self) -> Variable:
        """The variable that names the bot's code, or else its token."""
        sources = self.sources
        return sources.get("script") or sources.get("extensions") or sources["token"]

    def code_files(self) -> list[Path]:
        """Where the bot's code is, or has to be."""
        paths = [self.script] if self.script else []
        for name in self.extensions:
            base = name.replace(".", "/")
            paths += [find(f"{base}.py"), *find(base).glob("*.py")]
        return paths

    def is_meant_by(self, part: str) -> bool:
        """Whether this part of `--only` is the bot's name or number, or a range around it."""
        first, dash, last = part.partition("-")
        with suppress(ValueError):
            return int(first) <= self.number <= int(last if dash else first)
        return part == self.name


def bot_id_of(token: str) -> str:
    """The bot's id, from the first part of its token. Any other text stays as it is."""
    encoded = token.partition(".")[0]
    with suppress(ValueError):
        return str(int(base64.b64decode(encoded + "==")))
    return token


def read_text(path: Path, called: str) -> str:
    """The text of a file in UTF-8, or in PowerShell's UTF-16. Raises `SettingsError`."""
    files.follow([path])
    try:
        if path.is_fifo() and path != STDIN:  # a read might never end
            raise OSError(None, "It is a pipe")
        data = path.read_bytes()
        has_mark = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        return data.decode("utf-16" if has_mark else "utf-8-sig")
    except OSError as error:
        problem = f"cannot be read: {error.strerror}. Check its path and permissions."
    except ValueError:
        problem = "is not a text file. Save it as plain text, in UTF-8."
    raise SettingsError(f"{called} {problem}")


def check_text(text: str) -> None:
    """Refuse curly quotes, which editors make, and line breaks, which a missing quote makes."""
    if re.search("^[\u2018-\u201f\u00ab]|[\u2018-\u201f\u00bb]$", text):
        raise SettingsError("There are curly quotes. Use straight ones, or none.")
    if re.search(r"[\x00-\x1f\x7f]\s*\S", text):
        raise SettingsError(
            "There is a line break or a control character. Is a quote unclosed? In double quotes"
            r" \n is a line break: write / for \ in a path."
        )


def list_of(text: str) -> list[str]:
    """The parts of a text between its commas, without the spaces around them."""
    return re.findall(r"[^,\s](?:[^,]*[^,\s])?", text)


# A text is a placeholder if it has one of these parts, or if all its words are among the second
# ones. Every x is left out before: people write xxxx.
PLACEHOLDER_PART = re.compile("(?i)your|paste|insert|placeholder|example")
PLACEHOLDER_WORD = re.compile(
    "a|the|my|bot|discord|first|second|third|of|goes|put|enter|here|token|secret|key|todo|none"
    "|change|replace|me|changeme"
)


def is_placeholder(token: str) -> bool:
    words = re.findall("[a-wyz]+", token.lower())
    return bool(PLACEHOLDER_PART.search(token)) or all(map(PLACEHOLDER_WORD.fullmatch, words))


def parse_token(text: str) -> str:
    token = text.strip().removeprefix("Bot ").strip("<> ")
    if TOKEN_FORM.fullmatch(token):
        return token
    if token and is_placeholder(token):
        raise SettingsError("This is a placeholder. Put the bot's own token there.")
    if not re.fullmatch(r"(?a)[\w.+/=-]+", token):
        raise SettingsError(
            "It is empty, or has a space, a quote or another character that no token has. Copy it"
            " again."
        )
    if len(token) < 20:
        raise SettingsError("It is too short for a token. Copy it again.")
    odd_tokens.add(token)
    return token


def parse_name(text: str) -> str:
    return hide_tokens(text.strip())  # the status page and systemd show names too


def parse_token_file(text: str) -> str:
    return parse_token(read_text(find(text), "This file"))


EXTENSION_FORM = re.compile(r"(?!.*\.py$)[^\W\d]\w*(\.\w+)*(\.\*)?")
TAKEN_NAMES = {*sys.stdlib_module_names, "discord", "dotenv", "aiohttp"}


def parse_extensions(text: str) -> tuple[str, ...]:
    modules: list[str] = []
    for name in list_of(text):
        if not EXTENSION_FORM.fullmatch(name):
            raise SettingsError(
                "Write greeter for greeter.py and cogs.music for cogs/music.py, with commas."
            )
        if top_of(name) in TAKEN_NAMES:
            raise SettingsError(
                f"{name} is the name of a Python module that is needed. Rename your file."
            )
        if name.endswith(".*"):
            modules += extensions_in(name.removesuffix(".*"))
        else:
            modules.append(name)
    return tuple(dict.fromkeys(modules))


def extensions_in(package: str) -> list[str]:
    """The names of all extensions in a folder, which are the modules with a function `setup`."""
    folder = find(package.replace(".", "/"))
    files.follow([folder])
    names = []
    for path in sorted([*folder.glob("*.py"), *folder.glob("*/__init__.py")]):
        with suppress(OSError, ValueError):
            if re.search(r"(?m)^(async )?def setup\b", path.read_text("utf-8")):
                module = path.parent if path.stem == "__init__" else path
                names.append(f"{package}.{module.stem}")
    if not names:
        raise SettingsError(f"There is no extension in {shown(folder)}, or no such folder.")
    return names


INTENT_GROUPS = ("default", "all", "none")


def parse_intents(text: str) -> discord.Intents:
    intents = discord.Intents.none()
    if text.lstrip().startswith("-"):
        text = f"default,message_content,{text}"
    for name in list_of(text.lower()):
        flag = name.removeprefix("-")
        if flag in discord.Intents.VALID_FLAGS:
            setattr(intents, flag, flag == name)
        elif name in INTENT_GROUPS:
            intents |= getattr(discord.Intents, name)()
        else:
            known = [*INTENT_GROUPS, *discord.Intents.VALID_FLAGS]
            nearest = difflib.get_close_matches(flag, known, 1, cutoff=0)[0]
            raise SettingsError(f"There is no intent {name}. Did you mean {nearest}?")
    return intents


class Setting(NamedTuple):
    """How a variable is read, and what --help says of it."""

    field: str  # in `BotSettings`
    parse: Callable[[str], Any]
    help: str
    default: str = ""  # if it is empty, the field has its own
    is_for_all: bool = False  # may be set without a number, for every bot without a script


SETTINGS = {
    "DISCORD_BOT_TOKEN<N>": Setting("token", parse_token, "bot N's token; empty: no such bot"),
    "DISCORD_BOT_TOKEN<N>_FILE": Setting("token", parse_token_file, "a file with the token"),
    "DISCORD_BOT_NAME<N>": Setting("name", parse_name, "what the log calls the bot", "bot<N>"),
    "DISCORD_BOT_SCRIPT<N>": Setting("script", find, "a bot as it is: the file for python"),
    "DISCORD_BOT_PREFIX<N>": Setting("prefix", str, "what its text commands start with", "!", True),
    "DISCORD_BOT_EXTENSIONS<N>": Setting(
        "extensions", parse_extensions, "modules of what it does", is_for_all=True
    ),
    "DISCORD_BOT_INTENTS<N>": Setting(
        "intents", parse_intents, "what it hears", "default,message_content", True
    ),
}
# By a field, the one that may not be set beside it: two rows set the token. The row of the second
# one has to stand first in SETTINGS.
RIVALS = {"token": "token", "extensions": "script"}
UNIQUE = {"token": "bot", "name": "name"}  # fields that no two bots may share, and words


class Reading:
    """One look at all settings. Raises `SettingsError` with every problem, not only the first."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.variables: Variables = {}  # by name
        self.bots: list[BotSettings] = []  # by number
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self._claims: Variables = {}  # who has each bot id and name
        if os.path.exists(path):
            self._read_file(path)
        for name, text in environment.items():
            # `docker --env-file` leaves the quotes there.
            bare = re.sub(r"""^(["'])(.*)\1$""", r"\2", text)
            self.variables[name] = Variable(name, bare, "the environment")
        self._read_bots()
        if self.problems:
            raise SettingsError(*dict.fromkeys(self.problems))
        if not self.bots:
            raise SettingsError(*self.warnings, *how_to_begin(path))

    def _read_file(self, path: Path) -> None:
        file = shown(path)
        stream = io.StringIO(read_text(path, file), newline=None)
        for binding in parse_stream(stream):
            text, line = binding.original  # blank lines above the variable are counted to it
            line += text.count("\n") - text.lstrip().count("\n")
            place = f"{file}, line {line}"
            if binding.error or (binding.key and binding.value is None):
                self.problems.append(
                    f"{place}: This is not NAME=value. Is a quote or the = missing?"
                )
            if not binding.key or not binding.value:
                continue  # a comment, or an empty value, which does not count as set
            variable = Variable(binding.key, binding.value, place)
            other = self.variables.setdefault(variable.name, variable)
            if other is not variable:
                self.problems.append(f"{variable}: It is set already: {other}. Delete one of them.")
        if os.name == "posix" and path.stat().st_mode & 0o004:
            self.warnings.append(
                f"{file}: Everybody on this machine can read your tokens. Run: chmod 600 {file}"
            )

    def _given(self) -> dict[str, Variables]:
        """What is set for each bot, by its number, which is "" for all bots."""
        given: dict[str, Variables] = defaultdict(dict)
        for variable in self.variables.values():
            if not variable.text.strip():
                continue
            # At the first number in the name, or at its end: DISCORD_BOT_, 1, _FILE.
            head, number, tail = re.split("([1-9][0-9]*|$)", variable.name, maxsplit=1)
            name = f"{head}<N>{tail}"
            setting = SETTINGS.get(name)
            if setting and (number or setting.is_for_all):
                given[number][name] = variable
            else:
                self._warn_of_unread(variable, number or "1")
        return given

    def _warn_of_unread(self, variable: Variable, number: str) -> None:
        """Say the right names, if it may be meant for this program."""
        right = ", ".join(SETTINGS).replace("<N>", number)
        if TOKEN_FORM.search(variable.text):
            problem = "This looks like a token, and nothing reads it"
        elif variable.name.upper().startswith("DISCORD_BOT_") and variable.text != "unused":
            problem = "Nothing reads this"
        else:
            return
        self.warnings.append(f"{variable}: {problem}. The right names: {right}.")

    def _read_bots(self) -> None:
        given = self._given()
        for_all = given.pop("", {})
        for number in sorted(given, key=int):
            own = given[number]
            if "DISCORD_BOT_TOKEN<N>" in own or "DISCORD_BOT_TOKEN<N>_FILE" in own:
                self._read_bot(number, own, for_all)
            else:
                variable = next(iter(own.values()))
                self.warnings.append(f"{variable}: There is no DISCORD_BOT_TOKEN{number}.")

    def _read_bot(self, number: str, own: Variables, for_all: Variables) -> None:
        """One bot: its own variables, or those for all bots, or the defaults."""
        script = own.get("DISCORD_BOT_SCRIPT<N>")
        variables = own if script else {**for_all, **own}
        fields: dict[str, Any] = {}
        sources: Variables = {}
        for name, setting in SETTINGS.items():
            default = setting.default.replace("<N>", number)
            unset = Variable(name.replace("<N>", number), default, "default")
            variable = variables.get(name, unset)
            if variable.text:
                try:
                    fields[setting.field] = self._read_field(setting, variable, sources)
                except SettingsError as error:
                    self.problems.append(f"{variable}: {error}")
                sources[setting.field] = variable
        if script:
            # So a refused intent names the script: "the intents (music.py)".
            sources["intents"] = Variable("the intents", "", script.text)
            for name, variable in own.items():
                if SETTINGS[name].is_for_all:
                    self.warnings.append(f"{variable}: It is not used. {script} sets its own.")
        if not self.problems:  # otherwise a field may be missing, and nobody gets the bots
            self.bots.append(BotSettings(int(number), sources, **fields))

    def _read_field(self, setting: Setting, variable: Variable, sources: Variables) -> Any:
        """The value of one variable of a bot, whose fields before it have these sources."""
        rival = sources.get(RIVALS.get(setting.field, ""))
        if rival:
            raise SettingsError(f"{rival} is set too. Keep one of them.")
        check_text(variable.text)
        value = setting.parse(variable.text)
        if setting.field in UNIQUE:
            self._claim(setting.field, value, variable)
        return value

    def _claim(self, field: str, value: str, variable: Variable) -> None:
        """Two bots may not share a token or a name. Raises `SettingsError`."""
        claimed = bot_id_of(value) if field == "token" else value
        other = self._claims.setdefault(f"{field} {claimed}", variable)  # the first one stays
        if other is not variable:
            raise SettingsError(
                f"This is the same {UNIQUE[field]} as {other}. Every bot needs its own."
            )


def how_to_begin(path: Path) -> Iterable[str]:
    """What to do where there is no bot, in sentences."""
    problem = f"There is no token in {path}." if path.exists() else f"There is no file {path}."
    yield f"There is no bot to run. {problem}"
    for other in sorted(START_FOLDER.glob("*env*")):
        with suppress(SettingsError):
            text = read_text(other, other.name)
            if re.search(r"(?m)^DISCORD_BOT_TOKEN[1-9]\d*=\S", text):
                yield f"There is a file {other.name}. Is that the one? Rename it to .env"
    yield "Copy .env.example to .env, and write a line for each bot: DISCORD_BOT_TOKEN1=its token"
    yield f"The token is at {PORTAL}: choose your application, then Bot, then Reset Token."


# --- The modules of each bot -------------------------------------------------------------------
# One process has one module of a name. No bot gets the module of another bot, or loses its own.


class SetupFailed(Exception):
    """The bot's own setup has failed. `__cause__` says why, or else the text."""


class CodeError(SetupFailed):
    """A bot's code cannot be run here. The text says why, without a full stop."""


def top_of(name: str) -> str:
    """The first part of a module's name: a of a.b.c."""
    return name.partition(".")[0]


def modules_of(extensions: Iterable[str]) -> dict[str, Path]:
    """The files or folders that these extensions come from, by the first part of their names."""
    own = {}
    for name in map(top_of, extensions):
        for path in (find(name), find(f"{name}.py")):
            if path.exists():
                own[name] = path
    return own


def modules_beside(script: Path) -> dict[str, Path]:
    """The files and folders beside a script that it may import, by the name of the module.

    Only those whose names are in the script, or in one of them: other bots may have theirs there.
    """
    there = {}
    for path in script.parent.glob("*"):
        if python_files(path) and path != script and not (path / "pyvenv.cfg").exists():
            there[path.stem] = path
    own = {}
    unread = [script]
    while unread:
        source = unread.pop().read_text("utf-8", errors="replace")
        for name in there.keys() & set(re.findall(r"\w+", source)):
            own[name] = there.pop(name)
            unread += python_files(own[name])
    return own


def python_files(path: Path) -> list[Path]:
    """The file itself, or those in a folder, and in the folders in it."""
    if path.suffix == ".py":
        return [path]
    return [*path.glob("*.py"), *path.glob("*/*.py")]


def claim_modules(own: dict[str, Path]) -> None:
    """Take these for the running bot. Raises `CodeError`."""
    claimed = ChainMap(*[owner.modules for owner in owners])
    for name, path in own.items():
        other = claimed.get(name) or Path(file_of(sys.modules.get(name)))
        if other.name and path not in (other, *other.parents):
            ways = "Rename one of them, or run this bot in a process of its own, with --only"
            raise CodeError(f"{path} and {other} are modules of one name. {ways}")
    code_owner.get().modules = own


def imported_modules(owner: Owner) -> dict[str, Path]:
    """The modules of a bot that are imported, by name, and their files."""
    found = {}
    for name, module in list(sys.modules.items()):
        if top_of(name) in owner.modules:
            found[name] = Path(file_of(module))
    return found


def release_modules() -> None:
    """Take the modules of the running bot out, except those that another bot has."""
    owner = code_owner.get()
    imported = imported_modules(owner)
    owner.modules = {}
    others = ChainMap(*[other.modules for other in owners])
    for name in imported:
        if top_of(name) not in others:
            del sys.modules[name]


def forget_modules(owner: Owner) -> None:
    """Let a bot's modules be imported anew, except those that are some client's extensions."""
    for name in imported_modules(owner).keys() - loaded_extensions().keys():
        del sys.modules[name]


clients_with_extensions: weakref.WeakSet[Any] = weakref.WeakSet()


def loaded_extensions() -> Mapping[str, Any]:
    """The modules of the extensions that any client has, by name."""
    return ChainMap(*[client.extensions for client in clients_with_extensions])


def saved_extensions(client: object, saved: set[Path]) -> dict[Path, str]:
    """Which of the saved files are of a client's extensions, and of which one."""
    found = {}
    for name, module in getattr(client, "extensions", {}).items():  # a plain client has none
        place = getattr(module, "__path__", [file_of(module)])[0]
        for path in saved:
            if path.is_relative_to(place):
                found[path] = name
    return found


def keep_modules(change: Any) -> Any:
    """Around what loads and unloads an extension: the modules of other bots stay importable."""

    @functools.wraps(change)
    async def change_and_keep(client: Any, name: str, **options: Any) -> None:
        clients_with_extensions.add(client)
        before = dict(sys.modules)
        try:
            await change(client, name, **options)
        except (SystemExit, KeyboardInterrupt) as error:  # discord.py would leave half of it
            sys.modules.pop(name, None)
            raise commands.ExtensionFailed(name, error) from error  # type: ignore[arg-type]
        finally:
            files.follow(Path(file_of(module)) for module in client.extensions.values())
            if before.keys() - sys.modules.keys():  # not at a start, where each load comes here
                put_back_modules(before)

    return change_and_keep


def put_back_modules(before: dict[str, Any]) -> None:
    """Put back those that are gone now, of extensions that some client still has."""
    loaded = loaded_extensions()
    parts = tuple(f"{extension}." for extension in loaded)
    for lost in before.keys() - sys.modules.keys():
        if lost in loaded:  # each client has a module of its own
            sys.modules[lost] = loaded[lost]
        elif lost.startswith(parts):
            sys.modules[lost] = before[lost]


# --- What a bot does ---------------------------------------------------------------------------
# Here clients are made: of extensions, or by a script as it is. Nothing here tries again, or knows
# the gateway.


class Bot(commands.AutoShardedBot):
    """The client of a bot without a script: it loads its extensions, or answers ping with pong."""

    def __init__(self, settings: BotSettings) -> None:
        # Without the message content intent, a bot hears commands that begin with its mention.
        prefix = settings.prefix if settings.intents.message_content else commands.when_mentioned
        options: Any = {}
        if not settings.extensions:  # a help command and a cache of messages only take memory
            options = {"help_command": None, "max_messages": None}
        super().__init__(prefix, intents=settings.intents, **options)
        self.extension_names = settings.extensions

    async def setup_hook(self) -> None:
        for name in self.extension_names:
            await self.load_extension(name)

    async def on_message(self, message: discord.Message) -> None:
        if self.extension_names:
            await self.process_commands(message)
        elif message.content.startswith("ping") and not message.author.bot:
            await message.channel.send("pong", allowed_mentions=discord.AllowedMentions.none())

    async def on_command_error(
        self, context: commands.Context[Any], exception: commands.CommandError
    ) -> None:
        if not isinstance(exception, commands.CommandNotFound):  # another bot may have it
            await super().on_command_error(context, exception)


STARTS_NONE = "It starts no bot. At its end there has to be bot.run(...), or asyncio.run(main())"
STARTED_NONE = (
    "Its asyncio.run(...) ends, and has started no bot. Write one asyncio.run(main()), and"
    " await bot.start(...) at the end of main"
)


def __getattr__(name: str) -> Any:
    """Stand in for the running script, which is `__main__` to its own code: pickle looks there."""
    return getattr(code_owner.get().main_module, name)


async def run_code(life: "Life") -> None:
    """Run a bot's code from its beginning. At client.start() it waits, in `Life.hold`."""
    settings = life.settings
    if settings.script is None:
        claim_modules(modules_of(settings.extensions))
        await Bot(settings).start(settings.token)
        return
    try:
        await begin_script(settings.script)
    except (SystemExit, KeyboardInterrupt) as error:
        text = f"It calls exit({error}){place_of(error)}"
        raise CodeError(text) from None  # a cause would be diagnosed in its place
    if life.client is None:
        raise CodeError(STARTED_NONE)


class Begun:
    """A coroutine that was run up to its first wait. Awaiting this object runs the rest.

    It is its own iterator: first comes the wait that is due already, then the coroutine's others.
    """

    def __init__(self, work: Any, waits_for: object) -> None:
        self._work = work
        self._waits_for = [waits_for]
        self.throw = work.throw
        self.close = work.close

    def __await__(self) -> Any:
        return self

    def __next__(self) -> object:
        return self._waits_for.pop() if self._waits_for else self._work.send(None)


class Script:
    """A script that is being read. It is a file for Python that ends in `bot.run(...)`.

    1. `begin_script` runs the file, in which `asyncio.run` is ours: see `hand_over`.
    2. There `begin` runs what the script would run, up to its first wait, wherever that is.
    3. `HandedOver` then leaves the file, and `run_code` awaits the rest, in a task of the bot.
    4. Sooner or later it comes to `client.start(...)`, which is ours too: see `hold_client`. It
       gives the client to the life, and returns when the life has closed it.
    """

    def __init__(self) -> None:
        self.begun: Begun | None = None
        self.imported: dict[str, Any] = {}  # `sys.modules` as the script left its file
        self.errors: list[BaseException] = []  # the first one is the cause


being_read: Script | None = None


class HandedOver(BaseException):
    """It leaves a script at its `asyncio.run`: what follows there comes after the bot's end."""


def begin_script(path: Path) -> Begun:
    """Run a script as `python music.py` would, up to `asyncio.run`. Returns what it runs there."""
    global being_read
    check_script(path)
    own = modules_beside(path)
    claim_modules(own)
    for module in own.values():  # the script may fail before it imports the file to fix
        files.follow(python_files(module))
    sys.path[:] = dict.fromkeys([str(path.parent), *sys.path])
    del sys.argv[1:]  # runpy sets the first one
    script = being_read = Script()
    try:
        runpy.run_path(str(path), run_name="__main__")
        script.errors.append(CodeError(STARTS_NONE))
    except BaseException as error:
        script.errors.append(error)
    finally:
        being_read = None
        restore_folder()
    if script.begun is None:
        raise script.errors[0]
    code_owner.get().main_module = script.imported["__main__"]
    # HandedOver may have come through an import, whose module Python has then removed.
    for name, module in script.imported.items():
        sys.modules.setdefault(name, module)
    return script.begun


def check_script(script: Path) -> None:
    """Raise `CodeError` or `SyntaxError` where a bot's file cannot be run."""
    if not script.is_file():
        example = "such as bots/music.py, not bots or bots.music"
        raise CodeError(f"There is no file {shown(script)}. Name the script itself, {example}")
    compile(script.read_bytes(), str(script), "exec")


def hand_over(run: Any) -> Any:
    """In the place of whatever runs an event loop: a script gives us what it would run."""

    @functools.wraps(run)
    def run_or_hand_over(*arguments: Any, **options: Any) -> Any:
        script = being_read
        if script is None or threading.get_ident() != main_thread:
            return run(*arguments, **options)
        work = arguments[-1]  # a loop or a `Runner` may stand before it
        if script.begun is None and run.__name__ == "run":
            return begin(work, script)
        if asyncio.iscoroutine(work):
            work.close()  # otherwise Python warns that it was never awaited
        if script.begun is None:
            raise CodeError(f"It uses {run.__name__}. Write asyncio.run(main()) in its place")
        # The script goes on in spite of HandedOver, in its own except or finally.
        if getattr(work, "__qualname__", "").startswith("Client.run."):
            place = place_in(traceback.extract_stack())
            log.error("It runs its bot again%s. Write except Exception, not except.", place)
        raise HandedOver

    return run_or_hand_over


def begin(work: Any, script: Script) -> Any:
    """Run this up to its first wait. Without one it is over: it may only load extensions."""
    global being_read
    being_read = None  # let Python itself refuse an asyncio.run inside of this one
    try:
        script.begun = Begun(work, work.send(None))
        script.imported = dict(sys.modules)
    except StopIteration as end:
        return end.value
    except Exception as error:  # the script may go on in spite of it, or only print it
        script.errors.append(error)
        raise
    finally:
        being_read = script
    raise HandedOver


async def hold_client(client: discord.Client, token: str, **options: Any) -> None:
    """In the place of `Client.start`: the life logs in, with the token of its settings."""
    life = life_of_code()
    if life is None or threading.get_ident() != main_thread:
        raise CodeError("It starts a bot in a thread. Start it in the script itself")
    await life.hold(client)


log_in_client = discord.Client.login


async def log_in_or_refuse(client: discord.Client, token: str) -> None:
    """In the place of `Client.login`: connecting by hand would keep no limit."""
    life = life_of_code()
    if life and not life.client:
        raise CodeError("It uses login(). Write await client.start(token) in its place")
    await log_in_client(client, token)


# --- What a failure means ----------------------------------------------------------------------
# An exception comes in, a sentence and a verdict come out. Nothing here waits, or changes a bot.
# Only `diagnose` and its helpers say which failure is final; the gateway looks into their table.


class Kind(enum.Enum):
    """What comes after a failure."""

    FINAL = enum.auto()  # nothing, until a person has changed something
    SOON = enum.auto()  # an attempt that costs nothing at Discord: no network, or a failed setup
    LATER = enum.auto()  # an attempt after longer and longer waits: it may cost an IDENTIFY
    TOLD = enum.auto()  # an attempt when Discord allows it
    TOLD_ALL = enum.auto()  # the same for every bot: Discord blocks the IP address


@dataclasses.dataclass
class Failure:
    """Why an attempt failed, as a sentence for a person."""

    text: str = ""
    kind: Kind = Kind.LATER
    cause: BaseException | None = None  # the log shows its traceback
    wait: float = 0  # seconds that Discord asks for

    def __post_init__(self) -> None:
        self.text = hide_tokens(" ".join(self.text.split()))  # code may raise several lines


# The close codes after which a person has to change something:
# https://docs.discord.com/developers/topics/opcodes-and-status-codes
OTHER_CLOSE = "Refused (close code {code}). Update discord.py, or change {intents}."
FINAL_CLOSES = {
    4004: "Discord refuses this token. Make a new one at {portal} (Reset Token).",
    4010: OTHER_CLOSE,
    4011: "This bot is in so many servers that it needs more shards. Use AutoShardedBot.",
    4012: OTHER_CLOSE,
    4013: OTHER_CLOSE,
    4014: "The {missing} is off. Switch it on at {portal}, or change {intents}.",
}
# The intents of 4014: the application's two flags, of which the second is for a bot in few servers,
# and the Developer Portal's own name.
PRIVILEGED_INTENTS = {
    "message_content": (0b11 << 18, "Message Content Intent"),
    "members": (0b11 << 14, "Server Members Intent"),
    "presences": (0b11 << 12, "Presence Intent"),
}
NO_CERTIFICATES = (
    "Discord's certificate cannot be checked. Has this Python any certificates? Install the"
    " package ca-certificates; on macOS run Install Certificates.command, beside Python ({})."
)
UNREACHED = "Discord cannot be reached. Check the network ({})."
NOT_DISCORD = "the answer is not from Discord: a log-in page or a proxy is in the way"
# An error that is no answer from Discord, and its meaning. The first row that fits counts.
UNANSWERED = {
    TimeoutError: "Discord does not answer.",
    aiohttp.ClientConnectorCertificateError: NO_CERTIFICATES,
    aiohttp.ClientError: UNREACHED,
    OSError: UNREACHED,
}
# Words of Python or discord.py (as patterns) in an error of a bot's setup, and what to do.
HINTS = {
    "could not be loaded or found": "There is no such file beside run_bots.py or in this folder.",
    "ModuleNotFoundError": "If it is a package, install it: .venv/bin/pip install and its name. If"
    " it is your own file, put it beside run_bots.py, or beside the script.",
    "FileNotFoundError": "A path such as ./cogs is looked for where run_bots.py was started. Write"
    ' Path(__file__).with_name("cogs").',
    "has no 'setup' function": "Write async def setup(bot). If it is a folder, put .* behind its"
    " name: cogs.* is every extension in cogs.",
    "TypeError: setup.. takes": "Write async def setup(bot).",
    "TypeError: .*await": "Write async def setup(bot), and await bot.add_cog(...).",
    "TypeError: .*non-uvloop": "Write asyncio.run(main()) in place of uvloop.run(main()).",
    "RuntimeError: asyncio.run.. cannot": "This is a whole bot: name its file in"
    " DISCORD_BOT_SCRIPT{number}.",
    "EOFError: EOF when reading a line": "Nobody answers its questions here: leave input() out.",
    "KeyError: ": "If this is a variable of the environment, set it in the env file. For a token"
    " write =unused there: the bot's own is {token}.",
}
# A bot's setup raises these where its code is wrong. Anything else may be the world's fault.
WRONG_CODE = (
    SyntaxError,
    ImportError,
    AttributeError,
    NameError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AssertionError,
    SystemExit,
    KeyboardInterrupt,
    discord.ClientException,
    commands.ExtensionError,
    discord.app_commands.AppCommandError,
)
DISCORD_FOLDER = os.path.dirname(discord.__file__)
LIBRARIES = (DISCORD_FOLDER + os.sep, os.path.dirname(asyncio.__file__) + os.sep)
PYTHON_FOLDER = os.path.dirname(os.__file__)
NOT_THE_USERS = (__file__, "<", DISCORD_FOLDER, PYTHON_FOLDER)  # beginnings of paths


def diagnose(error: BaseException, settings: BotSettings, client: discord.Client | None) -> Failure:
    """What an exception means. `client` is None where the bot's code has made none yet."""
    if client is None or isinstance(error, SetupFailed):
        return diagnose_setup(error.__cause__ or error, settings)
    if isinstance(error, (discord.GatewayNotFound, discord.LoginFailure)):
        error = error.__cause__ or error  # Discord's answer
    if isinstance(error, SettingsError):  # of a proxy
        return Failure(str(error), Kind.FINAL)
    code = close_code_of(error)
    if code in FINAL_CLOSES:
        return diagnose_close(code, settings, client)
    if isinstance(error, (discord.HTTPException, aiohttp.WSServerHandshakeError)):
        answer: Any = getattr(error, "response", error)
        return diagnose_status(answer.status, answer.headers)
    if isinstance(error, discord.RateLimited):
        text = f"Discord asks this bot to wait {error.retry_after:.0f} s."
        return Failure(text, Kind.TOLD, wait=error.retry_after)
    if isinstance(error, TooFewStarts):
        text, seconds = error.args
        return Failure(text, Kind.TOLD, wait=seconds)
    return diagnose_unanswered(error)


def diagnose_unanswered(error: BaseException) -> Failure:
    """What an error means that is no answer from Discord."""
    if getattr(error, "errno", 0) == errno.EMFILE:
        text = "Too many open files: allow more, with ulimit -n (systemd: LimitNOFILE=)."
        return Failure(text, Kind.SOON)
    for kind_of_error, sentence in UNANSWERED.items():
        if isinstance(error, kind_of_error):
            return Failure(sentence.format(error), Kind.SOON)
    return Failure(f"Unexpected error: {error!r}.", cause=error)


def close_code_of(error: BaseException) -> int:
    """The code of a closed connection, or of the same refusal at the log-in. 0: there is none."""
    if isinstance(error, discord.PrivilegedIntentsRequired):
        return 4014
    if isinstance(error, discord.HTTPException) and error.status == 401:
        return 4004
    return error.code if isinstance(error, discord.ConnectionClosed) else 0


def diagnose_close(code: int, settings: BotSettings, client: discord.Client) -> Failure:
    if code == 4011 and isinstance(client, discord.AutoShardedClient) and client.guilds:
        return Failure("This bot is in more servers now, and needs more shards.")
    portal = PORTAL
    number = str(client.application_id or bot_id_of(settings.token))
    if number.isdecimal():
        portal = f"{PORTAL}/{number}/bot"
    missing = " and ".join(missing_intents(client)) or "privileged intent"
    intents = settings.sources["intents"]
    sentence = FINAL_CLOSES[code]
    sentence = sentence.format(code=code, portal=portal, intents=intents, missing=missing)
    return Failure(f"{settings.sources['token']}: {sentence}", Kind.FINAL)


def missing_intents(client: discord.Client) -> list[str]:
    """The intents that this client asks for, and that are off in the Developer Portal."""
    flags = getattr(client.application_flags, "value", 0)  # before the log-in they are not known
    missing = []
    for intent, (own_flags, name) in PRIVILEGED_INTENTS.items():
        if getattr(client.intents, intent) and not flags & own_flags:
            missing.append(name)
    return missing


def diagnose_status(status: int, headers: Mapping[str, str]) -> Failure:
    """What an HTTP status means, whether Discord has sent it or something on the way."""
    if status < 400:
        return Failure(UNREACHED.format(NOT_DISCORD), Kind.SOON)
    # Discord's own 429 is JSON and has a Via header. Any other is Cloudflare's, for the IP address.
    is_discords = "Via" in headers and headers.get("Content-Type") == "application/json"
    if status == 429 and not is_discords:
        seconds: float = BLOCK_DELAY
        with suppress(KeyError, ValueError):
            seconds = max(1, float(headers["Retry-After"]))  # no tight loop, whatever it says
        text = f"Discord blocks this IP address (429). All bots wait {seconds:g} s."
        return Failure(text, Kind.TOLD_ALL, wait=seconds)
    kind = Kind.SOON if status >= 500 else Kind.LATER
    return Failure(f"Discord answers with status {status}.", kind)


def diagnose_setup(error: BaseException, settings: BotSettings) -> Failure:
    """Whether a failed setup means wrong code, which is final, or trouble outside of it."""
    cause = getattr(error, "original", error)  # discord.py wraps the errors of extensions
    problem = str(error).rstrip(".")
    if not isinstance(error, (SetupFailed, commands.ExtensionError)):
        problem = f"{type(error).__name__}: {problem}"
    text = f"{settings.code_source}: {problem}{place_of(cause)}."
    for words, hint in HINTS.items():
        if re.search(words, problem):
            hint = hint.format(number=settings.number, token=settings.sources["token"])
            kind = Kind.SOON if isinstance(cause, OSError) else Kind.FINAL
            return Failure(f"{text} {hint}", kind)
    if isinstance(error, CodeError):
        return Failure(text, Kind.FINAL)
    if isinstance(cause, WRONG_CODE):
        return Failure(text, Kind.FINAL, with_own_frames(cause))
    is_refused = isinstance(cause, discord.HTTPException) and cause.status < 500
    return Failure(text, Kind.LATER if is_refused else Kind.SOON)


def is_users(file: str) -> bool:
    """Whether a file is a user's own, and not of Python or a package."""
    return not file.startswith(NOT_THE_USERS) and "site-packages" not in file


def with_own_frames(error: BaseException) -> BaseException:
    """The exception with a traceback that begins at the first place in the user's own code."""
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename.startswith(NOT_THE_USERS):
        frames = frames.tb_next
    return error.with_traceback(frames)


def place_of(error: BaseException) -> str:
    """Where the user's own code was as this was raised, to be put behind a sentence."""
    return place_in(traceback.extract_tb(error.__traceback__))


def place_in(frames: traceback.StackSummary) -> str:
    """The last place in the user's own code, or "" where there is none."""
    for frame in reversed(frames):
        if is_users(frame.filename):
            name = os.path.basename(frame.filename)
            return f" ({name}, line {frame.lineno}, in {frame.name})"
    return ""


def busy_place() -> str:
    """Where the user's own code is in the thread of the event loop, to be put behind a sentence."""
    stack = sys._current_frames()[main_thread]  # documented by Python, in spite of its name
    return place_in(traceback.extract_stack(stack))


# --- When a bot may try again ------------------------------------------------------------------
# A clock comes in, a wait comes out. Nothing here waits itself, or knows what a bot is.


class Pace:
    """When one bot may open its next connection. All times are of one clock, in seconds.

    However often a bot fails or is restarted, one process sends at most 280 IDENTIFYs for it in any
    24 hours: IDENTIFY_BURST, which is 40, and 86,400 / IDENTIFY_EVERY, which is 240. A bot of more
    than 20 shards has a larger burst, of two for each shard. Discord resets the token at 1,000:
    https://docs.discord.com/developers/events/gateway#session-start-limit-object
    """

    def __init__(self) -> None:
        self.unreached = 0  # failures in a row that cost nothing at Discord: see `Kind.SOON`
        # The bot waits until these: after nothing was reached, after a loss, and as Discord says.
        self.network_until = 0.0
        self.loss_until = 0.0
        self.told_until = 0.0
        self.has_session = False  # the next connection can be a RESUME, which costs no IDENTIFY
        self.burst = IDENTIFY_BURST
        self._losses = 0.0  # the last ones; time forgets them
        # A bucket: each IDENTIFY puts IDENTIFY_EVERY seconds in. It is empty at this time.
        self._empty_at = 0.0
        # By the group of shards; max_concurrency says how many there are.
        self._next_identify: dict[int, float] = defaultdict(float)

    def note_unreached(self, now: float) -> None:
        longest = min(NETWORK_DELAY, 2**self.unreached)
        self.unreached = min(self.unreached + 1, 10)
        self.network_until = now + random.uniform(longest / 2, longest)

    def note_reached(self) -> None:
        self.unreached = 0
        self.network_until = 0

    def note_loss(self, now: float, part: float = 1) -> None:
        """A connection of this part of the bot's shards was lost. The next may cost an IDENTIFY."""
        quiet = max(0, now - self.loss_until)
        losses = max(0, self._losses - quiet / FORGIVE_AFTER)
        longest = min(LOSS_DELAY, 2**losses)
        self.loss_until = now + random.uniform(0, longest)
        self._losses = min(losses + part, 10)  # 2**10 is more than LOSS_DELAY

    def note_told(self, now: float, seconds: float) -> None:
        self.told_until = max(self.told_until, now + seconds)

    def take_identify(self, now: float, group: int = 0) -> float:
        """Count an IDENTIFY of this group. Returns the time at which it may be sent."""
        self._empty_at = max(now, self._empty_at) + IDENTIFY_EVERY
        allowed_at = max(now, self._next_identify[group])
        self._next_identify[group] = allowed_at + IDENTIFY_GAP
        return allowed_at

    def identify_delay(self, now: float) -> float:
        """In how many seconds the bot may send another IDENTIFY, if it needs one."""
        if self.has_session:
            return 0
        room = (self.burst - 1) * IDENTIFY_EVERY
        return max(0, self._empty_at - now - room)

    def delay(self, now: float) -> float:
        """In how many seconds the bot may try again."""
        until = max(self.network_until, self.loss_until, self.told_until)
        return max(until - now, self.identify_delay(now))


# --- What all bots share -----------------------------------------------------------------------
# The connections for requests, and the state of the network, which one bot finds out for all. This
# room knows when each bot may try again, and nothing else of the bots.


class Pool(aiohttp.TCPConnector):
    """Connections that stay open after a request, for the next request of any bot.

    Each client closes the pool that it was given, though others use it: here that does nothing.
    """

    async def close(self, **_: Any) -> None:
        pass

    async def close_for_all(self) -> None:
        await super().close()


class Shared:
    """What all bots connect through, and the pace of each."""

    def __init__(self) -> None:
        self.pool = Pool(limit=0, keepalive_timeout=KEEP_ALIVE)
        self.paces: list[Pace] = []  # one for each bot
        self.network_back = asyncio.Event()  # a new one each time the network is back

    def block(self, now: float, seconds: float) -> None:
        """Make all bots wait. They come back one by one: the first may find it blocked still."""
        for pace in self.paces:
            pace.note_told(now, seconds + random.uniform(0, BLOCK_SPREAD))

    def end_network_waits(self) -> None:
        """End the waits for the network of all bots."""
        for pace in self.paces:
            pace.network_until = 0
        self.network_back.set()
        self.network_back = asyncio.Event()


# --- The way to the gateway --------------------------------------------------------------------
# Around any client: when it may connect, and why a connection has ended. Most uses of what is not
# public in discord.py are here.


RESUME = 6  # https://docs.discord.com/developers/topics/opcodes-and-status-codes#gateway


class GatewaySocket(discord.gateway.DiscordClientWebSocketResponse):
    """The WebSocket of every client: it remembers Discord's close code, and can leave with 1000.

    Over TLS aiohttp may lose Discord's code and say 1006. A client that closes would send 4000,
    though discord.py means 1000, at which Discord shows the bot as offline at once.
    """

    is_up = False  # Discord has answered with READY or RESUMED
    own_close_code: int | None = None
    discords_close_code: int | None = None
    goodbye: asyncio.Task[bool] | None = None
    sent_opcodes: frozenset[int] = frozenset()

    @property
    def close_code(self) -> int | None:
        return self.discords_close_code or super().close_code

    async def send_str(self, data: str, compress: int | None = None) -> None:
        self.sent_opcodes |= {json.loads(data)["op"]}
        try:
            await super().send_str(data, compress)
        except ConnectionResetError as error:
            raise connection_reset() from error

    async def close(self, *, code: int = 4000, message: bytes = b"") -> bool:
        if self.goodbye is None:
            self.own_close_code = code
            self.discords_close_code = self.close_code
            closing = super().close(code=code, message=message)
            # In a task, and in no bot's: if the caller is cancelled, the frame still goes out.
            wait = asyncio.wait_for(closing, GOODBYE_TIMEOUT)
            self.goodbye = contextvars.Context().run(asyncio.create_task, wait)
        with suppress(TimeoutError):  # a dead connection, for which discord.py allows 30 s
            await asyncio.shield(self.goodbye)
        return True

    async def watch(self) -> None:
        """Close it if Discord does not answer in time."""
        await asyncio.sleep(HELLO_TIMEOUT)
        if self.sent_opcodes:  # discord.py has answered HELLO
            await asyncio.sleep(READY_TIMEOUT - HELLO_TIMEOUT)
        if not self.is_up and not self.closed:
            log.warning("Discord does not answer at the gateway.")
            await self.close()


def connection_reset() -> OSError:
    """The error after which discord.py tries a RESUME at once.

    After another one a client waits first, and a shard gives its session up. Only the numbers 54
    and 10054 count, in `Client.connect` and `Shard._handle_disconnect`: Linux has another.
    """
    return ConnectionResetError(10054, "The connection to Discord was lost")


class NewSession(Exception):
    """A client has no session any more: `connect()` is to be called again.

    discord.py itself would try a RESUME.
    """


class Gateway:
    """The way to the gateway of one client. No connection is opened before the entry allows it."""

    def __init__(self, client: discord.Client, entry: "Entry", wanted: int, limit: Any) -> None:
        self.client = client
        self.entry = entry
        self.pace = entry.pace
        self.max_concurrency = limit["max_concurrency"]
        self.sockets: list[GatewaySocket] = []
        self.shards = 1  # that this client connects
        self.launched = 0  # connections since connect() was called
        # Not public, but every way to the gateway leads through it: a shard's first connection, a
        # RESUME, a new IDENTIFY. The only public hook is for IDENTIFY, and after a RESUME that
        # fails discord.py tries the next at once.
        self._connect = client.http.ws_connect
        client.http.ws_connect = self.connect  # type: ignore[method-assign]
        self._before_identify = client.before_identify_hook
        client.before_identify_hook = self.before_identify  # type: ignore[method-assign]
        prefix = ""
        if isinstance(client, discord.AutoShardedClient):
            prefix = "shard_"
            client.shard_connect_timeout = None  # the waits here may be longer
            client.shard_count = client.shard_count or wanted
            shard_ids = client.shard_ids or range(client.shard_count)
            self.shards = len(shard_ids)
        self.pace.burst = max(IDENTIFY_BURST, 2 * self.shards)
        for event in ("connect", "resumed"):
            # Any client has `wait_for`. Its check is called at each such event; to wait for it is
            # not needed.
            client.wait_for(prefix + event, check=self._on_up).close()

    async def connect(self, url: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        """In the place of `http.ws_connect`: wait until the bot may connect, and connect."""
        if options:  # only a voice connection has some
            return await self._connect(url, **options)
        self._count_lost()
        if self.launched:
            self._require_session()
        try:
            async with asyncio.timeout(None if self._is_launching() else HAND_BACK_AFTER):
                ws = await self._connect_when_allowed(url)
        except TimeoutError:
            self._require_session()
            raise connection_reset() from None  # before discord.py's own limit ends the wait
        if self.entry.is_ending:
            await ws.close(code=1000)
            await until_cancelled()
        self.launched += 1
        self.sockets.append(ws)
        asyncio.create_task(ws.watch())  # noqa: RUF006  # Owner.tasks keeps it alive
        return ws

    def _is_launching(self) -> bool:
        """Whether it is a client's first connections: discord.py has no limit for their time."""
        if not isinstance(self.client, discord.AutoShardedClient):
            return False
        # A connection that came to nothing has made no shard. And connect() may be called again,
        # with the shards of before.
        return min(self.launched, len(self.client.shards)) < self.shards

    def _require_session(self) -> None:
        """Raise `NewSession` where no RESUME is possible. Shards are left to discord.py."""
        if self.shards == 1 and not self.pace.has_session and not self._is_launching():
            self.launched = 0  # also if discord.py takes no notice, as in the launch of a shard
            raise NewSession from None

    def _count_lost(self) -> None:
        """Count the connections that have ended since the last one was asked for."""
        for ws in list(self.sockets):
            # A client's only one has ended if another is asked for, also if nobody has closed it.
            if self.shards == 1 or ws.goodbye or ws.closed:
                self.sockets.remove(ws)
                asyncio.create_task(ws.close())  # noqa: RUF006  # Owner.tasks keeps it alive
                if not self.entry.is_ending:
                    self._count_one(ws)

    def _count_one(self, ws: GatewaySocket) -> None:
        """Say why it has ended. discord.py closes with 1000 where Discord has ended the session."""
        is_invalid_session = ws.own_close_code == 1000 and not ws.discords_close_code
        if is_invalid_session:
            self.pace.has_session = False
            if RESUME in ws.sent_opcodes:  # a refused RESUME is no failure: an IDENTIFY follows
                return
        code = ws.close_code or ws.own_close_code
        if code in FINAL_CLOSES:
            # discord.py launches all shards before it looks how the first one fared.
            self.entry.life.fail(discord.ConnectionClosed(ws, shard_id=None))
        else:
            text = f"The gateway connection was lost (close code {code})."
            self.entry.note_failure(Failure(text), 1 / self.shards)

    async def _connect_when_allowed(self, url: str) -> GatewaySocket:
        while True:
            await self.entry.pause()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    ws = await self._connect(url)
                self.entry.note_reached()
                return ws  # type: ignore[return-value]  # see take_over
            except (OSError, aiohttp.ClientError) as error:
                self.entry.note_failure(self.entry.diagnose(error))

    async def before_identify(self, shard_id: int | None, *, initial: bool = False) -> None:
        """In the place of the client's hook, whose 5 s do not fit max_concurrency."""
        now = time.monotonic()
        group = (shard_id or 0) % self.max_concurrency
        allowed_at = self.pace.take_identify(now, group)
        await asyncio.sleep(allowed_at - now)
        await self._before_identify(shard_id, initial=True)  # with True it does not wait

    def _on_up(self, shard_id: int | None = None) -> bool:
        # Not public, and the only way to the WebSocket of one shard.
        ws = self.client._get_websocket(shard_id=shard_id).socket
        if isinstance(ws, GatewaySocket):
            ws.is_up = True
        self.pace.has_session = self.shards == 1  # of several, nobody knows who has lost its own
        up = sum(ws.is_up and not ws.closed for ws in self.sockets)
        if up == self.shards:
            self.entry.set_ready()
        return False  # the next event is heard too

    async def go_offline(self) -> None:
        """Leave Discord: nobody sees the bot online from here on."""
        goodbyes = [ws.close(code=1000) for ws in self.sockets]
        await asyncio.gather(*goodbyes, return_exceptions=True)


# --- One client's life: log in, connect, end ---------------------------------------------------
# Whoever made the client, and whatever its code does, all of it ends in a fixed time. Lives do not
# touch each other. The entry decides what follows.


def find_proxy() -> str | None:
    """The proxy that the system or the environment names for Discord. Raises `SettingsError`."""
    proxy = urllib.request.getproxies().get("https")
    if proxy is None or urllib.request.proxy_bypass("discord.com"):
        return None
    if proxy.startswith("socks"):
        remedy = "Name an HTTP proxy, or bring a client with a connector of aiohttp-socks."
        raise SettingsError(f"HTTPS_PROXY: SOCKS is not supported. {remedy}")
    return proxy


async def answer_of(request: Coroutine[Any, Any, Any], seconds: float) -> Any:
    """Discord's answer. Raises `aiohttp.ClientError` where a web page comes in its place."""
    try:
        async with asyncio.timeout(seconds):
            return await request
    except aiohttp.ClientError:  # some of them are a ValueError too
        raise
    except (TypeError, KeyError, ValueError):  # discord.py has taken the page for data
        raise aiohttp.ClientError(NOT_DISCORD) from None


class TooFewStarts(Exception):
    """Discord lets a bot IDENTIFY too few times more. `args`: a sentence, and seconds to wait."""


async def starts_of(client: discord.Client) -> tuple[int, Any]:
    """How many shards Discord wants, and its `session_start_limit`."""
    # Not public, and nothing that is says how many IDENTIFYs are left, whoever used the others up.
    shards, _, limit = await answer_of(client.http.get_bot_gateway(), CONNECT_TIMEOUT)
    return shards, limit


async def do_nothing() -> None:
    pass


async def until_cancelled() -> None:
    await asyncio.get_running_loop().create_future()


async def clean_up(client: Any) -> None:
    """Let the bot's own clean-up run: `teardown`, `cog_unload`, leaving voice.

    `client.close()` does it after the connection has gone. A plain client has no extensions.
    """
    ends = [client.unload_extension(name) for name in getattr(client, "extensions", ())]
    await asyncio.gather(*ends, return_exceptions=True)
    ends = [client.remove_cog(name) for name in getattr(client, "cogs", ())]
    ends += [voice.disconnect(force=True) for voice in client.voice_clients]
    await asyncio.gather(*ends, return_exceptions=True)


def file_of_task(task: asyncio.Task[Any]) -> str:
    """The file in which the task's coroutine was written; "<", which is nobody's, if unknown."""
    code = getattr(task.get_coro(), "cr_code", None)
    return getattr(code, "co_filename", "<")


async def wait_for_end(ending: set[Any], deadline: float) -> bool:
    """Wait for these tasks until the deadline, and cancel the others. Returns if all ended."""
    if not ending:
        return True
    _, late = await asyncio.wait(ending, timeout=deadline - time.monotonic())
    for task in late:
        task.cancel()
    return not late


def error_of(task: asyncio.Task[Any] | None) -> BaseException | None:
    """What a task has raised, if it has ended."""
    if task is None or not task.done() or task.cancelled():
        return None
    return task.exception()


Work = Callable[[], Coroutine[Any, Any, Any]]


class Life:
    """One client: its code makes it, it is set up, it connects, its end is asked for, it closes.

    Its own code asks for the end as the entry does: `client.close()` is ours.
    """

    def __init__(self, entry: "Entry") -> None:
        self.entry = entry
        self.client: Any = None  # until the bot's code has made one
        self.error: BaseException | None = None  # the reason of its end
        self.is_set_up = False  # the bot's code is loaded
        self.is_dismissed = False  # the entry has ended it, and knows what follows
        self.end_asked = asyncio.Event()
        self._client_made = asyncio.Event()
        self._is_closing = False  # the bot's tasks have been ended
        self._client_closed = asyncio.Event()
        self._living_task: asyncio.Task[None]
        self._code_task: asyncio.Task[None] | None = None
        self._close_client: Work  # the client's own, and its setup_hook
        self._setup_hook: Work
        self._closing_tasks: set[Any] = set()  # those that wait in close() or hold()
        self._starts: tuple[int, Any]  # the shards that Discord wants, and the IDENTIFYs left
        self._gateway: Gateway | None = None
        self._one_reload = asyncio.Lock()  # a save may come while the last one is being loaded

    @property
    def settings(self) -> BotSettings:
        """The entry's: a bot may get another name or number while its client lives."""
        return self.entry.settings

    def enter(self) -> None:
        """Say that what the running task begins is the bot's code."""
        code_owner.set(self.entry)
        code_life.set(weakref.ref(self))

    async def run(self) -> BaseException | None:
        """Live. Returns the error that ended it; None where it was asked to end."""
        self.enter()
        self._living_task = self._begin(self._live())
        await self.end_asked.wait()
        if self._living_task.cancelled():
            self.error = self._trouble("Some code has cancelled this bot.")
        self.error = self.error or error_of(self._living_task) or self._error_of_code()
        await self._end()
        return self.error

    def _trouble(self, text: str) -> Exception:
        """What ends a life that its own code has spoiled: a failed setup, or later a loss."""
        return RuntimeError(text) if self.is_set_up else SetupFailed(text)

    def _error_of_code(self) -> BaseException | None:
        """What the code around its client has raised. It must not pass for Discord's answer."""
        error = error_of(self._code_task)
        if error is None or isinstance(error, CodeError):
            return error
        failure = self._trouble(f"The code around the bot has failed: {error!r}")
        failure.__cause__ = error
        return failure

    def dismiss(self) -> None:
        """End it, because the entry wants another life, or none."""
        self.is_dismissed = True
        self.end_asked.set()

    def fail(self, error: BaseException) -> None:
        """End it, because of this error."""
        self.error = error
        self.end_asked.set()

    def may_begin(self) -> bool:
        """Whether the bot's code may begin a task: at the end, only its main function may."""
        return not self._is_closing or asyncio.current_task() is self._code_task

    def _begin(self, work: Any) -> asyncio.Task[Any]:
        """Begin a task whose end is also the end of this life."""
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self.end_asked.set())
        return task

    async def _live(self) -> None:
        await self.entry.pause()
        self._code_task = self._begin(run_code(self))
        await self.set_up(self._client_made.wait)
        await self.log_in()
        await self.set_up(self._setup_hook)
        self.entry.note_reached()  # not before: the waits between setups that fail have to grow
        self.is_set_up = True
        await self.stay()

    async def hold(self, client: discord.Client) -> None:
        """In the place of `client.start()`: take the client, and wait until it is closed."""
        if self._client_closed.is_set() and self._code_task:
            self._code_task.cancel()  # it has bot.start in a loop: the entry does that
            await until_cancelled()
        if self.client is None:
            await self._take(client)
        elif not self.end_asked.is_set():
            self.fail(CodeError("It starts two bots. Make a script of each"))
        await self._wait_until_closed()
        if self.error:
            raise self.error

    async def _take(self, client: discord.Client) -> None:
        self.client = client
        self._close_client = client.close
        self._setup_hook = client.setup_hook
        client.close = self.close  # type: ignore[method-assign]
        client.setup_hook = do_nothing  # type: ignore[method-assign]  # set_up runs it
        if not isinstance(client.loop, asyncio.AbstractEventLoop):
            await client.__aenter__()  # a script may leave out `async with client`
        self._client_made.set()

    async def set_up(self, setup: Work) -> None:
        """Wait for what the bot's own code does before it connects. Raises `SetupFailed`."""
        try:
            async with asyncio.timeout(SETUP_TIMEOUT) as limit:
                await setup()
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            if not limit.expired():
                raise SetupFailed from error
            hint = "It runs before the bot connects, so it cannot wait for wait_until_ready()."
            text = f"The bot's setup took more than {SETUP_TIMEOUT} s. {hint}"
            raise SetupFailed(text) from None
        finally:
            restore_what_is_shared()

    async def log_in(self) -> None:
        """Log in by REST. Raises what discord.py raises."""
        # Not public: a client takes a connector and a proxy only when it is made, perhaps by a
        # script. And it would wait through long rate limits: here they raise, and the entry waits.
        http = self.client.http
        if http.connector is discord.utils.MISSING:
            http.connector = self.entry.shared.pool
        http.proxy = http.proxy or find_proxy()
        own_limit = http.max_ratelimit_timeout
        http.max_ratelimit_timeout = LOGIN_TIMEOUT / 2
        await answer_of(self.client.login(self.settings.token), LOGIN_TIMEOUT)
        await self.ask_for_starts()
        http.max_ratelimit_timeout = own_limit

    async def ask_for_starts(self) -> None:
        """Stop here if Discord counts too few IDENTIFYs left: other processes use them too.

        https://docs.discord.com/developers/events/gateway#session-start-limit-object
        """
        self._starts = await starts_of(self.client)
        shards, limit = self._starts
        if limit["remaining"] < IDENTIFY_RESERVE + shards - 1:
            text = f"Discord lets this bot connect only {limit['remaining']} times more"
            wait = max(limit["reset_after"] / 1000, IDENTIFY_GAP)
            raise TooFewStarts(f"{text} before it resets the token.", wait)

    async def stay(self) -> None:
        """Connect, and stay connected, as long as there is no error that ends the client."""
        files.follow(self.entry.code_files())
        self.entry.pace.has_session = False
        self._gateway = Gateway(self.client, self.entry, *self._starts)
        while True:
            self._gateway.launched = 0
            try:
                await self.client.connect()
                return
            except NewSession:
                await self.entry.pause()  # here no limit of discord.py's is around the wait
            except AttributeError as error:
                # A plain client whose first connection fails. Remove it with
                # https://github.com/Rapptz/discord.py/issues/10520
                if error.name != "sequence":
                    raise

    async def _end(self) -> None:
        """End all of it, each part while what it needs is still there."""
        began = time.monotonic()
        code = self.entry.code_files()  # the clean-up unloads some of it
        # 1. Its own clean-up, while all of it lives.
        if self.client:
            cleaning = asyncio.create_task(clean_up(self.client))
            if not await wait_for_end({cleaning}, began + CLEANUP_UNTIL):
                log.warning("Its clean-up took more than %s s. It was cut off.", CLEANUP_UNTIL)
        # 2. Its connection: nobody sees it online from here on.
        if self._gateway:
            await self._gateway.go_offline()
        # 3. Its tasks.
        ending = self._tasks_to_end(code)
        for task in ending:
            task.cancel()
        await wait_for_end(ending, began + TASKS_UNTIL)
        # 4. The client. Sometimes connect() returns only after it is closed.
        self._is_closing = True
        code_life.set(None)  # so that the close may begin tasks: see `Task`
        self._living_task.cancel()
        closing = asyncio.create_task(self._close())
        await wait_for_end({self._living_task, closing}, began + CLOSE_UNTIL)
        self._client_closed.set()
        # 5. What follows in its code.
        if self._code_task:
            if self.is_dismissed:
                self._code_task.cancel()  # asyncio.run does so at Ctrl-C
            await wait_for_end({self._code_task, *self._closing_tasks}, began + MAIN_UNTIL)
            self._tell_of_code(error_of(self._code_task))
            release_modules()

    def _tell_of_code(self, error: BaseException | None) -> None:
        if error is None or isinstance(error, CodeError):  # exit() at its end is one
            return
        if error not in (self.error, getattr(self.error, "__cause__", None)):
            log.error("What follows the bot's end has failed.", exc_info=error)

    def _tasks_to_end(self, code: set[Path]) -> set[Any]:
        """The tasks that end with this client: those of discord.py, and of the bot's own code.

        Those of a shared helper module, or of the shared pool, go on: other bots may need them.
        """
        own = set()
        for task in self.entry.tasks - {self._living_task, self._code_task, *self._closing_tasks}:
            file = file_of_task(task)
            if file.startswith(LIBRARIES) or Path(file) in code:
                own.add(task)
        return own

    async def _close(self) -> None:
        if self.client:
            try:
                await self._close_client()
            except Exception:
                log.exception("Some clean-up failed.")
            finally:  # not public; it is still open if the client's own close was cut off
                await self.client.http.close()

    async def reload(self, saved: set[Path]) -> str:
        """Load saved extensions again, without leaving Discord. Returns what has come of it."""
        self.enter()
        outcome = ""
        async with self._one_reload:
            for name in dict.fromkeys(saved_extensions(self.client, saved).values()):
                if self.end_asked.is_set():
                    break
                outcome = outcome or "reloaded"
                try:
                    await self.client.reload_extension(name)
                except (Exception, asyncio.CancelledError) as error:
                    outcome = "did not load"
                    failure = diagnose_setup(error, self.settings)
                    text = f"{failure.text} The old code keeps running."
                    log.error(text, exc_info=failure.cause)
        if outcome:
            restore_what_is_shared()
        return outcome

    async def close(self) -> None:
        """In the place of `client.close()`: ask for the end, and wait for it.

        It returns at once if the end was asked for before, or if connect() itself calls it, which
        then raises the reason.
        """
        is_discord_py = self._gateway and asyncio.current_task() is self._living_task
        if is_discord_py or self.end_asked.is_set():
            return
        self.end_asked.set()
        await self._wait_until_closed()

    async def _wait_until_closed(self) -> None:
        self._closing_tasks.add(asyncio.current_task())
        await self._client_closed.wait()


# --- An entry: one bot, whatever becomes of its clients ----------------------------------------
# An entry has one life after another, says how the bot is, and waits as its pace and the network
# tell it to.


START_AGAIN = (
    "Fix it, and save .env or the code (with --no-watch: send SIGHUP), or start run_bots.py again."
)


class Entry(Owner):
    """One bot, as long as the program runs: its settings, its state, one client after another."""

    def __init__(self, settings: BotSettings, shared: Shared) -> None:
        super().__init__()
        self.settings = settings
        self.wanted: BotSettings | None = None  # the settings of its next client; None: it ends
        self.state = "starting"  # or ready, retrying, stopped
        self.since = time.time()
        self.failure = Failure()  # the last one
        # When it was ready again. A 0 stands for the first time. Only the last ones are kept.
        self.reconnects: deque[float] = deque(maxlen=1000)
        self.pace = Pace()
        self.shared = shared
        shared.paces.append(self.pace)
        self.life = Life(self)  # an idle one, so that there is always one to ask
        self.is_running = False
        self.task: asyncio.Task[None]  # the last one in which it was running

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.settings.name

    def code_files(self) -> set[Path]:
        """The files that its settings name, and those that its script has imported."""
        own = set(self.settings.code_files())
        if self.settings.script:
            own.update(imported_modules(self).values())
        return own

    def want(self, wanted: BotSettings) -> str:
        """Run with these settings from now on. Returns a word for the change, or ""."""
        before = self.wanted
        self.wanted = wanted
        is_same = wanted == before == self.settings
        is_alive = self.is_running and not self.is_ending
        if not (is_same and is_alive):
            self.restart()
            return "restarted" if before else "added"
        old_name = self.name
        self.settings = wanted
        if wanted.name != old_name:
            return "renamed"
        return "trying again" if self.pace.unreached else ""

    def restart(self) -> None:
        """End its client, if it has one. The next one starts when that has left."""
        self.failure = Failure()
        self.set_state("starting")
        self.life.dismiss()
        if not self.is_running:
            self.is_running = True
            self.task = asyncio.create_task(self._run())

    def end(self) -> None:
        """End its client, if it has one, and begin no other."""
        self.wanted = None
        self.set_state("stopped")
        self.life.dismiss()

    async def _run(self) -> None:
        try:
            while self.wanted:
                self.settings = self.wanted
                self.life = Life(self)
                error = await self.life.run()
                if not self.life.is_dismissed and self._conclude(error):
                    return
            log.info("stopped: as asked")
        except Exception:
            log.critical("This bot is stopped by a bug of run_bots.py.", exc_info=True)
            raise
        finally:
            self.life = Life(self)  # an idle one, so that nothing of the last one is kept
            self.is_running = False
            self.set_state("stopped")

    def _conclude(self, error: BaseException | None) -> bool:
        """Say how a life has ended: without an error, by itself. Returns if it was the last."""
        if error is None:
            self.failure = Failure()
            log.info("stopped: it closed itself")
            return True
        self.note_failure(self.diagnose(error))
        return self.failure.kind is Kind.FINAL

    def diagnose(self, error: BaseException) -> Failure:
        return diagnose(error, self.settings, self.life.client)

    @property
    def is_ending(self) -> bool:
        return self.life.end_asked.is_set()

    def note_failure(self, failure: Failure, part: float = 1) -> None:
        """Count a failure that concerns this part of the bot's shards, and say what comes next."""
        self.failure = failure
        if failure.kind is Kind.FINAL:
            log.error("stopped: %s %s", failure.text, START_AGAIN, exc_info=failure.cause)
            return
        now = time.monotonic()
        self.pace.note_told(now, failure.wait)
        level = logging.WARNING
        if failure.kind is Kind.SOON:
            if self.pace.unreached:  # an outage is told once: its beginning, and its end
                level = logging.DEBUG
            self.pace.note_unreached(now)
        elif failure.kind is Kind.LATER:
            self.pace.note_loss(now, part)
        elif failure.kind is Kind.TOLD_ALL:
            self.shared.block(now, failure.wait)
        delay = self.pace.delay(now)
        log.log(level, "%s Trying again in %.1f s.", failure.text, delay, exc_info=failure.cause)
        self.set_state("retrying")

    def note_reached(self) -> None:
        """Discord has answered this bot. After an outage the others need not wait any longer."""
        if self.pace.unreached:
            self.shared.end_network_waits()
        self.pace.note_reached()

    async def pause(self) -> None:
        """Wait until it may try again."""
        if self.pace.identify_delay(time.monotonic()):
            self.note_failure(Failure("This bot has started too many sessions.", Kind.TOLD))
        delay = self.pace.delay(time.monotonic())
        if delay > IDENTIFY_GAP and self.state == "starting":
            log.info("It has to wait, and starts in %.0f s.", delay)
        while delay > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self.shared.network_back.wait()
            delay = self.pace.delay(time.monotonic())

    def files_to_restart_for(self, saved: set[Path], scripts: set[Path | None]) -> set[Path]:
        """The saved files for which the bot has to start again, as it cannot load them anew."""
        if self.life.is_dismissed:  # the next client reads all of it
            return set()
        own = saved & self.code_files()
        script = self.settings.script
        is_up = self.life.is_set_up and not self.is_ending
        if is_up and script:
            return own - saved_extensions(self.life.client, saved).keys()
        if is_up:  # its extensions are loaded anew
            return set()
        if script:  # it may have failed before it imported the file; other scripts are not its own
            own |= {path for path in saved - scripts if script.parent in path.parents}
        return own

    async def renew(self, restart_for: set[Path], saved: set[Path]) -> str:
        """Run the saved code: start again for these files, or else load extensions anew.

        Returns a word for the change, or "".
        """
        if not restart_for:
            return await self.life.reload(saved)
        code_owner.set(self)
        try:
            for path in restart_for:
                check_script(path)
        except Exception as error:
            failure = diagnose_setup(error, self.settings)
            log.error("%s The bot stays as it is.", failure.text)
            return "did not load"
        if restart_for != {self.settings.script}:  # which is no module of `sys.modules`
            forget_modules(self)
        self.restart()
        return "restarted"

    def set_ready(self) -> None:
        client: Any = self.life.client
        servers = counted(len(client.guilds), "server")
        log.info("ready as %s (%s) in %s", client.user, client.user.id, servers)
        self.reconnects.append(time.time() if self.reconnects else 0)
        self.set_state("ready")

    def set_state(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self.since = time.time()

    def report(self) -> Report:
        """How this bot is, as /status.json has it."""
        latency = None
        servers = None
        client = self.life.client
        if client:
            servers = len(client.guilds)
            if client.latency < 60:  # before the first heartbeat it is inf or nan
                latency = round(client.latency * 1000)
        yesterday = time.time() - 86_400
        return {
            "name": self.name,
            "state": self.state,
            "since": self.since,
            "latency_ms": latency,
            "servers": servers,
            "reconnects_24h": sum(at > yesterday for at in self.reconnects),
            "failure": self.failure.text,
        }


def counted(number: int, thing: str) -> str:
    plural = "" if number == 1 else "s"
    return f"{number} {thing}{plural}"


# --- All the entries ---------------------------------------------------------------------------
# The runner makes the running bots equal to the settings and their code, now and after each change,
# until all have ended. It leaves to each bot how it lives.


Changes = dict[str, list[str]]  # names of bots or variables, by a word for the change, or by ""


def in_one_line(changes: Changes) -> str:
    parts = []
    for change, changed in sorted(changes.items()):
        if change:
            parts.append(f"{change} {', '.join(changed)}")
    return "; ".join(parts) or "nothing changed"


def memory_in_use() -> int | None:
    """The program's memory in bytes, where the system says it: only Linux has this file."""
    with suppress(OSError):
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return None


class Runner:
    """The running bots, and where their settings come from: env file, environment and `--only`."""

    def __init__(self, env_file: Path, only: str | None) -> None:
        self.env_file = env_file
        self._only = only
        self._environment = dict(os.environ)
        self._exported: dict[str, str] = {}  # the env file's variables that are in os.environ
        # By the bot's id, so that no bot has two sessions. None is dropped: a bot that comes back
        # finds its `Pace`, which has counted its IDENTIFYs.
        self._entries: dict[str, Entry] = {}
        self._listed: list[Entry] = []  # in the order of the settings that were last read
        self._is_stopping = False
        self._shared: Shared  # made in `run`, where the event loop is
        # The log says how the bots are at this time at the latest. None: it has said so.
        self._settle_by: float | None = time.monotonic() + SETTLE_TIMEOUT
        self._told: list[float] = []  # the `since` of each bot when the log has said it last

    def read(self) -> list[BotSettings]:
        """The settings of the bots that are to run. Raises `SettingsError`."""
        files.follow([self.env_file])  # it may come later
        reading = Reading(self.env_file, self._environment)
        bots = self._choose(reading)
        self._export(reading)
        for bot in bots:
            names_by_token[bot.token] = bot.name
        for warning in reading.warnings[:WARNINGS_SHOWN]:
            log.warning(warning)
        return bots

    def _choose(self, reading: Reading) -> list[BotSettings]:
        """The bots that `--only` means. Raises `SettingsError`."""
        if self._only is None:
            return reading.bots
        parts = list_of(self._only) or [self._only]
        chosen = [bot for bot in reading.bots if any(map(bot.is_meant_by, parts))]
        there = ", ".join(f"{bot.number} ({bot.name})" for bot in reading.bots)
        missing = []
        for part in parts:
            if not any(bot.is_meant_by(part) for bot in chosen):
                missing.append(f"--only: There is no bot {part}. These are there: {there}.")
        reading.warnings += missing
        # While bots run, it is no error that one of them was taken out of the file.
        if not chosen or (missing and not self._entries):
            raise SettingsError(*reading.warnings)
        return chosen

    def _export(self, reading: Reading) -> None:
        """Give the bots' own code its variables, as `load_dotenv()` does."""
        for name in self._exported:
            os.environ.pop(name, None)
        self._exported = {}
        for name, variable in reading.variables.items():
            is_ours = re.match("DISCORD_BOT_.*[0-9]", name)  # a script may read DISCORD_BOT_TOKEN
            if is_ours or name in os.environ:
                continue
            atoms = parse_variables(variable.text)  # a text, or ${NAME}
            text = "".join(atom.resolve(os.environ) for atom in atoms)
            self._exported[name] = text
            with suppress(OSError, ValueError):  # the system may refuse it, as too long
                os.environ[name] = TOKEN_FORM.sub("not-needed", text)

    async def _keep_up(self, watch: bool) -> None:
        """Once a second, say how the bots are when that changes, and follow the files."""
        last: dict[Path, object] = {}
        while not self._is_stopping:
            try:
                restore_what_is_shared()
                self._tell()
            except Exception:
                log.exception("This is a bug of run_bots.py. The bots go on.")
            await asyncio.sleep(1)
            changed = files.changed() if watch else {}
            if changed and changed == last:  # nobody writes them any more
                asyncio.create_task(self._follow(changed))  # noqa: RUF006  # Owner.tasks keeps it alive
            last = changed

    def reload(self) -> None:
        """At SIGHUP: follow what is saved, and the env file in any case."""
        files[self.env_file] = "not read yet"
        following = self._follow(files.changed())
        asyncio.create_task(following)  # noqa: RUF006  # Owner.tasks keeps it alive

    async def _follow(self, saved: dict[Path, object]) -> None:
        """Make the bots what these saved files say. Then say in one line what has changed."""
        if self._is_stopping:
            return
        files.update(saved)
        importlib.invalidate_caches()
        self._settle_by = time.monotonic() + SETTLE_TIMEOUT
        changes: Changes = defaultdict(list)
        code = {path for path in saved if path.suffix == ".py"}
        if saved.keys() - code:  # the env file, a token's file, or a folder of extensions
            self._follow_settings(changes)
        scripts = {entry.settings.script for entry in self._listed}
        # All are asked before the first one is renewed, which may forget modules that others have.
        restarts = {entry: entry.files_to_restart_for(code, scripts) for entry in self._listed}
        renewals = {}
        for entry, restart_for in restarts.items():
            task = asyncio.create_task(entry.renew(restart_for, code))
            renewals[task] = entry.name
        await asyncio.wait(renewals, timeout=SETUP_TIMEOUT)
        for task, name in renewals.items():
            change = task.result() if task.done() else "still loading"
            changes[change].append(name)
        sources = ", ".join(map(shown, sorted(saved)))
        log.info("%s: %s", sources, in_one_line(changes))

    def _follow_settings(self, changes: Changes) -> None:
        """Read the settings again, and take them if they are valid."""
        before = self._exported
        try:
            bots = self.read()
        except SettingsError as error:
            text = "The bots keep running as they are. The settings are not valid:\n%s"
            log.error(text, "\n".join(error.args))
            return
        for name in sorted(dict(before.items() ^ self._exported.items())):
            changes["changed"].append(name)
        self._shared.end_network_waits()
        self._apply(bots, changes)

    def _apply(self, bots: list[BotSettings], changes: Changes) -> None:
        """Make the running bots equal to the settings. Only those that differ are moved."""
        before = self._listed
        self._listed = []
        for bot in bots:
            bot_id = bot_id_of(bot.token)
            entry = self._entries.get(bot_id) or Entry(bot, self._shared)
            self._entries[bot_id] = entry
            self._listed.append(entry)
            changes[entry.want(bot)].append(bot.name)
            files.follow(bot.code_files())
        for entry in before:
            if entry not in self._listed:
                entry.end()
                changes["removed"].append(entry.name)

    def _tell(self) -> None:
        """Say how the bots are: to systemd each time, in the log once they have settled."""
        notify("WATCHDOG=1")
        self._notify_status()
        if self._have_settled():
            self._settle_by = None
            now = [entry.since for entry in self._listed]
            if now != self._told:
                self._told = now
                self.show()
                notify("READY=1")
                tidy_memory()

    def _have_settled(self) -> bool:
        """Whether the log may say how they are: none is starting or, between changes, retrying."""
        states = {entry.state for entry in self._listed}
        if self._settle_by is None:
            return states.isdisjoint({"starting", "retrying"})
        return "starting" not in states or time.monotonic() > self._settle_by

    def _notify_status(self) -> None:
        if "NOTIFY_SOCKET" in os.environ:
            status = summarize(self._listed)[:1000]  # systemd takes 4,096 bytes
            notify(f"STATUS={status}")

    def show(self) -> None:
        log.info(summarize(self._listed))

    def report(self) -> Report:
        """How the program and its bots are, as /status.json has it."""
        return {
            "summary": summarize(self._listed),
            "bots": [entry.report() for entry in self._listed],
            "time": time.time(),
            "started": STARTED,
            "cpu_seconds": time.process_time(),
            "memory_bytes": memory_in_use(),
            "versions": VERSIONS,
        }

    def stop(self, why: str) -> None:
        log.info("Stopping all bots (%s). A second Ctrl-C ends the program at once.", why)
        self._is_stopping = True
        notify("STOPPING=1")
        for entry in self._listed:
            entry.end()

    async def run(self, bots: list[BotSettings], *, watch: bool, status: str) -> int:
        """Run the bots until all have ended, by themselves or as asked. Returns the exit code."""
        self._shared = Shared()
        if status:
            await serve_status(status, self.report)
        signals = Signals(self)
        self._apply(bots, defaultdict(list))
        keeping_up = asyncio.create_task(self._keep_up(watch))
        entries = self._entries.values()
        while any(entry.is_running for entry in entries):
            await asyncio.wait([entry.task for entry in entries])
        keeping_up.cancel()
        self._notify_status()
        code = self._exit_code()
        signals.start_deadline(code)
        await self._shared.pool.close_for_all()
        return code

    def _exit_code(self) -> int:
        code = EXIT_OK
        for entry in self._entries.values():
            entry.task.result()  # raises our own bugs
            if entry.wanted and entry.failure.kind is Kind.FINAL:
                code = EXIT_NEEDS_PERSON
        if code:
            log.error("No bot is left, so the program ends. After the change, start it again.")
        return code


# --- What belongs to all bots, and what one bot's code does to it -------------------------------
# The event loop, tasks, threads, signals, the environment: each bot's code has its own part of
# them, and takes nothing from the others.


def restore_folder() -> None:
    """Go back to the current folder, where code of a bot has left it."""
    with suppress(OSError):  # one of the two is deleted
        if not START_FOLDER.samefile("."):
            os.chdir(START_FOLDER)
            hint = "Use Path(__file__).with_name(...) for a file beside it."
            log.warning("This code changes the current folder, which is for all bots. %s", hint)


restorers = [restore_folder]  # `Log` and `Signals` add theirs


def restore_what_is_shared() -> None:
    """Put back what a bot's code has taken from all: after its setup, and once a second."""
    for restore in restorers:
        restore()


class Task(asyncio.Task[Any]):
    """A task of a known owner. What a client's code begins after its end is cancelled at once."""

    def __init__(self, coroutine: Any, **options: Any) -> None:
        super().__init__(coroutine, **options)
        self.context = contextvars.copy_context()  # as it was begun
        siblings = code_owner.get().tasks
        siblings.add(self)
        self.add_done_callback(siblings.discard)
        life = life_of_code()
        was_begun_by_client = code_life.get() is not None
        if was_begun_by_client and not (life and life.may_begin()):
            self.cancel()


class Loop(asyncio.SelectorEventLoop if os.name == "posix" else asyncio.ProactorEventLoop):  # type: ignore[misc]
    """The event loop of all bots. Code of one bot neither ends it nor takes its signals."""

    def create_task(self, coroutine: Any, **options: Any) -> Task:
        return Task(coroutine, loop=self, **options)

    def stop(self) -> None:
        if code_owner.get() is PROGRAM:
            super().stop()
        else:
            place = place_in(traceback.extract_stack())
            log.warning("The event loop is for all bots. It is not stopped%s.", place)

    def add_signal_handler(self, number: int, callback: Any, *arguments: Any) -> None:
        if number not in SIGNALS:  # the program's own ones stay as they are
            # Not by the loop's own method: that takes the wakeup file of `Signals`.
            signal.signal(number, lambda *_: self.call_soon_threadsafe(callback, *arguments))

    def run_in_executor(self, executor: Any, function: Any, *arguments: Any) -> Any:
        if executor is None:  # another one is the bot's own, perhaps one of processes
            # Host names are looked up in the program's threads: a bot may keep all of its own busy.
            owner = PROGRAM if function is socket.getaddrinfo else code_owner.get()
            executor = owner.executor
            function = functools.partial(contextvars.copy_context().run, function)
        return super().run_in_executor(executor, function, *arguments)

    def set_default_executor(self, executor: Any) -> None:
        code_owner.get().executor = executor

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Say it in the name of the bot whose task or callback has failed."""
        source = context.get("handle") or context.get("future") or context.get("task")
        own = getattr(source, "_context", contextvars.copy_context())  # a handle's, not public
        own = getattr(source, "context", own)  # a task's
        # A copy, because nothing can run in a context in which something runs already.
        own.copy().run(super().call_exception_handler, context)

    def run_until_done(self, work: Coroutine[Any, Any, int]) -> int:
        """Run this to its end, even if a bot's code raises exit() into the loop."""
        task = self.create_task(work)
        task.add_done_callback(lambda _: self.stop())
        while not task.done():
            try:
                self.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                close_bot_of(error)
        return int(task.result())


def close_bot_of(error: BaseException) -> None:
    """End only the bot whose code has raised exit() into the event loop."""
    context = contextvars.copy_context()
    for owner in owners:
        for task in owner.tasks:
            if error_of(task) is error:  # no task, if a callback has raised it
                context = task.context
    life = context.run(life_of_code)
    if life:
        life.end_asked.set()
    text = "Some code calls exit()%s. That ends its own bot at most."
    context.run(log.error, text, place_of(error))


def start_bot_again(*_: object) -> NoReturn:
    """In the place of `os.execv`, by which a bot's code starts itself again: it would end all."""
    life = life_of_code()
    if life:
        log.info("Its code starts it again.")
        life.entry.restart()
    raise asyncio.CancelledError  # nothing behind it in that code is to run


handle_record = logging.Handler.handle


def handle_or_tell(handler: logging.Handler, record: logging.LogRecord) -> None:
    """In the place of `Handler.handle`: a bot's handler does not raise into code that logs."""
    try:
        handle_record(handler, record)
    except BaseException:
        handler.handleError(record)


find_all_tasks = asyncio.all_tasks


def visible_tasks(loop: asyncio.AbstractEventLoop | None = None) -> set[Any]:
    """In the place of `asyncio.all_tasks`: to code of a bot, only the tasks that it has begun."""
    owner = code_owner.get()
    own = set()
    for task in find_all_tasks(loop):  # a thread may have a loop, and tasks, of its own
        is_own = task in owner.tasks and is_users(file_of_task(task))
        if is_own or owner is PROGRAM or not isinstance(task, Task):
            own.add(task)
    return own


start_thread = threading.Thread.start


def start_in_context(thread: threading.Thread) -> None:
    """In the place of `Thread.start`: a thread belongs to the bot whose code starts it.

    Remove it when Python does so by itself: sys.flags.thread_inherit_context, from 3.14 on.
    """
    context = contextvars.copy_context()
    run = thread.run

    def run_in_context() -> None:
        try:
            context.run(run)
        except Exception:
            context.run(log.exception, "Exception in thread %s", thread.name)

    thread.run = run_in_context  # type: ignore[method-assign]
    start_thread(thread)


class Environment(type(os.environ)):  # type: ignore[misc]
    """The process environment, without tokens: `load_dotenv()` in a bot would put them all there.

    A script may look for its own there, and need not find it: its entry has the one that is used.
    """

    def __setitem__(self, name: str, text: str) -> None:
        super().__setitem__(name, TOKEN_FORM.sub("not-needed", text))


def wrap(place: Any, name: str, wrapper: Callable[[Any], Any]) -> None:
    setattr(place, name, wrapper(getattr(place, name)))


def take_over() -> None:
    """Put our own in the place of what a process has only once, and of how a client starts."""
    client_class: Any = discord.Client
    client_class.start = hold_client
    client_class.login = log_in_or_refuse
    # Not public; there is no hook for the end of a connection. Remove it when discord.py closes
    # with 1000 and keeps the code that it was closed with.
    discord.http.DiscordClientWebSocketResponse = GatewaySocket  # type: ignore[attr-defined]
    discord.utils.setup_logging = lambda *_, **__: None  # the log is set up already
    for name in ("load_extension", "unload_extension", "reload_extension"):
        # Not public: what the two classes of bots share.
        wrap(commands.bot.BotBase, name, keep_modules)
    for name in ("run_until_complete", "run_forever"):
        wrap(asyncio.BaseEventLoop, name, hand_over)
    for place in (asyncio, asyncio.Runner):
        wrap(place, "run", hand_over)
    os.execv = os.execve = start_bot_again  # type: ignore[assignment]
    asyncio.all_tasks = asyncio.tasks.all_tasks = visible_tasks
    logging.Handler.handle = handle_or_tell  # type: ignore[assignment, method-assign]
    threading.Thread.start = start_in_context  # type: ignore[assignment, method-assign]
    os.environ.__class__ = Environment


# --- A look at all bots, without the gateway: --check and --sync-commands ----------------------
# Each bot's code is loaded and logged in, as at a start, and ends at once. No bot connects, and
# --check changes nothing at Discord.


Ask = Callable[[Any], Coroutine[Any, Any, str]]


class Visit(Life):
    """A life that ends when Discord has answered its question."""

    def __init__(self, bot: BotSettings, shared: Shared, ask: Ask) -> None:
        super().__init__(Entry(bot, shared))
        self.entry.life = self
        self.is_dismissed = True  # so its end cuts off the script's main function
        self.answer = ""
        self._ask = ask

    async def log_in(self) -> None:
        try:
            await super().log_in()
            return
        except (OSError, aiohttp.ClientError) as error:
            trouble = error
        await self.set_up(self._setup_hook)  # the code can be looked at without Discord
        raise trouble

    async def set_up(self, setup: Work) -> None:
        try:
            await super().set_up(setup)
        except SetupFailed as error:
            origin: Any = getattr(error.__cause__, "original", error.__cause__)
            if isinstance(origin, discord.app_commands.MissingApplicationID):
                return  # without a network nobody is logged in
            if getattr(origin, "errno", 0) != errno.EADDRINUSE:
                raise
            log.warning("%s. Is it the running program that has it?", origin)

    async def ask_for_starts(self) -> None:
        """Not needed: a visit does not connect."""

    async def stay(self) -> None:
        self.answer = await self._ask(self.client)


async def look(bots: list[BotSettings], *, sync: bool) -> int:
    """Look at every bot, and print a row for each as soon as it is known. Returns the exit code."""
    ask = upload_commands if sync else describe
    heads = "slash commands" if sync else "id                   servers  connects"
    shared = Shared()
    turns = asyncio.Semaphore(VISITS_AT_ONCE)
    told: set[str] = set()  # a problem that many bots have is told once

    async def visit(bot: BotSettings) -> bool:
        life = Visit(bot, shared, ask)
        async with turns:
            asyncio.get_running_loop().call_later(VISIT_TIMEOUT, life.end_asked.set)
            error = await life.run() or SetupFailed("The setup was cancelled, or does not end")
        row = life.answer
        if not row:
            failure = life.entry.diagnose(error)
            if failure.cause:
                log.error("The error in its code:", exc_info=failure.cause)
            text = "the same" if failure.text in told else failure.text
            told.add(failure.text)
            row = f"PROBLEM: {text}"
        print(f"{bot.number:>4} {bot.name:<32.32} {row}")
        return bool(life.answer)

    log.info("Each bot's setup runs, as at a start. No bot connects.")
    print(f"{'no.':>4} {'name':<32} {heads}")
    are_right = await asyncio.gather(*map(visit, bots))
    print(f"{sum(are_right)} of {len(bots)} bots are all right")
    return EXIT_OK if all(are_right) else EXIT_NEEDS_PERSON


async def upload_commands(client: Any) -> str:
    """Upload a bot's slash commands, of all servers and of single ones. Raises `SetupFailed`."""
    tree = client._connection._command_tree  # not public: a plain client has no other way to it
    if tree is None:
        return "none"
    places: dict[str, Any] = {}  # by the words behind a printed command
    # Not public: a tree lists a server's commands only if it is given that server.
    for server in {*tree._guild_commands, *(server for _, server, _ in tree._context_menus)}:
        if server:
            places[f" (server {server})"] = discord.Object(server)
    if tree.get_commands() or not places:
        # Not an empty list where there are others: that would delete the global ones.
        places[""] = None
    uploaded = []
    for place, guild in places.items():
        try:
            found = await tree.sync(guild=guild)
        except discord.DiscordException as error:
            raise SetupFailed from error
        uploaded += [f"/{command.name}{place}" for command in found]
    return " ".join(uploaded) or "none"


async def describe(client: Any) -> str:
    """What `--check` says of a logged-in bot. Raises what is wrong with it."""
    if missing_intents(client):
        raise discord.PrivilegedIntentsRequired(None)
    _, limit = await starts_of(client)
    application = client.application
    permissions = discord.Permissions(
        view_channel=True, send_messages=True, read_message_history=True
    )
    invite = discord.utils.oauth_url(application.id, permissions=permissions)
    servers = application.approximate_guild_count
    row = f"{application.id:<20} {servers:>7} {limit['remaining']:>9}"
    return f"{row}\n     on Discord: {client.user}, invite: {invite}"


# --- How the bots are: a line for the log and systemd, and a page -------------------------------
# This room only reads. It shows no token, and the page loads nothing from elsewhere.


def summarize(entries: list[Entry]) -> str:
    """How many of the bots are ready, and which are not, in one line."""
    others = []
    for entry in entries:
        if entry.state != "ready":
            since = time.strftime("%a %H:%M", time.localtime(entry.since))
            reason = entry.failure.text.partition(". ")[0].rstrip(".")
            state = f"{entry.state} since {since}"
            if reason:
                state += f": {reason}"
            others.append(f"{entry.name} ({state})")
    ready = f"{len(entries) - len(others)} of {len(entries)} bots are ready"
    return f"{ready}. Not ready: {', '.join(others)}" if others else ready


async def serve_status(address: str, report: Callable[[], Report]) -> None:
    """Answer at [HOST:]PORT, to people, programs and probes, for as long as the event loop runs."""
    from aiohttp import web  # this import takes time and memory

    async def answer(request: web.Request) -> web.Response:
        status = 200
        kind = "text/plain"
        if request.path == "/":
            kind = "text/html"
            text = STATUS_PAGE
        elif request.path == "/status.json":
            kind = "application/json"
            text = json.dumps(report())
        elif request.path == "/healthz":
            text = "The event loop answers"
        else:
            now = report()
            text = now["summary"]
            if any(bot["state"] != "ready" for bot in now["bots"]):
                status = 503
        return web.Response(status=status, content_type=kind, text=text, headers=STATUS_HEADERS)

    app = web.Application()
    # To HEAD too. Any other method gets a 405, any other path a 404.
    app.router.add_get("/{path:|status.json|healthz|readyz}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    try:
        await web.TCPSite(runner, host, int(port)).start()
    except (OSError, ValueError, OverflowError) as error:
        raise SettingsError(
            f"--status {address}: Nothing can listen there ({error}). Write a port, as 8080."
        ) from None
    log.info("How the bots are: http://%s:%s/", host, port)
    if not host.startswith(("127.", "::1", "localhost")):
        log.warning("--status %s: Everybody who reaches it can read how the bots are.", address)


# With the hashes of STATUS_PAGE's style and script: after a change, tests/test_status.py prints the
# new ones.
STATUS_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:; "
    "style-src 'sha256-K8jZpf5WzPcGhNQWz5cqCMYues6O7PzfNuREGUu4fZU='; "
    "script-src 'sha256-MdDlLIyuQLlhW0o4TM11/2AZEdY0ApziJj8bDhdTWL0='; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
}
# Names and sentences are put in as text, never as HTML. Without JavaScript there is /readyz.
STATUS_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<noscript><meta http-equiv="refresh" content="0; url=readyz"></noscript>
<title>Bots</title>
<link rel="icon" id="icon" href="data:,">
<style>
:root {
  --page: #f6f7f9; --card: #fff; --text: #1c2128; --quiet: #59636e; --line: #e3e6ea;
  --ready: #1a7f37; --starting: #57606a; --retrying: #8f5400; --stopped: #c4232b; --link: #0b5cad;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1216; --card: #171b21; --text: #e4e8ed; --quiet: #98a2ae; --line: #282e37;
    --ready: #4ac26b; --starting: #98a2ae; --retrying: #e0a53a; --stopped: #ff7b72; --link: #79b8ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text); overflow-wrap: anywhere;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 76rem; margin: 0 auto; padding: 2.5rem 1.5rem 3rem; }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.25; letter-spacing: -.01em; }
a { color: var(--link); }
a:focus-visible { outline: 2px solid; outline-offset: 2px; border-radius: 2px; }
.unseen, .narrow { position: absolute; width: 1px; overflow: hidden; clip-path: inset(50%); }
.ready { color: var(--ready); --sign: "✓" / ""; }
.starting { color: var(--starting); --sign: "…" / ""; }
.retrying { color: var(--retrying); --sign: "↻" / ""; }
.stopped { color: var(--stopped); --sign: "✕" / ""; }
.state { white-space: nowrap; font-weight: 600; }
.state::before { display: inline-block; width: 1.375em; content: var(--sign); }
#counts { display: flex; flex-wrap: wrap; gap: 0 1.25rem; margin: .5rem 0 0; padding: 0; }
#counts li { display: block; }
#counts [hidden], #bar [hidden] { display: none; }
#bar { display: flex; gap: 2px; height: 4px; margin: 1rem 0 1.5rem; }
#bar span { min-width: 4px; background: currentColor; border-radius: 2px; }
#lost { margin: 0 0 1rem; padding: .625rem 1rem; border: 1px solid; border-radius: 8px; }
.old table { opacity: .6; }
table {
  width: 100%; border-collapse: collapse; background: var(--card);
  border-radius: 12px; box-shadow: 0 0 0 1px var(--line);
}
th, td { padding: .5rem 1rem; text-align: start; vertical-align: top; }
thead th { color: var(--quiet); font-size: .8125rem; font-weight: 500; white-space: nowrap; }
tbody tr { border-top: 1px solid var(--line); }
tbody th { min-width: 9rem; max-width: 20rem; font-weight: 600; }
.since, .number { white-space: nowrap; }
.since, .failure { color: var(--quiet); }
.since time { margin-inline-start: .625em; font-size: .8125rem; }
.number { text-align: end; }
.failure { width: 100%; min-width: 16rem; }
.down .failure, .down .since span { color: var(--text); }
footer { margin-top: 1.25rem; color: var(--quiet); font-size: .8125rem; }
@media (max-width: 72rem) {
  main { padding: 1.5rem 1rem 2rem; }
  h1 { font-size: 1.375rem; }
  table { background: none; box-shadow: none; }
  table, tbody { display: block; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tbody tr {
    display: flex; flex-wrap: wrap; gap: 0 .75rem; margin-bottom: .5rem; padding: .625rem 1rem;
    background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  }
  tbody :is(th, td) { min-width: 0; max-width: none; padding: 0; }
  tbody th { flex: 1 0 60%; }
  .since, .number { color: var(--quiet); font-size: .8125rem; }
  .narrow { position: static; clip-path: none; }
  .number:empty, .failure:empty { display: none; }
  .failure { margin-top: .25rem; }
}
</style>
</head>
<body>
<main>
<h1 id="title">Bots</h1>
<p id="news" class="unseen" role="status"></p>
<ul id="counts"></ul>
<div id="bar" aria-hidden="true"></div>
<p id="lost" role="alert" hidden></p>
<table hidden role="table">
<caption class="unseen">The bots, those that are not ready first</caption>
<thead role="rowgroup"><tr role="row">
<th scope="col" role="columnheader">Bot</th>
<th scope="col" role="columnheader">State</th>
<th scope="col" role="columnheader">Since</th>
<th scope="col" role="columnheader" class="number">Latency</th>
<th scope="col" role="columnheader" class="number">Servers</th>
<th scope="col" role="columnheader" class="number">Reconnects in 24 h</th>
<th scope="col" role="columnheader">Last failure</th>
</tr></thead>
<tbody role="rowgroup"></tbody>
</table>
<footer id="process"></footer>
</main>
<script>
"use strict";
const STATES = ["stopped", "retrying", "starting", "ready"];
const rows = new Map();  // by the bot's name
let ahead = 0;  // of the clock here, the one there, in seconds
let last = null;  // the last report, and when it came

const find = id => document.getElementById(id);
const body = document.querySelector("tbody");
const table = document.querySelector("table");

// Only what differs is changed, so that nothing flickers, and a selection or the focus stays.
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function add(parent, tag, settings) {
  return parent.appendChild(Object.assign(document.createElement(tag), settings));
}

function duration(seconds) {
  const [s, m, h, d] = [seconds, seconds / 60, seconds / 3600, seconds / 86400]
    .map(it => Math.max(0, Math.floor(it)));
  return d ? `${d} d ${h % 24} h` : h ? `${h} h ${m % 60} min` : m ? `${m} min` : `${s} s`;
}

function clock(seconds) {
  const then = new Date(seconds * 1000);
  const isToday = then.toDateString() === new Date().toDateString();
  const date = isToday ? {} : {month: "short", day: "numeric"};
  return then.toLocaleString([], {...date, hour: "numeric", minute: "2-digit"});
}

function writeTime(element, seconds) {
  element.dateTime = new Date(seconds * 1000).toISOString();
  write(element, clock(seconds));
}

// The unit is read out, and seen where the column has no heading.
function writeNumber(element, number, unit, className = "") {
  const text = number === null ? "" : number.toLocaleString();
  if (element.textContent === (text && `${text} ${unit}`)) return;
  element.replaceChildren(text);
  if (text) add(element, "span", {className, textContent: ` ${unit}`});
}

// A sentence, with its addresses as links.
function writeSentence(element, text) {
  if (element.textContent === text) return;
  element.replaceChildren();
  for (const part of text.split(/(https:[/][/][^ "'<>()]*[^ "'<>().,;:])/)) {
    if (part.startsWith("https://")) add(element, "a", {href: part, textContent: part});
    else element.append(part);
  }
}

function makeRow() {
  const row = document.createElement("tr");
  row.role = "row";
  const cell = (name, tag = "td", role = "cell") => add(row, tag, {className: name, role});
  row.name = add(cell("name", "th", "rowheader"), "bdi");
  row.firstChild.scope = "row";
  row.state = cell("state");
  const since = cell("since");
  row.duration = add(since, "span");
  row.since = add(since, "time");
  [row.latency, row.servers, row.reconnects] = [cell("number"), cell("number"), cell("number")];
  row.failure = cell("failure");
  return row;
}

function showBot(row, bot) {
  row.bot = bot;
  row.className = bot.state === "ready" ? "" : "down";
  write(row.name, bot.name);
  row.state.className = "state " + bot.state;
  write(row.state, bot.state);
  writeTime(row.since, bot.since);
  writeNumber(row.latency, bot.latency_ms, "ms");
  writeNumber(row.servers, bot.servers, "servers", "narrow");
  writeNumber(row.reconnects, bot.reconnects_24h, "reconnects", "narrow");
  writeSentence(row.failure, bot.failure);
}

function showCounts(bots) {
  const [list, bar] = [find("counts"), find("bar")];
  STATES.toReversed().forEach((state, index) => {
    const count = bots.filter(bot => bot.state === state).length;
    const item = list.children[index] || add(list, "li", {className: "state " + state});
    const part = bar.children[index] || add(bar, "span", {className: state});
    write(item, `${count} ${state}`);
    item.hidden = part.hidden = count === 0;
    part.style.flexGrow = count;
  });
}

function show(report) {
  ahead = report.time - Date.now() / 1000;
  const rank = bot => STATES.indexOf(bot.state);
  const bots = report.bots.toSorted((one, other) => rank(one) - rank(other));
  const ready = bots.filter(bot => bot.state === "ready").length;
  write(find("title"), `${ready} of ${bots.length} bots are ready`);
  write(find("news"), report.summary);
  document.title = `${ready}/${bots.length} bots ready`;
  const isFine = ready === bots.length;
  const [color, shape] = isFine ? ["1a7f37", "M2 2h12v12H2Z"] : ["c4232b", "M8 1 15 15H1Z"];
  const icon = `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>` +
    `<path fill='%23${color}' d='${shape}'/></svg>`;
  if (!find("icon").href.endsWith(icon)) find("icon").href = `data:image/svg+xml,${icon}`;
  showCounts(bots);
  for (const [name, row] of rows) {
    if (!bots.some(bot => bot.name === name)) {
      row.remove();
      rows.delete(name);
    }
  }
  bots.forEach((bot, index) => {
    if (!rows.has(bot.name)) rows.set(bot.name, makeRow());
    const row = rows.get(bot.name);
    showBot(row, bot);
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] || null);
  });
  const facts = [`Running for ${duration(report.time - report.started)}`];
  facts.push(`${duration(report.cpu_seconds)} of CPU time`);
  if (report.memory_bytes) facts.push(`${Math.round(report.memory_bytes / 2 ** 20)} MiB of memory`);
  write(find("process"), [...facts, ...report.versions.split(", ")].join(" · "));
  table.hidden = false;
}

function tick() {
  const now = Date.now() / 1000 + ahead;
  for (const row of rows.values()) write(row.duration, duration(now - row.bot.since));
}

async function update() {
  if (document.hidden) return;
  try {
    const answer = await fetch("status.json", {signal: AbortSignal.timeout(10000)});
    if (!answer.ok) throw new Error(answer.statusText);
    show(await answer.json());
    last = Date.now() / 1000;
    find("lost").hidden = true;
  } catch (error) {
    const since = last ? `since ${clock(last)}. Below is how it was then` : "yet";
    write(find("lost"), `There is no answer ${since}. This page keeps asking.`);
    find("lost").hidden = false;
  }
  document.body.className = find("lost").hidden ? "" : "old";
  tick();
}

async function run() {
  for (;;) {
    await update();
    await new Promise(resolve => setTimeout(resolve, 2000));
  }
}

setInterval(tick, 1000);
document.addEventListener("visibilitychange", update);
run();
</script>
</body>
</html>
"""


# --- Signals, and the end of the program -------------------------------------------------------
# A person or a service manager can always end the program, whatever the bots' code does. The runner
# stops the bots.


class Signals:
    """Stop at the first stop signal, end at once at the second or after too much time.

    A thread receives them: a bot's code may block the main thread, the only one in which Python
    runs handlers of signals.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        # A copy, because exit() in a bot's code closes the input.
        self._terminal = os.dup(0) if os.isatty(0) else None
        self._is_stopping = False
        self.install()
        restorers.append(self.install)
        if sys.platform == "win32":
            handle_closed_console()
        threading.Thread(target=self._listen, daemon=True).start()

    def install(self) -> None:
        """Take the signals, also back from a bot's code."""
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)  # what counts is the wakeup file
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)

    def start_deadline(self, code: int) -> None:
        """Give whatever is still busy STOP_TIMEOUT from now on. The first call counts."""
        threading.Thread(target=end_now, args=[code, STOP_TIMEOUT], daemon=True).start()

    def _listen(self) -> None:
        while True:
            number = self._receiver.recv(1)[0]
            if number in SIGNALS:  # a bot may have a handler for another one
                with suppress(RuntimeError):  # the event loop is closed already
                    self._handle(number)

    def _handle(self, number: int) -> None:
        name = signal.Signals(number).name
        call = self._loop.call_soon_threadsafe
        is_window_closed = self._terminal and not os.isatty(self._terminal)
        if name == "SIGUSR1":
            call(self._runner.show)
        elif name == "SIGHUP" and not is_window_closed:
            call(self._runner.reload)
        elif not self._is_stopping:
            self._is_stopping = True
            self.start_deadline(EXIT_OK)
            call(self._runner.stop, name)
        elif name != "SIGHUP":  # a shell sends several of these for one window
            end_now(EXIT_BUG)


def end_now(code: int, after: float = 0) -> NoReturn:
    """End the process whatever it does, after so many seconds, and write out what was printed."""
    # A bot's code may have replaced the output by something that does not return. At its very end
    # Python starts no more threads: then nothing is written.
    guard = threading.Timer(after + FLUSH_TIMEOUT, os._exit, [code])
    guard.daemon = True
    try:
        guard.start()
        time.sleep(after)
        if after:
            words = f"Some code of a bot does not stop{busy_place()}. The program ends without it."
            print(words, file=sys.stderr)
        flush_output()
    finally:
        os._exit(code)


console_handler: Any = None  # Windows calls it for as long as the process lives


def handle_closed_console() -> None:
    """Stop when somebody closes the console window, logs off, or shuts Windows down.

    Windows ends the process as soon as the handler returns, or after 5 seconds, so the handler
    never returns. Python's own does, at once:
    https://learn.microsoft.com/en-us/windows/console/handlerroutine
    """
    import ctypes

    global console_handler

    def handler(event: int) -> bool:
        if event in (0, 1):  # Ctrl-C and Ctrl-Break, which are Python's business
            return False
        signal.raise_signal(signal.SIGBREAK)  # type: ignore[attr-defined]
        while True:
            time.sleep(1)

    console_handler = ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_uint)(handler)  # type: ignore[attr-defined]
    ctypes.windll.kernel32.SetConsoleCtrlHandler(console_handler, True)  # type: ignore[attr-defined]


def notify(state: str) -> None:
    """Tell systemd, if it asked.

    https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.setblocking(False)
            systemd.sendto(state.encode(), re.sub("^@", "\0", address))


# --- What a bot costs --------------------------------------------------------------------------
# Memory and time that Python takes and no bot needs. All of it can be left out, and the bots work.


def save_memory() -> None:
    """Make what every bot costs smaller."""
    # The collector runs less often, and skips what the settled bots hold: see tidy_memory. With 100
    # busy bots it took 8 % of the time, held up replies for up to 0.1 s, and found next to nothing.
    gc.set_threshold(10_000)
    # asyncio gives each TLS connection a read buffer of 256 KiB, which is more than half of what a
    # bot takes, and a TLS record carries 16. Not public: where it has another name, this changes
    # nothing.
    sslproto.SSLProtocol.max_size = 16 * 1024


def tidy_memory() -> None:
    """Free what is no longer needed, and leave the rest out of the garbage collector's rounds."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


# --- Output and logging ------------------------------------------------------------------------
# Every line has its bot's name, no line has a token, and none holds the bots up.


names_by_token: dict[str, str] = {}
odd_tokens: set[str] = set()  # those that TOKEN_FORM does not match


def hide_tokens(text: str) -> str:
    """The text without tokens: they are known by their form, and the odd ones one by one."""

    def hidden(token: str) -> str:
        return f"[token of {names_by_token.get(token, 'a bot')}]"

    text = TOKEN_FORM.sub(lambda found: hidden(found[0]), text)
    for token in sorted(odd_tokens, key=len, reverse=True):
        text = text.replace(token, hidden(token))
    return text


class Output(io.BufferedIOBase):
    """What is printed, without tokens. A thread writes it, because nobody may be reading."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self.stream = stream  # kept: without it the file would be closed
        # With PYTHONUNBUFFERED there is nothing in between.
        target = getattr(stream.buffer, "raw", stream.buffer)
        self.fileno = target.fileno  # type: ignore[method-assign]
        self.isatty = target.isatty  # type: ignore[method-assign]
        self.waiting: queue.Queue[bytes] = queue.Queue(OUTPUT_WAITING)
        threading.Thread(target=self._write_all, args=[target], daemon=True).start()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing: Python closes it when a bot's code drops a wrapper of it."""

    def write(self, data: Any) -> int:
        text = bytes(data).decode(errors="surrogateescape")
        with suppress(queue.Full):  # nobody has read for long
            self.waiting.put_nowait(hide_tokens(text).encode(errors="surrogateescape"))
        return len(data)

    def _write_all(self, target: Any) -> None:
        while True:
            data = self.waiting.get()
            with suppress(OSError, ValueError):
                while data:
                    written = target.write(data)
                    if written is None:  # a full pipe that does not block
                        time.sleep(0.01)
                    else:
                        data = data[written:]
            self.waiting.task_done()


outputs: list[Output] = []


def protect_output() -> None:
    atexit.register(flush_output)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # a closed one is None
            output = Output(stream)
            # Not every code page has every character.
            errors = "backslashreplace"
            text = io.TextIOWrapper(output, stream.encoding, errors, line_buffering=True)  # type: ignore[type-var]
            # `sys.stderr = io.TextIOWrapper(sys.stderr.detach())` leaves the log its stream.
            text.detach = lambda output=output: output  # type: ignore[method-assign, misc]
            setattr(sys, name, text)
            setattr(sys, f"__{name}__", text)
            outputs.append(output)


def flush_output() -> None:
    """Write out what was printed, as long as somebody reads."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # None has no flush
            stream.flush()
    deadline = time.monotonic() + FLUSH_TIMEOUT
    for output in outputs:
        while output.waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.01)


# Left out: for each lost connection or late heartbeat discord.py logs a traceback or a stack, and
# the program says the same in one line. And at each start, the packages that only voice needs.
LEFT_OUT = re.compile(
    "Attempting a reconnect|Failed to connect|Shard ID %s (voice )?heartbeat|.* voice will NOT be"
)
PRIORITIES = "7764322222"  # of the journal, by a tenth of Python's level


class Log(logging.StreamHandler[Any]):
    """The program's own log, which stays whatever a bot's code does to `logging`.

    In the journal of systemd each line has its priority in front:
    https://man7.org/linux/man-pages/man3/sd-daemon.3.html
    """

    def __init__(self, level: str) -> None:
        super().__init__()
        self._level_of_all = logging.getLevelName(level.upper())
        self._is_journal = is_under_journald()
        self._blocked_by: str | None = None  # a place that blocks all bots is told once
        # setup_logging chooses colours, in containers also for files: those get plain lines.
        discord.utils.setup_logging(handler=self, level=self._level_of_all)
        if not os.isatty(2):
            line = "[{levelname:<8}] {name}: {message}"
            if not self._is_journal:  # the journal has its own times
                line = f"[{{asctime}}] {line}"
            self.setFormatter(logging.Formatter(line, "%Y-%m-%d %H:%M:%S", "{"))
        if self._level_of_all == logging.INFO:
            logging.getLogger("discord").setLevel(logging.WARNING)  # its lines are not for users
        # Code of a bot may set up all loggers and handlers that it finds: this one stays as it is.
        self.setLevel(self._level_of_all)
        self.setLevel = self.setFormatter = self.setStream = lambda *_: None  # type: ignore[assignment, method-assign]
        restorers.append(self.restore)
        logging.captureWarnings(True)
        warnings.formatwarning = format_warning

    def format(self, record: logging.LogRecord) -> str:
        name = code_owner.get().name
        if name:
            record = copy.copy(record)  # other handlers get the record as it was
            record.msg = f"[{name}] {record.getMessage()}"
            record.args = None
        text = super().format(record)
        if self._is_journal:
            text = re.sub("(?m)^", f"<{PRIORITIES[record.levelno // 10]}>", text)
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        if not isinstance(record.msg, str) or not LEFT_OUT.match(record.msg):
            return True
        if "heartbeat" in record.msg:  # something keeps the event loop, which is told once
            place = busy_place()
            if place != self._blocked_by:
                self._blocked_by = place
                text = "Some code blocks all bots for more than 10 s%s."
                # Not in the name of the bot whose heartbeat was late: it may be any of them.
                contextvars.Context().run(log.warning, text, place)
        return False

    def restore(self) -> None:
        """Put back what code of a bot may have taken away: `dictConfig` disables every logger."""
        logging.disable(logging.NOTSET)
        root = logging.getLogger()
        root.setLevel(min(root.level, self._level_of_all))
        root.addHandler(self)  # if it is not there
        loggers: list[Any] = [root, *root.manager.loggerDict.values()]
        for logger in loggers:
            logger.disabled = False
            self._remove_doubles(logger)

    def _remove_doubles(self, logger: logging.Logger) -> None:
        """Remove handlers that would write a line twice, such as those of a script's last start."""
        files = set()
        for handler in getattr(logger, "handlers", [])[::-1]:
            file = getattr(handler, "baseFilename", handler)
            is_console = getattr(handler, "stream", None) in (sys.stdout, sys.stderr)
            if (is_console and logger.propagate and handler is not self) or file in files:
                logger.removeHandler(handler)
                handler.close()
            files.add(file)


def is_under_journald() -> bool:
    with suppress(OSError):  # stderr may be closed
        status = os.fstat(2)
        return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    return False


def format_warning(
    message: object, category: object, filename: str, lineno: int, line: object = None
) -> str:
    """In the place of `warnings.formatwarning`: one line of the log, and what to do."""
    text = f"{message} ({os.path.basename(filename)}, line {lineno})."
    if "never awaited" in text:
        text += " Write await in front of it."
    return text


# --- The command line --------------------------------------------------------------------------
# Here the program begins, does what is asked for, and ends with its exit code.


LEVELS = ("debug", "info", "warning", "error", "critical")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    lines = ["variables of the env file and of the process environment, which wins:"]
    for name, setting in SETTINGS.items():
        lines.append(f"  {name:<28}{setting.help}")
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--env-file", metavar="PATH", help="default: .env here, or beside run_bots.py")
    option("--only", metavar="1-10,music", help="just these bots: numbers, ranges of them, names")
    look = parser.add_mutually_exclusive_group().add_argument
    look("--check", action="store_true", help="run each bot's setup, say if all is well, and exit")
    look("--sync-commands", action="store_true", help="upload the slash commands, and exit")
    option("--no-watch", action="store_true", help="follow saved files only at SIGHUP")
    status = os.environ.pop("DISCORD_BOT_STATUS", "")
    option(
        "--status",
        metavar="[HOST:]PORT",
        default=status,
        help="a page there says how each bot is; HOST: 127.0.0.1 if left out",
    )
    option("--log-level", default="info", type=str.lower, choices=LEVELS, help="default: info")
    option("--version", action="version", version=VERSIONS)
    return parser.parse_args(argv)


def find_env_file(named: str | None) -> Path:
    """The env file, which may come later. Raises `SettingsError`."""
    path = find(named or ".env")
    if named and not os.path.exists(path):
        raise SettingsError(f"There is no file {named}. Check --env-file.")
    return path


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    protect_output()
    Log(arguments.log_level)  # it writes into the output that is protected
    sys.path[:0] = map(str, FOLDERS)  # where extensions are found
    try:
        return start(arguments)
    except SettingsError as error:
        print(*error.args, sep="\n", file=sys.stderr)
        return EXIT_NEEDS_PERSON


def start(arguments: argparse.Namespace) -> int:
    """Do what is asked for. Returns the exit code, and raises `SettingsError`."""
    env_file = find_env_file(arguments.env_file)
    runner = Runner(env_file, arguments.only)
    bots = runner.read()
    source = shown(env_file) if os.path.exists(env_file) else "the environment"
    log.info("%s from %s", counted(len(bots), "bot"), source)
    save_memory()
    take_over()
    with asyncio.Runner(loop_factory=Loop) as loop_runner:
        loop: Any = loop_runner.get_loop()
        if arguments.check or arguments.sync_commands:
            for number in STOP_SIGNALS:
                signal.signal(number, lambda *_: end_now(EXIT_NO_RESULT))
            code = loop.run_until_done(look(bots, sync=arguments.sync_commands))
            end_now(code)  # at once: a setup may have left threads that do not end
        watch = not arguments.no_watch
        work = runner.run(bots, watch=watch, status=arguments.status)
        return int(loop.run_until_done(work))


if __name__ == "__main__":
    sys.exit(main())
