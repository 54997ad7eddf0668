"""Whole days of run_bots.py in some seconds each, whatever fails.

What it asks of Discord on such a day, and how long its bot is away:

python -m tests.benchmark.days
python -m tests.benchmark.days --only "network away" --kind plain --log
python -m tests.benchmark.days --only forgotten --shards 3

The real program and the local Discord run in one event loop, over real sockets, by a clock that
jumps to the next timer whenever no socket has anything to read. Each kind of trouble ends an hour
before the day does. A row that breaks a promise is marked, and says which; then the exit code is 1.
"""

from __future__ import annotations

# Before the clock is changed: some of these take a function of it for themselves, and threads need
# the real one.
import argparse
import asyncio
import bisect
import concurrent.futures  # noqa: F401
import contextlib
import logging
import os
import queue  # noqa: F401
import random
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

HOUR = 3600
DAY = 24 * HOUR
LAST_IDENTIFIES = 300  # what a process stays below in any 24 hours
LEAST_REMAINING = 200
BACK_WITHIN = 60  # seconds after an outage
LOG_LINES = 500  # of an outage
MISJUDGED = 60  # seconds a day in which the program is wrong about whether its bot is ready
STOPPED_WITHIN = 10  # seconds
SIGN_OF_LIFE = 30  # seconds; discord.py gives a connection up after 60 without a message


# --- The clock that jumps -------------------------------------------------------------------------


OnJump = Callable[[float], None]


def ignore_jump(seconds: float) -> None:
    pass


class Clock:
    """The real clock, and all the seconds that were skipped.

    It stands in the place of `time.monotonic` and `time.time`.
    """

    def __init__(self) -> None:
        self.skipped = 0.0
        self.on_jump: OnJump = ignore_jump
        self._monotonic = time.monotonic
        self._time = time.time
        time.monotonic = self.monotonic
        time.time = self.time

    def monotonic(self) -> float:
        return self._monotonic() + self.skipped

    def time(self) -> float:
        return self._time() + self.skipped

    def jump(self, seconds: float) -> None:
        self.on_jump(seconds)
        self.skipped += seconds


clock = Clock()

# After the clock was changed: aiohttp takes functions of it for itself.
import discord  # noqa: E402

import run_bots  # noqa: E402

from ..local_discord import LocalDiscord, faults  # noqa: E402
from ..local_discord.redirect import redirect  # noqa: E402


class JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Waits for sockets while something may be on its way between them. It jumps over the rest."""

    is_quiet = False

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events and timeout is None:
            events = super().select(None)
        elif not events and timeout and not self.is_quiet:
            events = super().select(min(timeout, 0.002))
            self.is_quiet = True
        elif not events and timeout:
            clock.jump(timeout)
        if events:
            self.is_quiet = False
        return events


class JumpingLoop(run_bots.Loop):
    def __init__(self) -> None:
        super().__init__(JumpingSelector())

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:  # type: ignore[override]
        """Every name is this machine. The clock would overtake a thread that asks for it."""
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]


# --- A day: the program, its Discord, and what is seen of them ------------------------------------


class NoSignals:
    """In the place of `run_bots.Signals`."""

    def __init__(self, runner: run_bots.Runner) -> None:
        pass

    def start_deadline(self, code: int) -> None:
        pass


class PlainClient(discord.Client):
    """A bot that somebody made without shards and commands."""

    def __init__(self, settings: run_bots.BotSettings) -> None:
        super().__init__(intents=settings.intents)
        self._extensions = settings.extensions

    async def setup_hook(self) -> None:
        for name in self._extensions:
            await __import__(name).setup(self)


class Log(run_bots.Log):
    """Counts the lines of the log, and prints them if told to."""

    def __init__(self, *, is_shown: bool) -> None:
        super().__init__("info")
        self.lines = 0
        self._is_shown = is_shown
        line = "{asctime} {levelname} {name}: {message}"
        self.setFormatter(logging.Formatter(line, "%d %H:%M:%S", "{"))

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self.lines += text.count("\n") + 1
        if self._is_shown:
            print(text, file=sys.stderr)


class Day:
    """One day of one bot."""

    def __init__(self, server: LocalDiscord, shards: int, folder: Path, log: Log) -> None:
        self.server = server
        self.account = server.add_bot("bot", shards=shards)
        self.folder = folder
        self.log = log
        self.env_file = folder / ".env"
        self.env_file.touch(mode=0o600)
        self.write_env()
        self.starts: list[float] = []  # of the program
        self.seconds = self.ready_seconds = self.misjudged_seconds = 0.0
        self.longest_return = 0.0
        self.troubles = 0  # that have ended
        self.lowest_remaining = self.remaining
        self.longest_stop = 0.0
        self.is_silent = False
        self._trouble_ended: float | None = None
        self._counted_until = clock.monotonic() + DAY
        clock.on_jump = self.look

    def write_env(self, more: str = "") -> None:
        self.env_file.write_text(f"DISCORD_BOT_TOKEN1={self.account.token}\n{more}")

    # --- the program

    def start(self) -> None:
        self.starts.append(clock.monotonic())
        self.runner = run_bots.Runner(self.env_file, None)
        settings = self.runner.read()
        running = self.runner.run(settings, watch=True, status="")
        self._program = asyncio.create_task(running)

    async def stop(self) -> None:
        began = clock.monotonic()
        self.runner.stop("the day is over")
        await self._program
        seconds = clock.monotonic() - began
        self.longest_stop = max(self.longest_stop, seconds)

    @property
    def state(self) -> str:
        for entry in self.runner._entries.values():
            return entry.state
        return ""

    # --- Discord

    @property
    def remaining(self) -> int:
        return 1000 - self.account.used_before - len(self.account.identifies)

    async def be_discord(self) -> None:
        """Give signs of life, and count the IDENTIFYs of the next day anew."""
        while True:
            now = clock.monotonic()
            if now >= self._counted_until:
                self.account.used_before = -len(self.account.identifies)
                self._counted_until += DAY
            self.account.reset_after = self._counted_until - now
            if not self.is_silent:
                await self._give_signs_of_life()
            await asyncio.sleep(SIGN_OF_LIFE)

    async def _give_signs_of_life(self) -> None:
        for connection in list(self.server.connections):
            ws = connection.ws
            if ws.prepared and not ws.closed:
                await connection.send({"op": 0, "t": "NOTHING", "s": None, "d": {}})

    def lose_session(self, *, is_forgotten: bool) -> None:
        if is_forgotten:
            self.account.forget_sessions()
        for connection in self.account.live:
            connection.transport.abort()

    # --- what is seen

    def trouble_ends(self) -> None:
        self.troubles += 1
        if self._trouble_ended is None:
            self._trouble_ended = clock.monotonic()

    def look(self, seconds: float) -> None:
        """Nothing happens in the next seconds: take down how things are."""
        is_ready = self.account.ready
        is_called_ready = self.state == "ready"
        self.seconds += seconds
        if is_ready:
            self.ready_seconds += seconds
        if is_called_ready != is_ready:
            self.misjudged_seconds += seconds
        self.lowest_remaining = min(self.lowest_remaining, self.remaining)
        if self._trouble_ended is not None:
            away = clock.monotonic() - self._trouble_ended
            self.longest_return = max(self.longest_return, away)
            if is_ready:
                self._trouble_ended = None

    def most_identifies(self, *, of_one_process: bool) -> int:
        """The IDENTIFYs of the worst 24 hours."""
        times = [identify.at for identify in self.account.identifies]
        most = 0
        for index, at in enumerate(times):
            until = at + DAY
            if of_one_process:
                for start in self.starts:
                    if start > at:
                        until = min(until, start)
            count = bisect.bisect_left(times, until) - index
            most = max(most, count)
        return most

    def figures(self, *, is_outage: bool) -> dict[str, Any]:
        """What a line of the table says."""
        server = self.server
        ready = self.ready_seconds / self.seconds
        figures: dict[str, Any] = {}
        figures["IDENTIFYs, worst 24 h"] = self.most_identifies(of_one_process=False)
        figures["RESUMEs"] = len(self.account.resumes)
        figures["connections"] = server.opened
        figures["requests"] = len(server.requests)
        figures["invalid"] = server.invalid_requests
        figures["ready"] = f"{ready:.1%}"
        figures["misjudged (s)"] = round(self.misjudged_seconds)
        figures["back after (s)"] = round(self.longest_return, 1)
        figures["least remaining"] = self.lowest_remaining
        figures["log lines"] = self.log.lines
        figures["broken"] = self._broken_promises(is_outage)
        return figures

    def _broken_promises(self, is_outage: bool) -> str:
        identifies = self.most_identifies(of_one_process=True)
        most_lines = LOG_LINES * self.troubles
        has_failed = self._program.done() and bool(self._program.result())
        broken = {}
        broken["IDENTIFYs"] = identifies >= LAST_IDENTIFIES
        broken["remaining"] = self.lowest_remaining < LEAST_REMAINING
        broken["back late"] = is_outage and self.longest_return > BACK_WITHIN
        broken["log"] = is_outage and self.log.lines > most_lines
        broken["state"] = self.misjudged_seconds > MISJUDGED
        broken["stop"] = self.longest_stop > STOPPED_WITHIN
        broken["ended"] = has_failed
        return ", ".join(promise for promise, is_broken in broken.items() if is_broken)


# --- What goes wrong ------------------------------------------------------------------------------


async def always(day: Day, **actions: Any) -> None:
    for moment, action in actions.items():
        day.server.fail(moment, action)


async def lost_after_a_minute(day: Day, *, is_forgotten: bool) -> None:
    while True:
        await asyncio.sleep(1)
        if day.account.ready:
            await asyncio.sleep(60)
            day.lose_session(is_forgotten=is_forgotten)
            day.trouble_ends()


async def lost_at_random(day: Day, *, is_forgotten: bool) -> None:
    while True:
        await asyncio.sleep(random.expovariate(1 / 300))
        day.lose_session(is_forgotten=is_forgotten)
        day.trouble_ends()


async def network_away(day: Day, *, seconds: float, every: float, is_forgotten: bool) -> None:
    while True:
        await asyncio.sleep(every - seconds)
        await day.server.stop()
        if is_forgotten:
            day.account.forget_sessions()
        try:
            await asyncio.sleep(seconds)
        finally:
            await day.server.start()
            day.trouble_ends()


async def network_silent(day: Day, *, seconds: float, every: float) -> None:
    """Nothing that is sent arrives, and nobody is told."""
    while True:
        await asyncio.sleep(every - seconds)
        day.is_silent = True
        hang = faults.hang()
        await always(day, REST=hang, upgrade=hang)
        try:
            await asyncio.sleep(seconds)
        finally:
            day.is_silent = False
            day.server.heal()
            day.trouble_ends()


FLAKY_EXTENSION = """\
import time

async def setup(bot):
    if time.monotonic() < {healed_at}:
        raise OSError("no database")
"""


async def setup_fails(day: Day) -> None:
    healed_at = clock.monotonic() + 600
    code = FLAKY_EXTENSION.format(healed_at=healed_at)
    (day.folder / "flaky.py").write_text(code)
    day.write_env("DISCORD_BOT_EXTENSIONS1=flaky\n")
    await asyncio.sleep(600)
    day.trouble_ends()


async def blocked(day: Day, *, says_how_long: bool) -> None:
    await asyncio.sleep(HOUR)
    ends = clock.monotonic() + HOUR

    async def block(request: Any) -> Any:
        left = None
        if says_how_long:
            left = int(ends - clock.monotonic()) + 1
        refuse = faults.cloudflare_block(left)
        return await refuse(request)

    await always(day, REST=block, upgrade=block)
    day.lose_session(is_forgotten=False)
    await asyncio.sleep(HOUR)
    day.server.heal()
    day.trouble_ends()


async def dies_soon(day: Day) -> None:
    while True:
        await asyncio.sleep(1)
        if day.account.ready:
            await asyncio.sleep(2)
            # It closes its session, which makes no difference to what Discord counts: the next one
            # IDENTIFYs anyway.
            await day.stop()
            await asyncio.sleep(10)
            day.start()


async def saved_every_minute(day: Day) -> None:
    for number in range(60 * 24):
        await asyncio.sleep(60)
        day.write_env(f"DISCORD_BOT_PREFIX1={number}!\n")


kept, forgotten = {"is_forgotten": False}, {"is_forgotten": True}
closed, reconnect = faults.close(4000), faults.ask_to_reconnect()
minutes_away = {"seconds": 360, "every": HOUR}
hour_away = {"seconds": HOUR, "every": 4 * HOUR}
TROUBLES: dict[str, tuple[Any, dict[str, Any]]] = {
    "nothing": (always, {}),
    "lost after a minute, kept": (lost_after_a_minute, kept),
    "lost after a minute, forgotten": (lost_after_a_minute, forgotten),
    "lost at random, kept": (lost_at_random, kept),
    "lost at random, forgotten": (lost_at_random, forgotten),
    "IDENTIFY: INVALID SESSION": (always, {"identify": faults.invalid_session()}),
    "IDENTIFY: 4000": (always, {"identify": closed}),
    "IDENTIFY: no answer": (always, {"identify": faults.silence()}),
    "READY and RESUME: 4000": (always, {"ready": closed, "resume": closed}),
    "READY: 1000": (always, {"ready": faults.close(1000)}),
    "READY: dropped": (always, {"ready": faults.drop()}),
    "READY and RESUME: dropped": (always, {"ready": faults.drop(), "resume": faults.drop()}),
    "RECONNECT": (always, {"ready": reconnect, "resume": reconnect}),
    "upgrade: 503": (always, {"upgrade": faults.status(503)}),
    "upgrade: no answer": (always, {"upgrade": faults.hang()}),
    "REST: 500": (always, {"REST": faults.status(500)}),
    "REST: no answer": (always, {"REST": faults.hang()}),
    "REST: 503": (always, {"REST": faults.status(503)}),
    "network away 6 minutes an hour, kept": (network_away, minutes_away | kept),
    "network away 6 minutes an hour, forgotten": (network_away, minutes_away | forgotten),
    "network away an hour of 4, kept": (network_away, hour_away | kept),
    "network away an hour of 4, forgotten": (network_away, hour_away | forgotten),
    "network silent 6 minutes an hour": (network_silent, minutes_away),
    "setup: OSError for 10 minutes": (setup_fails, {}),
    "blocked for an hour": (blocked, {"says_how_long": True}),
    "blocked for an hour, not said how long": (blocked, {"says_how_long": False}),
    "dies 2 s after ready": (dies_soon, {}),
    "saved every minute": (saved_every_minute, {}),
}
# Nothing is reached: then the bot is to be back soon.
OUTAGES = ("upgrade", "REST", "network", "setup")


# --- All the days ---------------------------------------------------------------------------------


async def live(name: str, hours: float, shards: int, log: Log) -> dict[str, Any]:
    trouble, options = TROUBLES[name]
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, folder)
        async with LocalDiscord() as server:
            # None for a day: discord.py's threads for them live in real time.
            server.heartbeat_interval_ms = DAY * 1000
            redirect(server.url)
            day = Day(server, shards, Path(folder), log)
            discords = asyncio.create_task(day.be_discord())
            troubling = asyncio.create_task(trouble(day, **options))
            await asyncio.sleep(0)
            day.start()
            await asyncio.sleep((hours - 1) * HOUR)
            troubling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await troubling
            if server.actions:
                server.heal()
                day.trouble_ends()
            await asyncio.sleep(HOUR)
            await day.stop()
            discords.cancel()
        sys.path.remove(folder)
    return {"trouble": name} | day.figures(is_outage=name.startswith(OUTAGES))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmark.days",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--hours", type=float, default=24, help="how long a day is (%(default)s)")
    option("--only", default="", metavar="NAME", help="just the troubles with this in their name")
    kinds = ("default", "plain")
    option("--kind", choices=kinds, default="default", help="of the bot (%(default)s)")
    option("--shards", type=int, default=1, help="of the default bot (%(default)s)")
    option("--log", action="store_true", help="show the program's log on stderr")
    return parser.parse_args()


def live_one(name: str, options: argparse.Namespace) -> dict[str, Any]:
    random.seed(name)
    log = Log(is_shown=options.log)
    logging.getLogger().handlers = [log]
    # What the env file sets would be there on the next day too.
    with mock.patch.dict(os.environ), asyncio.Runner(loop_factory=JumpingLoop) as loop_runner:
        return loop_runner.run(live(name, options.hours, options.shards, log))


def main() -> int:
    options = read_options()
    if options.kind == "plain":
        run_bots.Bot = PlainClient  # type: ignore[assignment, misc]
    run_bots.Signals = NoSignals  # type: ignore[assignment, misc]
    run_bots.take_over()
    run_bots.tidy_memory = lambda: None  # it takes real time
    logging.getLogger().setLevel(logging.INFO)
    is_broken = has_head = False
    for name in TROUBLES:
        if options.only not in name:
            continue
        began = time.perf_counter()
        figures = live_one(name, options)
        if not has_head:
            print(f"| {' | '.join(figures)} |")
            print(f"|{' --- |' * len(figures)}")
            has_head = True
        cells = map(str, figures.values())
        print(f"| {' | '.join(cells)} |", flush=True)
        seconds = time.perf_counter() - began
        print(f"{name}: {seconds:.1f} s", file=sys.stderr)
        is_broken = is_broken or bool(figures["broken"])
    return int(is_broken)


if __name__ == "__main__":
    sys.exit(main())
