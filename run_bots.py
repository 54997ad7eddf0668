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
STOP_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
]
OTHER_SIGNALS = [getattr(signal, name) for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name)]

if sys.version_info < (3, 11):
    print(
        "run_bots.py needs Python 3.11 or newer. This is Python " + sys.version.split()[0] + ".",
        file=sys.stderr,
    )
    sys.exit(EXIT_NEEDS_PERSON)
if (
    __name__ == "__main__"
):  # the imports below take about a second, and there is nothing to close yet
    for _signal in STOP_SIGNALS + OTHER_SIGNALS:
        signal.signal(
            _signal, (lambda *_: os._exit(EXIT_OK)) if _signal in STOP_SIGNALS else signal.SIG_IGN
        )

import argparse
import asyncio
import atexit
import base64
import collections
import contextlib
import contextvars
import dataclasses
import difflib
import enum
import functools
import gc
import io
import json
import logging
import random
import re
import socket
import threading
import time
import traceback
from asyncio import sslproto
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, NoReturn

try:
    import aiohttp  # discord.py brings it
    import discord
    import discord.gateway
    import discord.http
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
# All that follow are seconds. What has no answer by then is tried again:
LOGIN_TIMEOUT = 30
SETUP_TIMEOUT = 60
CONNECT_TIMEOUT = 30
HELLO_TIMEOUT = 10  # from the connection to HELLO
READY_TIMEOUT = 60  # from the connection to READY or RESUMED
HAND_BACK_AFTER = 45  # discord.py waits 60 for a connection
NETWORK_DELAY = 25  # the longest wait between two attempts that reach nothing
# After a lost connection a bot waits a random time up to 1, 2, 4, 8 … LOSS_DELAY. One loss is forgotten for each
# FORGIVE_AFTER without one.
LOSS_DELAY = 900
FORGIVE_AFTER = 300
# So many IDENTIFYs at once, and one more for each IDENTIFY_EVERY. A bot begins only while Discord has IDENTIFY_RESERVE
# left, because what it has counted is also of other processes.
IDENTIFY_BURST = 40
IDENTIFY_EVERY = 360
IDENTIFY_RESERVE = 500
RESUME = (
    6  # the opcode: https://docs.discord.com/developers/topics/opcodes-and-status-codes#gateway
)
IDENTIFY_GAP = 5  # between two IDENTIFYs of shards that have the same remainder by max_concurrency
BLOCK_DELAY = 60  # a block of the IP address that does not say how long it lasts
BLOCK_SPREAD = 5
KEEP_ALIVE = 60  # how long a connection for requests is kept after its last one
SETTLE_TIMEOUT = (
    30  # then the log says how many bots are ready, even if one has neither come up nor failed
)
GOODBYE_TIMEOUT = 1.5  # for Discord's answer to a close
# How long each part of a bot's end may take, from its beginning: its own clean-up, its tasks, the rest.
CLEANUP_UNTIL = 5
TASKS_UNTIL = 8
CLOSE_UNTIL = 8.5
STOP_TIMEOUT = 9  # for the whole program, with the threads of the bots' code
FLUSH_TIMEOUT = 0.5

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
Values = dict[
    str, tuple[str, str]
]  # of each variable its text, and its source: the name, and where it is set


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
        return part in (str(self.number), self.name) or bool(
            span and int(span[1]) <= self.number <= int(span[2])
        )


def as_in_environment(name: str) -> str:
    """A variable's name as the process environment has it: Windows knows no lower case."""
    return name.upper() if os.name == "nt" else name


def read_text(path: str, called: str) -> str:
    try:
        data = Path(path).read_bytes()  # in UTF-8, or in PowerShell's UTF-16
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as error:
        raise SettingsError(
            f"{called} cannot be read: {error.strerror}. Check its path and permissions."
        ) from None
    except ValueError:
        raise SettingsError(
            f"{called} is not a text file. Save it as plain text, in UTF-8."
        ) from None
    return text.replace("\r\n", "\n")


def parse_token(text: str) -> str:
    token = re.sub("(?i)^bot ", "", text.strip()).strip("<> ")
    if re.match(PLACEHOLDER, token):
        raise SettingsError("This is a placeholder. Put the bot's own token there.")
    if not re.fullmatch(r"[\w.+/-]+=*", token, re.ASCII):
        raise SettingsError(
            "It is empty, or has a space or another character that no token has. Copy it again."
        )
    return token


def parse_extensions(text: str) -> tuple[str, ...]:
    modules = tuple(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))
    if any(it.endswith(".py") or not it.replace(".", "_").isidentifier() for it in modules):
        raise SettingsError(
            "Write greeter for greeter.py and cogs.music for cogs/music.py, with commas in between."
        )
    return modules


def parse_intents(text: str) -> discord.Intents:
    intents = (
        parse_intents(DEFAULT_INTENTS) if text.lstrip().startswith("-") else discord.Intents.none()
    )
    for name in text.lower().replace(",", " ").split():
        flag = name.removeprefix("-")
        if flag in discord.Intents.VALID_FLAGS:
            setattr(intents, flag, flag == name)
        elif name in ("default", "all", "none"):
            intents |= getattr(discord.Intents, name)()
        else:
            meant = difflib.get_close_matches(
                flag, ["default", "all", *discord.Intents.VALID_FLAGS], 1
            )
            raise SettingsError(
                f"There is no intent {flag}. Did you mean {''.join(meant) or 'default'}?"
            )
    return intents


DEFAULT_INTENTS = "default,message_content"
# Every variable that is read, without DISCORD_BOT_: how, its default, and what it is.
SETTINGS: dict[str, tuple[Callable[[str], Any], str, str]] = {
    "TOKEN<N>": (parse_token, "", "bot N's token; empty means no such bot"),
    "TOKEN<N>_FILE": (
        lambda it: parse_token(read_text(it.strip(), "This file")),
        "",
        "a file with the token",
    ),
    "NAME<N>": (str.strip, "bot<N>", "what the log calls the bot; default: bot<N>"),
    "PREFIX<N>": (str, "!", "what its text commands start with; default: !"),
    "EXTENSIONS<N>": (
        parse_extensions,
        "",
        "modules that say what it does, with commas; default: it answers ping",
    ),
    "INTENTS<N>": (
        parse_intents,
        DEFAULT_INTENTS,
        f"what Discord tells it; default: {DEFAULT_INTENTS}",
    ),
}
FOR_ALL = (
    "PREFIX<N>",
    "EXTENSIONS<N>",
    "INTENTS<N>",
)  # without a number, for every bot that has none of its own
OURS = (
    "DISCORD_BOT_",
    "DISCORD_TOKEN",
    "BOT_TOKEN",
)  # other names are the business of the bots' own code


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
            problems.append(
                f"{name} ({place}): It is set already: {values[name][1]}. Delete one of them."
            )
        elif name:
            values[name] = binding.value or "", f"{name} ({place})"
    return values, problems


def read_bot(number: str, values: Values, problems: list[str]) -> list[BotSettings]:
    """One bot's settings: its own values, or those for all bots, or the defaults. Or nothing but more problems."""
    fields: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for template, (parse, default, _) in SETTINGS.items():
        own, shared = (f"DISCORD_BOT_{template.replace('<N>', it)}" for it in (number, ""))
        text, source = (
            values.get(own) or values.get(shared) or (default.replace("<N>", number), own)
        )
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


def read_settings(
    path: Path | None, environment: Mapping[str, str]
) -> tuple[list[BotSettings], list[str]]:
    """Every bot by number, and warnings of what is only odd. Or raises every problem. None of the texts has a token."""
    warnings = []
    from_file, problems = read_env_file(path) if path else ({}, [])
    with contextlib.suppress(OSError):  # it is gone since
        if path and os.name == "posix" and path.stat().st_mode & 0o004:
            warnings.append(
                f"{path}: Everybody on this machine can read your tokens. Run: chmod 600 {path}"
            )
    values = from_file | {
        name: (text, f"{name} (the environment)") for name, text in environment.items()
    }
    values = {
        name: it for name, it in values.items() if it[0].strip() and name.upper().startswith(OURS)
    }
    numbers = {number for name in values for number in re.findall("[1-9][0-9]*", name)[:1]}
    known = {
        f"DISCORD_BOT_{it.replace('<N>', number)}": number
        for number in numbers | {"1"}
        for it in SETTINGS
    }
    known |= {f"DISCORD_BOT_{it.replace('<N>', '')}": "" for it in FOR_ALL}
    for name in [name for name in values if name not in known]:
        number = "".join(re.findall("[1-9][0-9]*", name)[:1]) or "1"
        meant = difflib.get_close_matches(
            name.upper(), [it for it in known if known[it] in (number, "")], 1, 0
        )[0]
        warnings.append(
            f"{values.pop(name)[1]}: Nothing reads this variable. Did you mean {meant}?"
        )
    first = {
        known[name]: source for name, (_, source) in reversed(values.items())
    }  # of each number, bot and name
    numbers = set(first) - {""}
    tokenless = {
        it
        for it in numbers
        if not {f"DISCORD_BOT_TOKEN{it}", f"DISCORD_BOT_TOKEN{it}_FILE"} & values.keys()
    }
    warnings += [
        f"{first[number]}: There is no DISCORD_BOT_TOKEN{number}." for number in sorted(tokenless)
    ]
    bots = [
        bot for it in sorted(numbers - tokenless, key=int) for bot in read_bot(it, values, problems)
    ]
    for bot in bots:
        if bot.token.count(".") != 2:
            warnings.append(
                f"{bot.sources['token']}: This does not look like a token, which has three parts."
            )
        for field, key, what in (
            ("token", bot.bot_id, "bot"),
            ("name", bot.name, f"name ({bot.name})"),
        ):
            source, other = (
                bot.sources[field],
                first.setdefault(f"{field} {key}", bot.sources[field]),
            )
            if other != source:
                problems.append(
                    f"{source}: This is the same {what} as {other}. Every bot needs its own."
                )
    if not bots and not problems:
        looked = f"{path} has no token." if path else f"There is no file .env in {Path.cwd()}."
        how = (
            "Copy .env.example to .env, and write a line for each bot: DISCORD_BOT_TOKEN1=its token"
        )
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
            warnings.append(
                f"{source}: The system cannot hold this variable, so your bots do not get it: {error}."
            )
    names.update((bot.token, bot.name) for bot in bots)
    return bots, warnings


# --- What a bot does -------------------------------------------------------------------------------------------------
class Bot(commands.AutoShardedBot):
    """What a bot is where nobody brings a client of their own: it does what its extensions say, or answers `ping`."""

    def __init__(self, settings: BotSettings) -> None:
        # Without the message content intent, a bot still hears commands that begin with its mention.
        prefix = settings.prefix if settings.intents.message_content else commands.when_mentioned
        options: Any = {}
        if (
            not settings.extensions
        ):  # then a help command and a cache of messages only take memory and time
            options = {"help_command": None, "max_messages": None}
        super().__init__(prefix, intents=settings.intents, **options)
        self.settings = settings

    async def setup_hook(self) -> None:
        for name in self.settings.extensions:
            try:
                await self.load_extension(name)
            except commands.ExtensionError:
                raise
            except (
                Exception,
                SystemExit,
            ) as error:  # of the package that it is in; exit() would end every bot
                raise commands.ExtensionFailed(name, error) from error  # type: ignore[arg-type]

    async def on_message(self, message: discord.Message) -> None:
        if self.settings.extensions:
            await self.process_commands(message)
        else:
            await answer_ping(message)

    async def on_command_error(
        self, context: commands.Context[Any], exception: commands.CommandError
    ) -> None:
        if not isinstance(exception, commands.CommandNotFound):  # that is for another bot, perhaps
            await super().on_command_error(context, exception)


async def answer_ping(message: discord.Message) -> None:
    """What a bot does that has no extensions: it answers `ping` with `pong`, but not itself and no other bot."""
    if not message.author.bot and message.content.startswith("ping"):
        await message.channel.send("pong", allowed_mentions=discord.AllowedMentions.none())


# --- What a failure means: an exception comes in, a sentence and a verdict come out ----------------------------------
# Intents that are to be switched on in the Developer Portal: the application's flag, and the Portal's own name.
PRIVILEGED_INTENTS = {
    "message_content": ("gateway_message_content", "Message Content Intent"),
    "members": ("gateway_guild_members", "Server Members Intent"),
    "presences": ("gateway_presence", "Presence Intent"),
}
# What a bot's setup raises where its code is wrong. Anything else may be the world's fault, and is tried again.
WRONG_CODE = (
    *(
        SyntaxError,
        ImportError,
        AttributeError,
        NameError,
        TypeError,
        ValueError,
        LookupError,
        ArithmeticError,
    ),
    *(AssertionError, SystemExit, discord.ClientException, commands.ExtensionError),
    discord.app_commands.AppCommandError,
)
DISCORD_FOLDER = os.path.dirname(discord.__file__)
ASYNCIO_FOLDER = os.path.dirname(asyncio.__file__)
NOT_THE_USERS = (
    __file__,
    "<frozen ",
    DISCORD_FOLDER,
    ASYNCIO_FOLDER,
)  # how the names of other files begin


class Kind(enum.Enum):
    """What comes after a failure."""

    FINAL = enum.auto()  # nothing, until a person has changed something
    NETWORK = enum.auto()  # nothing was reached and it cost nothing: another attempt soon
    LOSS = enum.auto()  # it may cost an IDENTIFY: another attempt after longer and longer waits
    TOLD = enum.auto()  # an attempt when Discord says


class SetupFailed(Exception):
    """The bot's own setup has not ended well. The cause is what it raised, or else the text says why."""


@dataclasses.dataclass
class Failure:
    """Why an attempt failed, as a sentence for a person."""

    text: str = ""
    kind: Kind = Kind.LOSS
    cause: BaseException | None = None  # what the log shows a traceback of
    wait: float = 0  # seconds that Discord asks for
    for_all: bool = False  # they hold for the IP address, and so for every bot


def diagnose(error: BaseException, bot: BotSettings, client: discord.Client) -> Failure:
    """What an exception means for a bot. With those that follow, the one place that says which failures are final."""
    if isinstance(error, SetupFailed):
        return diagnose_setup(error.__cause__ or error, bot)
    if isinstance(error, discord.GatewayNotFound) and error.__cause__:
        error = error.__cause__
    code = close_code_of(error)
    if code is not None:
        return diagnose_close(code, bot, client)
    if isinstance(error, discord.HTTPException):
        return diagnose_status(error.status, error.response.headers)
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return diagnose_status(error.status, error.headers or {})
    return diagnose_rest(error, client)


def close_code_of(error: BaseException) -> int | None:
    """The code with which Discord closes a gateway connection for this; it refuses a log-in for the same reasons."""
    if isinstance(error, discord.ConnectionClosed):
        return error.code
    if isinstance(error, discord.PrivilegedIntentsRequired):
        return 4014
    if isinstance(error, discord.LoginFailure) or (
        isinstance(error, discord.HTTPException) and error.status == 401
    ):
        return 4004
    return None


def diagnose_rest(error: BaseException, client: discord.Client) -> Failure:
    """What an exception means with which Discord has not answered."""
    if isinstance(error, discord.RateLimited):
        return Failure(
            f"Discord asks this bot to wait {error.retry_after:.0f} s.",
            Kind.TOLD,
            wait=error.retry_after,
        )
    if isinstance(error, TimeoutError):
        return Failure("Discord does not answer.", Kind.NETWORK)
    if isinstance(error, OSError | aiohttp.ClientError):
        return Failure(f"Discord cannot be reached. Check the network ({error}).", Kind.NETWORK)
    if isinstance(error, TypeError | KeyError | ValueError) and client.application is None:
        return diagnose_status(200, {})  # discord.py takes a page for its data
    return Failure(f"Unexpected error: {error!r}.", cause=error)


def diagnose_close(code: int, bot: BotSettings, client: discord.Client) -> Failure:
    """What one of Discord's close codes means: a failed log-in with a wrong token is one of them, 4004."""
    number = str(client.application_id or bot.bot_id)
    portal = f"{PORTAL}/{number}/bot" if number.isdecimal() else PORTAL
    token, intents = bot.sources["token"], bot.sources["intents"]
    if code not in FINAL_CLOSE_CODES:
        return Failure(f"Discord closed the gateway connection with {code}.")
    if code == 4004:
        text = f"Discord refuses this token. Make a new one at {portal} (Reset Token)."
    elif code == 4014:
        missing = " and ".join(missing_intents(client)) or "privileged intent"
        text = f"The {missing} is off. Switch it on at {portal}, or change {intents}."
    elif code == 4011 and client.guilds and isinstance(client, discord.AutoShardedClient):
        return Failure(
            "This bot is in more servers now, and needs more shards."
        )  # the next client asks how many
    elif code == 4011 and not isinstance(client, discord.AutoShardedClient):
        text = "This bot is in so many servers that it needs shards. Use AutoShardedBot in the place of Bot."
    else:
        text = f"Refused (close code {code}). Update discord.py, or change {intents}."
    return Failure(f"{token}: {text}", Kind.FINAL)


def missing_intents(client: discord.Client) -> list[str]:
    """The intents that this logged-in client asks for, and that are off in the Developer Portal."""
    names = []
    for intent, (flag, name) in PRIVILEGED_INTENTS.items():
        is_on = getattr(client.application_flags, flag) or getattr(
            client.application_flags, f"{flag}_limited"
        )
        if getattr(client.intents, intent) and not is_on:
            names.append(name)
    return names


def diagnose_status(status: int, headers: Mapping[str, str]) -> Failure:
    """What an HTTP status means that is no success, of Discord or of whoever answers in its place."""
    if status < 400:
        text = "The answer is not from Discord. Is there a log-in page or a proxy in the way?"
        return Failure(text, Kind.NETWORK)
    is_discords = "Via" in headers and headers.get("Content-Type") == "application/json"
    if status == 429 and not is_discords:
        # Discord's own rate limits come as JSON and through a proxy. Anything else is Cloudflare, in front of it.
        try:
            seconds = float(headers["Retry-After"])
        except (KeyError, ValueError):
            seconds = BLOCK_DELAY
        text = f"Discord blocks this IP address (429). All bots wait {seconds:g} s."
        return Failure(text, Kind.TOLD, wait=seconds, for_all=True)
    kind = Kind.NETWORK if status >= 500 else Kind.LOSS
    return Failure(f"Discord answers with status {status}.", kind)


def diagnose_setup(error: BaseException, bot: BotSettings) -> Failure:
    """What it means that a bot's own setup raised this: either the code is wrong, or the world around it."""
    source = bot.sources["extensions"]
    if isinstance(error, SetupFailed):
        return Failure(f"{source}: {error}", Kind.NETWORK)
    name = error.name if isinstance(error, commands.ExtensionError) else "The bot's setup"
    cause = error.original if isinstance(error, commands.ExtensionFailed) else error
    head = f"{source}: {name} does not load."
    # discord.py finds no file cogs/music.py, but also none in a package cogs that is not there.
    in_missing_package = isinstance(cause, ModuleNotFoundError) and name.startswith(
        f"{cause.name}."
    )
    if in_missing_package or isinstance(error, commands.ExtensionNotFound):
        return Failure(
            f"{head} There is no such file beside run_bots.py or in this folder.", Kind.FINAL
        )
    if isinstance(error, commands.NoEntryPointError):
        return Failure(f"{head} It has no function: async def setup(bot).", Kind.FINAL)
    if isinstance(cause, discord.app_commands.CommandSyncFailure):
        return Failure(f"{source}: Discord refuses the slash commands. {cause}", Kind.FINAL)
    why = f"{head} {type(cause).__name__}: {cause}"
    if isinstance(cause, WRONG_CODE):
        return Failure(f"{why}.", Kind.FINAL, with_own_frames(cause))
    is_answer = isinstance(cause, discord.HTTPException) and cause.status < 500
    return Failure(f"{why}{place_of(cause)}.", Kind.LOSS if is_answer else Kind.NETWORK)


def with_own_frames(error: BaseException) -> BaseException:
    """The exception with a traceback that begins at the first place in the user's own code."""
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename.startswith(NOT_THE_USERS):
        frames = frames.tb_next
    return error.with_traceback(frames)


def place_of(error: BaseException) -> str:
    """Where the user's own code was as this was raised, to be put behind a sentence."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith(NOT_THE_USERS) and "site-packages" not in frame.filename:
            place = f" ({os.path.basename(frame.filename)}, line {frame.lineno})"
    return place


# --- When a bot may try again: a clock comes in, a wait comes out ----------------------------------------------------
class Pace:
    """When one bot may open its next connection. All times are of one clock, in seconds.

    So, however a bot fails and whoever restarts it, one process makes at most IDENTIFY_BURST and 86,400 /
    IDENTIFY_EVERY = 280 IDENTIFYs in any 24 hours; a bot of more than 20 shards has a larger burst, of two for each.
    Discord resets the token at 1,000:
    https://docs.discord.com/developers/events/gateway#session-start-limit-object
    """

    def __init__(self) -> None:
        self.unreached = 0  # attempts in a row that have reached nothing
        self.network_until = self.loss_until = self.told_until = 0.0
        self.has_session = False  # the next connection can be a RESUME, which costs no IDENTIFY
        self.burst = IDENTIFY_BURST
        self._losses = 0.0  # those that are not forgotten yet
        self._identifies = self._counted_at = (
            0.0  # as a bucket that runs empty: what was in it, and when
        )
        self._next_identify: dict[int, float] = collections.defaultdict(
            float
        )  # of each group of shards

    def not_reached(self, now: float) -> None:
        longest = min(NETWORK_DELAY, 2**self.unreached)
        self.unreached = min(self.unreached + 1, 10)
        self.network_until = now + random.uniform(longest / 2, longest)

    def reached(self) -> None:
        self.unreached = 0
        self.network_until = 0

    def lost(self, now: float, part: float = 1) -> None:
        """A connection was lost that may cost an IDENTIFY, of this part of the bot's shards."""
        forgotten = max(0, now - self.loss_until) / FORGIVE_AFTER
        self._losses = max(0, self._losses - forgotten)
        self.loss_until = now + random.uniform(0, min(LOSS_DELAY, 2**self._losses))
        self._losses = min(self._losses + part, 10)  # 2**10 is more than LOSS_DELAY

    def told(self, now: float, seconds: float) -> None:
        self.told_until = max(self.told_until, now + seconds)

    def identified(self, now: float, group: int = 0) -> float:
        """An IDENTIFY is about to be sent, by a shard of this group. Returns when it may be."""
        self._identifies = self._not_run_out(now) + 1
        self._counted_at = now
        allowed_at = max(now, self._next_identify[group])
        self._next_identify[group] = allowed_at + IDENTIFY_GAP
        return allowed_at

    def _not_run_out(self, now: float) -> float:
        return max(0, self._identifies - (now - self._counted_at) / IDENTIFY_EVERY)

    def identify_wait(self, now: float) -> float:
        """In how many seconds the bot may send another IDENTIFY, if it needs one."""
        if self.has_session:
            return 0
        too_many = self._not_run_out(now) + 1 - self.burst
        return max(0, too_many * IDENTIFY_EVERY)

    def wait(self, now: float) -> float:
        """In how many seconds the bot may try again."""
        until = max(self.network_until, self.loss_until, self.told_until)
        return max(until - now, self.identify_wait(now))


# --- What all bots share: one pool of connections, and one way into the internet -------------------------------------
class Pool(aiohttp.TCPConnector):
    """Connections that stay open for a while after a request, for whichever bot is the next one to ask.

    Each client closes the pool that it was given, also when others use it: that does nothing here.
    """

    def __init__(self) -> None:
        super().__init__(limit=0, keepalive_timeout=KEEP_ALIVE)

    async def close(self, **_: Any) -> None:
        pass

    async def close_for_all(self) -> None:
        await super().close()


class Network:
    """The way into the internet: whether it was away, and whether Discord blocks this address."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.blocked_until = 0.0  # by the monotonic clock
        self.ended_clients = 0
        self._back = asyncio.Event()

    def is_back(self) -> None:
        """End the waits for the network of all bots."""
        self._back.set()
        self._back = asyncio.Event()

    async def wait_until_back(self, seconds: float) -> bool:
        """Wait for it, that long at most. Returns whether it is back before that."""
        try:
            async with asyncio.timeout(seconds):
                return await self._back.wait()
        except TimeoutError:
            return False


# --- The way to the gateway, around any client, whoever made it ------------------------------------------------------
class GatewaySocket(discord.gateway.DiscordClientWebSocketResponse):
    """The WebSocket of every client: it remembers the code that Discord closed it with, and can leave with 1000.

    Over TLS the first is lost otherwise, if the connection ends behind it: aiohttp then says 1006. And of a client that
    closes, discord.py means to send 1000, but 4000 comes first. With 1000 Discord shows the bot as offline at once.
    """

    leaving = False
    is_up = False  # Discord has answered with READY or RESUMED
    sent_code: int | None = None
    received_code: int | None = None
    goodbye: asyncio.Task[bool] | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sent: set[int] = (
            set()
        )  # the opcodes of what discord.py has sent; the first is its answer to HELLO
        self.timers: list[asyncio.TimerHandle] = []

    @property
    def close_code(self) -> int | None:
        return self.received_code or super().close_code

    async def send_str(self, data: str, compress: int | None = None) -> None:
        self.sent.add(json.loads(data)["op"])
        try:
            await super().send_str(data, compress)
        except ConnectionResetError as error:
            raise connection_reset() from error

    async def close(self, *, code: int = 4000, message: bytes = b"") -> bool:
        if self.goodbye is None:
            self.sent_code = 1000 if self.leaving else code
            self.received_code = self.close_code
            self.stop_timers()
            # A task, because a caller that is cancelled in the middle would end the connection before the frame is out.
            self.goodbye = asyncio.create_task(self._say_goodbye(message))
        return await asyncio.shield(self.goodbye)

    async def _say_goodbye(self, message: bytes) -> bool:
        try:
            async with asyncio.timeout(GOODBYE_TIMEOUT):
                return await super().close(code=self.sent_code or 1000, message=message)
        except (
            TimeoutError
        ):  # a dead connection; discord.py allows 30 s, and its own limit for a new one goes on
            return True

    def give_up(self) -> None:
        """Close it, and wait for nobody."""
        self._closing_it = asyncio.create_task(self.close())

    def stop_timers(self) -> None:
        for timer in self.timers:
            timer.cancel()

    @property
    def is_session_over(self) -> bool:
        """Whether discord.py has left with 1000, as it does after INVALID SESSION."""
        return self.sent_code == 1000 and not self.received_code

    @property
    def is_refused_resume(self) -> bool:
        return self.is_session_over and RESUME in self.sent


def connection_reset() -> OSError:
    """The error after which discord.py tries a RESUME, on every system; after any other network error, an IDENTIFY.

    It looks for two numbers, 54 and 10054, in `Client.connect` and `Shard._handle_disconnect`. Linux has another.
    """
    return ConnectionResetError(10054, "The connection to Discord was lost")


class NewSession(Exception):
    """A client has no session any more: `connect()` is to be called again. discord.py itself would try a RESUME."""


@dataclasses.dataclass
class Starts:
    """What Discord says of the sessions that a bot may start: session_start_limit, and the number of shards."""

    shards: int
    remaining: int  # IDENTIFYs, until they are counted anew
    reset_after: float  # seconds until then
    max_concurrency: int


async def ask_for_starts(client: discord.Client) -> Starts:
    """Ask Discord how many IDENTIFYs the logged-in bot has left, whoever used the others up."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            shards, _, limit = await client.http.get_bot_gateway()
        return Starts(
            shards, limit["remaining"], limit["reset_after"] / 1000, limit["max_concurrency"]
        )
    except (TypeError, KeyError, ValueError):
        raise aiohttp.ClientError("The answer is not Discord's") from None


class Gateway:
    """The way to the gateway of one client. No connection is opened before the bot's pace allows it."""

    def __init__(self, client: discord.Client, entry: "Entry") -> None:
        self.client = client
        self.entry = entry
        self.sockets: list[GatewaySocket] = []
        self.shards = 1
        self.max_concurrency = 1
        self.launched = 0  # connections since connect() was called
        entry.pace.has_session = False
        # Not public, but every way to the gateway leads through it: a shard's first connection, a RESUME, a new
        # IDENTIFY. The only public hook is for IDENTIFY, and discord.py sends RESUMEs in a loop without a pause.
        self._connect = client.http.ws_connect
        client.http.ws_connect = self.connect  # type: ignore[method-assign]
        self._before_identify = client.before_identify_hook
        client.before_identify_hook = self.before_identify  # type: ignore[method-assign]

    def prepare(self, starts: Starts) -> None:
        """Heed what Discord says of the bot's size."""
        self.max_concurrency = starts.max_concurrency
        if isinstance(self.client, discord.AutoShardedClient):
            self.client.shard_connect_timeout = None  # the waits here may be longer
            self.client.shard_count = self.client.shard_count or starts.shards
            self.shards = len(self.client.shard_ids or range(self.client.shard_count))
        self.entry.pace.burst = max(IDENTIFY_BURST, 2 * self.shards)

    def listen(self) -> None:
        """Hear when a connection is up. Any client has `wait_for`, whose check is called at each such event."""
        prefix = "shard_" if isinstance(self.client, discord.AutoShardedClient) else ""
        for event in ("connect", "resumed"):
            self.client.wait_for(
                prefix + event, check=self._on_up
            ).close()  # the wait itself is never begun

    async def connect(self, url: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        """In the place of `http.ws_connect`: wait until the bot may connect, and connect."""
        if options:  # a voice connection
            return await self._connect(url, **options)
        self._count_lost()
        if self.launched and self._needs_new_session():
            raise NewSession
        try:
            async with asyncio.timeout(None if self._is_launching() else HAND_BACK_AFTER):
                ws = await self._connect_when_allowed(url)
        except TimeoutError:
            if self._needs_new_session():
                raise NewSession from None
            raise connection_reset() from None  # discord.py itself would end the wait soon
        if self.entry.is_leaving:
            ws.leaving = True
            await ws.close()
            await asyncio.get_running_loop().create_future()  # until the client's end cancels it
        self.launched += 1
        self.sockets.append(ws)
        loop = asyncio.get_running_loop()
        ws.timers = [
            loop.call_later(HELLO_TIMEOUT, self._give_up_unless, ws, lambda: ws.sent),
            loop.call_later(READY_TIMEOUT, self._give_up_unless, ws, lambda: ws.is_up),
        ]
        return ws

    def _is_launching(self) -> bool:
        """Whether discord.py makes a client's first connections, for which it has no limit and knows no session."""
        if not isinstance(self.client, discord.AutoShardedClient):
            return False
        return self.launched < self.shards or len(self.client.shards) < self.shards

    def _needs_new_session(self) -> bool:
        """Whether `connect()` is to be called again. Where it launches other shards too, discord.py has to do."""
        needed = self.shards == 1 and not self.entry.pace.has_session and not self._is_launching()
        if needed:
            self.launched = 0  # also where discord.py takes no notice, as in the launch of a shard
        return needed

    def _count_lost(self) -> None:
        """Count the connections that have ended since the last one was asked for."""
        if self.shards == 1:
            for (
                ws
            ) in self.sockets:  # discord.py gives some up without a word, such as one without HELLO
                ws.give_up()
        lost = [ws for ws in self.sockets if ws.goodbye or ws.closed]
        self.sockets = [ws for ws in self.sockets if ws not in lost]
        if self.entry.is_leaving:
            return
        for ws in lost:
            if ws.is_session_over:
                self.entry.pace.has_session = False
            if ws.close_code in FINAL_CLOSE_CODES:
                # discord.py launches all shards before it looks how the first one fared.
                self.entry.give_up(discord.ConnectionClosed(ws, shard_id=None))
            elif not ws.is_refused_resume:
                self.entry.failed(Failure("The gateway connection was lost."), 1 / self.shards)

    async def _connect_when_allowed(self, url: str) -> GatewaySocket:
        while True:
            await self.entry.pause()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    ws = await self._connect(url)
            except (OSError, aiohttp.ClientError) as error:
                self.entry.failed(diagnose(error, self.entry.settings, self.client))
            else:
                self.entry.reached()
                return ws  # type: ignore[return-value]  # the one that is set below

    async def before_identify(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Before discord.py's hook, whose 5 seconds are too long for a large bot and too short after a new session."""
        now = time.monotonic()
        allowed_at = self.entry.pace.identified(now, (shard_id or 0) % self.max_concurrency)
        await asyncio.sleep(allowed_at - now)
        await self._before_identify(shard_id, initial=True)  # which then does not wait

    def _on_up(self, shard_id: int | None = None) -> bool:
        # Not public, and the only way to the WebSocket of one shard.
        ws = self.client._get_websocket(shard_id=shard_id).socket
        if isinstance(ws, GatewaySocket):
            ws.is_up = True
            ws.stop_timers()
        self.entry.pace.has_session = (
            self.shards == 1
        )  # with more, nobody knows which of them has none
        up = [ws for ws in self.sockets if ws.is_up and not ws.closed]
        if len(up) == self.shards:
            self.entry.set_ready()
        return False  # the next event is heard too

    def _give_up_unless(self, ws: GatewaySocket, goes_on: Callable[[], object]) -> None:
        if not goes_on() and not ws.closed:
            log.warning("Discord does not answer at the gateway.")
            ws.give_up()

    async def leave(self) -> None:
        """Leave Discord: nobody sees the bot online from here on."""
        for ws in self.sockets:
            ws.leaving = True
        await asyncio.gather(*(ws.close() for ws in self.sockets), return_exceptions=True)


discord.http.DiscordClientWebSocketResponse = GatewaySocket  # type: ignore[attr-defined]


# --- An entry and its life: log in, connect, retry, end --------------------------------------------------------------
async def log_in(client: discord.Client, token: str, pool: Pool) -> None:
    """Log in by REST, which runs the bot's own setup too, each within its time.

    Raises `SetupFailed`, or what discord.py raises.
    """
    set_up = client.setup_hook
    own_limit = client.http.max_ratelimit_timeout

    async def set_up_in_time() -> None:
        limit.reschedule(None)
        client.http.max_ratelimit_timeout = own_limit
        try:
            async with asyncio.timeout(SETUP_TIMEOUT) as setup_limit:
                await set_up()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():  # the bot is to end
                raise
            raise SetupFailed("Some code in the bot's setup was cancelled.") from None
        except (Exception, SystemExit) as error:
            if setup_limit.expired():
                hint = "The bot is not connected yet: what waits for that has to stand elsewhere."
                raise SetupFailed(
                    f"The bot's setup took more than {SETUP_TIMEOUT} s. {hint}"
                ) from None
            raise SetupFailed from error

    client.setup_hook = set_up_in_time  # type: ignore[method-assign]
    if client.http.connector is discord.utils.MISSING:
        client.http.connector = pool
    # Not public, and for the login alone: a longer rate limit is an error, for which the entry waits.
    client.http.max_ratelimit_timeout = LOGIN_TIMEOUT / 2
    async with asyncio.timeout(LOGIN_TIMEOUT) as limit:
        await client.login(token)


async def clean_up(client: discord.Client) -> None:
    """Let the bot's own clean-up run: `teardown`, `cog_unload`, leaving voice. `client.close()` does it too late."""
    if isinstance(client, commands.Bot | commands.AutoShardedBot):
        for name in list(client.extensions):
            with contextlib.suppress(Exception):
                await client.unload_extension(name)
        for name in list(client.cogs):
            with contextlib.suppress(Exception):
                await client.remove_cog(name)
    for voice in client.voice_clients:
        with contextlib.suppress(Exception):
            await voice.disconnect(force=True)


def files_of(client: discord.Client) -> tuple[str, ...]:
    """How the names of files begin whose tasks are this client's: discord.py's, its class's and its extensions'."""
    modules = [sys.modules.get(type(client).__module__)]
    modules += getattr(client, "extensions", {}).values()
    files = [DISCORD_FOLDER + os.sep, ASYNCIO_FOLDER + os.sep]
    for module in modules:
        file = getattr(module, "__file__", None) or ""
        if os.path.basename(file) == "__init__.py":
            file = file.removesuffix("__init__.py")
        if file:
            files.append(file)
    return tuple(files)


def is_from(task: asyncio.Task[Any], files: tuple[str, ...]) -> bool:
    """Whether the task runs a coroutine of one of these files."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(files)


async def finish(work: Coroutine[Any, Any, None], deadline: float) -> bool:
    """Let it work until then, by the event loop's clock. Returns whether it has ended by itself."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    await asyncio.wait({task}, timeout=max(0, deadline - loop.time()))
    if task.done():
        if not task.cancelled() and task.exception():
            log.error("Some clean-up failed.", exc_info=task.exception())
        return True
    task.cancel()
    return False


async def cancel(its: set[asyncio.Task[Any]], deadline: float) -> None:
    """Cancel these tasks, and let them end until then, by the event loop's clock."""
    for task in its:
        task.cancel()
    if its:
        await asyncio.wait(its, timeout=max(0, deadline - asyncio.get_running_loop().time()))


class Entry:
    """One bot: what it runs with, its state, and the event that is set when it has ended, however that was."""

    def __init__(
        self, settings: BotSettings, pace: Pace, network: Network, on_change: Callable[[], None]
    ) -> None:
        self.settings = settings
        self.wanted: BotSettings | None = settings  # what it is to run with; None: it is to end
        self.event = asyncio.Event()
        self.state = "starting"  # or ready, retrying, stopped
        self.since = time.time()
        self.failure = Failure()  # the last one
        self.times_ready = 0
        self.client: discord.Client | None = None
        self.pace = pace
        self._network = network
        self._on_change = on_change
        self._begin()
        self.task = asyncio.create_task(self._run())

    def want(self, settings: BotSettings | None) -> None:
        """Run with these settings from now on, or end. One client leaves before the next one starts."""
        if settings == self.wanted == self.settings and not self.is_leaving:
            self.settings = settings  # with another name or number, perhaps
        elif not self.event.is_set():
            self.set_state("starting")
            self.leave()
        self.wanted = settings

    # --- its life

    async def _run(self) -> None:
        try:
            goes_on = True
            while self.wanted and goes_on:
                self.settings = self.wanted
                running_token.set(self.settings.token)
                self._begin()
                goes_on = await self._live(Bot(self.settings))
            if self.wanted and self.failure.text:
                log.error("stopped: %s", self.failure.text, exc_info=self.failure.cause)
            else:
                log.info("stopped: %s", "it closed itself" if self.wanted else "as asked")
        except Exception:
            log.critical("This bot is stopped by a bug of run_bots.py.", exc_info=True)
            raise
        finally:
            self.client = None
            self.event.set()
            self.set_state("stopped")

    def _begin(self) -> None:
        """Nobody has asked the next client to end."""
        self._leaving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = asyncio.Event()
        self._closers: set[asyncio.Task[Any] | None] = set()
        self._error: BaseException | None = None
        self._connecting = False

    async def _live(self, client: discord.Client) -> bool:
        """One client's life, from its log-in to its end. Returns whether there is to be another one."""
        self.client = client
        close = client.close
        # For whoever closes it. A client that has ended already is not the one that this is asked of.
        client.close = functools.partial(self._close, client)  # type: ignore[method-assign]
        gateway = Gateway(client, self)
        await client.__aenter__()
        gateway.listen()
        self._running = asyncio.create_task(self._attempt(client, gateway))
        await asyncio.wait({self._running, self._leaving}, return_when=asyncio.FIRST_COMPLETED)
        await self._end(client, gateway, close)
        error = self._error
        if error is None and self._running.done() and not self._running.cancelled():
            error = self._running.exception()
        if self.wanted is not self.settings:
            return True
        self.failure = Failure()
        if error is None:
            return False
        self.failed(diagnose(error, self.settings, client))
        return self.failure.kind is not Kind.FINAL

    async def _attempt(self, client: discord.Client, gateway: Gateway) -> None:
        await self.pause()
        await log_in(client, self.settings.token, self._network.pool)
        self.reached()
        gateway.prepare(await self._ask_for_starts(client))
        self._connecting = True
        while True:
            gateway.launched = 0
            try:
                await client.connect()
            except NewSession:
                await self.pause()
            except AttributeError as error:
                # A plain client whose first connection fails: https://github.com/Rapptz/discord.py/issues/10520
                if error.name != "sequence":
                    raise
            else:
                break

    async def _ask_for_starts(self, client: discord.Client) -> Starts:
        """What Discord has counted, also of other processes: restarted again and again, they add up. Heeds it."""
        while True:
            try:
                starts = await ask_for_starts(client)
                if starts.remaining >= IDENTIFY_RESERVE + starts.shards - 1:
                    return starts
                text = f"Discord lets this bot connect only {starts.remaining} times more before it resets the token."
                failure = Failure(text, Kind.TOLD, wait=max(starts.reset_after, IDENTIFY_GAP))
            except Exception as error:
                failure = diagnose(error, self.settings, client)
                if failure.kind is Kind.FINAL:
                    raise
            self.failed(failure)
            await self.pause()

    async def _end(
        self,
        client: discord.Client,
        gateway: Gateway,
        close: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """One client's end: its own clean-up while all of it lives, then Discord, its tasks, and the client itself."""
        self.leave()  # if it ends by itself
        began = asyncio.get_running_loop().time()
        files = files_of(client)
        if not await finish(clean_up(client), began + CLEANUP_UNTIL):
            log.warning(
                "The bot's own clean-up took more than %s s. It was cut off.", CLEANUP_UNTIL
            )
        await gateway.leave()
        its = {task for task in tasks[self.settings.token] if is_from(task, files)}
        its -= {self._running, *self._closers}
        await cancel(its, began + TASKS_UNTIL)
        self._running.cancel()  # connect(), which now and then goes on after that, until the client is closed
        await finish(close(), began + CLOSE_UNTIL)
        await cancel({self._running}, began + CLOSE_UNTIL)
        await client.http.close()  # where the client's own close was cut off
        self._network.ended_clients += 1
        self._left.set()

    @property
    def is_leaving(self) -> bool:
        return self._leaving.done()

    def leave(self) -> None:
        """End this client."""
        if not self._leaving.done():
            self._leaving.set_result(None)

    def give_up(self, error: BaseException) -> None:
        """End this client, because of this."""
        self._error = error
        self.leave()

    async def _close(self, client: discord.Client) -> None:
        """In the place of `client.close()`: ask for the end, and wait for it, unless it has begun."""
        task = asyncio.current_task()
        is_discord_py = (
            task is self._running and self._connecting
        )  # what connect() raises next says why
        if client is not self.client or self.is_leaving or is_discord_py:
            return
        self.leave()
        if task is not self._running:
            self._closers.add(task)
            await self._left.wait()

    # --- its failures and its state

    def failed(self, failure: Failure, part: float = 1) -> None:
        """Count a failure, of this part of the bot's shards, and say what comes next."""
        self.failure = failure
        now = time.monotonic()
        if failure.kind is Kind.FINAL:
            return
        if failure.kind is Kind.NETWORK:
            self.pace.not_reached(now)
        elif failure.kind is Kind.LOSS:
            self.pace.lost(now, part)
        else:
            self.pace.told(now, failure.wait)
        if failure.for_all:
            self._network.blocked_until = max(self._network.blocked_until, now + failure.wait)
        log.warning(
            "%s Trying again in %s.", failure.text, in_words(self._delay()), exc_info=failure.cause
        )
        self.set_state("retrying")

    def reached(self) -> None:
        """Discord has answered this bot. After an outage the others need not wait any longer."""
        if self.pace.unreached:
            self._network.is_back()
        self.pace.reached()

    def _delay(self) -> float:
        """In how many seconds it may try again."""
        now = time.monotonic()
        return max(self.pace.wait(now), self._network.blocked_until - now)

    async def pause(self) -> None:
        """Wait until it may try again."""
        crowded = self.pace.identify_wait(time.monotonic())
        if crowded:
            log.warning(
                "This bot has started too many sessions. The next one comes in %s.",
                in_words(crowded),
            )
            self.set_state("retrying")
        while True:
            delay = self._delay()
            if delay <= 0:
                return
            if self._network.blocked_until > time.monotonic():
                # After a block the bots come one by one, so that the first finds out for all whether it is over.
                delay += random.uniform(0, BLOCK_SPREAD)
            if await self._network.wait_until_back(delay):
                self.pace.network_until = 0

    def set_ready(self) -> None:
        if self.client and self.client.user:
            user = self.client.user
            log.info("ready as %s (%s) in %s servers", user, user.id, len(self.client.guilds))
        self.times_ready += 1
        self.failure = Failure()
        self.set_state("ready")

    def set_state(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self.since = time.time()
        contextvars.Context().run(self._on_change)  # what that logs is no bot's


def in_words(seconds: float) -> str:
    """A time to wait, as people say it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


# --- All the entries together ----------------------------------------------------------------------------------------
class Runner:
    """The running bots, and where their settings come from: the env file, the process environment and `--only`."""

    def __init__(self, env_file: Path | None, only: str | None) -> None:
        self.env_file = env_file
        self._only = only
        self._environment = dict(os.environ)
        self._seen: object = None  # the env file as it was read
        self._entries: dict[
            str, Entry
        ] = {}  # by the bot's id, so that no bot ever has two sessions
        self._paces: dict[str, Pace] = collections.defaultdict(Pace)  # also of bots that have ended
        self._stopping = False
        self._unsettled: set[str] = (
            set()
        )  # once no bot is in these states, the log says how many are ready
        self._tidied_after = 0  # ends of clients

    def read(self) -> list[BotSettings]:
        self._seen = self._look()
        bots, warnings = read_settings(self.env_file, self._environment)
        if self._only is not None:
            parts = [part.strip() for part in self._only.split(",")]
            there = ", ".join(f"{bot.number} ({bot.name})" for bot in bots)
            missing = [part for part in parts if not any(bot.is_meant_by(part) for bot in bots)]
            warnings += [
                f"--only: There is no bot {part}. These are there: {there}." for part in missing
            ]
            bots = [bot for bot in bots if any(map(bot.is_meant_by, parts))]
            if missing and not (
                self._entries and bots
            ):  # later it may have been removed from the file
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
        """Follow the env file, and tidy up behind bots that have ended, once a second."""
        last = self._seen
        while True:
            await asyncio.sleep(1)
            if self._tidied_after != self._network.ended_clients and self._unsettled.isdisjoint(
                self._states()
            ):
                self._tidied_after = self._network.ended_clients
                tidy_memory()
            before = last
            last = self._look() if watch else self._seen
            if before == last != self._seen:  # it lies still; it may be written in pieces
                self.reload()

    def reload(self) -> None:
        """Make the bots what the settings say now; those that had stopped start again, and nobody waits any longer."""
        if self._stopping:
            return
        try:
            settings = self.read()
            self._network.is_back()
            changes = self._apply(settings)
            log.info("%s: %s", self.env_file or "the environment", changes or "nothing changed")
        except SettingsError as error:
            log.error(
                "The bots keep running as they are. The settings are not valid:\n%s",
                "\n".join(error.args),
            )
        except Exception:
            log.exception("The bots keep running as they are. This is a bug of run_bots.py.")

    def _apply(self, settings: list[BotSettings]) -> str:
        """Make the running bots equal to the settings. Only what differs moves. Returns what that is."""
        wanted = {bot.bot_id: bot for bot in settings}
        changes: dict[str, list[str]] = {"added": [], "removed": [], "restarted": [], "": []}
        for bot_id in {**self._entries, **wanted}:
            bot = wanted.get(bot_id)
            name = bot.name if bot else self._entries[bot_id].settings.name
            changes[self._apply_to_one(bot_id, bot)].append(name)
        del changes[""]
        if any(changes.values()) and wanted:
            self._unsettled = {"starting"}
            asyncio.get_running_loop().call_later(SETTLE_TIMEOUT, self._on_change, self._unsettled)
        return "; ".join(
            f"{change} {', '.join(names)}" for change, names in changes.items() if names
        )

    def _apply_to_one(self, bot_id: str, bot: BotSettings | None) -> str:
        """Make one bot equal to its settings. Returns what that changes."""
        entry = self._entries.get(bot_id)
        before = entry.wanted if entry else None
        if entry and not entry.event.is_set():
            entry.want(bot)
        elif bot:
            self._entries[bot_id] = Entry(bot, self._paces[bot_id], self._network, self._on_change)
            return "restarted" if before else "added"
        else:
            del self._entries[bot_id]
        if bot == before:
            return ""
        if bot is None:
            return "removed"
        return "restarted" if before else "added"

    def _states(self) -> list[str]:
        return [entry.state for entry in self._entries.values() if entry.wanted]

    def _on_change(self, overdue: object = None) -> None:
        """Say how many bots are ready: to systemd each time, in the log once all have settled, or are overdue."""
        states = self._states()
        ready = f"{states.count('ready')} of {len(states)} bots are ready"
        if self._stopping:
            return
        notify(f"STATUS={ready}")
        if self._unsettled and (overdue is self._unsettled or self._unsettled.isdisjoint(states)):
            log.info(ready)
            self.show(but="ready")
            self._unsettled = (
                {"starting", "retrying"} if {"starting", "retrying"} & set(states) else set()
            )
            notify("READY=1")
            tidy_memory()

    def show(self, but: str = "") -> None:
        """Log a line for each bot, but not for those in that state."""
        for entry in self._entries.values():
            if not entry.wanted or entry.state == but:
                continue
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.since))
            words = f"{entry.settings.name} is {entry.state} since {since}"
            if entry.client and entry.state == "ready":
                words += f", latency {entry.client.latency * 1000:.0f} ms, {len(entry.client.guilds)} servers"
            words += f", {max(0, entry.times_ready - 1)} reconnects"
            if entry.failure.text:
                words += f": {entry.failure.text}"
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
            if entry.client and error in [
                task.exception() for task in its if task.done() and not task.cancelled()
            ]:
                log.error("[%s] Some code calls exit(). This bot is closed.", entry.settings.name)
                entry.leave()
                return
        log.error("Some code of a bot calls exit(). The bots go on.")

    async def run(self, settings: list[BotSettings], watch: bool, signals: "Signals") -> int:
        """Run the bots until they have all ended, by themselves or as asked. Returns the exit code."""
        asyncio.get_running_loop().set_task_factory(remember_task)
        self._network = Network()
        signals.take(self)
        self._apply(settings)
        keeping_up = asyncio.create_task(self._keep_up(watch))
        entries = self._entries.values()
        while not all(entry.event.is_set() for entry in entries):
            await asyncio.gather(*(entry.event.wait() for entry in entries))
        keeping_up.cancel()
        await asyncio.gather(
            *(entry.task for entry in entries)
        )  # raises what is a bug of this program
        needs_person = any(entry.wanted and entry.failure.kind is Kind.FINAL for entry in entries)
        code = EXIT_NEEDS_PERSON if needs_person else EXIT_OK
        signals.start_deadline(code)
        await self._network.pool.close_for_all()
        return code


def remember_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
) -> asyncio.Task[Any]:
    """A task factory that keeps each bot's tasks, so that they end with the bot."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    its = tasks[running_token.get()]
    its.add(task)
    task.add_done_callback(its.discard)
    return task


async def visit_all(bots: list[BotSettings], *, sync: bool) -> int:
    """Log every bot in by REST alone, to check it or to upload its slash commands. Returns the exit code."""
    pool = Pool()

    async def visit(settings: BotSettings) -> str:
        running_token.set(settings.token)
        client = Bot(settings)
        try:
            async with client:
                await log_in(client, settings.token, pool)
                return await (upload_commands(client) if sync else describe(client))
        except Exception as error:
            failure = diagnose(error, settings, client)
            log.error("%s", failure.text, exc_info=failure.cause)
            return f"PROBLEM: {failure.text}"

    outcomes = await asyncio.gather(*map(visit, bots))
    await pool.close_for_all()
    columns = (
        "slash commands uploaded"
        if sync
        else f"{'on Discord':<20} {'id':<20} servers  intents  connects left"
    )
    print(f"{'no.':>4} {'name':<20} {columns}")
    for settings, outcome in zip(bots, outcomes, strict=True):
        print(f"{settings.number:>4} {settings.name:<20} {outcome}")
    return (
        EXIT_NEEDS_PERSON if any(outcome.startswith("PROBLEM") for outcome in outcomes) else EXIT_OK
    )


async def upload_commands(client: Bot) -> str:
    """Upload a bot's slash commands. Returns what `--sync-commands` says of them. Raises `SetupFailed`."""
    try:
        uploaded = await client.tree.sync()
    except discord.DiscordException as error:
        raise SetupFailed from error
    return " ".join(f"/{command.name}" for command in uploaded) or "none"


async def describe(client: Bot) -> str:
    """What `--check` says of a logged-in bot. Raises what is wrong with it."""
    if missing_intents(client):
        raise discord.PrivilegedIntentsRequired(None)
    starts = await ask_for_starts(client)
    assert client.application is not None
    permissions = discord.Permissions(
        view_channel=True, send_messages=True, read_message_history=True
    )
    invite = discord.utils.oauth_url(client.application.id, permissions=permissions)
    servers = client.application.approximate_guild_count
    row = f"{client.user!s:<20} {client.application.id:<20} {servers:>7}  on       {starts.remaining:>13}"
    return f"{row}\n{'':26}invite: {invite}"


# --- Signals, and the end of the program -----------------------------------------------------------------------------
class Signals:
    """Stop at the first stop signal, end at once at the second or after too much time; SIGHUP, SIGUSR1.

    A thread hears of them: code of a bot may keep the main thread, in which Python runs the handlers of signals.
    """

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._in_terminal = os.isatty(0)
        self._stopping = False
        self._deadline: float | None = None
        self._code = EXIT_OK

    def take(self, runner: Runner) -> None:
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS + OTHER_SIGNALS:
            signal.signal(number, self._pass_on)  # Windows has no loop.add_signal_handler
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        if sys.platform == "win32":
            handle_closed_console()
        threading.Thread(target=self._listen, daemon=True).start()

    def _pass_on(self, number: int, _frame: object) -> None:
        """Tell the thread where it does not hear by itself: a handler that a bot has through asyncio takes over."""
        heard_by = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(heard_by, warn_on_full_buffer=False)
        if heard_by != self._sender.fileno():
            self._sender.send(bytes([number]))

    def start_deadline(self, code: int) -> None:
        """All bots have ended: whatever else is still busy has a limit from now on. Then the exit code is this."""
        self._code = code
        self._sender.send(b"\0")

    def _listen(self) -> None:
        while True:
            left = None
            if self._deadline is not None:
                left = max(0.01, self._deadline - time.monotonic())
            self._receiver.settimeout(left)
            try:
                number = self._receiver.recv(1)[0]
            except TimeoutError:
                end_now(
                    self._code, "Some code of a bot does not stop. The program ends without it.\n"
                )
            if number and number not in STOP_SIGNALS + OTHER_SIGNALS:
                continue  # another one, for which a bot has a handler
            if self._deadline is None and (number == 0 or self._is_stop(number)):
                self._deadline = time.monotonic() + STOP_TIMEOUT
            if number:
                self._handle(number)

    def _is_stop(self, number: int) -> bool:
        if signal.Signals(number).name != "SIGHUP":
            return number in STOP_SIGNALS
        try:
            os.fstat(0)
        except OSError:  # exit() in a bot's code closes it
            return False
        return self._in_terminal and not os.isatty(0)  # somebody closed the window

    def _handle(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._is_stop(number):
            if self._stopping and name != "SIGHUP":  # a shell sends several of these for one window
                end_now(EXIT_BUG)
            if not self._stopping:
                self._stopping = True
                self._call(self._runner.stop, name)
        elif name == "SIGHUP":
            self._call(self._runner.reload)
        elif name == "SIGUSR1":
            self._call(self._runner.show)

    def _call(self, action: Callable[..., None], *arguments: str) -> None:
        # In a context of its own: a signal comes while the code of any bot is running, and is for none.
        with contextlib.suppress(RuntimeError):  # the event loop is closed already
            self._loop.call_soon_threadsafe(action, *arguments, context=contextvars.Context())


def end_now(code: int, words: str = "") -> NoReturn:
    """End the process whatever it does, but say these last words, and write out what was printed."""

    def say() -> None:
        with contextlib.suppress(OSError):
            os.write(2, words.encode())
        flush_output()

    saying = threading.Thread(target=say, daemon=True)  # it hangs where nobody reads
    saying.start()
    saying.join(FLUSH_TIMEOUT)
    os._exit(code)


def flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # it may be None, or closed
            stream.flush()


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
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        ):
            systemd.setblocking(False)
            systemd.sendto(state.encode(), re.sub("^@", "\0", address))


# --- What a bot costs ------------------------------------------------------------------------------------------------
def save_memory() -> None:
    """Make what every bot costs smaller."""
    # Young objects are looked at less often, and those of the settled bots no more, see tidy_memory: with 100 busy bots
    # the collector took 8 % of the time, held up every reply for up to 0.1 s, and found next to nothing.
    gc.set_threshold(10_000)
    # asyncio gives each TLS connection a read buffer of 256 KiB, which is more than half of what a bot takes, and a TLS
    # record carries 16. Not public: where it has another name, this changes nothing.
    sslproto.SSLProtocol.max_size = 16 * 1024


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


FAILED_CONNECTION = (
    "Attempting a reconnect",
    "Failed to connect",
)  # of discord.client and discord.shard


def name_the_bot(record: logging.LogRecord) -> bool:
    """A log filter that puts the bot's name before the message."""
    # discord.py's keep-alive threads run in no context, but have the gateway connection, which has the token.
    keep_alive = getattr(threading.current_thread(), "ws", None)
    name = names.get(running_token.get() or getattr(keep_alive, "token", ""))
    if record.exc_info and str(record.msg).startswith(
        FAILED_CONNECTION
    ):  # not a traceback for each of them
        why = repr(record.exc_info[1]).replace("%", "%%")
        record.msg, record.exc_info = f"{record.msg} ({why})", None
    if name:
        record.msg = f"[{name.replace('%', '%%') if record.args else name}] {record.msg}"
    return True


def set_up_logging(level: str) -> None:
    """Log to stderr as discord.py does, in colour where the terminal has it. Keep tokens out of all that is printed."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.write = functools.partial(write_without_tokens, stream.write)
    handler = logging.StreamHandler()
    handler.addFilter(name_the_bot)
    plain = logging.Formatter(
        "[{asctime}] [{levelname:<8}] {name}: {message}", "%Y-%m-%d %H:%M:%S", "{"
    )
    formatter = (
        discord.utils.MISSING if os.isatty(2) else plain
    )  # else a container has colours in its files
    discord.utils.setup_logging(
        handler=handler, formatter=formatter, level=logging.getLevelName(level.upper())
    )
    # At every start discord.py warns of packages that only voice needs. Without them, voice says so when it is used.
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False


# --- The command line ------------------------------------------------------------------------------------------------
def main(argv: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every code page has every character
    variables = "\n".join(
        f"  DISCORD_BOT_{template:<16}{text}" for template, (_, _, text) in SETTINGS.items()
    )
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"variables of the env file and of the process environment, which wins:\n{variables}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    at_sighup = "at SIGHUP" if hasattr(signal, "SIGHUP") else "at a new start"
    levels = ("debug", "info", "warning", "error", "critical")
    parser.add_argument(
        "--env-file",
        metavar="PATH",
        type=Path,
        help="default: .env here, or else beside the script",
    )
    parser.add_argument(
        "--only",
        metavar="1-10,music",
        help="run just these bots: numbers, ranges of numbers, names",
    )
    parser.add_argument(
        "--check", action="store_true", help="say whether every bot is all right, and exit"
    )
    parser.add_argument(
        "--sync-commands", action="store_true", help="upload the bots' slash commands, and exit"
    )
    parser.add_argument(
        "--no-watch", action="store_true", help=f"read the env file again only {at_sighup}"
    )
    parser.add_argument(
        "--log-level", default="info", type=str.lower, choices=levels, help="default: info"
    )
    version = f"run_bots {__version__}, discord.py {discord.__version__}"
    parser.add_argument("--version", action="version", version=version)
    arguments = parser.parse_args(argv)
    set_up_logging(arguments.log_level)
    sys.path[:0] = [
        str(Path.cwd()),
        str(Path(__file__).resolve().parent),
    ]  # where extensions are found
    try:
        candidates = (
            [arguments.env_file]
            if arguments.env_file
            else [Path(".env"), Path(__file__).with_name(".env")]
        )
        env_file = next(filter(os.path.isfile, candidates), None)
        if arguments.env_file and not env_file:
            raise SettingsError(f"There is no file {arguments.env_file}. Check --env-file.")
        runner = Runner(env_file, arguments.only)
        bots = runner.read()
        log.info("%s bots from %s", len(bots), env_file or "the environment")
        save_memory()
        atexit.register(flush_output)  # while end_now can still end a flush that nobody reads
        with asyncio.Runner() as loop_runner:
            loop = loop_runner.get_loop()
            if arguments.check or arguments.sync_commands:
                work = visit_all(bots, sync=not arguments.check)
            else:
                work = runner.run(bots, not arguments.no_watch, Signals())
            task = loop.create_task(work)
            while True:
                try:
                    return loop.run_until_complete(task)
                except (
                    SystemExit
                ) as error:  # of some task of one bot, and no reason to end the others
                    runner.close_bot_of(error)
    except SettingsError as error:
        print(*error.args, sep="\n", file=sys.stderr)
        return EXIT_NEEDS_PERSON
    except Exception:
        log.critical("The program failed. This is a bug.", exc_info=True)
        return EXIT_BUG


if __name__ == "__main__":
    sys.exit(main())
