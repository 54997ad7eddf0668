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

# Ctrl-C; kill, systemd, Docker and Kubernetes; Ctrl-Break, which only Windows has.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
EXIT_OK = 0  # asked to stop, or every bot closed itself
EXIT_BUG = 1  # the program itself failed; also the second signal
EXIT_NEEDS_PERSON = 78  # EX_CONFIG of sysexits.h: a service manager must not start it again

if sys.version_info < (3, 11):
    print("run_bots.py needs Python 3.11 or newer. This is Python " + sys.version.split()[0] + ".", file=sys.stderr)
    sys.exit(EXIT_NEEDS_PERSON)

if __name__ == "__main__":
    for _signal in STOP_SIGNALS:  # the imports below take about a second, and there is nothing to close yet
        signal.signal(_signal, lambda *_: os._exit(EXIT_OK))
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

import argparse
import asyncio
import base64
import codecs
import collections
import contextvars
import copy
import dataclasses
import difflib
import io
import logging
import random
import re
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
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

# Those after which a person has to do something: https://docs.discord.com/developers/topics/opcodes-and-status-codes
FINAL_CLOSE_CODES = (4004, 4010, 4011, 4012, 4013, 4014)
PORTAL = "https://discord.com/developers/applications"
SHARDING_FROM = 1000  # servers; with fewer, Discord recommends one shard, and need not be asked

# The rest are seconds. After these a login or a gateway connection without an answer is given up and tried again:
LOGIN_TIMEOUT, CONNECT_TIMEOUT = 60, 30
# Between two attempts a bot waits a random time up to 1, 2, 4, 8 … MAX_DELAY. One failure is forgotten for each
# FORGIVE_AFTER of uptime. So, however it fails, it makes about 86,400 / 300 = 288 connections a day at most. Discord
# resets the token at 1,000 IDENTIFYs: https://docs.discord.com/developers/events/gateway#session-start-limit-object
MAX_DELAY, FORGIVE_AFTER = 900, 300
KEEP_CLIENT = 30  # a client that is offline and has to wait longer than this is given up for a new one
BLOCK_DELAY, BLOCK_SPREAD = 60, 5  # a block of the IP address that does not say how long it lasts; see Entry.pause
SETTLE_TIMEOUT = 30  # then the log says how many bots are ready, even if one has neither come up nor failed
WATCH_INTERVAL, WATCH_QUIET = 1, 1  # how often the env file is looked at; how long it has to lie still
# A stop takes 10 seconds at most: for Discord's answer, the bots' own clean-up, discord.py's, and for everything.
GATEWAY_CLOSE_TIMEOUT, CLEANUP_TIMEOUT, CLOSE_TIMEOUT, STOP_TIMEOUT = 2, 5, 1, 9

log = logging.getLogger("run_bots")
# The token of the bot whose code is running. By the token: each bot's name, which the log shows in its place, and the
# tasks that its code has started.
running_token: contextvars.ContextVar[str] = contextvars.ContextVar("running_token", default="")
names: dict[str, str] = {}
tasks: dict[str, weakref.WeakSet[asyncio.Task[Any]]] = collections.defaultdict(weakref.WeakSet)


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
# Intents that are to be switched on in the Developer Portal: the application's flag, and the Portal's own name.
PRIVILEGED_INTENTS = {
    "message_content": ("gateway_message_content", "Message Content Intent"),
    "members": ("gateway_guild_members", "Server Members Intent"),
    "presences": ("gateway_presence", "Presence Intent"),
}
# What stands in the place of a token in this project's files and in others'.
PLACEHOLDER = re.compile(
    r"(?i)your|paste|insert|placeholder|example|here$|^<.*>$|^\W*(the|bot|discord)?\W*(token|todo|none|change.?me)$|^[x.*-]+$"
)
NO_BOTS = f"""\
There is no bot to run. {{}}
For each bot, open {PORTAL}, choose your application, then Bot, then Reset Token.
Copy .env.example to .env, and write the token there: DISCORD_BOT_TOKEN1=your token"""


class SettingsError(Exception):
    """The settings are not valid. Each argument is one problem, as a sentence for a person."""


@dataclasses.dataclass(frozen=True)
class BotSettings:
    """What one bot is started with. A bot whose settings are equal to the new ones is left alone."""

    number: int
    name: str = dataclasses.field(compare=False)
    token: str = dataclasses.field(repr=False)
    prefix: str
    extensions: tuple[str, ...]
    intents: discord.Intents
    sources: Mapping[str, str] = dataclasses.field(compare=False)  # for each of SETTINGS: the variable, and its place

    @property
    def bot_id(self) -> str:
        """The bot's id, which is the first part of a token in base64; the whole token if it is something else."""
        part = self.token.partition(".")[0]
        try:
            decoded = base64.b64decode(part + "=" * (-len(part) % 4), validate=True).decode("ascii")
        except ValueError:
            return self.token
        return decoded if decoded.isdecimal() else self.token


def read_env_file(path: Path, problems: list[str], warnings: list[str]) -> dict[str, tuple[str, str]]:
    """For each variable of an env file its value, and its place: file and line. Adds what is wrong or odd to the lists.

    Raises `SettingsError` if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read()
            readable_by_others = os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o004
        # PowerShell's > writes UTF-16, Notepad a byte order mark.
        utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if utf_16 else "utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise SettingsError(f"{path} is not a text file. Save it as plain text, in UTF-8.")
    if readable_by_others:
        warnings.append(f"{path}: Everybody on this machine can read your tokens. Run: chmod 600 {path}")
    values: dict[str, tuple[str, str]] = {}
    for binding in parse_stream(io.StringIO(text)):
        original = binding.original.string
        blank_lines = original[: len(original) - len(original.lstrip())].count("\n")
        place = f"{path}, line {binding.original.line + blank_lines}"
        if binding.error or (binding.key and binding.value is None):
            problems.append(f"{place}: This is not NAME=value. Is a quote or the = missing?")
        elif binding.key in values:
            problems.append(f"{place}: {binding.key} is set again, after {values[binding.key][1]}. Delete one.")
        elif binding.key and binding.value is not None:
            values[binding.key] = binding.value, place
    return values


def nearest(word: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(word, list(known), n=1, cutoff=0)[0]


def parse_intents(text: str) -> discord.Intents:
    """Intents from their names. Raises `ValueError` for an unknown name."""
    parsed = discord.Intents.none()
    if text.lstrip().startswith("-"):
        text = f"{SETTINGS['DISCORD_BOT_INTENTS<N>'][1]},{text}"
    for name in filter(None, (name.strip().lower() for name in text.split(","))):
        flag = name.removeprefix("-")
        if flag in discord.Intents.VALID_FLAGS:
            setattr(parsed, flag, flag == name)
        elif name in ("default", "all", "none"):
            parsed |= getattr(discord.Intents, name)()
        else:
            known = nearest(flag, ("default", "all", "none", *discord.Intents.VALID_FLAGS))
            raise ValueError(f"There is no intent {flag}. Did you mean {known}?")
    return parsed


def read_bot(
    number: int, values: Mapping[str, tuple[str, str]], problems: list[str], warnings: list[str]
) -> BotSettings | None:
    """One bot's settings: its own values, or those for all bots, or the defaults. None if it has no valid ones."""
    texts, sources = {}, {}
    for template, (_, default) in SETTINGS.items():
        own = template.replace("<N>", str(number))
        candidates = [own] if default is None else [own, template.replace("<N>", "")]
        found = [name for name in candidates if values.get(name, ("", ""))[0].strip()]
        texts[template] = values[found[0]][0] if found else default or ""
        sources[template] = f"{found[0]} ({values[found[0]][1]})" if found else own
    token, token_file, name, prefix, extensions, intents = texts.values()
    source, file_source, *_, intents_source = sources.values()
    if token and token_file:
        problems.append(f"{source}: {file_source} is set too. Keep one of them.")
        return None
    if token_file:
        source = sources["DISCORD_BOT_TOKEN<N>"] = file_source
        try:
            token = Path(token_file.strip()).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = "it is not plain text" if isinstance(error, UnicodeDecodeError) else error.strerror
            problems.append(
                f"{source}: This file cannot be read: {why}. Write the path of a file that holds the token."
            )
            return None
        if not token.strip():
            problems.append(f"{source}: This file is empty. Write the token into it.")
            return None
    token = re.sub("(?i)^bot ", "", token.strip()).strip("<> ")
    if not token:
        mine = [it for template, it in sources.items() if it.startswith(template.replace("<N>", f"{number}") + " (")]
        warnings.append(f"{', '.join(mine)}: There is no DISCORD_BOT_TOKEN{number}.")
        return None
    if PLACEHOLDER.search(token) and not re.fullmatch(r"[\w-]{20,}\.[\w-]{5,}\.[\w-]{20,}", token):
        problems.append(f"{source}: This is a placeholder. Put the bot's own token there.")
    elif not re.fullmatch(r"[\w.+/-]+=*", token, re.ASCII):
        problems.append(f"{source}: It has a space, or a character that no token has. Copy the token again.")
    elif token.count(".") != 2:
        warnings.append(f"{source}: This does not look like a token. A token has three parts with dots in between.")
    try:
        parsed = parse_intents(intents)
    except ValueError as error:
        problems.append(f"{intents_source}: {error}")
        return None
    modules = tuple(dict.fromkeys(module.strip() for module in extensions.split(",") if module.strip()))
    if any(it.endswith(".py") or not all(part.isidentifier() for part in it.split(".")) for it in modules):
        how = "Write greeter for greeter.py and cogs.music for cogs/music.py, with commas in between"
        problems.append(f"{sources['DISCORD_BOT_EXTENSIONS<N>']}: This is not the name of a module. {how}.")
    return BotSettings(number, name.strip() or f"bot{number}", token, prefix, modules, parsed, sources)


def read_settings(path: Path | None, environment: Mapping[str, str]) -> tuple[list[BotSettings], list[str]]:
    """Every bot that the env file and the process environment name, by number; and warnings of what is only odd.

    The environment wins. The env file's variables reach `os.environ`, for the bots' own code; tokens do not.
    Raises `SettingsError` with every problem that there is. None of the texts holds a token.
    """
    problems: list[str] = []
    warnings: list[str] = []
    from_file = read_env_file(path, problems, warnings) if path else {}
    values = from_file | {name: (text, "the environment") for name, text in environment.items()}
    numbers: set[int] = set()
    for name, (text, place) in values.items():
        if not name.upper().startswith(("DISCORD_BOT_", "DISCORD_TOKEN", "BOT_TOKEN")):
            continue
        digits = re.search("[1-9][0-9]*", name)
        number = digits[0] if digits else ""
        known = [t.replace("<N>", number) for t, (_, default) in SETTINGS.items() if number or default is not None]
        if name not in known:
            meant = nearest(name.upper(), [*known, *(template.replace("<N>", number or "1") for template in SETTINGS)])
            warnings.append(f"{name} ({place}): Nothing reads this variable. Did you mean {meant}?")
        elif re.search("^[\u2018-\u201f\u00ab]|[\u2018-\u201f\u00bb]$", text):
            problems.append(f"{name} ({place}): There are curly quotes. Use straight ones, or none.")
        elif not text.strip().isprintable():
            problems.append(f"{name} ({place}): There is a line break or a control character. Is a quote unclosed?")
        elif number and text.strip():
            numbers.add(int(number))

    found = [read_bot(number, values, problems, warnings) for number in sorted(numbers)]
    bots = [bot for bot in found if bot]
    first: dict[str, BotSettings] = {}
    for bot in bots:
        for key, template in ((bot.bot_id, "TOKEN"), (bot.name, "NAME")):
            other = first.setdefault(f"{template} {key}", bot)
            if other is not bot:
                here, there = (it.sources[f"DISCORD_BOT_{template}<N>"] for it in (bot, other))
                what = "It is for the same bot as" if template == "TOKEN" else f"The name {key} is also that of"
                problems.append(f"{here}: {what} {there}. Every bot needs its own {template.lower()}.")
    if not bots and not problems:
        looked = f"{path} has no token." if path else f"There is no file .env in {Path.cwd()}."
        problems = [*warnings, NO_BOTS.format(looked)]
    if problems:
        raise SettingsError(*problems)
    names.update((bot.token, bot.name) for bot in bots)
    for name, (text, _) in from_file.items():
        if not name.startswith("DISCORD_BOT_TOKEN") and name not in environment and "=" not in name:
            os.environ[name] = text
    return bots, warnings


class Source:
    """Where the settings come from: the env file, the process environment and `--only`."""

    def __init__(self, named: str | None, only: str | None) -> None:
        """Find the env file: the named one, else `.env` in the current folder, else beside this script.

        Raises `SettingsError` if one is named and missing.
        """
        candidates = [Path(".env"), Path(__file__).with_name(".env")] if named is None else [Path(named)]
        self.env_file = next((path for path in candidates if os.path.isfile(path)), None)
        if named is not None and self.env_file is None:
            raise SettingsError(f"There is no file {named}. Check --env-file.")
        self._only = only
        self._environment = dict(os.environ)
        self._seen: object = None

    def read(self) -> list[BotSettings]:
        """The bots to run. Raises `SettingsError`."""
        is_first = self._seen is None
        self._seen = self._stamp()
        bots, warnings = read_settings(self.env_file, self._environment)
        for warning in warnings:
            log.warning(warning)
        if self._only is None:
            return bots
        chosen: set[int] = set()
        for part in map(str.strip, self._only.split(",")):
            span = re.fullmatch("([0-9]+)-([0-9]+)", part)
            low, high = (int(span[1]), int(span[2])) if span else (1, 0)
            found = {bot.number for bot in bots if low <= bot.number <= high or part in (str(bot.number), bot.name)}
            if not found:
                there = ", ".join(f"{bot.number} ({bot.name})" for bot in bots)
                missing = f"--only: There is no bot {part}. These are there: {there}."
                if is_first:
                    raise SettingsError(missing)
                log.warning(missing)  # it was removed from the file
            chosen |= found
        if not chosen:
            raise SettingsError(f"--only: None of the bots {self._only} is there any more.")
        return [bot for bot in bots if bot.number in chosen]

    def _stamp(self) -> object:
        """What is different after each change of the env file."""
        try:
            status = os.stat(self.env_file or "")
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino

    async def wait_for_change(self) -> None:
        """Wait until the env file has changed and then lies still, because it may be written in pieces."""
        while self._stamp() == self._seen:
            await asyncio.sleep(WATCH_INTERVAL)
        before, now = self._seen, self._stamp()
        while before != now:
            await asyncio.sleep(WATCH_QUIET)
            before, now = now, self._stamp()


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


class GivenUp(BaseException):
    """This client is of no more use. No `Exception`: discord.py would catch it and go on."""


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
    status = getattr(error, "status", None)
    code = error.code if isinstance(error, discord.ConnectionClosed) else None
    token, extensions, intents = (
        bot.settings.sources[f"DISCORD_BOT_{it}<N>"] for it in ("TOKEN", "EXTENSIONS", "INTENTS")
    )
    number = str(bot.application_id or bot.settings.bot_id)
    portal = f"{PORTAL}/{number}/bot" if number.isdecimal() else PORTAL

    if (
        isinstance(error, discord.LoginFailure)
        or code == 4004
        or (isinstance(error, discord.HTTPException) and status == 401)
    ):
        remedy = f"Make a new one at {portal} (Reset Token), and put it in."
        return Failure(f"{token}: Discord refuses this token. {remedy}", final=True)
    if isinstance(error, discord.PrivilegedIntentsRequired) or code == 4014:
        missing = " and ".join(missing_intents(bot)) or "privileged intents that it asks for"
        remedy = f"Switch it on at {portal}, or change {intents}."
        return Failure(f"{token}: The bot may not use the {missing}. {remedy}", final=True)
    if isinstance(error, commands.ExtensionError):
        cause = getattr(error, "original", None)
        why = f"{type(cause).__name__}: {cause}" if cause else "It has no function: async def setup(bot)"
        if isinstance(error, commands.ExtensionNotFound):
            why = "There is no such file beside run_bots.py or in this folder"
        not_theirs = (__file__, "<frozen ", str(Path(discord.__file__).parent))
        frames = cause and cause.__traceback__
        while frames and frames.tb_frame.f_code.co_filename.startswith(not_theirs):
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


def missing_intents(bot: "Bot") -> list[str]:
    """The privileged intents that a bot asks for and that are off, by the Developer Portal's names."""
    asked = [names for intent, names in PRIVILEGED_INTENTS.items() if getattr(bot.intents, intent)]
    flags = bot.application_flags
    return [name for flag, name in asked if not getattr(flags, flag) and not getattr(flags, f"{flag}_limited")]


async def finish(coroutines: list[Coroutine[Any, Any, Any]], timeout: float) -> bool:
    """Run all of these, and cancel what takes longer than the timeout. Returns whether nothing did."""
    running = [asyncio.create_task(coroutine) for coroutine in coroutines]
    done, late = await asyncio.wait(running, timeout=timeout) if running else (set(), set())
    for task in late:
        task.cancel()
    await asyncio.gather(*done, return_exceptions=True)  # discord.py ignores errors at a close too
    return not late


class Bot(commands.AutoShardedBot):
    """discord.py's bot, as one of many: it asks its entry before it connects, and it leaves Discord at once.

    It has one shard, and more when Discord wants more.
    """

    def __init__(self, settings: BotSettings, entry: "Entry | None" = None) -> None:
        help_command = commands.DefaultHelpCommand() if settings.extensions else None
        # Without the text of messages, a bot still hears commands that begin with its mention.
        prefix = settings.prefix if settings.intents.message_content else commands.when_mentioned
        super().__init__(prefix, help_command=help_command, intents=settings.intents, shard_count=1)
        self.settings = settings
        self.entry = entry
        self.shard_count_is_ours = True
        self.leaving = False
        self.gone = asyncio.get_running_loop().create_future()  # done when the bot is closed, whoever closed it
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
            except Exception as error:  # discord.py does not expect it of the package that an extension is in
                if isinstance(error, ModuleNotFoundError) and name.startswith(f"{error.name}."):
                    raise commands.ExtensionNotFound(name) from None
                raise commands.ExtensionFailed(name, error) from error
            except SystemExit as error:  # it would end every other bot too
                raise commands.ExtensionFailed(name, RuntimeError(f"It calls exit({error.code})")) from error

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        await super().before_identify_hook(shard_id, initial=initial)
        self._look_for_refusal()

    def _look_for_refusal(self) -> None:
        for socket in self._sockets:  # discord.py launches all shards before it looks how the first one fared
            if socket.close_code in FINAL_CLOSE_CODES:
                raise GivenUp(discord.ConnectionClosed(socket, shard_id=None))

    async def _open_socket(self, url: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        """Connect to the gateway as soon as the bot may. Raises `GivenUp` if that takes long."""
        if options or self.entry is None:  # a voice connection
            return await self._connect_socket(url, **options)
        self._look_for_refusal()
        lost = sum(socket.closed for socket in self._sockets)
        self._sockets = [socket for socket in self._sockets if not socket.closed]
        if lost and not self.leaving:
            self.entry.failed(Failure("The gateway connection was lost."), lost / (self.shard_count or 1))
        while True:
            if self.entry.delay > KEEP_CLIENT and not self._sockets:
                raise GivenUp
            await self.entry.pause()
            if self.leaving:
                raise asyncio.CancelledError
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    socket = await self._connect_socket(url)
                break
            except (OSError, aiohttp.ClientError) as error:
                self.entry.failed(diagnose(error, self))
        self.entry.backoff.succeeded()
        self._sockets.append(socket)
        close, turn = socket.close, asyncio.Lock()

        async def close_in_turn(**how: Any) -> bool:
            # Otherwise our close with 1000 wakes the reader, and the reader's own close with 4000 goes out first.
            # Discord would show the bot as online for minutes.
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
        self.leaving = True
        # With 1000 Discord shows the bot as offline at once.
        await finish([socket.close(code=1000) for socket in self._sockets], GATEWAY_CLOSE_TIMEOUT)
        if not await finish([self.unload_extension(name) for name in self.extensions], CLEANUP_TIMEOUT):
            log.warning("The bot's own clean-up took more than %s s. It was cut off.", CLEANUP_TIMEOUT)
        for task in left_over:  # what waits for an event would wait for ever, and what sends would fail
            task.cancel()
        await finish([super().close()], CLOSE_TIMEOUT)
        await self.http.close()
        self.gone.set_result(None)

    async def __aexit__(self, *_: object) -> None:
        await self.close()  # discord.py's own waits for its part alone

    async def _run_event(self, coro: Any, event_name: str, *args: Any, **kwargs: Any) -> None:
        # Not public, but without it exit() in a handler of one bot ends them all.
        try:
            await super()._run_event(coro, event_name, *args, **kwargs)
        except SystemExit:
            log.error("%s calls exit(). This bot is closed.", event_name)
            await self.close()

    async def on_error(self, event_method: str, *args: Any, **kwargs: Any) -> None:
        if not self.leaving:  # that a bot was closed under a running handler is no error
            await super().on_error(event_method, *args, **kwargs)

    async def on_command_error(self, context: commands.Context[Any], exception: commands.CommandError) -> None:
        # An unknown command is for another bot, perhaps.
        if not self.leaving and not isinstance(exception, commands.CommandNotFound):
            await super().on_command_error(context, exception)

    async def _report_ready(self) -> None:
        shards = self.shards.values()
        if self.entry and len(shards) == self.shard_count and not any(shard.is_closed() for shard in shards):
            self.entry.ready(f"ready as {self.user} ({self.user and self.user.id}) in {len(self.guilds)} servers")


class Backoff:
    """A time to wait: exponential, with full jitter. Uptime makes up for failures."""

    def __init__(self) -> None:
        self._until = 0.0
        self._failures = 0.0
        self._up_since: float | None = None

    @property
    def delay(self) -> float:
        """How many seconds are left."""
        return max(0.0, self._until - time.monotonic())

    def extend(self, seconds: float) -> None:
        self._until = max(self._until, time.monotonic() + seconds)

    def succeeded(self) -> None:
        self._up_since = time.monotonic()

    def failed(self, part: float = 1) -> None:
        """Count a failure. `part` is the part of the bot's shards that it concerns."""
        if self._up_since is not None:
            self._failures = max(0, self._failures - (time.monotonic() - self._up_since) / FORGIVE_AFTER)
        self._up_since = None
        self.extend(random.uniform(0, min(MAX_DELAY, 2**self._failures)))
        self._failures = min(self._failures + part, 10)  # 2**10 is more than MAX_DELAY


class Entry:
    """One bot of the settings: its state, and the event that is set when it has ended, however that was.

    `state` is starting, ready, retrying or stopped. `after` are entries that have to end first.
    """

    def __init__(
        self, settings: BotSettings, block: Backoff, changed: Callable[[], None], after: "list[Entry]"
    ) -> None:
        self.settings = settings
        self.event = asyncio.Event()
        self.state = "starting"
        self.failure: Failure | None = None  # the last one
        self.backoff = Backoff()
        self._block = block  # Cloudflare blocks an address, so all bots share this one
        self._ask_shards = False
        self._changed = changed
        self._stop_asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(after.copy()))

    @property
    def needs_person(self) -> bool:
        """Whether it has ended until a person changes something."""
        return self.failure is not None and self.failure.final

    def stop(self) -> None:
        """Ask the bot to end. The event is set when it has."""
        if not self._stop_asked.done():
            self._stop_asked.set_result(None)

    async def _run(self, after: "list[Entry]") -> None:
        running_token.set(self.settings.token)
        try:
            while after:
                await after.pop().event.wait()
            while not self._stop_asked.done() and await self._attempt():
                pass
        except Exception:
            log.critical("This bot is stopped by a bug of run_bots.py.", exc_info=True)
            raise
        finally:
            if self.failure and self.failure.final:
                log.error("stopped: %s", self.failure.text, exc_info=self.failure.cause)
            else:
                log.info("stopped: %s", "as asked" if self._stop_asked.done() else "it closed itself")
            self.event.set()
            self._set_state("stopped")

    async def _attempt(self) -> bool:
        """Run the bot with a fresh client until that ends. Returns whether to try again."""
        bot = Bot(self.settings, self)
        try:
            async with bot:
                connected = asyncio.create_task(self._log_in_and_connect(bot))
                await asyncio.wait({connected, self._stop_asked, bot.gone}, return_when=asyncio.FIRST_COMPLETED)
                if bot.gone.done():
                    await asyncio.wait({connected}, timeout=CLOSE_TIMEOUT)  # it may have to say why
                for _ in range(20):  # discord.py ignores a cancellation while it reconnects
                    connected.cancel()
                    await asyncio.wait({connected}, timeout=0.1)
                    if connected.done():
                        break
            if connected.done() and not connected.cancelled():
                connected.result()
            return False
        except GivenUp as given_up:
            error = given_up.args[0] if given_up.args else None
        except Exception as unexpected:
            error = unexpected
        if error is not None:
            self.failed(diagnose(error, bot))
        return not self.needs_person

    async def _log_in_and_connect(self, bot: Bot) -> None:
        await self.pause()
        await bot.log_in()
        if self._ask_shards or (bot.application and bot.application.approximate_guild_count >= SHARDING_FROM):
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

    def failed(self, failure: Failure, part: float = 1) -> None:
        """Count a failure, of this part of the bot's shards, and say what comes next."""
        self.failure = failure
        if failure.final:
            return
        self._ask_shards = self._ask_shards or failure.needs_shards
        self.backoff.failed(part)
        (self._block if failure.for_all else self.backoff).extend(failure.wait)
        log.warning("%s Trying again in %.1f s.", failure.text, self.delay, exc_info=failure.cause)
        self._set_state("retrying")

    def ready(self, message: str) -> None:
        log.info(message)
        self.failure = None
        self._set_state("ready")

    def _set_state(self, state: str) -> None:
        self.state = state
        self._changed()


# --- All the entries together ----------------------------------------------------------------------------------------


class Runner:
    """The running bots."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self._replaced: list[Entry] = []  # they are no longer in the settings, and have not ended yet
        self._block = Backoff()
        self._changed = asyncio.Event()
        self._report: asyncio.Task[None] | None = None

    def apply(self, wanted: list[BotSettings], *, start_ended: bool = False) -> str:
        """Make the running bots equal to the settings. Only what differs moves. Returns what that is.

        With `start_ended`, bots that have ended get another start.
        """
        new = {settings.number: settings for settings in wanted}
        changes = {
            "added": [settings.name for settings in wanted if settings.number not in self.entries],
            "removed": [entry.settings.name for number, entry in self.entries.items() if number not in new],
        }
        for number, entry in list(self.entries.items()):
            if new.get(number) == entry.settings and not (start_ended and entry.event.is_set()):
                entry.settings = new.pop(number)  # with another name or line, perhaps
            else:
                entry.stop()
                self._replaced.append(self.entries.pop(number))
        self._replaced = [entry for entry in self._replaced if not entry.event.is_set()]
        changes["restarted"] = [settings.name for settings in new.values() if settings.name not in changes["added"]]
        for number, settings in new.items():
            # Never two sessions of one bot, also when it has another number or a new token.
            after = [
                it for it in self._replaced if it.settings.number == number or it.settings.bot_id == settings.bot_id
            ]
            self.entries[number] = entry = Entry(settings, self._block, self._changed.set, after)
            for other in after:  # many saves in a row must not be a way around the waiting
                if other.settings.bot_id == settings.bot_id and not other.needs_person:
                    entry.backoff = other.backoff
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
            log.error("The bots keep running as they are. The settings are not valid:\n%s", "\n".join(error.args))
        except Exception:
            log.exception("The bots keep running as they are. This is a bug of run_bots.py.")
        else:
            log.info("%s: %s", source.env_file or "the environment", changes or "nothing changed")

    async def _report_when_settled(self) -> None:
        """Say how many bots are ready, and what the others lack; once more when those that try again have settled."""
        entries = self.entries.values()
        for unsettled, timeout in (("starting",), SETTLE_TIMEOUT), (("starting", "retrying"), None):
            if timeout is None and not any(entry.state in unsettled for entry in entries):
                return
            try:
                async with asyncio.timeout(timeout):
                    while any(entry.state in unsettled for entry in entries):
                        self._changed.clear()
                        await self._changed.wait()
            except TimeoutError:
                pass
            log.info("%s of %s bots are ready", sum(entry.state == "ready" for entry in entries), len(entries))
            for entry in entries:
                if entry.state != "ready":
                    why = f": {entry.failure.text}" if entry.failure else ""
                    log.warning("%s is %s%s", entry.settings.name, entry.state, why)

    @property
    def running(self) -> list[Entry]:
        """The entries that have not ended."""
        return [entry for entry in (*self.entries.values(), *self._replaced) if not entry.event.is_set()]

    async def wait_for_end(self) -> None:
        """Wait for the event of every entry, also of those that come later."""
        while self.running:
            await self.running[0].event.wait()

    async def close(self) -> None:
        """Stop every bot."""
        if self._report:
            self._report.cancel()
        for entry in self.entries.values():
            entry.stop()
        await self.wait_for_end()


async def run(bots: list[BotSettings], source: Source, *, watch: bool) -> int:
    """Run the bots until they have all ended or somebody asks them to. Returns the exit code."""
    asyncio.get_running_loop().set_task_factory(remember_task)
    runner = Runner()
    stop_asked = asyncio.Event()
    handle_signals(stop_asked.set, lambda: None if stop_asked.is_set() else runner.follow(source, start_ended=True))
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
    needs_person = not stop_asked.is_set() and any(entry.needs_person for entry in runner.entries.values())
    code = EXIT_NEEDS_PERSON if needs_person else EXIT_OK
    # Threads and tasks of the bots' own code, or a name server that does not answer, must not keep the program alive.
    timer = threading.Timer(CLOSE_TIMEOUT, os._exit, [code])
    timer.daemon = True
    timer.start()
    return code


def remember_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    """A task factory that keeps each bot's tasks, so that they end with the bot."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    tasks[running_token.get()].add(task)
    return task


async def visit(bots: list[BotSettings], task: Callable[[Bot], Awaitable[str]], header: str) -> int:
    """Log every bot in by REST alone, side by side, and print what comes of the task. Returns the exit code."""

    async def visit_one(settings: BotSettings) -> bool:
        running_token.set(settings.token)
        bot = Bot(settings)
        try:
            async with bot:
                await bot.log_in()
                outcomes[settings.number] = await task(bot)
        except Exception as error:
            failure = diagnose(error, bot)
            outcomes[settings.number] = f"PROBLEM: {failure.text}"
            log.error("%s", failure.text, exc_info=failure.cause)
            return False
        return True

    outcomes: dict[int, str] = {}
    good = await asyncio.gather(*(visit_one(settings) for settings in bots))
    print(f"{'no.':>4} {'name':<20} {header}")
    for settings in bots:
        print(f"{settings.number:>4} {settings.name:<20} {outcomes[settings.number]}")
    return EXIT_OK if all(good) else EXIT_NEEDS_PERSON


async def check(bot: Bot) -> str:
    """What `--check` shows of a bot that is all right."""
    if missing_intents(bot):
        raise discord.PrivilegedIntentsRequired(None)
    assert bot.application is not None
    assert bot.user is not None
    permissions = discord.Permissions(view_channel=True, send_messages=True, read_message_history=True)
    invite = discord.utils.oauth_url(bot.user.id, permissions=permissions, scopes=("bot", "applications.commands"))
    servers = bot.application.approximate_guild_count
    return f"{bot.user!s:<20} {bot.user.id:<20} {servers:>7}  on\n{'':26}invite: {invite}"


async def sync_commands(bot: Bot) -> str:
    """Upload a bot's slash commands, for `--sync-commands`."""
    uploaded = [f"/{command.name}" for command in await bot.tree.sync()]
    return f"uploaded: {' '.join(uploaded) or 'none, it has none'}"


# --- Signals ---------------------------------------------------------------------------------------------------------


def handle_signals(stop: Callable[[], None], reload: Callable[[], None]) -> None:
    """Call `stop` in the event loop at the first stop signal, and `reload` at each SIGHUP that somebody sends.

    The second stop signal ends the program at once, and so does too much time after the first.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()  # a signal comes while the code of any bot is running
    asked = threading.Event()

    def handle(number: int, _frame: Any) -> None:
        if asked.is_set():
            os._exit(EXIT_BUG)
        asked.set()
        words = "Stopping all bots (%s). A second Ctrl-C ends the program at once."
        loop.call_soon_threadsafe(log.info, words, signal.Signals(number).name, context=context)
        loop.call_soon_threadsafe(stop, context=context)

    in_terminal = os.isatty(0)

    def hang_up(number: int, frame: Any) -> None:
        if in_terminal and not os.isatty(0):  # the window was closed
            handle(number, frame)
        else:
            loop.call_soon_threadsafe(reload, context=context)

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
        signal.signal(signal.SIGHUP, hang_up)


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


class Formatter(logging.Formatter):
    """discord.py's log format, with the bot's name before the message."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)
        # discord.py's keep-alive threads run in no context, but have the gateway connection, which has the token.
        keep_alive = getattr(threading.current_thread(), "ws", None)
        name = names.get(running_token.get() or getattr(keep_alive, "token", ""))
        record.msg, record.args = f"[{name}] {record.getMessage()}" if name else record.getMessage(), None
        if record.name == "discord.shard" and record.exc_info:  # not a traceback for each connection that fails
            record.msg, record.exc_info = f"{record.msg} ({record.exc_info[1]!r})", None
        return self._inner.format(record)


def set_up_logging(level: str) -> None:
    """Log to stderr as discord.py does, in colour where the terminal has it. Keep tokens out of all that is printed."""
    sys.stdout, sys.stderr = WithoutTokens(sys.stdout), WithoutTokens(sys.stderr)
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
    except SettingsError as error:
        print(*error.args, sep="\n", file=sys.stderr)
        return EXIT_NEEDS_PERSON
    log.info("%s bots from %s", len(bots), source.env_file or "the environment")
    try:
        if arguments.check:
            return asyncio.run(visit(bots, check, f"{'on Discord':<20} {'id':<20} servers  intents"))
        if arguments.sync_commands:
            return asyncio.run(visit(bots, sync_commands, "slash commands"))
        with asyncio.Runner() as runner:
            main_task = runner.get_loop().create_task(run(bots, source, watch=not arguments.no_watch))
            while True:
                try:
                    return runner.get_loop().run_until_complete(main_task)
                except SystemExit:  # of some task of one bot, and no reason to end the others
                    log.error("Some code of a bot calls exit(). The bots go on.")
    except Exception:
        log.critical("The program failed. This is a bug.", exc_info=True)
        return EXIT_BUG


if __name__ == "__main__":
    sys.exit(main())
