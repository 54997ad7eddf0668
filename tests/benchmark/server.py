"""The benchmark's local Discord, in a process of its own, so that it does not slow the bots down.

It takes commands: the methods below that line, see `commands.py`.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import collections
import dataclasses
import gc
import itertools
import math
import random
import ssl
import statistics
import sys
import time
from typing import Any

from ..local_discord import Account, Connection, Guild, LocalDiscord, User
from ..local_discord.world import Json, snowflake
from . import commands

REPLY_TIMEOUT = 30  # seconds after the end of a load; then replies are lost
CLOSE_TIMEOUT = 10  # seconds until the connections of processes that have ended are closed
# After an outage, in seconds: how often we look, when a bot that did not answer is asked again, and
# how long all the answers may take once every bot has given one.
LOOK_EVERY = 0.02
ASK_AGAIN = 5
LAST_ANSWERS = 3


@dataclasses.dataclass
class Chat:
    """A bot and the channel of its server, in which it is alone with people who write."""

    account: Account
    guild: Guild
    said: int = 0
    answered: int = 0
    asked_at: float = -math.inf
    answered_at: float = -math.inf
    waiting: collections.deque[asyncio.Future[float]] = dataclasses.field(
        default_factory=collections.deque
    )

    def take_answer(self) -> None:
        self.answered += 1
        self.answered_at = time.perf_counter()
        if self.waiting:
            self.waiting.popleft().set_result(self.answered_at)

    def is_due(self, outage_ended: float) -> bool:
        """Whether to ask the bot now, which has not answered since the outage."""
        if self.asked_at < outage_ended:
            return True
        return time.perf_counter() > self.asked_at + ASK_AGAIN

    @property
    def missed(self) -> int:
        return max(0, self.said - self.answered)

    def back_after(self, outage_ended: float) -> float:
        """The seconds from the outage to the first answer."""
        if self.answered_at < outage_ended:
            return math.inf
        return self.answered_at - outage_ended


class BenchmarkDiscord(LocalDiscord):
    """A local Discord with a server for each bot. It measures how they start and answer."""

    def __init__(self, bots: int, members: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.people = [User(f"member{number}") for number in range(members)]
        self.chats: dict[int, Chat] = {}  # by the channel
        for number in range(1, bots + 1):
            guild = Guild(f"Server {number}")
            account = self.add_bot(f"bot{number}", guilds=[guild])
            self.chats[guild.channel_id] = Chat(account, guild)
        # What all messages have in common.
        some_channel = next(iter(self.chats))
        self.message_of_all = self.message(some_channel, self.people[0], {}, [])
        self.up: set[str] = set()  # the tokens of the bots that got their READY and their server
        self.started_at = self.first_request_at = self.ready_at = 0.0
        self.identifies_before = self.resumes_before = 0
        self.fail("ready", self._count_ready)  # no fault, but the moment after everything was sent

    # With a thousand bots, looking for the one that is meant would be most of the work.

    def members(self, guild: Guild) -> list[Account]:
        return [self.chats[guild.channel_id].account]

    def guild_of(self, channel_id: int) -> Guild | None:
        return self.chats[channel_id].guild

    async def post(self, channel_id: int, author: User, body: Json, *_: Any) -> Json:
        chat = self.chats[channel_id]
        if author.bot:
            chat.take_answer()
        message = dict(self.message_of_all)
        message["id"] = str(snowflake())
        message["channel_id"] = str(channel_id)
        message["guild_id"] = str(chat.guild.id)
        message["author"] = author.payload()
        message["content"] = body["content"]
        seen = message | {"nonce": body.get("nonce")}
        for session in list(chat.account.sessions.values()):
            # One without a connection gets it at its RESUME.
            if session.is_ready and not session.ended:
                await session.dispatch("MESSAGE_CREATE", seen)
        return message

    async def travel(self) -> None:
        self.first_request_at = self.first_request_at or time.perf_counter()
        await super().travel()

    async def _count_ready(self, connection: Connection) -> bool:
        assert connection.session is not None
        self.up.add(connection.session.account.token)
        is_complete = len(self.up) == len(self.chats)
        if is_complete and not self.ready_at:
            self.ready_at = time.perf_counter()
        return False

    async def _say_ping(self, channel_id: int) -> None:
        chat = self.chats[channel_id]
        chat.said += 1
        chat.asked_at = time.perf_counter()
        await self.say("ping", channel_id=channel_id)

    async def _ping(self, channel_id: int) -> float:
        """Send one message. Returns the seconds from then until its reply comes in."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[float] = loop.create_future()
        self.chats[channel_id].waiting.append(reply)
        sent_at = time.perf_counter()
        await self._say_ping(channel_id)
        return await reply - sent_at

    # --- the commands

    async def describe(self, port: int) -> dict[str, Any]:
        """Where the bots find it, and their tokens. `port` is where it says that it is."""
        self.port = port
        return {"url": self.url, "tokens": list(self.accounts)}

    async def own_port(self) -> int:
        return self.port

    async def starting(self) -> None:
        """The first process is about to start. No pause of our own should show from here on."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self.started_at = time.perf_counter()

    async def ready(self) -> dict[str, float] | None:
        """The seconds until all bots were ready, or None as long as they are not."""
        if not self.ready_at:
            return None
        self.round_trip = 0  # the load measures what the bots do, not how they wait
        since_start = self.ready_at - self.started_at
        since_request = self.ready_at - self.first_request_at
        return {"start": since_start, "connect": since_request}

    async def steady(self, rate: float, seconds: float) -> dict[str, float]:
        """Send messages at random moments, `rate` of them a second, to one bot after another."""
        pings: list[asyncio.Task[float]] = []
        async with asyncio.timeout(seconds + REPLY_TIMEOUT):
            async for channel_id in self._at_random(rate, seconds):
                ping = asyncio.create_task(self._ping(channel_id))
                pings.append(ping)
            latencies = await asyncio.gather(*pings)
        return summary(latencies)

    async def _at_random(self, rate: float, seconds: float) -> Any:
        """The next bot's channel at each random moment; at least one."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        end = due + seconds
        is_first = True
        for channel_id in itertools.cycle(self.chats):
            due += random.expovariate(rate)
            if due > end and not is_first:
                break
            await asyncio.sleep(due - loop.time())
            yield channel_id
            is_first = False
        await asyncio.sleep(end - loop.time())

    async def full(self, seconds: float, at_least: int = 1) -> dict[str, float]:
        """Send every bot a message, and the next one as soon as it has answered."""
        latencies: list[float] = []
        began = time.perf_counter()
        end = began + seconds
        cpu_before = time.process_time()

        async def keep_busy(channel_id: int) -> None:
            for number in itertools.count(1):
                latencies.append(await self._ping(channel_id))
                if number >= at_least and time.perf_counter() > end:
                    break

        timeout = seconds + REPLY_TIMEOUT + at_least / 10
        async with asyncio.timeout(timeout):
            await asyncio.gather(*map(keep_busy, self.chats))
        elapsed = time.perf_counter() - began
        cpu = time.process_time() - cpu_before
        figures = summary(latencies)
        figures["rate"] = len(latencies) / elapsed
        figures["server"] = cpu / elapsed * 100
        return figures

    async def online(self) -> int:
        """How many bots people still see as online, after their processes have ended."""
        async with asyncio.timeout(CLOSE_TIMEOUT):
            while self.connections:
                await asyncio.sleep(0.01)
        return sum(account.online for account in self.accounts.values())

    async def outage(self, rate: float, seconds: float) -> None:
        """The link has just been cut. People write all the same."""
        for chat in self.chats.values():
            chat.said = chat.answered = 0
        self.identifies_before, self.resumes_before = self._sessions_begun()
        async for channel_id in self._at_random(rate, seconds):
            await self._say_ping(channel_id)

    async def back(self, limit: float) -> dict[str, float]:
        """The link works again: wait until every bot has answered, `limit` seconds at most.

        A bot that is connected again is asked at once, and what it missed in the outage may come
        with its RESUME: whichever it answers first counts.
        """
        began = time.perf_counter()
        deadline = began + limit
        while self._away(began) and time.perf_counter() < deadline:
            for chat in self._away(began):
                if chat.account.ready and chat.is_due(began):
                    await self._say_ping(chat.guild.channel_id)
            await asyncio.sleep(LOOK_EVERY)
        if not self._away(began):
            await self._wait_for_last_answers()
        return self._outage_figures(began)

    async def _wait_for_last_answers(self) -> None:
        deadline = time.perf_counter() + LAST_ANSWERS
        while self._missed() and time.perf_counter() < deadline:
            await asyncio.sleep(LOOK_EVERY)

    def _away(self, outage_ended: float) -> list[Chat]:
        """The bots that have not answered since the outage."""
        chats = self.chats.values()
        return [chat for chat in chats if chat.answered_at < outage_ended]

    def _missed(self) -> int:
        """How many messages no bot has answered, since the outage began."""
        missed = 0
        for chat in self.chats.values():
            missed += chat.missed
        return missed

    def _sessions_begun(self) -> tuple[int, int]:
        """How many IDENTIFYs and RESUMEs there were so far."""
        identifies = resumes = 0
        for account in self.accounts.values():
            identifies += len(account.identifies)
            resumes += len(account.resumes)
        return identifies, resumes

    def _outage_figures(self, outage_ended: float) -> dict[str, float]:
        chats = self.chats.values()
        seconds = sorted(chat.back_after(outage_ended) for chat in chats)
        middle = (len(seconds) - 1) // 2
        figures = {"half": seconds[middle], "all": seconds[-1]}
        figures["away"] = seconds.count(math.inf)
        identifies, resumes = self._sessions_begun()
        figures["identifies"] = identifies - self.identifies_before
        figures["resumes"] = resumes - self.resumes_before
        figures["said"] = sum(chat.said for chat in chats)
        figures["missed"] = self._missed()
        return figures


def summary(latencies: list[float]) -> dict[str, float]:
    """How many replies there were, and the median and 99th percentile of their latency in ms."""
    in_ms = sorted(latency * 1000 for latency in latencies)
    count = len(in_ms)
    last = math.ceil(count * 0.99) - 1
    median = statistics.median(in_ms)
    return {"messages": count, "median": median, "p99": in_ms[last]}


async def serve(bots: int, members: int, round_trip: float, certificate: str) -> None:
    random.seed(bots)  # the same moments for every peer
    # Bytes a connection; asyncio's 256 KiB are for bulk data.
    asyncio.sslproto.SSLProtocol.max_size = 16 * 1024
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    async with BenchmarkDiscord(bots, members, round_trip=round_trip, tls=tls) as discord:
        await commands.obey(discord)


def main() -> None:
    bots, members, round_trip, certificate = sys.argv[1:]
    serving = serve(int(bots), int(members), float(round_trip), certificate)
    commands.run(serving)


if __name__ == "__main__":
    main()
