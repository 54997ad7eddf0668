"""The benchmark's local Discord, in a process of its own, so that its work does not slow the bots down.

Each line of stdin is a command: a method of `BenchmarkDiscord` and its arguments. Each is answered with a line on
stdout. Both are JSON. The end of stdin ends it.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import collections
import gc
import itertools
import json
import math
import random
import ssl
import statistics
import sys
import time
from typing import Any

from ..local_discord import Account, Connection, Guild, LocalDiscord, User
from ..local_discord.world import snowflake

REPLY_TIMEOUT = 30  # seconds after the end of a load; then replies are lost
CLOSE_TIMEOUT = 10  # seconds until the connections of processes that have ended are closed


class BenchmarkDiscord(LocalDiscord):
    """A local Discord in which each bot is alone in a server of its own. It measures how they start and answer."""

    def __init__(self, bots: int, members: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.people = [User(f"member{number}") for number in range(members)]
        self.bots: dict[int, Account] = {}  # by the channel of their server
        self.replies: dict[int, collections.deque[asyncio.Future[float]]] = collections.defaultdict(
            collections.deque
        )
        for number in range(1, bots + 1):
            guild = Guild(f"Server {number}")
            self.bots[guild.channel_id] = self.add_bot(f"bot{number}", guilds=[guild])
        self.message_of_all = self.message(
            next(iter(self.bots)), self.people[0], {}, []
        )  # what they have in common
        self.up: set[str] = set()  # the tokens of the bots that got their READY and their server
        self.started_at = self.first_request_at = self.ready_at = 0.0
        self.fail("ready", self._count_ready)  # no fault, but the moment after everything was sent

    # With a thousand bots, looking for the one that is meant would be most of the work.

    def members(self, guild: Guild) -> list[Account]:
        return [self.bots[guild.channel_id]]

    def guild_of(self, channel_id: int) -> Guild | None:
        return self.bots[channel_id].guilds[0]

    async def post(
        self, channel_id: int, author: User, body: dict[str, Any], *_: Any
    ) -> dict[str, Any]:
        if author.bot:
            self.replies[channel_id].popleft().set_result(time.perf_counter())
        bot = self.bots[channel_id]
        message = self.message_of_all | {
            "id": str(snowflake()),
            "channel_id": str(channel_id),
            "guild_id": str(bot.guilds[0].id),
            "author": author.payload(),
            "content": body["content"],
        }
        for connection in bot.live:
            await connection.session.dispatch(
                "MESSAGE_CREATE", message | {"nonce": body.get("nonce")}
            )
        return message

    async def travel(self) -> None:
        self.first_request_at = self.first_request_at or time.perf_counter()
        await super().travel()

    async def _count_ready(self, connection: Connection) -> bool:
        assert connection.session is not None
        self.up.add(connection.session.account.token)
        if len(self.up) == len(self.bots) and not self.ready_at:
            self.ready_at = time.perf_counter()
        return False

    async def _ping(self, channel_id: int) -> float:
        """Send one message. Returns the seconds from then until its reply comes in."""
        reply: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.replies[channel_id].append(reply)
        sent_at = time.perf_counter()
        await self.say("ping", channel_id=channel_id)
        return await reply - sent_at

    # --- the commands

    async def describe(self) -> dict[str, Any]:
        return {"url": self.url, "tokens": list(self.accounts)}

    async def starting(self) -> None:
        """The first process is about to be started. No pause of our own should show in the figures from here on."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self.started_at = time.perf_counter()

    async def ready(self) -> dict[str, float] | None:
        """The seconds until all bots were ready, or None as long as they are not."""
        if not self.ready_at:
            return None
        self.round_trip = 0  # the load measures what the bots do, not how they wait
        return {
            "start": self.ready_at - self.started_at,
            "connect": self.ready_at - self.first_request_at,
        }

    async def steady(self, rate: float, seconds: float) -> dict[str, float]:
        """Send messages at random moments, `rate` of them a second, to one bot after another."""
        loop = asyncio.get_running_loop()
        pings: list[asyncio.Task[float]] = []
        due = loop.time()
        end = due + seconds
        async with asyncio.timeout(seconds + REPLY_TIMEOUT):
            for channel_id in itertools.cycle(self.bots):
                due += random.expovariate(rate)
                if due > end and pings:
                    break
                await asyncio.sleep(due - loop.time())
                pings.append(asyncio.create_task(self._ping(channel_id)))
            return summary(await asyncio.gather(*pings))

    async def full(self, seconds: float) -> dict[str, float]:
        """Send every bot a message, and the next one as soon as it has answered."""
        latencies: list[float] = []
        start, cpu = time.perf_counter(), time.process_time()

        async def keep_busy(channel_id: int) -> None:
            while True:
                latencies.append(await self._ping(channel_id))
                if time.perf_counter() > start + seconds:
                    break

        async with asyncio.timeout(seconds + REPLY_TIMEOUT):
            await asyncio.gather(*map(keep_busy, self.bots))
        elapsed = time.perf_counter() - start
        return summary(latencies) | {
            "rate": len(latencies) / elapsed,
            "server": (time.process_time() - cpu) / elapsed * 100,
        }

    async def online(self) -> int:
        """How many bots people still see as online, after their processes have ended."""
        async with asyncio.timeout(CLOSE_TIMEOUT):
            while self.connections:
                await asyncio.sleep(0.01)
        return sum(account.online for account in self.accounts.values())


def summary(latencies: list[float]) -> dict[str, float]:
    """How many replies there were, and the median and the 99th percentile of their latency in ms."""
    ordered = sorted(latencies)
    count = len(ordered)
    return {
        "messages": count,
        "median": statistics.median(ordered) * 1000,
        "p99": ordered[math.ceil(count * 0.99) - 1] * 1000,
    }


async def serve(bots: int, members: int, round_trip: float, certificate: str) -> None:
    random.seed(bots)  # the same moments for every peer
    asyncio.sslproto.SSLProtocol.max_size = (
        16 * 1024
    )  # bytes a connection; asyncio's 256 KiB are for bulk data
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    async with BenchmarkDiscord(bots, members, round_trip=round_trip, tls=tls) as discord:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command, arguments = json.loads(line)
            try:
                answer = {"answer": await getattr(discord, command)(**arguments)}
            except TimeoutError:
                answer = {"failure": f"Its bots did not end this in time: {command}."}
            print(json.dumps(answer), flush=True)


def main() -> None:
    try:
        from uvloop import new_event_loop
    except ModuleNotFoundError:
        new_event_loop = None
    bots, members, round_trip, certificate = sys.argv[1:]
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve(int(bots), int(members), float(round_trip), certificate))


if __name__ == "__main__":
    main()
