#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["discord.py>=2.7.1,<3", "python-dotenv>=1.2.3,<2"]
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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

try:
    import aiohttp  # discord.py brings it
    import discord
    from discord.ext import commands
    from dotenv.parser import parse_stream
except ModuleNotFoundError as missing:
    python = r".venv\Scripts\python" if os.name == "nt" else ".venv/bin/python"
    remedy = f"Write {python} in place of python, or run: python -m pip install -r requirements.txt"
    print(f"{missing.name} is not installed. {remedy}", file=sys.stderr)
    sys.exit(EXIT_NEEDS_PERSON)

__version__ = "1.0.0"
PORTAL = "https://discord.com/developers/applications"
# A person has to mend something: https://docs.discord.com/developers/topics/opcodes-and-status-codes
FINAL_CLOSE_CODES = (4004, 4010, 4011, 4012, 4013, 4014)
SHARDING_FROM = 1000  # servers; with fewer, Discord recommends one shard, and need not be asked
LOGIN_TIMEOUT, CONNECT_TIMEOUT = 60, 30  # seconds, as all that follow; what has no answer by then is tried again
# Between two attempts a bot waits a random time up to 1, 2, 4, 8 … MAX_DELAY. One failure is forgotten for each
# FORGIVE_AFTER without one. So, however it fails, it makes about 86,400 / 300 = 288 connections a day at most. Discord
# resets the token at 1,000 IDENTIFYs: https://docs.discord.com/developers/events/gateway#session-start-limit-object
MAX_DELAY, FORGIVE_AFTER = 900, 300
KEEP_CLIENT = 30  # a client that is offline and has to wait longer than this is given up for a new one
BLOCK_DELAY, BLOCK_SPREAD = 60, 5  # a block of the IP address that does not say how long it lasts; see Entry.pause
SETTLE_TIMEOUT = 30  # then the log says how many bots are ready, even if one has neither come up nor failed
# A stop takes 10 seconds at most: for Discord's answer, the bots' own clean-up, other threads, and for everything.
GATEWAY_CLOSE_TIMEOUT, CLEANUP_TIMEOUT, CLOSE_TIMEOUT, STOP_TIMEOUT = 2, 5, 1, 9

log = logging.getLogger("run_bots")
# The token of the bot whose code is running; by the token, the bot's name and the tasks that its code has started.
running_token: contextvars.ContextVar[str] = contextvars.ContextVar("running_token", default="")
names: dict[str, str] = {}
tasks: dict[str, set[asyncio.Task[Any]]] = collections.defaultdict(set)


# --- Settings: the env file and the process environment --------------------------------------------------------------
# What people leave in the place of a token. A text of a token's form, with three long parts, is none.
PLACEHOLDER = (
    r"(?i)(?!.{20,}\..{5,}\..{20,}$)(.*(your|paste|insert|placeholder|example|here$)|[x.*-]+$"
    r"|\W*(the|bot|discord)?\W*(token|todo|none|change.?me)$)"
)
Values = dict[str, tuple[str, str]]  # of each variable its text, and its source: the name, and where it is set


class SettingsError(ValueError):
    """The settings are not valid. Each argument is one problem, as a sentence for a person."""


@dataclasses.dataclass
class BotSettings:
    """What one bot is started with. A bot whose settings are equal to the new ones is left alone."""

    number: int = dataclasses.field(compare=False)
    sources: dict[str, str] = dataclasses.field(compare=False)  # of the fields below
    name: str = dataclasses.field(compare=False)
    token: str = dataclasses.field(repr=False)
    prefix: str
    extensions: tuple[str, ...]
    intents: discord.Intents

    @property
    def bot_id(self) -> str:
        """The bot's id, which is the first part of a token in base64; the whole token if it is something else."""
        with contextlib.suppress(ValueError):
            return str(int(base64.b64decode(self.token.partition(".")[0] + "==")))
        return self.token

    def is_meant_by(self, part: str) -> bool:
        """Whether this part of `--only` is the bot's number or name, or a range of numbers around it."""
        span = re.fullmatch("([0-9]+)-([0-9]+)", part)
        return part in (str(self.number), self.name) or bool(span and int(span[1]) <= self.number <= int(span[2]))


def as_in_environment(name: str) -> str:
    """A variable's name as the process environment has it: Windows knows no lower case."""
    return name.upper() if os.name == "nt" else name


def read_text(path: str, called: str) -> str:
    try:
        data = Path(path).read_bytes()  # in UTF-8, or in PowerShell's UTF-16
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{called} cannot be read: {error.strerror}. Check its path and permissions.") from None
    except ValueError:
        raise SettingsError(f"{called} is not a text file. Save it as plain text, in UTF-8.") from None
    return text.replace("\r\n", "\n")


def parse_token(text: str) -> str:
    token = re.sub("(?i)^bot ", "", text.strip()).strip("<> ")
    if re.match(PLACEHOLDER, token):
        raise SettingsError("This is a placeholder. Put the bot's own token there.")
    if not re.fullmatch(r"[\w.+/-]+=*", token, re.ASCII):
        raise SettingsError("It is empty, or has a space or another character that no token has. Copy it again.")
    return token


def parse_extensions(text: str) -> tuple[str, ...]:
    modules = tuple(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))
    if any(it.endswith(".py") or not it.replace(".", "_").isidentifier() for it in modules):
        raise SettingsError("Write greeter for greeter.py and cogs.music for cogs/music.py, with commas in between.")
    return modules


def parse_intents(text: str) -> discord.Intents:
    intents = parse_intents(DEFAULT_INTENTS) if text.lstrip().startswith("-") else discord.Intents.none()
    for name in text.lower().replace(",", " ").split():
        flag = name.removeprefix("-")
        if flag in discord.Intents.VALID_FLAGS:
            setattr(intents, flag, flag == name)
        elif name in ("default", "all", "none"):
            intents |= getattr(discord.Intents, name)()
        else:
            meant = difflib.get_close_matches(flag, ["default", "all", *discord.Intents.VALID_FLAGS], 1)
            raise SettingsError(f"There is no intent {flag}. Did you mean {''.join(meant) or 'default'}?")
    return intents


DEFAULT_INTENTS = "default,message_content"
# Every variable that is read, without DISCORD_BOT_: how, its default, and what it is.
SETTINGS: dict[str, tuple[Callable[[str], Any], str, str]] = {
    "TOKEN<N>": (parse_token, "", "bot N's token; empty means no such bot"),
    "TOKEN<N>_FILE": (lambda it: parse_token(read_text(it.strip(), "This file")), "", "a file with the token"),
    "NAME<N>": (str.strip, "bot<N>", "what the log calls the bot; default: bot<N>"),
    "PREFIX<N>": (str, "!", "what its text commands start with; default: !"),
    "EXTENSIONS<N>": (parse_extensions, "", "modules that say what it does, with commas; default: it answers ping"),
    "INTENTS<N>": (parse_intents, DEFAULT_INTENTS, f"what Discord tells it; default: {DEFAULT_INTENTS}"),
}
FOR_ALL = ("PREFIX<N>", "EXTENSIONS<N>", "INTENTS<N>")  # without a number, for every bot that has none of its own
OURS = ("DISCORD_BOT_", "DISCORD_TOKEN", "BOT_TOKEN")  # other names are the business of the bots' own code


def read_env_file(path: Path) -> tuple[Values, list[str]]:
    """The variables of an env file, and the problems in it."""
    values: Values = {}
    problems = []
    for binding in parse_stream(io.StringIO(read_text(str(path), str(path)))):
        text, name = binding.original.string, binding.key
        place = f"{path}, line {binding.original.line + text[: len(text) - len(text.lstrip())].count(chr(10))}"
        if binding.error or (name and binding.value is None):
            problems.append(f"{place}: This is not NAME=value. Is a quote or the = missing?")
        elif name in values:
            problems.append(f"{name} ({place}): It is set already: {values[name][1]}. Delete one of them.")
        elif name:
            values[name] = binding.value or "", f"{name} ({place})"
    return values, problems


def read_bot(number: str, values: Values, problems: list[str]) -> list[BotSettings]:
    """One bot's settings: its own values, or those for all bots, or the defaults. Or nothing but more problems."""
    fields: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for template, (parse, default, _) in SETTINGS.items():
        own, shared = (f"DISCORD_BOT_{template.replace('<N>', it)}" for it in (number, ""))
        text, source = values.get(own) or values.get(shared) or (default.replace("<N>", number), own)
        field = template.partition("<")[0].lower()
        if field == "token" and own not in values:
            continue
        try:
            if field in sources:
                raise SettingsError(f"{source} is set too. Keep one of them.")
            sources[field] = source
            if re.search("^[\u2018-\u201f\u00ab]|[\u2018-\u201f\u00bb]$", text):
                raise SettingsError("There are curly quotes. Use straight ones, or none.")
            if not text.strip().isprintable():
                remedy = r"Is a quote unclosed? In double quotes \n is a line break: write / for \ in a path."
                raise SettingsError(f"There is a line break or a control character. {remedy}")
            fields[field] = parse(text)
        except SettingsError as error:
            problems.append(f"{sources[field]}: {error}")
    return [BotSettings(int(number), sources, **fields)] if len(fields) == len(sources) else []


def read_settings(path: Path | None, environment: Mapping[str, str]) -> tuple[list[BotSettings], list[str]]:
    """Every bot by number, and warnings of what is only odd. Or raises every problem. None of the texts has a token."""
    warnings = []
    from_file, problems = read_env_file(path) if path else ({}, [])
    with contextlib.suppress(OSError):  # it is gone since
        if path and os.name == "posix" and path.stat().st_mode & 0o004:
            warnings.append(f"{path}: Everybody on this machine can read your tokens. Run: chmod 600 {path}")
    values = from_file | {name: (text, f"{name} (the environment)") for name, text in environment.items()}
    values = {name: it for name, it in values.items() if it[0].strip() and name.upper().startswith(OURS)}
    numbers = {number for name in values for number in re.findall("[1-9][0-9]*", name)[:1]}
    known = {f"DISCORD_BOT_{it.replace('<N>', number)}": number for number in numbers | {"1"} for it in SETTINGS}
    known |= {f"DISCORD_BOT_{it.replace('<N>', '')}": "" for it in FOR_ALL}
    for name in [name for name in values if name not in known]:
        number = "".join(re.findall("[1-9][0-9]*", name)[:1]) or "1"
        meant = difflib.get_close_matches(name.upper(), [it for it in known if known[it] in (number, "")], 1, 0)[0]
        warnings.append(f"{values.pop(name)[1]}: Nothing reads this variable. Did you mean {meant}?")
    first = {known[name]: source for name, (_, source) in reversed(values.items())}  # of each number, bot and name
    numbers = set(first) - {""}
    tokenless = {it for it in numbers if not {f"DISCORD_BOT_TOKEN{it}", f"DISCORD_BOT_TOKEN{it}_FILE"} & values.keys()}
    warnings += [f"{first[number]}: There is no DISCORD_BOT_TOKEN{number}." for number in sorted(tokenless)]
    bots = [bot for it in sorted(numbers - tokenless, key=int) for bot in read_bot(it, values, problems)]
    for bot in bots:
        if bot.token.count(".") != 2:
            warnings.append(f"{bot.sources['token']}: This does not look like a token, which has three parts.")
        for field, key, what in ("token", bot.bot_id, "bot"), ("name", bot.name, f"name ({bot.name})"):
            source, other = bot.sources[field], first.setdefault(f"{field} {key}", bot.sources[field])
            if other != source:
                problems.append(f"{source}: This is the same {what} as {other}. Every bot needs its own.")
    if not bots and not problems:
        looked = f"{path} has no token." if path else f"There is no file .env in {Path.cwd()}."
        how = "Copy .env.example to .env, and write a line for each bot: DISCORD_BOT_TOKEN1=its token"
        where = f"The token is at {PORTAL}: choose your application, then Bot, then Reset Token."
        problems = [*warnings, f"There is no bot to run. {looked}", how, where]
    if problems:
        raise SettingsError(*dict.fromkeys(problems))
    taken = set(map(as_in_environment, environment))
    for name, (text, source) in from_file.items():  # for the bots' own code
        if name.startswith("DISCORD_BOT_TOKEN") or as_in_environment(name) in taken:
            continue
        try:
            os.environ[name] = text
        except (OSError, ValueError) as error:
            warnings.append(f"{source}: The system cannot hold this variable, so your bots do not get it: {error}.")
    names.update((bot.token, bot.name) for bot in bots)
    return bots, warnings


# --- What a bot does -------------------------------------------------------------------------------------------------
async def answer_ping(message: discord.Message) -> None:
    """What a bot does that has no extensions: it answers `ping` with `pong`, but not itself and no other bot."""
    if not message.author.bot and message.content.startswith("ping"):
        await message.channel.send("pong", allowed_mentions=discord.AllowedMentions.none())


# --- One entry and its life: log in, connect, retry, end -------------------------------------------------------------
# Intents that are to be switched on in the Developer Portal: the application's flag, and the Portal's own name.
PRIVILEGED_INTENTS = {
    "message_content": ("gateway_message_content", "Message Content Intent"),
    "members": ("gateway_guild_members", "Server Members Intent"),
    "presences": ("gateway_presence", "Presence Intent"),
}
NOT_THE_USERS = (__file__, "<frozen ", os.path.dirname(discord.__file__))  # how the names of other files begin


class GivenUp(BaseException):
    """This client is of no more use; the cause may say why. No `Exception`: discord.py would catch it and go on."""


@dataclasses.dataclass
class Failure:
    """Why an attempt failed, as a sentence for a person."""

    text: str
    final: bool = False  # a person must change something first
    cause: BaseException | None = None  # what the log shows a traceback of
    wait: float = 0  # seconds that Discord asks for
    for_all: bool = False  # they hold for the IP address, and so for every bot


def diagnose(error: BaseException, bot: "Bot") -> Failure:
    """What an exception means for a bot. This is the one place that says which failures are final."""
    if isinstance(error, discord.GatewayNotFound) and error.__cause__ is not None:
        error = error.__cause__
    sources = (bot.entry or bot).settings.sources  # those of now, where only a name or a number has changed
    token, extensions, intents = (sources[field] for field in ("token", "extensions", "intents"))
    number = str(bot.application_id or bot.settings.bot_id)
    portal = f"{PORTAL}/{number}/bot" if number.isdecimal() else PORTAL
    status = getattr(error, "status", None)
    code = error.code if isinstance(error, discord.ConnectionClosed) else None

    refused = isinstance(error, discord.LoginFailure) or (isinstance(error, discord.HTTPException) and status == 401)
    if refused or code == 4004:
        return Failure(f"{token}: Discord refuses this token. Make a new one at {portal} (Reset Token).", final=True)
    if isinstance(error, discord.PrivilegedIntentsRequired) or code == 4014:
        missing = " and ".join(bot.missing_intents) or "privileged intent"
        return Failure(f"{token}: The {missing} is off. Switch it on at {portal}, or change {intents}.", final=True)
    if isinstance(error, commands.ExtensionError):
        cause = getattr(error, "original", None)
        why = f"{type(cause).__name__}: {cause}" if cause else "It has no function: async def setup(bot)"
        no_package = isinstance(cause, ModuleNotFoundError) and error.name.startswith(f"{cause.name}.")
        if no_package or isinstance(error, commands.ExtensionNotFound):
            cause, why = None, "There is no such file beside run_bots.py or in this folder"
        frames = cause and cause.__traceback__  # from the first of the user's own
        while frames and frames.tb_frame.f_code.co_filename.startswith(NOT_THE_USERS):
            frames = frames.tb_next
        text = f"{extensions}: {error.name} does not load. {why}."
        return Failure(text, final=True, cause=cause and cause.with_traceback(frames))
    if isinstance(error, discord.app_commands.CommandSyncFailure):
        return Failure(f"{extensions}: Discord refuses the slash commands. {error}", final=True)
    wants_shards = code == 4011 and bot.entry and (bot.guilds or not bot.entry.asks_for_shards)
    if code in FINAL_CLOSE_CODES and not wants_shards:
        return Failure(f"{token}: Refused (close code {code}). Update discord.py, or change {intents}.", final=True)

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
    """discord.py's bot, as one of many: it asks its entry before it connects, and it leaves Discord at once."""

    def __init__(self, settings: BotSettings, entry: "Entry | None" = None) -> None:
        # Without the message content intent, a bot still hears commands that begin with its mention.
        prefix = settings.prefix if settings.intents.message_content else commands.when_mentioned
        # A bot that only answers ping needs no help command and no cache of messages, which takes memory and time.
        options: Any = {} if settings.extensions else {"help_command": None, "max_messages": None}
        super().__init__(prefix, intents=settings.intents, shard_count=1, **options)
        self.settings, self.entry = settings, entry
        self.gone = asyncio.Event()  # set when the bot is closed, whoever closed it
        self._goodbye: asyncio.Task[None] | None = None
        self._sockets: list[aiohttp.ClientWebSocketResponse] = []
        # Not public, but every way to the gateway leads through it: a shard's first connection, a RESUME, a new
        # IDENTIFY. The only public hook is for IDENTIFY, and discord.py sends RESUMEs in a loop without a pause.
        self._connect_socket, self.http.ws_connect = self.http.ws_connect, self._open_socket  # type: ignore[method-assign]
        for event in ("on_connect", "on_resumed"):
            self.add_listener(self._report_ready, event)

    @property
    def missing_intents(self) -> list[str]:
        asked = [names for intent, names in PRIVILEGED_INTENTS.items() if getattr(self.intents, intent)]
        flags = self.application_flags
        return [name for flag, name in asked if not getattr(flags, flag) and not getattr(flags, f"{flag}_limited")]

    async def login(self, token: str) -> None:
        if self.entry:
            await self.entry.pause()
        # Not public, and for the login alone: a longer rate limit is an error, for which the entry waits.
        self.http.max_ratelimit_timeout = LOGIN_TIMEOUT / 2
        async with asyncio.timeout(LOGIN_TIMEOUT):
            await super().login(token)
        self.http.max_ratelimit_timeout = None
        for name in self.settings.extensions:
            try:
                await self.load_extension(name)
            except commands.ExtensionError:
                raise
            except (Exception, SystemExit) as error:  # of the package that it is in; exit() would end every bot
                raise commands.ExtensionFailed(name, error) from error  # type: ignore[arg-type]
        many = self.application and self.application.approximate_guild_count >= SHARDING_FROM
        if self.entry and (many or self.entry.asks_for_shards):
            self.entry.asks_for_shards = True
            self.shard_count = None  # type: ignore[assignment]  # connect() asks Discord

    async def _open_socket(self, url: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        """Connect to the gateway as soon as the bot may. Raises `GivenUp` if that takes long."""
        if options or self.entry is None:  # a voice connection
            return await self._connect_socket(url, **options)
        lost = [socket for socket in self._sockets if socket.closed]
        self._sockets = [socket for socket in self._sockets if not socket.closed]
        for ws in lost:  # discord.py launches all shards before it looks how the first one fared
            if ws.close_code in FINAL_CLOSE_CODES:
                raise GivenUp from discord.ConnectionClosed(ws, shard_id=None)
        if lost and not self._goodbye:
            self.entry.failed(Failure("The gateway connection was lost."), len(lost) / (self.shard_count or 1))
        while True:
            if self.entry.delay > KEEP_CLIENT and not self._sockets and not self._goodbye:
                raise GivenUp
            await self.entry.pause()
            if self._goodbye:
                raise asyncio.CancelledError
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    self._sockets.append(await self._connect_socket(url))
                self.entry.reconnects += len(lost)
                return self._sockets[-1]
            except (OSError, aiohttp.ClientError) as error:
                self.entry.failed(diagnose(error, self))

    async def close(self) -> None:
        """Leave the gateway, let the bot's own code clean up, close the rest. A second call waits for the first."""
        if self._goodbye is None:
            self._goodbye = asyncio.create_task(self._say_goodbye(asyncio.current_task()))
        await asyncio.shield(self._goodbye)

    async def _say_goodbye(self, caller: asyncio.Task[Any] | None) -> None:
        running_token.set(self.settings.token)
        closing = [asyncio.create_task(ws.close(code=1000)) for ws in self._sockets]
        for ws, task in zip(self._sockets, closing, strict=True):
            # With 1000 Discord shows the bot as offline at once. Else discord.py's own close with 4000 goes out first.
            ws.close = lambda task=task, **_: asyncio.shield(task)  # type: ignore[method-assign, assignment]
        if closing:
            await asyncio.wait(closing, timeout=GATEWAY_CLOSE_TIMEOUT)
        for task in tasks[self.settings.token] - {caller, asyncio.current_task()}:
            task.cancel()  # what waits for an event would wait for ever, and what sends would fail
        clean_up = asyncio.create_task(super().close())  # it unloads the extensions first
        if not (await asyncio.wait([clean_up], timeout=CLEANUP_TIMEOUT))[0]:
            log.warning("The bot's own clean-up took more than %s s. It was cut off.", CLEANUP_TIMEOUT)
            clean_up.cancel()
        await self.http.close()
        self.gone.set()

    async def on_message(self, message: discord.Message) -> None:
        if self.settings.extensions:
            await self.process_commands(message)
        else:
            await answer_ping(message)

    async def on_command_error(self, context: commands.Context[Any], exception: commands.CommandError) -> None:
        if not isinstance(exception, commands.CommandNotFound):  # that is for another bot, perhaps
            await super().on_command_error(context, exception)

    async def _report_ready(self) -> None:
        shards = self.shards.values()
        if self.entry and len(shards) == self.shard_count and not any(shard.is_closed() for shard in shards):
            log.info("ready as %s (%s) in %s servers", self.user, self.user and self.user.id, len(self.guilds))
            self.entry.set_state("ready")


class Entry:
    """One bot: its state, and the event that is set when it has ended, however that was."""

    blocked_until = 0.0  # by the monotonic clock; for all bots, because Cloudflare blocks an IP address

    def __init__(self, settings: BotSettings, on_change: Callable[[], None]) -> None:
        self.settings = settings
        self.wanted: BotSettings | None = settings  # what it is to run with; None: it is to end
        self.event = asyncio.Event()
        self.state, self.since = "starting", time.time()  # or ready, retrying, stopped
        self.failure = Failure("")  # the last one
        self.bot: Bot | None = None
        self.reconnects, self.asks_for_shards = 0, False
        self._until = self._failures = 0.0  # when it may try again, by the monotonic clock
        self._on_change = on_change
        self.task = asyncio.create_task(self._run())

    def want(self, settings: BotSettings | None) -> None:
        """Run with these settings from now on, or end. One client leaves before the next one starts."""
        if settings == self.wanted == self.settings:
            self.settings = settings  # with another name or number, perhaps
        elif self.bot:
            self.state, self.since = "starting", time.time()
            self.task.get_loop().create_task(self.bot.close())
        self.wanted = settings

    async def _run(self) -> None:
        try:
            again = True
            while self.wanted and again:
                self.settings = self.wanted
                running_token.set(self.settings.token)
                self.bot = Bot(self.settings, self)
                # The end of discord.py's block waits for its own part of the close alone, which may have been cut off.
                with contextlib.suppress(asyncio.CancelledError):
                    async with self.bot:
                        running = asyncio.create_task(self.bot.start(self.settings.token))
                        gone = asyncio.create_task(self.bot.gone.wait())
                        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
                        await self.bot.close()
                await asyncio.wait({running}, timeout=CLOSE_TIMEOUT)  # it may have to say why
                gc.unfreeze()  # else nothing would free what this client is made of; see tidy_memory
                error = running.exception() if running.done() and not running.cancelled() else None
                cause = error.__cause__ if isinstance(error, GivenUp) else error
                if error is None:
                    self.failure = Failure("")
                elif cause is not None:
                    self.failed(diagnose(cause, self.bot))
                    self.asks_for_shards |= getattr(cause, "code", None) == 4011
                again = self.wanted is not self.settings or (error is not None and not self.failure.final)
            if self.wanted and self.failure.text:
                log.error("stopped: %s", self.failure.text, exc_info=self.failure.cause)
            else:
                log.info("stopped: %s", "it closed itself" if self.wanted else "as asked")
        except Exception:
            log.critical("This bot is stopped by a bug of run_bots.py.", exc_info=True)
            raise
        finally:
            self.event.set()
            self.set_state("stopped")

    @property
    def delay(self) -> float:
        """In how many seconds it may try again."""
        return max(0, max(self._until, Entry.blocked_until) - time.monotonic())

    async def pause(self) -> None:
        while self.delay:
            # After a block the bots come one by one, so that the first finds out for all whether it is over.
            spread = BLOCK_SPREAD if Entry.blocked_until > self._until else 0
            await asyncio.sleep(self.delay + random.uniform(0, spread))

    def failed(self, failure: Failure, part: float = 1) -> None:
        """Count a failure, of this part of the bot's shards, and say what comes next."""
        self.failure, now = failure, time.monotonic()
        if failure.final:
            return
        self._failures = max(0, self._failures - max(0, now - self._until) / FORGIVE_AFTER)
        delay = failure.wait + random.uniform(0, min(MAX_DELAY, 2**self._failures))
        self._until = max(self._until, now + delay)
        self._failures = min(self._failures + part, 10)  # 2**10 is more than MAX_DELAY
        if failure.for_all:
            Entry.blocked_until = max(Entry.blocked_until, now + failure.wait)
        log.warning("%s Trying again in %.1f s.", failure.text, self.delay, exc_info=failure.cause)
        self.set_state("retrying")

    def set_state(self, state: str) -> None:
        self.state, self.since = state, time.time()
        self.failure = Failure("") if state == "ready" else self.failure
        contextvars.Context().run(self._on_change)  # what that logs is no bot's


# --- All the entries together ----------------------------------------------------------------------------------------
class Runner:
    """The running bots, and where their settings come from: the env file, the process environment and `--only`."""

    def __init__(self, env_file: Path | None, only: str | None) -> None:
        self.env_file, self._only, self._environment = env_file, only, dict(os.environ)
        self._seen: object = None  # the env file as it was read
        self._entries: dict[str, Entry] = {}  # by the bot's id, so that no bot ever has two sessions
        self._stopping = False
        self._unsettled: set[str] = set()  # once no bot is in these states, the log says how many are ready

    def read(self) -> list[BotSettings]:
        self._seen = self._look()
        bots, warnings = read_settings(self.env_file, self._environment)
        if self._only is not None:
            parts = [part.strip() for part in self._only.split(",")]
            there = ", ".join(f"{bot.number} ({bot.name})" for bot in bots)
            missing = [part for part in parts if not any(bot.is_meant_by(part) for bot in bots)]
            warnings += [f"--only: There is no bot {part}. These are there: {there}." for part in missing]
            bots = [bot for bot in bots if any(map(bot.is_meant_by, parts))]
            if missing and not (self._entries and bots):  # later it may have been removed from the file
                raise SettingsError(*warnings)
        for warning in warnings:
            log.warning(warning)
        return bots

    def _look(self) -> object:
        """What changes when the env file is saved. To open it could hinder an editor that replaces it, on Windows."""
        with contextlib.suppress(OSError):
            if self.env_file:
                stat = self.env_file.stat()
                return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
        return None

    async def _keep_up(self, watch: bool) -> None:
        last = self._seen
        while True:
            await asyncio.sleep(1)
            before, last = last, self._look() if watch else self._seen
            if before == last != self._seen:  # it lies still; it may be written in pieces
                self.reload(start_ended=False)

    def reload(self, *, start_ended: bool = True) -> None:
        if self._stopping:
            return
        try:
            changes = self._apply(self.read(), start_ended)
            log.info("%s: %s", self.env_file or "the environment", changes or "nothing changed")
        except SettingsError as error:
            log.error("The bots keep running as they are. The settings are not valid:\n%s", "\n".join(error.args))
        except Exception:
            log.exception("The bots keep running as they are. This is a bug of run_bots.py.")

    def _apply(self, settings: list[BotSettings], start_ended: bool = False) -> str:
        """Make the running bots equal to the settings. Only what differs moves. Returns what that is."""
        new = {bot.bot_id: bot for bot in settings}
        changes: dict[str, list[str]] = {"added": [], "removed": [], "restarted": []}
        for bot_id in {**self._entries, **new}:
            entry, bot = self._entries.get(bot_id), new.get(bot_id)
            before = entry.wanted if entry else None
            has_ended = entry is None or entry.event.is_set()
            if bot != before or (bot and has_ended and start_ended):
                what = "added" if before is None else "restarted" if bot else "removed"
                changes[what].append((bot or self._entries[bot_id].settings).name)
                if bot and has_ended:
                    self._entries[bot_id] = Entry(bot, self._on_change)
            if entry and not has_ended:
                entry.want(bot)
            elif bot is None:
                del self._entries[bot_id]
        if any(changes.values()) and new:
            self._unsettled = {"starting"}
            asyncio.get_running_loop().call_later(SETTLE_TIMEOUT, self._on_change, self._unsettled)
        return "; ".join(f"{what} {', '.join(bots)}" for what, bots in changes.items() if bots)

    def _on_change(self, overdue: object = None) -> None:
        """Say how many bots are ready: to systemd each time, in the log once all have settled, or are overdue."""
        states = [entry.state for entry in self._entries.values() if entry.wanted]
        ready = f"{states.count('ready')} of {len(states)} bots are ready"
        if self._stopping:
            return
        notify(f"STATUS={ready}")
        if self._unsettled and (overdue is self._unsettled or not self._unsettled & set(states)):
            log.info(ready)
            self.show(but="ready")
            self._unsettled = {"starting", "retrying"} if {"starting", "retrying"} & set(states) else set()
            notify("READY=1")
            tidy_memory()

    def show(self, but: str = "") -> None:
        """Log a line for each bot, but not for those in that state."""
        for entry in self._entries.values():
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.since))
            words = f"{entry.settings.name} is {entry.state} since {since}"
            if entry.bot and entry.state == "ready":
                words += f", latency {entry.bot.latency * 1000:.0f} ms, {len(entry.bot.guilds)} servers"
            words += f", {entry.reconnects} reconnects" + (entry.failure.text and f": {entry.failure.text}")
            if entry.wanted and entry.state != but:
                log.info(words)

    def stop(self, why: str) -> None:
        log.info("Stopping all bots (%s). A second Ctrl-C ends the program at once.", why)
        self._stopping = True
        notify("STOPPING=1")
        for entry in self._entries.values():
            entry.want(None)

    def close_bot_of(self, error: SystemExit) -> None:
        for entry in self._entries.values():
            its = tasks[entry.settings.token]
            if entry.bot and error in [task.exception() for task in its if task.done() and not task.cancelled()]:
                log.error("[%s] Some code calls exit(). This bot is closed.", entry.settings.name)
                entry.task.get_loop().create_task(entry.bot.close())
                return
        log.error("Some code of a bot calls exit(). The bots go on.")  # with uvloop, nobody knows whose code

    async def run(self, settings: list[BotSettings], watch: bool) -> int:
        """Run the bots until they have all ended, by themselves or as asked. Returns the exit code."""
        asyncio.get_running_loop().set_task_factory(remember_task)
        handle_signals(self)
        self._apply(settings)
        keeping_up = asyncio.create_task(self._keep_up(watch))
        entries = self._entries.values()
        while not all(entry.event.is_set() for entry in entries):
            await asyncio.gather(*(entry.event.wait() for entry in entries))
        keeping_up.cancel()
        await asyncio.gather(*(entry.task for entry in entries))  # raises what is a bug of this program
        code = EXIT_NEEDS_PERSON if any(entry.wanted and entry.failure.final for entry in entries) else EXIT_OK
        # Threads and tasks of the bots' own code, or a name server that does not answer, must not keep it alive.
        timer = threading.Timer(CLOSE_TIMEOUT, os._exit, [code])
        timer.daemon = True
        timer.start()
        return code


def remember_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    """A task factory that keeps each bot's tasks, so that they end with the bot."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    its = tasks[running_token.get()]
    its.add(task)
    task.add_done_callback(its.discard)
    return task


async def visit_all(bots: list[BotSettings], *, sync: bool) -> int:
    """Log every bot in by REST alone, to check it or to upload its slash commands. Returns the exit code."""

    async def visit(settings: BotSettings) -> str:
        running_token.set(settings.token)
        bot = Bot(settings)
        try:
            async with bot:
                await bot.login(settings.token)
                if sync:
                    return " ".join(f"/{command.name}" for command in await bot.tree.sync()) or "none"
                if bot.missing_intents:
                    raise discord.PrivilegedIntentsRequired(None)
                assert bot.application is not None
                permissions = discord.Permissions(view_channel=True, send_messages=True, read_message_history=True)
                invite = discord.utils.oauth_url(bot.application.id, permissions=permissions)
                servers = bot.application.approximate_guild_count
                return f"{bot.user!s:<20} {bot.application.id:<20} {servers:>7}  on\n{'':26}invite: {invite}"
        except Exception as error:
            failure = diagnose(error, bot)
            log.error("%s", failure.text, exc_info=failure.cause)
            return f"PROBLEM: {failure.text}"

    outcomes = await asyncio.gather(*map(visit, bots))
    columns = "slash commands uploaded" if sync else f"{'on Discord':<20} {'id':<20} servers  intents"
    print(f"{'no.':>4} {'name':<20} {columns}")
    for settings, outcome in zip(bots, outcomes, strict=True):
        print(f"{settings.number:>4} {settings.name:<20} {outcome}")
    return EXIT_NEEDS_PERSON if any(outcome.startswith("PROBLEM") for outcome in outcomes) else EXIT_OK


# --- Signals ---------------------------------------------------------------------------------------------------------
def handle_signals(runner: Runner) -> None:
    """Stop at the first stop signal, end at once at the second or after too much time; SIGHUP, SIGUSR1."""
    loop, in_terminal, asked = asyncio.get_running_loop(), os.isatty(0), threading.Event()
    actions: dict[str, Callable[[], None]] = {"SIGUSR1": runner.show, "SIGHUP": runner.reload}

    def handle(number: int, _frame: Any) -> None:
        name = signal.Signals(number).name
        action = actions.get(name)
        if action is None or (name == "SIGHUP" and in_terminal and not os.isatty(0)):  # somebody closed the window
            if asked.is_set():
                os._exit(EXIT_BUG)
            asked.set()
            action = functools.partial(runner.stop, name)
        # A signal comes while the code of any bot is running, and is for none.
        loop.call_soon_threadsafe(action, context=contextvars.Context())

    def last_resort() -> None:
        # In a thread, because code of a bot that blocks the event loop blocks everything else.
        asked.wait()
        time.sleep(STOP_TIMEOUT)
        os.write(2, b"Some code of a bot does not stop. The program ends without it.\n")
        os._exit(EXIT_OK)

    threading.Thread(target=last_resort, daemon=True).start()
    for number in STOP_SIGNALS + OTHER_SIGNALS:
        signal.signal(number, handle)  # Windows has no loop.add_signal_handler
    if sys.platform == "win32":
        handle_closed_console()


console_handler: Any = None  # Windows calls it for as long as the process lives


def handle_closed_console() -> None:
    """Stop when somebody closes the console window, logs off, or shuts Windows down.

    Windows ends the process as soon as the handler returns, or after 5 seconds, so the handler never returns. Python's
    own does, at once: https://learn.microsoft.com/en-us/windows/console/handlerroutine
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
    """Tell systemd, if it asked: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html"""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.setblocking(False)
            systemd.sendto(state.encode(), re.sub("^@", "\0", address))


# --- What a bot costs ------------------------------------------------------------------------------------------------
def new_event_loop() -> Any:
    """An event loop for many bots; uvloop's where that is installed."""
    # Young objects are looked at less often, and those of the settled bots no more, see tidy_memory: with 100 busy bots
    # the collector took 8 % of the time, held up every reply for up to 0.1 s, and found next to nothing.
    gc.set_threshold(10_000)
    # asyncio gives each TLS connection a read buffer of 256 KiB, which is more than half of what a bot takes, and a TLS
    # record carries 16. Not public: where it has another name, and with uvloop, this changes nothing.
    sslproto.SSLProtocol.max_size = 16 * 1024
    try:
        import uvloop as loops  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        loops = asyncio
    return loops.new_event_loop()


def tidy_memory() -> None:
    """Free what is no longer needed, and leave the rest out of the garbage collector's later rounds."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


# --- Logging ---------------------------------------------------------------------------------------------------------
def write_without_tokens(write: Callable[[str], int], text: str) -> int:
    for token, name in names.items():
        text = text.replace(token, f"[token of {name}]")
    return write(text)


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
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.write = functools.partial(write_without_tokens, stream.write)
    handler = logging.StreamHandler()
    handler.addFilter(name_the_bot)
    plain = logging.Formatter("[{asctime}] [{levelname:<8}] {name}: {message}", "%Y-%m-%d %H:%M:%S", "{")
    formatter = discord.utils.MISSING if os.isatty(2) else plain  # else a container has colours in its files
    discord.utils.setup_logging(handler=handler, formatter=formatter, level=logging.getLevelName(level.upper()))
    # At every start discord.py warns of packages that only voice needs. Without them, voice says so when it is used.
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False


# --- The command line ------------------------------------------------------------------------------------------------
def main(argv: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every code page has every character
    variables = "\n".join(f"  DISCORD_BOT_{template:<16}{text}" for template, (_, _, text) in SETTINGS.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"variables of the env file and of the process environment, which wins:\n{variables}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    at_sighup = "at SIGHUP" if hasattr(signal, "SIGHUP") else "at a new start"
    levels = ("debug", "info", "warning", "error", "critical")
    parser.add_argument("--env-file", metavar="PATH", type=Path, help="default: .env here, or else beside the script")
    parser.add_argument("--only", metavar="1-10,music", help="run just these bots: numbers, ranges of numbers, names")
    parser.add_argument("--check", action="store_true", help="say whether every bot is all right, and exit")
    parser.add_argument("--sync-commands", action="store_true", help="upload the bots' slash commands, and exit")
    parser.add_argument("--no-watch", action="store_true", help=f"read the env file again only {at_sighup}")
    parser.add_argument("--log-level", default="info", type=str.lower, choices=levels, help="default: info")
    version = f"run_bots {__version__}, discord.py {discord.__version__}"
    parser.add_argument("--version", action="version", version=version)
    arguments = parser.parse_args(argv)
    set_up_logging(arguments.log_level)
    sys.path[:0] = [str(Path.cwd()), str(Path(__file__).resolve().parent)]  # where extensions are found
    try:
        candidates = [arguments.env_file] if arguments.env_file else [Path(".env"), Path(__file__).with_name(".env")]
        env_file = next(filter(os.path.isfile, candidates), None)
        if arguments.env_file and not env_file:
            raise SettingsError(f"There is no file {arguments.env_file}. Check --env-file.")
        runner = Runner(env_file, arguments.only)
        bots = runner.read()
        log.info("%s bots from %s", len(bots), env_file or "the environment")
        with asyncio.Runner(loop_factory=new_event_loop) as loop_runner:
            loop = loop_runner.get_loop()
            visiting = arguments.check or arguments.sync_commands
            work = visit_all(bots, sync=not arguments.check) if visiting else runner.run(bots, not arguments.no_watch)
            task = loop.create_task(work)
            while True:
                try:
                    return loop.run_until_complete(task)
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
