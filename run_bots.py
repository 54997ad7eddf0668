#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["discord.py~=2.7.1", "python-dotenv~=1.2.3"]
# ///
"""Run several Discord bots at once: one script, one env file.

Put the bots' tokens into a file named .env, a line for each bot:

    DISCORD_BOT_TOKEN1=the token of your first bot
    DISCORD_BOT_TOKEN2=the token of your second bot

Then start this script. It logs every bot in, keeps it connected, and stops them all on Ctrl-C.
What a bot does is in its extensions, which are ordinary discord.py extension modules.
Save the file while the bots run: the bots that you changed start again, and all the others stay connected.
"""

import os
import signal
import sys

EXIT_OK = 0  # asked to stop, or every bot closed itself
EXIT_BUG = 1  # the program itself failed; also the second signal
EXIT_NEEDS_PERSON = 78  # EX_CONFIG of sysexits.h: a service manager must not start it again
# Ctrl-C; kill, systemd, Docker and Kubernetes; Ctrl-Break, which only Windows has. Then the two that Windows has not.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
OTHER_SIGNALS = [getattr(signal, name) for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name)]

if sys.version_info < (3, 11):
    print("run_bots.py needs Python 3.11 or newer. This is Python " + sys.version.split()[0] + ".", file=sys.stderr)
    sys.exit(EXIT_NEEDS_PERSON)
if __name__ == "__main__":  # the imports below take about a second, and there is nothing to close yet
    for _signal in STOP_SIGNALS + OTHER_SIGNALS:
        signal.signal(_signal, (lambda *_: os._exit(EXIT_OK)) if _signal in STOP_SIGNALS else signal.SIG_IGN)

import argparse
import asyncio
import base64
import collections
import contextlib
import contextvars
import dataclasses
import difflib
import functools
import gc
import io
import logging
import random
import re
import socket
import threading
import time
from asyncio import sslproto
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

try:
    import aiohttp  # discord.py brings it
    import discord
    from discord.ext import commands
    from dotenv.parser import parse_stream
except ModuleNotFoundError as missing:
    remedy = "Start with .venv/bin/python run_bots.py, or run: python -m pip install -r requirements.txt"
    print(f"{missing.name} is not installed. {remedy}", file=sys.stderr)
    sys.exit(EXIT_NEEDS_PERSON)

__version__ = "1.0.0"
PORTAL = "https://discord.com/developers/applications"
# Those after which a person has to do something: https://docs.discord.com/developers/topics/opcodes-and-status-codes
FINAL_CLOSE_CODES = (4004, 4010, 4011, 4012, 4013, 4014)
SHARDING_FROM = 1000  # servers; with fewer, Discord recommends one shard, and need not be asked
TLS_BUFFER = 32 * 1024  # bytes
# The rest are seconds. After these a login or a gateway connection without an answer is given up and tried again:
LOGIN_TIMEOUT, CONNECT_TIMEOUT = 60, 30
# Between two attempts a bot waits a random time up to 1, 2, 4, 8 … MAX_DELAY. One failure is forgotten for each
# FORGIVE_AFTER of uptime. So, however it fails, it makes about 86,400 / 300 = 288 connections a day at most. Discord
# resets the token at 1,000 IDENTIFYs: https://docs.discord.com/developers/events/gateway#session-start-limit-object
MAX_DELAY, FORGIVE_AFTER = 900, 300
KEEP_CLIENT = 30  # a client that is offline and has to wait longer than this is given up for a new one
BLOCK_DELAY, BLOCK_SPREAD = 60, 5  # a block of the IP address that does not say how long it lasts; see Entry.pause
SETTLE_TIMEOUT = 30  # then the log says how many bots are ready, even if one has neither come up nor failed
WATCH_INTERVAL = 1  # how often the env file is looked at
TIDY_INTERVAL = 600  # see tidy_memory
# A stop takes 10 seconds at most: for Discord's answer, the bots' own clean-up, other threads, and for everything.
GATEWAY_CLOSE_TIMEOUT, CLEANUP_TIMEOUT, CLOSE_TIMEOUT, STOP_TIMEOUT = 2, 5, 1, 9

log = logging.getLogger("run_bots")
# The token of the bot whose code is running; by the token, the bot's name and the tasks that its code has started.
running_token: contextvars.ContextVar[str] = contextvars.ContextVar("running_token", default="")
names: dict[str, str] = {}
tasks: dict[str, set[asyncio.Task[Any]]] = collections.defaultdict(set)


# --- Settings: the env file and the process environment --------------------------------------------------------------

# Every variable that is read: what it is, and its default. With a default it may also stand without the number; then it
# holds for every bot that has none of its own.
SETTINGS: dict[str, tuple[str, str | None]] = {
    "DISCORD_BOT_TOKEN<N>": ("bot N's token; empty means no such bot", None),
    "DISCORD_BOT_TOKEN<N>_FILE": ("a file that holds the token, instead of the token", None),
    "DISCORD_BOT_NAME<N>": ("what the log calls the bot; default: bot<N>", None),
    "DISCORD_BOT_PREFIX<N>": ("what its text commands start with; default: !", "!"),
    "DISCORD_BOT_EXTENSIONS<N>": ("modules that say what it does, with commas; default: it answers ping", ""),
    "DISCORD_BOT_INTENTS<N>": ("what Discord tells it; default: default,message_content", "default,message_content"),
}
# What stands in the place of a token in this project's files and in others', if it has not a token's form.
PLACEHOLDER = re.compile(
    r"(?i)(?!.{20,}\..{5,}\..{20,}$)(.*(your|paste|insert|placeholder|example|here$)|[x.*-]+$"
    r"|\W*(the|bot|discord)?\W*(token|todo|none|change.?me)$)"
)
Values = dict[str, tuple[str, str]]  # of each variable its text, and its source: the name, and where it is set


class SettingsError(Exception):
    """The settings are not valid. Each argument is one problem, as a sentence for a person."""


@dataclasses.dataclass(frozen=True)
class BotSettings:
    """What one bot is started with. A bot whose settings are equal to the new ones is left alone."""

    number: int = dataclasses.field(compare=False)
    name: str = dataclasses.field(compare=False)
    token: str = dataclasses.field(repr=False)
    prefix: str
    extensions: tuple[str, ...]
    intents: discord.Intents
    sources: list[str] = dataclasses.field(compare=False)  # of each of SETTINGS

    @property
    def bot_id(self) -> str:
        """The bot's id, which is the first part of a token in base64; the whole token if it is something else."""
        try:
            return str(int(base64.b64decode(self.token.partition(".")[0] + "==")))
        except ValueError:
            return self.token


def nearest(word: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(word, list(known), 1, 0)[0]


def parse_intents(text: str) -> discord.Intents:
    """Intents from their names. Raises `ValueError` for an unknown name."""
    parsed, groups = discord.Intents.none(), ("default", "all", "none")
    if text.lstrip().startswith("-"):
        text = f"{SETTINGS['DISCORD_BOT_INTENTS<N>'][1]},{text}"
    for name in filter(None, (name.strip().lower() for name in text.split(","))):
        flag = name.removeprefix("-")
        if flag in discord.Intents.VALID_FLAGS:
            setattr(parsed, flag, flag == name)
        elif name in groups:
            parsed |= getattr(discord.Intents, name)()
        else:
            known = nearest(flag, (*groups, *discord.Intents.VALID_FLAGS))
            raise ValueError(f"There is no intent {flag}. Did you mean {known}?")
    return parsed


def read_text(path: Path) -> str:
    """A file's text, in UTF-8 or in PowerShell's UTF-16. Raises `ValueError`, whose words belong behind its name."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError("is not a text file. Save it as plain text, in UTF-8.")
    return text.replace("\r\n", "\n")


def read_env_file(path: Path, problems: list[str]) -> Values:
    """The variables of an env file. Adds to the problems. Raises `ValueError` as `read_text` does."""
    values: Values = {}
    for binding in parse_stream(io.StringIO(read_text(path))):
        text, name = binding.original.string, binding.key
        place = f"{path}, line {binding.original.line + text[: len(text) - len(text.lstrip())].count(chr(10))}"
        if binding.error or (name and binding.value is None):
            problems.append(f"{place}: This is not NAME=value. Is a quote or the = missing?")
        elif name in values:
            problems.append(f"{name} ({place}): It is set already: {values[name][1]}. Delete one of them.")
        elif name:
            values[name] = binding.value or "", f"{name} ({place})"
    return values


def read_bot(number: int, values: Values, problems: list[str], warnings: list[str]) -> BotSettings:
    """One bot's settings: its own values, or those for all bots, or the defaults. Adds to the problems and warnings."""
    texts, sources = [], []
    for template, (_, default) in SETTINGS.items():
        own, shared = template.replace("<N>", str(number)), template.replace("<N>", "")
        text, source = values.get(own) or values.get(shared) or (default or "", own)
        texts.append(text)
        sources.append(source)
    token, token_file, name, prefix, extensions, intents = texts
    if token and token_file:
        problems.append(f"{sources[0]}: {sources[1]} is set too. Keep one of them.")
    elif token_file:
        sources[0] = sources[1]
        try:
            token = read_text(Path(token_file.strip()))
        except ValueError as error:
            problems.append(f"{sources[0]}: This file {error} Write the path of a file that holds the token.")
    token = re.sub("(?i)^bot ", "", token.strip()).strip("<> ")
    if PLACEHOLDER.match(token):
        problems.append(f"{sources[0]}: This is a placeholder. Put the bot's own token there.")
    elif not re.fullmatch(r"[\w.+/-]+=*", token, re.ASCII):
        problems.append(
            f"{sources[0]}: It is empty, or has a space or another character that no token has. Copy it again."
        )
    elif token.count(".") != 2:
        warnings.append(f"{sources[0]}: This does not look like a token. A token has three parts with dots in between.")
    modules = tuple(dict.fromkeys(module.strip() for module in extensions.split(",") if module.strip()))
    if any(it.endswith(".py") or not it.replace(".", "_").isidentifier() for it in modules):
        how = "Write greeter for greeter.py and cogs.music for cogs/music.py, with commas in between"
        problems.append(f"{sources[4]}: This is not the name of a module. {how}.")
    parsed = discord.Intents.none()
    try:
        parsed = parse_intents(intents)
    except ValueError as error:
        problems.append(f"{sources[5]}: {error}")
    return BotSettings(number, name.strip() or f"bot{number}", token, prefix, modules, parsed, sources)


def read_settings(path: Path | None, environment: Mapping[str, str]) -> tuple[list[BotSettings], list[str]]:
    """Every bot that the env file and the process environment name, by number; and warnings of what is only odd.

    The environment wins. The env file's variables reach `os.environ`, for the bots' own code; tokens do not.
    Raises `SettingsError` with every problem that there is. None of the texts holds a token.
    """
    problems: list[str] = []
    warnings: list[str] = []
    try:
        from_file = read_env_file(path, problems) if path else {}
    except ValueError as error:
        raise SettingsError(f"{path} {error}") from None
    if path and os.name == "posix" and path.stat().st_mode & 0o004:
        warnings.append(f"{path}: Everybody on this machine can read your tokens. Run: chmod 600 {path}")
    from_both = from_file | {name: (text, f"{name} (the environment)") for name, text in environment.items()}
    values: Values = {}  # those that are known, and not blank
    first: dict[str, str] = {}  # of each number, token and name the first source
    for name, (text, source) in from_both.items():
        number = "".join(re.findall("[1-9][0-9]*", name)[:1])
        known = [it.replace("<N>", number) for it, (_, default) in SETTINGS.items() if number or default is not None]
        if not name.upper().startswith(("DISCORD_BOT_", "DISCORD_TOKEN", "BOT_TOKEN")) or not text.strip():
            continue
        if name not in known:
            meant = nearest(name.upper(), [*known, *(it.replace("<N>", number or "1") for it in SETTINGS)])
            warnings.append(f"{source}: Nothing reads this variable. Did you mean {meant}?")
        elif re.search("^[\u2018-\u201f\u00ab]|[\u2018-\u201f\u00bb]$", text):
            problems.append(f"{source}: There are curly quotes. Use straight ones, or none.")
        elif not text.strip().isprintable():
            problems.append(f"{source}: There is a line break or a control character. Is a quote unclosed?")
        else:
            values[name] = text, source
            first.setdefault(number or "0", source)
    bots: list[BotSettings] = []
    for n in sorted(map(int, set(first) - {"0"})):
        if f"DISCORD_BOT_TOKEN{n}" not in values and f"DISCORD_BOT_TOKEN{n}_FILE" not in values:
            warnings.append(f"{first[str(n)]}: There is no DISCORD_BOT_TOKEN{n}.")
            continue
        bots.append(read_bot(n, values, problems, warnings))
        token_source, _, name_source, *_ = bots[-1].sources
        for what, key, source in ("token", bots[-1].bot_id, token_source), ("name", bots[-1].name, name_source):
            other = first.setdefault(f"{what} {key}", source)
            if other != source:
                same = "It is for the same bot as" if what == "token" else f"The name {key} is also that of"
                problems.append(f"{source}: {same} {other}. Every bot needs its own {what}.")
    if not bots and not problems:
        looked = f"{path} has no token." if path else f"There is no file .env in {Path.cwd()}."
        where = f"For each bot, open {PORTAL}, choose your application, then Bot, then Reset Token."
        how = "Copy .env.example to .env, and write the token there: DISCORD_BOT_TOKEN1=your token"
        problems = [*warnings, f"There is no bot to run. {looked}", where, how]
    if problems:
        raise SettingsError(*problems)
    names.update((bot.token, bot.name) for bot in bots)
    for name in set(from_file) - set(environment):
        if not name.startswith("DISCORD_BOT_TOKEN") and "=" not in name:
            os.environ[name] = from_file[name][0]
    return bots, warnings


def choose(bots: list[BotSettings], only: str) -> tuple[list[BotSettings], list[str]]:
    """The bots that `--only` names, and those of its names that no bot has."""
    chosen, missing = set(), []
    for part in map(str.strip, only.split(",")):
        span = re.fullmatch("([0-9]+)-([0-9]+)", part)
        numbers = range(int(span[1]), int(span[2]) + 1) if span else ()
        found = {bot.number for bot in bots if bot.number in numbers or part in (str(bot.number), bot.name)}
        chosen |= found
        missing += [] if found else [part]
    return [bot for bot in bots if bot.number in chosen], missing


class Source:
    """Where the settings come from: the env file, the process environment and `--only`."""

    def __init__(self, named: str | None, only: str | None) -> None:
        candidates = [Path(".env"), Path(__file__).with_name(".env")] if named is None else [Path(named)]
        self.env_file = next((path for path in candidates if os.path.isfile(path)), None)
        if named is not None and self.env_file is None:
            raise SettingsError(f"There is no file {named}. Check --env-file.")
        self._only, self._environment = only, dict(os.environ)
        self._seen: object = None

    def read(self) -> list[BotSettings]:
        """The bots to run. Raises `SettingsError`."""
        is_first, self._seen = self._seen is None, self._stamp()
        bots, warnings = read_settings(self.env_file, self._environment)
        if self._only is not None:
            there = ", ".join(f"{bot.number} ({bot.name})" for bot in bots)
            bots, missing = choose(bots, self._only)
            warnings += [f"--only: There is no bot {part}. These are there: {there}." for part in missing]
            if missing and (is_first or not bots):  # later it may have been removed from the file
                raise SettingsError(*warnings)
        for warning in warnings:
            log.warning(warning)
        return bots

    def _stamp(self) -> object:
        """What is different after each change of the env file."""
        with contextlib.suppress(OSError):
            status = os.stat(self.env_file or "")
            return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
        return None

    async def follow(self, changed: Callable[[], None]) -> None:
        """Call this after each change of the env file, once it lies still, because it may be written in pieces."""
        last = self._seen
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            before, last = last, self._stamp()
            if before == last != self._seen:
                changed()


# --- What a bot does -------------------------------------------------------------------------------------------------


class Ping(commands.Cog):
    """What a bot does that has no extensions: it answers `ping` with `pong`, but not itself and no other bot."""

    @commands.Cog.listener()
    async def on_message(self, message: discord.Message) -> None:
        if not message.author.bot and message.content.startswith("ping"):
            await message.channel.send("pong", allowed_mentions=discord.AllowedMentions.none())


# --- One entry and its life: log in, connect, retry, end -------------------------------------------------------------

# Intents that are to be switched on in the Developer Portal: the application's flag, and the Portal's own name.
PRIVILEGED_INTENTS = {
    "message_content": ("gateway_message_content", "Message Content Intent"),
    "members": ("gateway_guild_members", "Server Members Intent"),
    "presences": ("gateway_presence", "Presence Intent"),
}


class GivenUp(BaseException):
    """This client is of no more use; the cause may say why. No `Exception`: discord.py would catch it and go on."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why an attempt failed, as a sentence for a person."""

    text: str
    final: bool = False  # a person must change something first
    cause: BaseException | None = None  # what the log shows a traceback of
    wait: float = 0  # seconds that Discord asks for
    for_all: bool = False  # they hold for the IP address, and so for every bot
    needs_shards: bool = False


def diagnose(error: BaseException, bot: "Bot") -> Failure:
    """What an exception means for a bot. This is the one place that says which failures are final."""
    if isinstance(error, discord.GatewayNotFound) and error.__cause__ is not None:
        error = error.__cause__
    token, _, _, _, extensions, intents = bot.settings.sources
    number = str(bot.application_id or bot.settings.bot_id)
    portal = f"{PORTAL}/{number}/bot" if number.isdecimal() else PORTAL
    status = getattr(error, "status", None)
    code = error.code if isinstance(error, discord.ConnectionClosed) else None

    refused = isinstance(error, discord.LoginFailure) or (isinstance(error, discord.HTTPException) and status == 401)
    if refused or code == 4004:
        remedy = f"Make a new one at {portal} (Reset Token), and put it in."
        return Failure(f"{token}: Discord refuses this token. {remedy}", final=True)
    if isinstance(error, discord.PrivilegedIntentsRequired) or code == 4014:
        missing = " and ".join(bot.missing_intents) or "privileged intents that it asks for"
        remedy = f"Switch it on at {portal}, or change {intents}."
        return Failure(f"{token}: The bot may not use the {missing}. {remedy}", final=True)
    if isinstance(error, commands.ExtensionError):
        cause = getattr(error, "original", None)
        why = f"{type(cause).__name__}: {cause}" if cause else "It has no function: async def setup(bot)"
        if isinstance(error, commands.ExtensionNotFound):
            why = "There is no such file beside run_bots.py or in this folder"
        frames = cause and cause.__traceback__  # from the first of the user's own
        while frames and frames.tb_frame.f_code.co_filename.startswith(
            (__file__, "<frozen ", os.path.dirname(discord.__file__))
        ):
            frames = frames.tb_next
        cause = cause and cause.with_traceback(frames)
        return Failure(f"{extensions}: {error.name} does not load. {why}.", final=True, cause=cause)
    if isinstance(error, discord.app_commands.CommandSyncFailure):
        return Failure(f"{extensions}: Discord refuses the slash commands. {error}", final=True)
    if code == 4011 and (bot.shard_count_is_ours or bot.guilds):
        return Failure("Discord wants this bot to run in shards.", needs_shards=True)
    if code in FINAL_CLOSE_CODES:
        remedy = f"Update discord.py, or change {intents}."
        return Failure(f"{token}: Discord refuses the connection (close code {code}). {remedy}", final=True)

    if isinstance(error, discord.RateLimited):
        return Failure(f"Discord asks this bot to wait {error.retry_after:.0f} s.", wait=error.retry_after)
    headers = getattr(getattr(error, "response", error), "headers", None) or {}
    if status == 429 and not ("Via" in headers and headers.get("Content-Type") == "application/json"):
        # Discord's own rate limits come as JSON and through a proxy. Anything else is Cloudflare, in front of it.
        wait = headers.get("Retry-After", "")
        seconds = int(wait) if wait.isdecimal() else BLOCK_DELAY
        return Failure(f"Discord blocks this IP address (429). All bots wait {seconds} s.", wait=seconds, for_all=True)
    if status is not None:
        return Failure(f"Discord answers with status {status}.")
    if isinstance(error, TimeoutError):
        return Failure("Discord does not answer.")
    if isinstance(error, OSError | aiohttp.ClientError):
        return Failure(f"Discord cannot be reached. Check the network ({error}).")
    if code is not None:
        return Failure(f"Discord closed the gateway connection with {code}.")
    if bot.application is None and isinstance(error, TypeError | KeyError | ValueError):
        return Failure("The answer is not from Discord. Is there a log-in page or a proxy in the way?")
    return Failure(f"Unexpected error: {error!r}.", cause=error)


class Bot(commands.AutoShardedBot):
    """discord.py's bot, as one of many: it asks its entry before it connects, and it leaves Discord at once.

    It has one shard, and more when Discord wants more.
    """

    def __init__(self, settings: BotSettings, entry: "Entry | None" = None) -> None:
        # Without the text of messages, a bot still hears commands that begin with its mention.
        prefix = settings.prefix if settings.intents.message_content else commands.when_mentioned
        # A bot that only answers ping needs no help command and no cache of messages, which takes memory and time.
        options: Any = {} if settings.extensions else {"help_command": None, "max_messages": None}
        super().__init__(prefix, intents=settings.intents, shard_count=1, **options)
        self.settings, self.entry = settings, entry
        self.shard_count_is_ours = True
        self.gone = asyncio.get_running_loop().create_future()  # done when the bot is closed, whoever closed it
        self._goodbye: asyncio.Task[None] | None = None
        self._sockets: list[aiohttp.ClientWebSocketResponse] = []
        # Not public, but every way to the gateway leads through it: a shard's first connection, a RESUME, a new
        # IDENTIFY. The only public hook is for IDENTIFY, and discord.py sends RESUMEs in a loop without a pause.
        self._connect_socket = self.http.ws_connect
        self.http.ws_connect = self._open_socket  # type: ignore[method-assign]
        self.add_listener(self._report_ready, "on_connect")
        self.add_listener(self._report_ready, "on_resumed")

    @property
    def missing_intents(self) -> list[str]:
        """The privileged intents that the bot asks for and that are off, by the Developer Portal's names."""
        asked = [names for intent, names in PRIVILEGED_INTENTS.items() if getattr(self.intents, intent)]
        flags = self.application_flags
        return [name for flag, name in asked if not getattr(flags, flag) and not getattr(flags, f"{flag}_limited")]

    async def log_in(self) -> None:
        """Log in, by REST alone, and load what the bot does."""
        # Not public, and for the login alone: a longer rate limit is an error, for which the entry waits.
        self.http.max_ratelimit_timeout = LOGIN_TIMEOUT / 2
        async with asyncio.timeout(LOGIN_TIMEOUT):
            await self.login(self.settings.token)
        self.http.max_ratelimit_timeout = None
        if not self.settings.extensions:
            await self.add_cog(Ping())
        for name in self.settings.extensions:
            try:
                await self.load_extension(name)
            except commands.ExtensionError:
                raise
            except (Exception, SystemExit) as error:  # of the package that it is in; exit() would end every bot
                if isinstance(error, ModuleNotFoundError) and name.startswith(f"{error.name}."):
                    raise commands.ExtensionNotFound(name) from error
                raise commands.ExtensionFailed(name, error) from error  # type: ignore[arg-type]

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        await super().before_identify_hook(shard_id, initial=initial)
        for other in self._sockets:  # discord.py launches all shards before it looks how the first one fared
            if other.close_code in FINAL_CLOSE_CODES:
                raise GivenUp from discord.ConnectionClosed(other, shard_id=None)

    async def _open_socket(self, url: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        """Connect to the gateway as soon as the bot may. Raises `GivenUp` if that takes long."""
        if options or self.entry is None:  # a voice connection
            return await self._connect_socket(url, **options)
        lost = [socket for socket in self._sockets if socket.closed]
        self._sockets = [socket for socket in self._sockets if not socket.closed]
        if lost and not self._goodbye:
            self.entry.failed(Failure("The gateway connection was lost."), len(lost) / (self.shard_count or 1))
        while True:
            if self.entry.delay > KEEP_CLIENT and not self._sockets:
                raise GivenUp
            await self.entry.pause()
            if self._goodbye:
                raise asyncio.CancelledError
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    socket = await self._connect_socket(url)
                break
            except (OSError, aiohttp.ClientError) as error:
                self.entry.failed(diagnose(error, self))
        self.entry.backoff.succeeded()
        self.entry.reconnects += len(lost)
        self._sockets.append(socket)
        close, turn = socket.close, asyncio.Lock()

        async def close_in_turn(**how: Any) -> bool:
            # Otherwise our close with 1000 wakes the reader, and the reader's own close with 4000 goes out first.
            async with turn:
                return await close(**how)

        socket.close = close_in_turn  # type: ignore[method-assign]
        return socket

    async def close(self) -> None:
        """Leave the gateway, let the bot's own code clean up, close the rest. A second call waits for the first."""
        if self._goodbye is None:
            left_over = set(tasks[self.settings.token]) - {asyncio.current_task()}
            self._goodbye = asyncio.create_task(self._say_goodbye(left_over))
        await asyncio.shield(self._goodbye)

    async def _say_goodbye(self, left_over: set[Any]) -> None:
        # With 1000 Discord shows the bot as offline at once.
        await finish((socket.close(code=1000) for socket in self._sockets), GATEWAY_CLOSE_TIMEOUT)
        for task in left_over:  # what waits for an event would wait for ever, and what sends would fail
            task.cancel()
        if not await finish([super().close()], CLEANUP_TIMEOUT):  # it unloads the extensions first
            log.warning("The bot's own clean-up took more than %s s. It was cut off.", CLEANUP_TIMEOUT)
        await self.http.close()
        self.gone.set_result(None)

    async def __aexit__(self, *_: object) -> None:
        await self.close()  # discord.py's own waits for its part alone

    async def on_error(self, event_method: str, *args: Any, **kwargs: Any) -> None:
        if not self._goodbye:  # that a bot was closed under a running handler is no error
            await super().on_error(event_method, *args, **kwargs)

    async def on_command_error(self, context: commands.Context[Any], exception: commands.CommandError) -> None:
        # An unknown command is for another bot, perhaps.
        if not self._goodbye and not isinstance(exception, commands.CommandNotFound):
            await super().on_command_error(context, exception)

    async def _report_ready(self) -> None:
        shards = self.shards.values()
        if self.entry and len(shards) == self.shard_count and not any(shard.is_closed() for shard in shards):
            log.info("ready as %s (%s) in %s servers", self.user, self.user and self.user.id, len(self.guilds))
            self.entry.set_state("ready")


async def finish(coroutines: Iterable[Coroutine[Any, Any, Any]], timeout: float) -> bool:
    """Run all of these, and cancel what takes longer than the timeout. Returns whether nothing did."""
    running = [asyncio.create_task(coroutine) for coroutine in coroutines]
    done, late = await asyncio.wait(running, timeout=timeout) if running else (set(), set())
    for task in late:
        task.cancel()
    await asyncio.gather(*done, return_exceptions=True)  # discord.py ignores errors at a close too
    return not late


class Backoff:
    """When a bot may try again: after a random time that doubles with each failure. Uptime makes up for failures."""

    def __init__(self) -> None:
        self.until = self._failures = 0.0  # `until` by the monotonic clock
        self._up_since: float | None = None

    @property
    def delay(self) -> float:
        """How many seconds are left."""
        return max(0.0, self.until - time.monotonic())

    def succeeded(self) -> None:
        """Count the uptime from now on."""
        self._up_since = time.monotonic()

    def failed(self, part: float = 1) -> None:
        """Count a failure of this part of the bot's shards."""
        now = time.monotonic()
        if self._up_since is not None:
            self._failures = max(0, self._failures - (now - self._up_since) / FORGIVE_AFTER)
        self._up_since = None
        self.until = max(self.until, now + random.uniform(0, min(MAX_DELAY, 2**self._failures)))
        self._failures = min(self._failures + part, 10)  # 2**10 is more than MAX_DELAY


class Entry:
    """One bot: its state, and the event that is set when it has ended, however that was.

    `state` is starting, ready, retrying or stopped, `since` the time of its last change in seconds since 1970.
    """

    def __init__(self, settings: BotSettings, block: Backoff, on_change: Callable[[], None]) -> None:
        self.settings = settings
        self.wanted: BotSettings | None = settings  # what it is to run with; None: it is to end
        self.event = asyncio.Event()
        self.state, self.since = "starting", time.time()
        self.failure: Failure | None = None  # the last one
        self.bot: Bot | None = None
        self.reconnects = 0
        self.backoff = Backoff()
        self._block = block  # Cloudflare blocks an address, so all bots share this one
        self._leave: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ask_shards = False
        self._on_change = on_change
        self.task = asyncio.create_task(self._run())

    def want(self, settings: BotSettings | None) -> None:
        """Run with these settings from now on, or end. One client leaves before the next one starts."""
        if settings == self.wanted == self.settings:
            self.settings = settings  # with another name or number, perhaps
        elif not self._leave.done():
            self._leave.set_result(None)
        self.wanted = settings

    async def _run(self) -> None:
        try:
            while self.wanted:
                self.settings, self._leave = self.wanted, asyncio.get_running_loop().create_future()
                running_token.set(self.settings.token)
                if not await self._attempt():
                    break
            if self.wanted and self.failure:
                log.error("stopped: %s", self.failure.text, exc_info=self.failure.cause)
            else:
                log.info("stopped: %s", "it closed itself" if self.wanted else "as asked")
        except Exception:
            log.critical("This bot is stopped by a bug of run_bots.py.", exc_info=True)
            raise
        finally:
            self.event.set()
            self.set_state("stopped")

    async def _attempt(self) -> bool:
        """Run the bot with a fresh client until that ends. Returns whether to start another."""
        bot = self.bot = Bot(self.settings, self)
        try:
            async with bot:
                connected = asyncio.create_task(self._log_in_and_connect(bot))
                await asyncio.wait({connected, self._leave, bot.gone}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({connected}, timeout=CLOSE_TIMEOUT)  # it may have to say why
            if connected.done() and not connected.cancelled():
                connected.result()
            self.failure = None
            return self._leave.done()
        except (Exception, GivenUp) as error:
            cause = error.__cause__ if isinstance(error, GivenUp) else error
            if cause is not None:
                self.failed(diagnose(cause, bot))
            return self._leave.done() or not self.needs_person

    async def _log_in_and_connect(self, bot: Bot) -> None:
        await self.pause()
        await bot.log_in()
        if self._ask_shards or (bot.application and bot.application.approximate_guild_count >= SHARDING_FROM):
            bot.shard_count_is_ours = False
            bot.shard_count = None  # type: ignore[assignment]  # connect() asks Discord
        await bot.connect()

    @property
    def needs_person(self) -> bool:
        """Whether it has ended until a person changes something."""
        return self.failure is not None and self.failure.final

    @property
    def delay(self) -> float:
        """How many seconds this bot has to wait before it may try again."""
        return max(self.backoff.delay, self._block.delay)

    async def pause(self) -> None:
        """Wait until this bot may try again."""
        while self.delay:
            # After a block the bots come one by one, so that the first finds out for all whether it is over.
            await asyncio.sleep(self.delay + (random.uniform(0, BLOCK_SPREAD) if self._block.delay else 0))

    def failed(self, failure: Failure, part: float = 1) -> None:
        """Count a failure, of this part of the bot's shards, and say what comes next."""
        self.failure = failure
        if not failure.final:
            self._ask_shards = self._ask_shards or failure.needs_shards
            self.backoff.failed(part)
            waiting = self._block if failure.for_all else self.backoff
            waiting.until = max(waiting.until, time.monotonic() + failure.wait)
            log.warning("%s Trying again in %.1f s.", failure.text, self.delay, exc_info=failure.cause)
            self.set_state("retrying")

    def set_state(self, state: str) -> None:
        """Go on to this state."""
        self.failure = None if state == "ready" else self.failure
        self.state, self.since = state, time.time()
        self._on_change()


# --- All the entries together ----------------------------------------------------------------------------------------


class Runner:
    """The running bots."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._entries: dict[str, Entry] = {}  # by the bot's id, so that no bot ever has two sessions
        self._block = Backoff()
        self._stopping = False
        self._unsettled: set[str] = set()  # once no bot is in these states, the log says how many are ready
        self._settle_timer: asyncio.TimerHandle | None = None

    def apply(self, settings: list[BotSettings], *, start_ended: bool = False) -> str:
        """Make the running bots equal to the settings. Only what differs moves. Returns what that is.

        With `start_ended`, bots that have ended get another start.
        """
        new = {bot.bot_id: bot for bot in settings}
        changes: dict[str, list[str]] = {"added": [], "removed": [], "restarted": []}
        for bot_id in {**self._entries, **new}:
            entry, bot = self._entries.get(bot_id), new.get(bot_id)
            has_ended = entry is None or entry.event.is_set()
            if entry is None or entry.wanted is None:
                changes["added"] += [bot.name] if bot else []
            elif bot is None:
                changes["removed"].append(entry.settings.name)
            elif bot != entry.wanted or (start_ended and has_ended):
                changes["restarted"].append(bot.name)
            elif has_ended:
                continue
            if entry and not has_ended:
                entry.want(bot)
            elif bot:
                self._entries[bot_id] = Entry(bot, self._block, self._on_change)
            else:
                del self._entries[bot_id]
        if any(changes.values()) and new:
            self._unsettled = {"starting"}
            self._settle_timer = asyncio.get_running_loop().call_later(SETTLE_TIMEOUT, self._report)
        return "; ".join(f"{what} {', '.join(bots)}" for what, bots in changes.items() if bots)

    def reload(self, *, start_ended: bool = False) -> None:
        """Read the settings again, and apply them if they are valid."""
        if self._stopping:
            return
        try:
            changes = self.apply(self._source.read(), start_ended=start_ended)
            log.info("%s: %s", self._source.env_file or "the environment", changes or "nothing changed")
        except SettingsError as error:
            log.error("The bots keep running as they are. The settings are not valid:\n%s", "\n".join(error.args))
        except Exception:
            log.exception("The bots keep running as they are. This is a bug of run_bots.py.")

    def _on_change(self) -> None:
        if self._stopping:
            return
        states = [entry.state for entry in self._entries.values() if entry.wanted]
        notify(f"STATUS={states.count('ready')} of {len(states)} bots are ready")
        if self._unsettled and not self._unsettled & set(states):
            contextvars.Context().run(self._report)  # it is no bot's

    def _report(self) -> None:
        """Say how many bots are ready, and what the others lack."""
        if self._settle_timer:
            self._settle_timer.cancel()
        entries = [entry for entry in self._entries.values() if entry.wanted]
        states = [entry.state for entry in entries]
        log.info("%s of %s bots are ready", states.count("ready"), len(states))
        for entry in entries:
            if entry.state != "ready":
                why = f": {entry.failure.text}" if entry.failure else ""
                log.warning("%s is %s%s", entry.settings.name, entry.state, why)
        self._unsettled = {"starting", "retrying"} if {"starting", "retrying"} & set(states) else set()
        notify("READY=1")
        tidy_memory()

    def show(self) -> None:
        """Log how each bot is, in one line."""
        for entry in self._entries.values():
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.since))
            words = f"[{entry.settings.name}] {entry.state} since {since}"
            if entry.bot and entry.state == "ready":
                words += f", latency {entry.bot.latency * 1000:.0f} ms, {len(entry.bot.guilds)} servers"
            log.info("%s, %s reconnects", words, entry.reconnects)

    def stop(self, why: str) -> None:
        """Ask every bot to end."""
        log.info("Stopping all bots (%s). A second Ctrl-C ends the program at once.", why)
        self._stopping = True
        notify("STOPPING=1")
        for entry in self._entries.values():
            entry.want(None)

    def close_bot_of(self, error: SystemExit) -> None:
        """Close the bot whose code called exit(), and no other."""
        for entry in self._entries.values():
            ended = [task for task in tasks[entry.settings.token] if task.done() and not task.cancelled()]
            if entry.bot and error in [task.exception() for task in ended]:
                log.error("[%s] Some code calls exit(). This bot is closed.", entry.settings.name)
                entry.task.get_loop().create_task(entry.bot.close())
                return
        log.error("Some code of a bot calls exit(). The bots go on.")  # with uvloop, nobody knows whose code

    async def run(self, settings: list[BotSettings], *, watch: bool) -> int:
        """Run the bots until they have all ended or somebody asks them to. Returns the exit code."""
        asyncio.get_running_loop().set_task_factory(remember_task)
        handle_signals(self.stop, lambda: self.reload(start_ended=True), self.show)
        self.apply(settings)
        helpers = [asyncio.create_task(self._keep_tidy())]
        if watch and self._source.env_file:
            helpers.append(asyncio.create_task(self._source.follow(self.reload)))
        running = list(self._entries.values())
        while running:
            await running[0].event.wait()
            running = [entry for entry in self._entries.values() if not entry.event.is_set()]
        for helper in helpers:
            helper.cancel()
        entries = self._entries.values()
        await asyncio.gather(*(entry.task for entry in entries))  # raises what is a bug of this program
        code = EXIT_NEEDS_PERSON if any(entry.wanted and entry.needs_person for entry in entries) else EXIT_OK
        # Threads and tasks of the bots' own code, or a name server that does not answer, must not keep it alive.
        timer = threading.Timer(CLOSE_TIMEOUT, os._exit, [code])
        timer.daemon = True
        timer.start()
        return code

    async def _keep_tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_INTERVAL)
            tidy_memory()


def remember_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    """A task factory that keeps each bot's tasks, so that they end with the bot."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    its = tasks[running_token.get()]
    its.add(task)
    task.add_done_callback(its.discard)
    return task


async def visit(bots: list[BotSettings], *, sync: bool) -> int:
    """Log every bot in by REST alone, check it or upload its slash commands, and print what came out.

    Returns the exit code.
    """

    async def visit_one(settings: BotSettings) -> str:
        running_token.set(settings.token)
        bot = Bot(settings)
        try:
            async with bot:
                await bot.log_in()
                if sync:
                    uploaded = [f"/{command.name}" for command in await bot.tree.sync()]
                    return f"uploaded: {' '.join(uploaded) or 'none, it has none'}"
                if bot.missing_intents:
                    raise discord.PrivilegedIntentsRequired(None)
                assert bot.application is not None
                permissions = discord.Permissions(view_channel=True, send_messages=True, read_message_history=True)
                scopes = ("bot", "applications.commands")
                invite = discord.utils.oauth_url(bot.application.id, permissions=permissions, scopes=scopes)
                servers = bot.application.approximate_guild_count
                return f"{bot.user!s:<20} {bot.application.id:<20} {servers:>7}  on\n{'':26}invite: {invite}"
        except Exception as error:
            failure = diagnose(error, bot)
            log.error("%s", failure.text, exc_info=failure.cause)
            return f"PROBLEM: {failure.text}"

    outcomes = await asyncio.gather(*map(visit_one, bots))
    columns = "slash commands" if sync else f"{'on Discord':<20} {'id':<20} servers  intents"
    print(f"{'no.':>4} {'name':<20} {columns}")
    for settings, outcome in zip(bots, outcomes, strict=True):
        print(f"{settings.number:>4} {settings.name:<20} {outcome}")
    return EXIT_NEEDS_PERSON if any(outcome.startswith("PROBLEM") for outcome in outcomes) else EXIT_OK


# --- Signals ---------------------------------------------------------------------------------------------------------


def handle_signals(stop: Callable[[str], None], reload: Callable[[], None], show: Callable[[], None]) -> None:
    """Stop at the first stop signal, reload at SIGHUP, show how the bots are at SIGUSR1: in the event loop.

    The second stop signal ends the program at once, and so does too much time after the first.
    """
    loop, in_terminal, asked = asyncio.get_running_loop(), os.isatty(0), threading.Event()
    # A signal comes while the code of any bot is running, and is for none.
    call = functools.partial(loop.call_soon_threadsafe, context=contextvars.Context())

    def handle(number: int, _frame: Any) -> None:
        name = signal.Signals(number).name
        if name == "SIGUSR1":
            call(show)
        elif name == "SIGHUP" and not (in_terminal and not os.isatty(0)):  # else somebody closed the window
            call(reload)
        elif asked.is_set():
            os._exit(EXIT_BUG)
        else:
            asked.set()
            call(stop, name)

    def last_resort() -> None:
        # In a thread, because code of a bot that blocks the event loop blocks everything else.
        asked.wait()
        time.sleep(STOP_TIMEOUT)
        os.write(sys.stderr.fileno(), b"Some code of a bot does not stop. The program ends without it.\n")
        os._exit(EXIT_OK)

    threading.Thread(target=last_resort, daemon=True).start()
    for number in STOP_SIGNALS + OTHER_SIGNALS:
        signal.signal(number, handle)  # Windows has no loop.add_signal_handler


def notify(state: str) -> None:
    """Tell systemd, if it asked: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html"""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.setblocking(False)
            systemd.sendto(state.encode(), address.replace("@", "\0", 1))


# --- What a bot costs ------------------------------------------------------------------------------------------------


def new_event_loop() -> Any:
    """An event loop for many bots; uvloop's where that is installed."""
    # Young objects are looked at less often, old ones by tidy_memory alone: for 100 busy bots the collector took 8 % of
    # the time, held up every reply for up to 0.1 s, and found next to nothing.
    gc.set_threshold(10_000, 1_000_000, 1_000_000)
    # asyncio gives each TLS connection a read buffer of 256 KiB, which is more than half of what a bot takes. Not
    # public; where it has another name, and with uvloop, this changes nothing.
    sslproto.SSLProtocol.max_size = TLS_BUFFER
    with contextlib.suppress(ImportError):
        import uvloop  # type: ignore[import-not-found, unused-ignore]

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def tidy_memory() -> None:
    """Free what is no longer needed, and leave the rest out of the garbage collector's later rounds."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


# --- Logging ---------------------------------------------------------------------------------------------------------


class WithoutTokens:
    """A stream that writes a bot's name in the place of its token, whoever prints it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> Any:
        for token, name in names.items():
            text = text.replace(token, f"[token of {name}]")
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def name_the_bot(record: logging.LogRecord) -> bool:
    """A log filter that puts the bot's name before the message."""
    # discord.py's keep-alive threads run in no context, but have the gateway connection, which has the token.
    keep_alive = getattr(threading.current_thread(), "ws", None)
    name = names.get(running_token.get() or getattr(keep_alive, "token", ""))
    if name:
        record.msg = f"[{name.replace('%', '%%') if record.args else name}] {record.msg}"
    if record.name == "discord.shard" and record.exc_info:  # not a traceback for each connection that fails
        why = repr(record.exc_info[1]).replace("%", "%%")
        record.msg, record.exc_info = f"{record.msg} ({why})", None
    return True


def set_up_logging(level: str) -> None:
    """Log to stderr as discord.py does, in colour where the terminal has it. Keep tokens out of all that is printed."""
    sys.stdout, sys.stderr = WithoutTokens(sys.stdout), WithoutTokens(sys.stderr)
    handler = logging.StreamHandler()
    handler.addFilter(name_the_bot)
    plain = logging.Formatter("[{asctime}] [{levelname:<8}] {name}: {message}", "%Y-%m-%d %H:%M:%S", "{")
    # In a container discord.py writes colours even into a file.
    formatter = discord.utils.MISSING if sys.stderr.isatty() else plain
    discord.utils.setup_logging(handler=handler, formatter=formatter, level=logging.getLevelName(level.upper()))
    # At every start discord.py warns of packages that only voice needs. Without them, voice says so when it is used.
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False


# --- The command line ------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Run the program. Returns the exit code."""
    variables = "\n".join(f"  {template:<28}{text}" for template, (text, _) in SETTINGS.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"variables of the env file and of the process environment, which wins:\n{variables}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    levels = ("debug", "info", "warning", "error", "critical")
    parser.add_argument("--env-file", metavar="PATH", help="default: .env in this folder, or else beside the script")
    parser.add_argument("--only", metavar="1-10,music", help="run just these bots: numbers, ranges of numbers, names")
    parser.add_argument("--check", action="store_true", help="say whether every bot is all right, and exit")
    parser.add_argument("--sync-commands", action="store_true", help="upload the bots' slash commands, and exit")
    parser.add_argument("--no-watch", action="store_true", help="read the env file again only at SIGHUP")
    parser.add_argument("--log-level", default="info", type=str.lower, choices=levels, help="default: info")
    version = f"run_bots {__version__}, discord.py {discord.__version__}"
    parser.add_argument("--version", action="version", version=version)
    arguments = parser.parse_args(argv)
    set_up_logging(arguments.log_level)
    for folder in (str(Path.cwd()), str(Path(__file__).resolve().parent)):  # where extensions are found
        if folder not in sys.path:
            sys.path.insert(0, folder)
    try:
        source = Source(arguments.env_file, arguments.only)
        bots = source.read()
        log.info("%s bots from %s", len(bots), source.env_file or "the environment")
        with asyncio.Runner(loop_factory=new_event_loop) as loop_runner:
            if arguments.check or arguments.sync_commands:
                return loop_runner.run(visit(bots, sync=not arguments.check))
            loop, runner = loop_runner.get_loop(), Runner(source)
            running = loop.create_task(runner.run(bots, watch=not arguments.no_watch))
            while True:
                try:
                    return loop.run_until_complete(running)
                except SystemExit as error:  # of some task of one bot, and no reason to end the others
                    runner.close_bot_of(error)
    except SettingsError as error:
        print(*error.args, sep="\n", file=sys.stderr)
        return EXIT_NEEDS_PERSON
    except Exception:
        log.critical("The program failed. This is a bug.", exc_info=True)
        return EXIT_BUG


if __name__ == "__main__":
    sys.exit(main())
