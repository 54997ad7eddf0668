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
import contextvars
import copy
import dataclasses
import enum
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

try:
    import aiohttp  # discord.py brings it
    import discord
    from discord.ext import commands
    from dotenv import dotenv_values
except ModuleNotFoundError as missing:
    print(f"{missing.name} is not installed. Run: python -m pip install -r requirements.txt", file=sys.stderr)
    sys.exit(EXIT_NEEDS_PERSON)

__version__ = "1.0.0"

PORTAL = "https://discord.com/developers/applications"
UPDATE = "Update discord.py: python -m pip install --upgrade -r requirements.txt"
NO_BOTS = f"""\
There is no bot to run. For each bot:
1. Open {PORTAL}, choose your application, then Bot, then Reset Token.
2. Copy .env.example to .env, and write the token there: DISCORD_BOT_TOKEN1=your token
Then start run_bots.py again."""
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
# Intents that have to be switched on in the Developer Portal: the application's flag, and the Portal's own name.
PRIVILEGED_INTENTS = {
    "message_content": ("gateway_message_content", "Message Content Intent"),
    "members": ("gateway_guild_members", "Server Members Intent"),
    "presences": ("gateway_presence", "Presence Intent"),
}
# Close codes after which nothing but an update helps: https://docs.discord.com/developers/topics/opcodes-and-status-codes
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
SETTLE_TIMEOUT = 30  # then the log says how many bots are ready, even if one has neither come up nor failed
# A stop takes 10 seconds at the most: for Discord's answer, for the bots' own clean-up, for everything.
GATEWAY_CLOSE_TIMEOUT, CLEANUP_TIMEOUT, STOP_TIMEOUT = 2, 5, 9

SHARDING_FROM = 1000  # with fewer servers Discord recommends one shard; a bot with more asks

log = logging.getLogger("run_bots")
bot_name: contextvars.ContextVar[str] = contextvars.ContextVar("bot_name", default="")  # whose code is running
token_owners: dict[str, str] = {}  # every token that was ever read, and its bot's name: the log never shows one


# --- Settings from the environment ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class BotSettings:
    """What one bot is started with."""

    number: int
    name: str
    token: str = dataclasses.field(repr=False)
    variable: str  # the variable that the token is from
    place: str  # where that variable is set


class SettingsError(Exception):
    """The settings are not valid. Each argument is one problem, as a sentence for a person."""


def find_env_file(named: str | None) -> Path | None:
    """The env file: the named one, else `.env` in the current folder, else beside this script.

    Raises `SettingsError` if one is named and missing.
    """
    if named is not None:
        if not Path(named).is_file():
            raise SettingsError(f"There is no file {named}. Check --env-file.")
        return Path(named)
    return next((path for path in (Path(".env"), Path(__file__).with_name(".env")) if path.is_file()), None)


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of an env file. Raises `SettingsError` if it cannot be read."""
    try:
        values = dotenv_values(path, interpolate=False, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not a text file in UTF-8. Save it as UTF-8.") from None
    return {name: value for name, value in values.items() if value is not None}


def read_settings(path: Path | None, environment: Mapping[str, str]) -> list[BotSettings]:
    """Every bot that the env file and the process environment name, by number; the environment wins.

    The env file's other variables are put into `os.environ`, for the bots' own code.
    Raises `SettingsError` with every problem that there is.
    """
    from_file = {} if path is None else read_env_file(path)
    variables = {**from_file, **environment}
    bots: list[BotSettings] = []
    problems: list[str] = []
    numbers = {int(m[1]) for m in (re.fullmatch(r"DISCORD_BOT_TOKEN([1-9][0-9]*)(_FILE)?", v) for v in variables) if m}
    for number in sorted(numbers):
        variable = f"DISCORD_BOT_TOKEN{number}"
        token, token_file = variables.get(variable, "").strip(), variables.get(f"{variable}_FILE", "").strip()
        if token and token_file:
            problems.append(f"{variable} and {variable}_FILE are both set. Keep one of them.")
            continue
        place = "the environment" if variable in environment else str(path)
        if token_file:
            place = token_file
            try:
                token = Path(token_file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{variable}_FILE: {token_file} cannot be read ({type(error).__name__}).")
                continue
        if token:
            name = variables.get(f"DISCORD_BOT_NAME{number}", "").strip() or f"bot{number}"
            token_owners[token] = name
            bots.append(BotSettings(number, name, token, variable, place))
    if not bots and not problems:
        problems.append(NO_BOTS)
    if problems:
        raise SettingsError(*problems)
    for name, value in from_file.items():
        if not name.startswith("DISCORD_BOT_TOKEN") and name not in environment:
            os.environ[name] = value
    return bots


# --- What a bot does -------------------------------------------------------------------------------------------------


class Ping(commands.Cog):
    """Answers `ping` with `pong`. Change this class to change what the bots do."""

    @commands.Cog.listener()
    async def on_message(self, message: discord.Message) -> None:
        if message.author.bot:  # this bot itself, or another one
            return
        if message.content.startswith("ping"):
            await message.channel.send("pong", allowed_mentions=discord.AllowedMentions.none())


def intents() -> discord.Intents:
    """What Discord is asked to tell a bot. The text of messages is a privileged intent, switched on in the Portal."""
    wanted = discord.Intents.default()
    wanted.message_content = True
    return wanted


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
    variable = f"{bot.settings.variable} in {bot.settings.place}"
    number = bot.application_id or application_id(bot.settings.token)
    portal = f"{PORTAL}/{number}/bot" if number else PORTAL

    if isinstance(error, discord.LoginFailure) or status == 401 or code == 4004:
        return Failure(
            f"{variable}: Discord refuses this token. Make a new one at {portal} (Reset Token) and put it in.",
            final=True,
        )
    if isinstance(error, discord.PrivilegedIntentsRequired):
        names = " and ".join(missing_intents(bot))
        return Failure(f"{variable}: the bot may not use the {names}. Switch it on at {portal}.", final=True)
    if code == 4011 and (bot.shard_count_is_ours or bot.guilds):
        return Failure("Discord wants this bot to run in shards.", needs_shards=True)
    if code in REFUSALS:
        return Failure(f"{variable}: Discord refuses {REFUSALS[code]} (close code {code}). {UPDATE}", final=True)

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


def application_id(token: str) -> str:
    """The first part of a token: the bot's id in base64. An empty string if it is something else."""
    part = token.partition(".")[0]
    try:
        decoded = base64.b64decode(part + "=" * (-len(part) % 4), validate=True).decode("ascii")
    except ValueError:
        return ""
    return decoded if decoded.isdecimal() else ""


def missing_intents(bot: "Bot") -> list[str]:
    """The privileged intents that a bot asks for and that are off (all that it asks for, if none seems to be off)."""
    asked = {name: flag for intent, (flag, name) in PRIVILEGED_INTENTS.items() if getattr(bot.intents, intent)}
    flags = bot.application_flags
    off = [name for name, flag in asked.items() if not getattr(flags, flag) and not getattr(flags, f"{flag}_limited")]
    return off or list(asked)


class Bot(commands.AutoShardedBot):
    """discord.py's bot, as one of many: it asks its entry before it connects, and it leaves Discord at once.

    It has one shard, and more when Discord wants more.
    """

    def __init__(self, entry: "Entry") -> None:
        super().__init__(command_prefix="!", help_command=None, intents=intents(), shard_count=1)
        self.entry = entry
        self.settings = entry.settings
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

    async def _open_socket(self, url: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        """Connect to the gateway as soon as the bot may. Raises `GatewayLost` if that takes long."""
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

    def __init__(self, settings: BotSettings, block: Backoff, changed: Callable[[], None]) -> None:
        self.settings = settings
        self.event = asyncio.Event()
        self.state = State.STARTING
        self.reason = "is still logging in"  # why it is not ready
        self.needs_person = False
        self.backoff = Backoff()
        self._block = block  # Cloudflare blocks an address, so all bots share this one
        self._shards_unknown = False
        self._changed = changed
        self._stop_asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Ask the bot to end. The event is set when it has."""
        if not self._stop_asked.done():
            self._stop_asked.set_result(None)

    async def _run(self) -> None:
        bot_name.set(self.settings.name)
        try:
            while await self._attempt():
                pass
            if not self.needs_person:
                self.reason = "it was asked to" if self._stop_asked.done() else "it closed itself"
        finally:
            log.log(logging.ERROR if self.needs_person else logging.INFO, "stopped: %s", self.reason)
            self.event.set()
            self._set_state(State.STOPPED, self.reason)

    async def _attempt(self) -> bool:
        """Run the bot with a fresh client until that ends. Returns whether to try again."""
        bot = Bot(self)
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
            return not self._stop_asked.done()
        except Exception as error:
            self.failed(diagnose(error, bot))
            return not self.needs_person and not self._stop_asked.done()
        return False

    async def _log_in_and_connect(self, bot: Bot) -> None:
        await self.pause()
        async with asyncio.timeout(LOGIN_TIMEOUT):
            await bot.login(self.settings.token)
        await bot.add_cog(Ping())
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
        if failure.final:
            self.needs_person, self.reason = True, failure.text
            return
        self._shards_unknown = self._shards_unknown or failure.needs_shards
        self.backoff.failed()
        self._block.extend(failure.blocked_for)
        log.warning("%s Trying again in %.1f s.", failure.text, self.delay, exc_info=failure.traceback)
        self._set_state(State.RETRYING, failure.text)

    def ready(self, message: str) -> None:
        log.info(message)
        self._set_state(State.READY)

    def _set_state(self, state: State, reason: str = "") -> None:
        self.state, self.reason = state, reason
        self._changed()


# --- All the entries together ----------------------------------------------------------------------------------------


class Runner:
    """The running bots."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self._block = Backoff()
        self._changed = asyncio.Event()
        self._report: asyncio.Task[None] | None = None

    def apply(self, wanted: list[BotSettings]) -> None:
        """Make the running bots equal to the settings."""
        for settings in wanted:
            self.entries[settings.number] = Entry(settings, self._block, self._changed.set)
        self._report = asyncio.create_task(self._report_when_settled())

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
                log.warning("%s is %s: %s", entry.settings.name, entry.state, entry.reason)

    async def wait_for_end(self) -> None:
        """Wait for the event of every entry."""
        for entry in self.entries.values():
            await entry.event.wait()

    async def close(self) -> None:
        """Stop every bot."""
        if self._report:
            self._report.cancel()
        for entry in self.entries.values():
            entry.stop()
        await self.wait_for_end()


async def run(settings: list[BotSettings]) -> int:
    """Run the bots until they have all ended or somebody asks them to. Returns the exit code."""
    stop_asked = asyncio.Event()
    handle_signals(stop_asked.set)
    runner = Runner()
    runner.apply(settings)
    waits = [asyncio.create_task(wait) for wait in (stop_asked.wait(), runner.wait_for_end())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    await runner.close()
    await asyncio.gather(*(entry.task for entry in runner.entries.values()))  # raises what is a bug of this program
    if not stop_asked.is_set() and any(entry.needs_person for entry in runner.entries.values()):
        return EXIT_NEEDS_PERSON
    return EXIT_OK


# --- Signals ---------------------------------------------------------------------------------------------------------


def handle_signals(stop: Callable[[], None]) -> None:
    """Call `stop` in the event loop at the first signal. The second one, or too much time, ends the program at once."""
    loop = asyncio.get_running_loop()
    asked = threading.Event()

    def handle(number: int, _frame: Any) -> None:
        if asked.is_set():
            os._exit(EXIT_BUG)
        asked.set()
        loop.call_soon_threadsafe(
            log.info, "Stopping all bots (%s). Once more, and the program ends at once.", names[number]
        )
        loop.call_soon_threadsafe(stop)

    def last_resort() -> None:
        # In a thread, because code of a bot that blocks the event loop blocks everything else.
        asked.wait()
        time.sleep(STOP_TIMEOUT)
        os.write(sys.stderr.fileno(), b"Some code of a bot does not stop. The program ends without it.\n")
        os._exit(EXIT_OK)

    threading.Thread(target=last_resort, daemon=True).start()
    names = {number: signal.Signals(number).name for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:
        signal.signal(number, handle)  # Windows has no loop.add_signal_handler


# --- Logging ---------------------------------------------------------------------------------------------------------


class Formatter(logging.Formatter):
    """discord.py's log format, with the bot's name before the message, and without any token."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        # discord.py's keep-alive threads have no context, but the gateway connection with the bot's token.
        keep_alive = getattr(threading.current_thread(), "ws", None)
        name = bot_name.get() or token_owners.get(getattr(keep_alive, "token", ""))
        record = copy.copy(record)
        if name:
            record.msg, record.args = f"[{name}] {record.getMessage()}", None
        if record.name == "discord.shard" and record.exc_info:
            # discord.py shows a traceback for each connection that fails.
            record.msg, record.args, record.exc_info = f"{record.getMessage()} ({record.exc_info[1]!r})", None, None
        text = self._inner.format(record)
        for token, owner in token_owners.items():
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-file", metavar="PATH", help="default: .env in this folder, or else beside the script")
    parser.add_argument(
        "--log-level", metavar="LEVEL", default="info", type=str.lower, choices=LOG_LEVELS, help=", ".join(LOG_LEVELS)
    )
    parser.add_argument(
        "--version", action="version", version=f"run_bots {__version__}, discord.py {discord.__version__}"
    )
    arguments = parser.parse_args(argv)
    set_up_logging(arguments.log_level)
    try:
        env_file = find_env_file(arguments.env_file)
        settings = read_settings(env_file, dict(os.environ))
    except SettingsError as error:
        print(*error.args, sep="\n", file=sys.stderr)
        return EXIT_NEEDS_PERSON
    log.info("%s bots from %s", len(settings), env_file or "the environment")
    try:
        return asyncio.run(run(settings))
    except Exception:
        log.critical("The program failed. This is a bug.", exc_info=True)
        return EXIT_BUG


if __name__ == "__main__":
    sys.exit(main())
