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
"""

import os
import signal
import sys

# Ctrl-C; kill, systemd, Docker and Kubernetes; Ctrl-Break on Windows, which is the only one to have it.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
EXIT_OK = 0  # asked to stop, or every bot closed itself
EXIT_BUG = 1  # the program itself failed; also the second signal
EXIT_NEEDS_PERSON = 78  # EX_CONFIG of sysexits.h: do not start again before somebody has changed something

if sys.version_info < (3, 11):
    print("run_bots.py needs Python 3.11 or newer. This is Python " + sys.version.split()[0] + ".", file=sys.stderr)
    sys.exit(EXIT_NEEDS_PERSON)

if __name__ == "__main__":
    # The imports below take about a second. A stop in that time has nothing to close yet.
    for _signal in STOP_SIGNALS:
        signal.signal(_signal, lambda *_: os._exit(EXIT_OK))

import argparse
import asyncio
import base64
import codecs
import contextvars
import copy
import dataclasses
import difflib
import enum
import io
import logging
import random
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

try:
    import aiohttp  # discord.py brings it
    import discord
    from discord.ext import commands
    from dotenv.parser import parse_stream
except ModuleNotFoundError as missing:
    print(f"{missing.name} is not installed. Run: python -m pip install -r requirements.txt", file=sys.stderr)
    sys.exit(EXIT_NEEDS_PERSON)

__version__ = "1.0.0"

PORTAL = "https://discord.com/developers/applications"
UPDATE = "Update discord.py: python -m pip install --upgrade -r requirements.txt"
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
# Intents that have to be switched on in the Developer Portal: the application's flag, and the Portal's own name.
PRIVILEGED_INTENTS = {
    "message_content": ("gateway_message_content", "Message Content Intent"),
    "members": ("gateway_guild_members", "Server Members Intent"),
    "presences": ("gateway_presence", "Presence Intent"),
}
# Close codes that only an update mends: https://docs.discord.com/developers/topics/opcodes-and-status-codes
REFUSALS = {
    4010: "the shard",
    4011: "the number of shards that it asked for",
    4012: "the gateway version",
    4013: "the intents",
}

# Seconds, all of them.
LOGIN_TIMEOUT = 60  # a login without an answer is given up and tried again
# Between two attempts a bot waits a random time up to 1, 2, 4, 8 … MAX_DELAY. One failure is forgotten for each
# FORGIVE_AFTER of uptime. So, however it fails, it makes about 86,400 / 300 = 288 connections a day at most. Discord
# resets the token at 1,000 IDENTIFYs: https://docs.discord.com/developers/events/gateway#session-start-limit-object
MAX_DELAY = 900
FORGIVE_AFTER = 300
KEEP_CLIENT = 30  # a client that has to wait longer than this for the gateway is given up for a new one
BLOCK_DELAY, BLOCK_SPREAD = 60, 5  # a block of the IP address that does not say how long it lasts; see Entry.pause
WATCH_INTERVAL, WATCH_QUIET = 0.25, 1  # how often the env file is looked at; how long it must not change to be read
SETTLE_TIMEOUT = 30  # then the log says how many bots are ready, even if one has neither come up nor failed
# A stop takes 10 seconds at the most: for Discord's answer, for the bots' own clean-up, for everything.
GATEWAY_CLOSE_TIMEOUT, CLEANUP_TIMEOUT, STOP_TIMEOUT = 2, 5, 9

SHARDING_FROM = 1000  # with fewer servers Discord recommends one shard; a bot with more asks

log = logging.getLogger("run_bots")
# The token of the bot whose code is running, and every bot's name by its token. The log shows names and never a token.
running_token: contextvars.ContextVar[str] = contextvars.ContextVar("running_token", default="")
names: dict[str, str] = {}


# --- Settings: the env file and the process environment ----------------------------------------------------------------

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
VARIABLES = [
    re.compile(template.replace("<N>", "([1-9][0-9]*)" + ("" if default is None else "?")))
    for template, (_, default) in SETTINGS.items()
]
# Words that stand where a token should, in this project's files and in others'.
PLACEHOLDER = re.compile(r"(?i)your|token|here|change|example|paste|insert|secret|^<.*>$|^[x.*…-]+$")
NO_BOTS = f"""\
There is no bot to run. For each bot:
1. Open {PORTAL}, choose your application, then Bot, then Reset Token.
2. Copy .env.example to .env, and write the token there: DISCORD_BOT_TOKEN1=your token
Then start run_bots.py again."""


class SettingsError(Exception):
    """The settings are not valid. Each argument is one problem, as a sentence for a person."""


@dataclasses.dataclass(frozen=True)
class BotSettings:
    """What one bot is started with."""

    number: int
    name: str = dataclasses.field(compare=False)
    token: str = dataclasses.field(repr=False)
    prefix: str
    extensions: tuple[str, ...]
    intents: discord.Intents
    # For each variable, by the name without the number: its full name, and where it is set.
    sources: Mapping[str, str] = dataclasses.field(compare=False)

    def is_same_bot(self, other: "BotSettings") -> bool:
        return self.number == other.number or application_id(self.token) == application_id(other.token) != ""


def find_env_file(named: str | None) -> Path | None:
    """The env file: the named one, else `.env` in the current folder, else beside this script.

    Raises `SettingsError` if one is named and missing.
    """
    if named is not None and not Path(named).is_file():
        raise SettingsError(f"There is no file {named}. Check --env-file.")
    candidates = [Path(named)] if named is not None else [Path(".env"), Path(__file__).with_name(".env")]
    return next((path for path in candidates if path.is_file()), None)


def read_env_file(path: Path, problems: list[str]) -> dict[str, tuple[str, str]]:
    """The variables of an env file: for each its value, and the file and line. Adds what is wrong to `problems`."""
    try:
        data = path.read_bytes()
        # PowerShell's > writes UTF-16, Notepad a byte order mark.
        utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if utf_16 else "utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        problems.append(f"{path} cannot be read: {error.strerror}.")
        return {}
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        problems.append(f"{path} is not a text file. Save it as plain text, in UTF-8.")
        return {}
    values: dict[str, tuple[str, str]] = {}
    for binding in parse_stream(io.StringIO(text)):
        original = binding.original.string
        blank_lines = original[: len(original) - len(original.lstrip())].count("\n")
        place = f"{path}, line {binding.original.line + blank_lines}"
        if binding.error or (binding.key and binding.value is None):
            problems.append(f"{place}: This is not NAME=value. Is a quote or the = missing?")
        elif binding.key in values:
            problems.append(f"{place}: {binding.key} is set a second time. The first is at {values[binding.key][1]}.")
        elif binding.key is not None and binding.value is not None:
            values[binding.key] = binding.value, place
    return values


def look_up(values: Mapping[str, tuple[str, str]], template: str, number: int) -> tuple[str, str]:
    """A bot's own value, or the one for all bots, or the default; and the variable's name and place."""
    default = SETTINGS[template][1]
    own = template.replace("<N>", str(number))
    for name in [own] if default is None else [own, template.replace("<N>", "")]:
        text, place = values.get(name, ("", ""))
        if text.strip():
            return text, f"{name} ({place})"
    return default or "", own


def nearest(word: str, words: Iterable[str]) -> str:
    return difflib.get_close_matches(word, list(words), n=1, cutoff=0)[0]


def application_id(token: str) -> str:
    """The first part of a token: the bot's id in base64. An empty string if it is something else."""
    part = token.partition(".")[0]
    try:
        decoded = base64.b64decode(part + "=" * (-len(part) % 4), validate=True).decode("ascii")
    except ValueError:
        return ""
    return decoded if decoded.isdecimal() else ""


def what_is_wrong_with(token: str) -> str | None:
    if PLACEHOLDER.search(token) and token.count(".") != 2:
        return "This is a placeholder. Put the bot's own token there."
    if not all("!" <= character <= "~" for character in token):
        return "There is a space or another character that no token has. Copy the token again."
    return None


def parse_intents(text: str) -> discord.Intents:
    """Intents from their names. Raises `ValueError` for an unknown name."""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    if names and names[0].startswith("-"):
        return parse_intents(f"{SETTINGS['DISCORD_BOT_INTENTS<N>'][1]},{text}")
    intents = discord.Intents.none()
    for name in names:
        flag = name.removeprefix("-")
        if flag in discord.Intents.VALID_FLAGS:
            setattr(intents, flag, flag == name)
        elif name in ("default", "all", "none"):
            intents |= getattr(discord.Intents, name)()
        else:
            known = nearest(flag, ("default", "all", "none", *discord.Intents.VALID_FLAGS))
            raise ValueError(f"There is no intent {flag}. Did you mean {known}?")
    return intents


def read_settings(path: Path | None, environment: Mapping[str, str]) -> tuple[list[BotSettings], list[str]]:
    """Every bot that the env file and the process environment name, by number; and warnings of what is only odd.

    The environment wins. The env file's variables reach `os.environ`, for the bots' own code; tokens do not.
    Raises `SettingsError` with every problem that there is. A token is in none of the texts.
    """
    problems: list[str] = []
    warnings: list[str] = []
    from_file = {} if path is None else read_env_file(path, problems)
    values = from_file | {name: (text, "the environment") for name, text in environment.items()}
    variables: dict[int, list[str]] = {}  # those that are set, by the bot's number
    for name, (text, place) in values.items():
        match = next(filter(None, (variable.fullmatch(name) for variable in VARIABLES)), None)
        if name.startswith("DISCORD_BOT_") and match is None:
            digits = re.search("[1-9][0-9]*", name)
            known = nearest(name, (template.replace("<N>", digits[0] if digits else "1") for template in SETTINGS))
            warnings.append(f"{name} ({place}): Nothing reads this variable. Did you mean {known}?")
        elif match is not None and re.search("[\u2018-\u201f\u00ab\u00bb]", text):
            problems.append(f"{name} ({place}): There are curly quotes. Use straight ones, or none.")
        elif match is not None and match[1] and text.strip():
            variables.setdefault(int(match[1]), []).append(name)

    bots: list[BotSettings] = []
    first: dict[str, str] = {}  # where a token or a name was used first
    for number in sorted(variables):
        texts, sources = {}, {}
        for template in SETTINGS:
            texts[template], sources[template] = look_up(values, template, number)
        token, token_file, name, prefix, extensions, intents = texts.values()
        source, file_source, name_source, *_, intents_source = sources.values()
        if token and token_file:
            problems.append(f"{source}: {file_source} is set too. Keep one of them.")
            continue
        if token_file:
            source = sources["DISCORD_BOT_TOKEN<N>"] = file_source
            try:
                token = Path(token_file.strip()).read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{source}: {token_file} cannot be read ({type(error).__name__}).")
                continue
        token = re.sub("(?i)^bot ", "", token.strip()).strip()
        if not token:
            warnings.append(f"{', '.join(variables[number])}: There is no DISCORD_BOT_TOKEN{number}.")
            continue
        name = name.strip() or f"bot{number}"
        wrong = what_is_wrong_with(token)
        if wrong:
            problems.append(f"{source}: {wrong}")
        elif token.count(".") != 2:
            warnings.append(f"{source}: This does not look like a token, which has three parts with dots in between.")
        for use, key, what in (
            (source, application_id(token) or token, "It is for the same bot as"),
            (name_source, name, f"The name {name} is taken by"),
        ):
            if first.setdefault(key, use) != use:
                problems.append(f"{use}: {what} {first[key]}. Every bot needs its own.")
        try:
            parsed = parse_intents(intents)
        except ValueError as error:
            problems.append(f"{intents_source}: {error}")
            continue
        modules = tuple(dict.fromkeys(module.strip() for module in extensions.split(",") if module.strip()))
        bots.append(BotSettings(number, name, token, prefix, modules, parsed, sources))

    if path is not None and os.name == "posix" and path.is_file() and path.stat().st_mode & 0o004:
        warnings.append(f"{path}: Everybody on this machine can read your tokens. Run: chmod 600 {path}")
    if not bots and not problems:
        problems.append(NO_BOTS)
    if problems:
        raise SettingsError(*problems)
    names.update((bot.token, bot.name) for bot in bots)
    for name, (text, _) in from_file.items():
        if not name.startswith("DISCORD_BOT_TOKEN") and name not in environment:
            os.environ[name] = text
    return bots, warnings


def select(bots: list[BotSettings], only: str) -> list[BotSettings]:
    """The bots that `--only` names: by number, range of numbers or name. Raises `SettingsError` if one is not there."""
    chosen: set[int] = set()
    for part in only.split(","):
        span = re.fullmatch(r"([0-9]+)-([0-9]+)", part.strip())
        low, high = (int(span[1]), int(span[2])) if span else (1, 0)
        found = {b.number for b in bots if low <= b.number <= high or part.strip() in (str(b.number), b.name)}
        if not found:
            there = ", ".join(f"{bot.number} ({bot.name})" for bot in bots)
            raise SettingsError(f"--only: There is no bot {part.strip()}. These are there: {there}.")
        chosen |= found
    return [bot for bot in bots if bot.number in chosen]


class Source:
    """Where the settings come from: the env file, the process environment and `--only`."""

    def __init__(self, env_file: Path | None, only: str | None) -> None:
        self.env_file = env_file
        self._only = only
        self._environment = dict(os.environ)
        self._seen: object = None

    def _stamp(self) -> object:
        """What is another one after each change of the env file."""
        try:
            status = os.stat(self.env_file or "")
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def read(self) -> list[BotSettings]:
        """The bots to run. Raises `SettingsError`."""
        self._seen = self._stamp()
        bots, warnings = read_settings(self.env_file, self._environment)
        for warning in warnings:
            log.warning(warning)
        return bots if self._only is None else select(bots, self._only)

    async def wait_for_change(self) -> None:
        """Wait until the env file has changed, and has then been left alone: it may be written in pieces."""
        stamp = self._seen
        while stamp == self._seen:
            await asyncio.sleep(WATCH_INTERVAL)
            stamp = self._stamp()
        before = None
        while before != stamp:
            before = stamp
            await asyncio.sleep(WATCH_QUIET)
            stamp = self._stamp()


# --- What a bot does -------------------------------------------------------------------------------------------------


class Ping(commands.Cog):
    """What a bot does that has no extensions: it answers `ping` with `pong`."""

    @commands.Cog.listener()
    async def on_message(self, message: discord.Message) -> None:
        if message.author.bot:  # this bot itself, or another one
            return
        if message.content.startswith("ping"):
            await message.channel.send("pong", allowed_mentions=discord.AllowedMentions.none())


# --- One entry and its life: log in, connect, retry, end -------------------------------------------------------------


class GatewayLost(BaseException):
    """The gateway has been out of reach for some time, and this client is given up for a new one.

    No `Exception`, because discord.py catches those and tries again in its own way.
    """


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why an attempt failed, as a sentence for a person."""

    text: str
    final: bool = False  # a person must change something first
    traceback: BaseException | None = None  # nobody foresaw it: the log shows where it comes from
    blocked_for: float = 0  # seconds for which Discord blocks the IP address
    needs_shards: bool = False


def diagnose(error: BaseException, bot: "Bot") -> Failure:
    """What an exception means for a bot. This is the one place that says which failures are final."""
    if isinstance(error, discord.GatewayNotFound) and error.__cause__ is not None:
        error = error.__cause__
    status = getattr(error, "status", None)
    code = error.code if isinstance(error, discord.ConnectionClosed) else None
    token, extensions = (bot.settings.sources[f"DISCORD_BOT_{name}<N>"] for name in ("TOKEN", "EXTENSIONS"))
    number = bot.application_id or application_id(bot.settings.token)
    portal = f"{PORTAL}/{number}/bot" if number else PORTAL

    if isinstance(error, discord.LoginFailure) or status == 401 or code == 4004:
        return Failure(
            f"{token}: Discord refuses this token. Make a new one at {portal} (Reset Token) and put it in.",
            final=True,
        )
    if isinstance(error, discord.PrivilegedIntentsRequired):
        names = " and ".join(missing_intents(bot)) or "privileged intents that it asks for"
        instead = f"or change {bot.settings.sources['DISCORD_BOT_INTENTS<N>']}"
        return Failure(f"{token}: The bot may not use the {names}. Switch it on at {portal}, {instead}.", final=True)
    if isinstance(error, commands.ExtensionError):
        original = getattr(error, "original", None)
        if isinstance(error, commands.ExtensionNotFound):
            why = "There is no such file beside run_bots.py or in this folder"
        else:
            why = repr(original) if original else "It has no function setup"
        shown = original and from_their_file_on(original)
        return Failure(f"{extensions}: {error.name} does not load. {why}.", final=True, traceback=shown)
    if isinstance(error, discord.app_commands.CommandSyncFailure):
        return Failure(f"{extensions}: Discord refuses the slash commands. {error}", final=True)
    if code == 4011 and (bot.shard_count_is_ours or bot.guilds):
        return Failure("Discord wants this bot to run in shards.", needs_shards=True)
    if code in REFUSALS:
        return Failure(f"{token}: Discord refuses {REFUSALS[code]} (close code {code}). {UPDATE}", final=True)

    headers = getattr(getattr(error, "response", error), "headers", None) or {}
    if status == 429 and not ("Via" in headers and headers.get("Content-Type") == "application/json"):
        # Discord's own rate limits come as JSON and through a proxy. Anything else is Cloudflare, in front of it.
        wait = headers.get("Retry-After", "")
        seconds = int(wait) if wait.isdecimal() else BLOCK_DELAY
        return Failure(f"Discord blocks this IP address (429). All bots wait {seconds} s.", blocked_for=seconds)
    if status is not None:
        return Failure(f"Discord answers with status {status}.")
    if isinstance(error, TimeoutError):
        return Failure("Discord does not answer.")
    if isinstance(error, OSError | aiohttp.ClientError):
        return Failure(f"Discord cannot be reached. Check the network ({error}).")
    if isinstance(error, discord.ConnectionClosed):
        return Failure(f"Discord closed the gateway connection with {code}.")
    if bot.application is None:
        return Failure("The answer is not from Discord. Is there a log-in page or a proxy in the way?")
    return Failure(f"Unexpected error: {error!r}.", traceback=error)


def missing_intents(bot: "Bot") -> list[str]:
    """The privileged intents that a bot asks for and that are off, as the Developer Portal calls them."""
    flags = bot.application_flags
    return [
        name
        for intent, (flag, name) in PRIVILEGED_INTENTS.items()
        if getattr(bot.intents, intent) and not (getattr(flags, flag) or getattr(flags, f"{flag}_limited"))
    ]


def from_their_file_on(error: BaseException) -> BaseException:
    """The exception without the frames above the user's own code."""
    frames = error.__traceback__
    ours = (__file__, "<frozen ", str(Path(discord.__file__).parent))
    while frames and frames.tb_frame.f_code.co_filename.startswith(ours):
        frames = frames.tb_next
    return error.with_traceback(frames)


class Bot(commands.AutoShardedBot):
    """discord.py's bot, as one of many: it asks its entry before it connects, and it leaves Discord at once.

    It has one shard, and more when Discord wants more.
    """

    def __init__(self, settings: BotSettings, entry: "Entry | None" = None) -> None:
        super().__init__(
            command_prefix=settings.prefix,
            help_command=commands.DefaultHelpCommand() if settings.extensions else None,
            intents=settings.intents,
            shard_count=1,
        )
        self.settings = settings
        self.entry = entry
        self.shard_count_is_ours = True
        self.leaving = False
        self._goodbye: asyncio.Task[None] | None = None
        self._sockets: list[aiohttp.ClientWebSocketResponse] = []
        # Not public, but every way to the gateway leads through it: a shard's first connection, a RESUME, a new
        # IDENTIFY. The only public hook is for IDENTIFY, and discord.py sends RESUMEs in a loop without a pause.
        self._connect_socket = self.http.ws_connect
        self.http.ws_connect = self._open_socket  # type: ignore[method-assign]
        for event in ("on_connect", "on_resumed"):
            self.add_listener(self._report_ready, event)

    async def log_in(self) -> None:
        """Log in, by REST alone, and load what the bot does."""
        async with asyncio.timeout(LOGIN_TIMEOUT):
            await self.login(self.settings.token)
        if not self.settings.extensions:
            await self.add_cog(Ping())
        for name in self.settings.extensions:
            try:
                await self.load_extension(name)
            except ModuleNotFoundError:  # of a.b there is not even a
                raise commands.ExtensionNotFound(name) from None
            except SystemExit as error:  # it would end every other bot too
                raise commands.ExtensionFailed(name, RuntimeError(f"It calls exit({error.code})")) from error

    async def _open_socket(self, url: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        """Connect to the gateway as soon as the bot may. Raises `GatewayLost` if that takes long."""
        assert self.entry is not None
        if any(socket.closed for socket in self._sockets) and not self.leaving:
            self.entry.failed(Failure("The gateway connection was lost."))
        self._sockets = [socket for socket in self._sockets if not socket.closed]
        while not self.leaving:
            if self.entry.delay > KEEP_CLIENT:
                raise GatewayLost
            await self.entry.pause()
            try:
                socket = await self._connect_socket(url, **options)
            except (OSError, aiohttp.ClientError) as error:
                self.entry.failed(diagnose(error, self))
            else:
                self.entry.backoff.succeeded()
                self._sockets.append(socket)
                return self._close_in_turn(socket)
        raise asyncio.CancelledError

    def _close_in_turn(self, socket: aiohttp.ClientWebSocketResponse) -> aiohttp.ClientWebSocketResponse:
        # Otherwise our close with 1000 wakes the reader, and the reader's own close with 4000 is sent first: Discord
        # would show the bot as online for minutes.
        close, turn = socket.close, asyncio.Lock()

        async def close_in_turn(**how: Any) -> bool:
            async with turn:
                return await close(**how)

        socket.close = close_in_turn  # type: ignore[method-assign]
        return socket

    async def leave_gateway(self) -> None:
        """Close every gateway connection with 1000: Discord shows the bot as offline at once."""
        self.leaving = True
        closing = [asyncio.create_task(socket.close(code=1000)) for socket in self._sockets]
        if closing:
            _, late = await asyncio.wait(closing, timeout=GATEWAY_CLOSE_TIMEOUT)
            for task in late:
                task.cancel()

    async def close(self) -> None:
        """Leave the gateway, let the bot's own code clean up, close the rest. A second call waits for the first."""
        self._goodbye = self._goodbye or asyncio.create_task(self._say_goodbye())
        await asyncio.shield(self._goodbye)

    async def _say_goodbye(self) -> None:
        await self.leave_gateway()
        try:
            async with asyncio.timeout(CLEANUP_TIMEOUT):
                await super().close()
        except TimeoutError:
            log.warning("The bot's own clean-up took more than %s s. It was cut off.", CLEANUP_TIMEOUT)
            await self.http.close()

    def dispatch(self, event_name: str, *args: Any, **kwargs: Any) -> None:
        if not self.leaving:  # nothing can be answered any more, and discord.py fails to start some handlers then
            super().dispatch(event_name, *args, **kwargs)

    async def on_error(self, event_method: str, *args: Any, **kwargs: Any) -> None:
        if not self.leaving:  # that a bot was closed under a running handler is no error
            await super().on_error(event_method, *args, **kwargs)

    async def on_command_error(self, context: commands.Context[Any], exception: commands.CommandError) -> None:
        if not isinstance(exception, commands.CommandNotFound):  # a command of another bot, perhaps
            await super().on_command_error(context, exception)

    async def _report_ready(self) -> None:
        if len(self.shards) == self.shard_count and not any(shard.is_closed() for shard in self.shards.values()):
            assert self.entry is not None
            self.entry.ready(f"ready as {self.user} ({self.user and self.user.id}) in {len(self.guilds)} servers")


class Backoff:
    """A time until which something has to wait: exponential, with full jitter, and uptime makes up for failures."""

    def __init__(self) -> None:
        self._until = 0.0
        self._failures = 0
        self._up_since: float | None = None

    @property
    def delay(self) -> float:
        """How many seconds are left."""
        return max(0.0, self._until - time.monotonic())

    def extend(self, seconds: float) -> None:
        self._until = max(self._until, time.monotonic() + seconds)

    def succeeded(self) -> None:
        self._up_since = time.monotonic()

    def failed(self) -> None:
        if self._up_since is not None:
            self._failures = max(0, self._failures - int((time.monotonic() - self._up_since) / FORGIVE_AFTER))
        self._up_since = None
        self.extend(random.uniform(0, min(MAX_DELAY, 2**self._failures)))
        self._failures += 1


class State(enum.StrEnum):
    STARTING, READY, RETRYING, STOPPED = "starting", "ready", "retrying", "stopped"


class Entry:
    """One bot of the settings: its state, and the event that is set when it has ended, however that was."""

    def __init__(
        self, settings: BotSettings, block: Backoff, changed: Callable[[], None], after: "Iterable[Entry]" = ()
    ) -> None:
        self.settings = settings
        self.event = asyncio.Event()
        self.state = State.STARTING
        self.failure: Failure | None = None  # the last one
        self.backoff = Backoff()
        self._block = block  # Cloudflare blocks an address, so all bots share this one
        self._shards_unknown = False
        self._changed = changed
        self._stop_asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(list(after)))

    def stop(self) -> None:
        """Ask the bot to end. The event is set when it has."""
        if not self._stop_asked.done():
            self._stop_asked.set_result(None)

    @property
    def needs_person(self) -> bool:
        """Whether it has ended until a person changes something."""
        return self.failure is not None and self.failure.final

    async def _run(self, after: "list[Entry]") -> None:
        running_token.set(self.settings.token)
        try:
            for entry in after:  # the same bot with its old settings: never two sessions at once
                await entry.event.wait()
            while not self._stop_asked.done() and await self._attempt():
                pass
        finally:
            if self.failure and self.failure.final:
                log.error("stopped: %s", self.failure.text, exc_info=self.failure.traceback)
            else:
                log.info("stopped: it %s", "was asked to" if self._stop_asked.done() else "closed itself")
            self.event.set()
            self._set_state(State.STOPPED)

    async def _attempt(self) -> bool:
        """Run the bot with a fresh client until that ends. Returns whether to try again."""
        bot = Bot(self.settings, self)
        try:
            async with bot:
                connected = asyncio.create_task(self._log_in_and_connect(bot))
                await asyncio.wait({connected, self._stop_asked}, return_when=asyncio.FIRST_COMPLETED)
                while not connected.done():  # discord.py ignores a cancellation while it reconnects
                    connected.cancel()
                    await asyncio.wait({connected}, timeout=0.1)
            if not connected.cancelled():
                connected.result()
        except GatewayLost:
            return True
        except Exception as error:
            self.failed(diagnose(error, bot))
            return not self.needs_person
        return False

    async def _log_in_and_connect(self, bot: Bot) -> None:
        await self.pause()
        await bot.log_in()
        assert bot.application is not None
        if self._shards_unknown or bot.application.approximate_guild_count >= SHARDING_FROM:
            bot.shard_count_is_ours = False
            bot.shard_count = None  # type: ignore[assignment]  # connect() asks Discord
        await bot.connect()

    @property
    def delay(self) -> float:
        """How many seconds this bot has to wait before it may try again."""
        return max(self.backoff.delay, self._block.delay)

    async def pause(self) -> None:
        """Wait until this bot may try again."""
        while self.delay:
            # After a block the bots come one by one, so that the first finds out for all whether it is over.
            await asyncio.sleep(self.delay + (random.uniform(0, BLOCK_SPREAD) if self._block.delay else 0))

    def failed(self, failure: Failure) -> None:
        """Count a failure, and say what comes next."""
        self.failure = failure
        if failure.final:
            return
        self._shards_unknown = self._shards_unknown or failure.needs_shards
        self.backoff.failed()
        self._block.extend(failure.blocked_for)
        log.warning("%s Trying again in %.1f s.", failure.text, self.delay, exc_info=failure.traceback)
        self._set_state(State.RETRYING)

    def ready(self, message: str) -> None:
        self.failure = None
        log.info(message)
        self._set_state(State.READY)

    def _set_state(self, state: State) -> None:
        self.state = state
        self._changed()


# --- All the entries together ----------------------------------------------------------------------------------------


class Runner:
    """The running bots."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self._replaced: list[Entry] = []  # entries that are no longer in the settings, and have not ended yet
        self._block = Backoff()
        self._changed = asyncio.Event()
        self._report: asyncio.Task[None] | None = None

    def apply(self, wanted: list[BotSettings], *, start_ended: bool = False) -> str:
        """Make the running bots equal to the settings: only what differs moves. Returns what that is.

        With `start_ended`, bots that have ended get another start.
        """
        new = {settings.number: settings for settings in wanted}
        changes = {
            "added": [settings.name for settings in wanted if settings.number not in self.entries],
            "removed": [entry.settings.name for number, entry in self.entries.items() if number not in new],
        }
        for number, entry in list(self.entries.items()):
            if new.get(number) == entry.settings and not (start_ended and entry.event.is_set()):
                entry.settings = new.pop(number)  # its name may be another
                continue
            entry.stop()
            self._replaced.append(self.entries.pop(number))
        changes["restarted"] = [settings.name for settings in new.values() if settings.name not in changes["added"]]
        self._replaced = [entry for entry in self._replaced if not entry.event.is_set()]
        for number, settings in new.items():
            after = [entry for entry in self._replaced if entry.settings.is_same_bot(settings)]
            self.entries[number] = Entry(settings, self._block, self._changed.set, after)
        if any(changes.values()):
            if self._report:
                self._report.cancel()
            self._report = asyncio.create_task(self._report_when_settled())
        return "; ".join(f"{what} {', '.join(bots)}" for what, bots in changes.items() if bots)

    def follow(self, source: Source, *, start_ended: bool = False) -> None:
        """Read the settings again, and apply them if they are valid."""
        try:
            changes = self.apply(source.read(), start_ended=start_ended)
        except SettingsError as error:
            log.error(
                "The bots keep running as they are, because the settings are not valid:\n%s", "\n".join(error.args)
            )
        else:
            log.log(logging.INFO if changes else logging.DEBUG, "%s: %s", source.env_file, changes or "nothing changed")

    async def _report_when_settled(self) -> None:
        """Say how many bots are ready, and what the others lack."""
        entries = self.entries.values()
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT):
                while any(entry.state is State.STARTING for entry in entries):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        log.info("%s of %s bots are ready", sum(entry.state is State.READY for entry in entries), len(entries))
        for entry in entries:
            if entry.state is not State.READY:
                why = f": {entry.failure.text}" if entry.failure else ""
                log.warning("%s is %s%s", entry.settings.name, entry.state, why)

    async def wait_for_end(self) -> None:
        """Wait for the event of every entry, also of those that come later."""
        while True:
            running = [entry for entry in (*self.entries.values(), *self._replaced) if not entry.event.is_set()]
            if not running:
                return
            await running[0].event.wait()

    async def close(self) -> None:
        """Stop every bot."""
        if self._report:
            self._report.cancel()
        for entry in self.entries.values():
            entry.stop()
        await self.wait_for_end()


async def run(bots: list[BotSettings], source: Source, *, watch: bool) -> int:
    """Run the bots until they have all ended or somebody asks them to. Returns the exit code."""
    runner = Runner()
    stop_asked = asyncio.Event()
    handle_signals(stop_asked.set, lambda: runner.follow(source, start_ended=True))
    runner.apply(bots)

    async def follow_env_file() -> None:
        while watch and source.env_file:
            await source.wait_for_change()
            runner.follow(source)

    following = asyncio.create_task(follow_env_file())
    waits = [asyncio.create_task(wait) for wait in (stop_asked.wait(), runner.wait_for_end())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    following.cancel()
    await runner.close()
    await asyncio.gather(*(entry.task for entry in runner.entries.values()))  # raises what is a bug of this program
    if not stop_asked.is_set() and any(entry.needs_person for entry in runner.entries.values()):
        return EXIT_NEEDS_PERSON
    return EXIT_OK


async def visit(settings: BotSettings, task: Callable[[Bot], Awaitable[str]]) -> str | Failure:
    """Log a bot in by REST alone, and do something with it. Returns the outcome, or why it failed."""
    running_token.set(settings.token)
    bot = Bot(settings)
    try:
        async with bot:
            await bot.log_in()
            return await task(bot)
    except Exception as error:
        failure = diagnose(error, bot)
        log.error("%s", failure.text, exc_info=failure.traceback)
        return failure


async def describe(bot: Bot) -> str:
    """What `--check` shows of a bot that is all right."""
    if missing_intents(bot):
        raise discord.PrivilegedIntentsRequired(None)
    assert bot.application is not None
    assert bot.user is not None
    permissions = discord.Permissions(view_channel=True, send_messages=True, read_message_history=True)
    invite = discord.utils.oauth_url(bot.user.id, permissions=permissions, scopes=("bot", "applications.commands"))
    servers = bot.application.approximate_guild_count
    return f"{bot.user!s:<20} {bot.user.id:<20} {servers:>7}  on\n{'':26}invite: {invite}"


async def check(bots: list[BotSettings]) -> int:
    """Say for every bot whether it is all right. Returns the exit code."""
    outcomes = await asyncio.gather(*(visit(settings, describe) for settings in bots))
    print(f"{'no.':>4} {'name':<20} {'on Discord':<20} {'id':<20} {'servers':>7}  intents")
    for settings, outcome in zip(bots, outcomes, strict=True):
        text = f"PROBLEM: {outcome.text}" if isinstance(outcome, Failure) else outcome
        print(f"{settings.number:>4} {settings.name:<20} {text}")
    return EXIT_NEEDS_PERSON if any(isinstance(outcome, Failure) for outcome in outcomes) else EXIT_OK


async def sync_commands(bots: list[BotSettings]) -> int:
    """Upload every bot's slash commands. Returns the exit code."""

    async def sync(bot: Bot) -> str:
        names = ", ".join(f"/{command.name}" for command in await bot.tree.sync())
        log.info("uploaded its slash commands: %s", names or "it has none")
        return names

    outcomes = await asyncio.gather(*(visit(settings, sync) for settings in bots))
    return EXIT_NEEDS_PERSON if any(isinstance(outcome, Failure) for outcome in outcomes) else EXIT_OK


# --- Signals ---------------------------------------------------------------------------------------------------------


def handle_signals(stop: Callable[[], None], reload: Callable[[], None]) -> None:
    """Call `stop` in the event loop at the first stop signal, and `reload` at each SIGHUP.

    The second stop signal ends the program at once, and so does too much time after the first.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()  # a signal comes while the code of any bot is running
    asked = threading.Event()

    def handle(number: int, _frame: Any) -> None:
        if asked.is_set():
            os._exit(EXIT_BUG)
        asked.set()
        words = "Stopping all bots (%s). Once more, and the program ends at once."
        loop.call_soon_threadsafe(log.info, words, signal.Signals(number).name, context=context)
        loop.call_soon_threadsafe(stop, context=context)

    def last_resort() -> None:
        # In a thread, because code of a bot that blocks the event loop blocks everything else.
        asked.wait()
        time.sleep(STOP_TIMEOUT)
        os.write(sys.stderr.fileno(), b"Some code of a bot does not stop. The program ends without it.\n")
        os._exit(EXIT_OK)

    threading.Thread(target=last_resort, daemon=True).start()
    for number in STOP_SIGNALS:
        signal.signal(number, handle)  # Windows has no loop.add_signal_handler
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(reload, context=context))


# --- Logging ---------------------------------------------------------------------------------------------------------


class Formatter(logging.Formatter):
    """discord.py's log format, with the bot's name before the message, and without any token."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        # discord.py's keep-alive threads run in no context, but have the gateway connection, which has the token.
        keep_alive = getattr(threading.current_thread(), "ws", None)
        name = names.get(running_token.get() or getattr(keep_alive, "token", ""))
        record = copy.copy(record)
        if name:
            record.msg, record.args = f"[{name}] {record.getMessage()}", None
        if record.name == "discord.shard" and record.exc_info:
            # discord.py shows a traceback for each connection that fails.
            record.msg, record.args, record.exc_info = f"{record.getMessage()} ({record.exc_info[1]!r})", None, None
        text = self._inner.format(record)
        for token, owner in names.items():
            text = text.replace(token, f"[token of {owner}]")
        return text


def set_up_logging(level: str) -> None:
    """Log to stderr as discord.py does, in colour where the terminal has it."""
    handler = logging.StreamHandler()
    discord.utils.setup_logging(handler=handler, level=logging.getLevelNamesMapping()[level.upper()])
    formatter = handler.formatter
    if formatter is None or not sys.stderr.isatty():  # in a container discord.py writes colours even into a file
        formatter = logging.Formatter("[{asctime}] [{levelname:<8}] {name}: {message}", "%Y-%m-%d %H:%M:%S", "{")
    handler.setFormatter(Formatter(formatter))
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
    parser.add_argument("--env-file", metavar="PATH", help="default: .env in this folder, or else beside the script")
    parser.add_argument("--only", metavar="1-10,music", help="run just these bots: numbers, ranges of numbers, names")
    parser.add_argument("--check", action="store_true", help="say whether every bot is all right, and exit")
    parser.add_argument("--sync-commands", action="store_true", help="upload the bots' slash commands, and exit")
    parser.add_argument("--no-watch", action="store_true", help="follow the env file only at SIGHUP")
    parser.add_argument(
        "--log-level", metavar="LEVEL", default="info", type=str.lower, choices=LOG_LEVELS, help=", ".join(LOG_LEVELS)
    )
    version = f"run_bots {__version__}, discord.py {discord.__version__}"
    parser.add_argument("--version", action="version", version=version)
    arguments = parser.parse_args(argv)
    set_up_logging(arguments.log_level)
    for folder in (str(Path.cwd()), str(Path(__file__).resolve().parent)):  # where extensions are found
        if folder not in sys.path:
            sys.path.insert(0, folder)
    try:
        source = Source(find_env_file(arguments.env_file), arguments.only)
        bots = source.read()
    except SettingsError as error:
        print(*error.args, sep="\n", file=sys.stderr)
        return EXIT_NEEDS_PERSON
    log.info("%s bots from %s", len(bots), source.env_file or "the environment")
    try:
        if arguments.check:
            return asyncio.run(check(bots))
        if arguments.sync_commands:
            return asyncio.run(sync_commands(bots))
        return asyncio.run(run(bots, source, watch=not arguments.no_watch))
    except Exception:
        log.critical("The program failed. This is a bug.", exc_info=True)
        return EXIT_BUG


if __name__ == "__main__":
    sys.exit(main())
