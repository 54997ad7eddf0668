"""A link with a round trip, in front of the local Discord, in a process of its own.

python -m tests.benchmark.link PORT ROUND_TRIP, with the port behind it, and seconds

What a bot or the local Discord sends arrives half a round trip later, in order. So a handshake, of
TLS too, takes the round trips that it has. There is no limit of how much goes through, and to look
a name up takes no time. A command cuts the link, another one restores it.
"""

from __future__ import annotations

import asyncio
import collections
import sys

from . import commands

RESOLUTION = 0.001  # seconds; a timer of asyncio may be early by this
# When a machine sends a SYN again that nobody answers, in seconds after the first. So does Linux.
SYN_AGAIN = (1, 3, 7, 15, 31, 63, 127)


class End(asyncio.Protocol):
    """One of a connection's two ends. What comes in here, the other end sends later."""

    transport: asyncio.Transport
    other: End

    def __init__(self, link: Link) -> None:
        self.link = link
        self.loop = asyncio.get_running_loop()
        self.open_from = 0.0  # by the loop's clock
        self.is_dead = False  # cut, and its own side was not told
        self.on_the_way: collections.deque[tuple[float, bytes]] = collections.deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.is_dead:
            self.pass_on(data)
        elif not self.link.is_cut:
            # Whoever gets a packet of a connection that is over answers with a reset.
            self.transport.abort()

    def eof_received(self) -> bool:
        """Returns whether to leave this end open: what is on its way to it still arrives."""
        self.pass_on(b"")
        return not self.is_dead

    def connection_lost(self, error: Exception | None) -> None:
        self.pass_on(b"")

    def pass_on(self, data: bytes) -> None:
        """Let the other end send this half a round trip later. No data is the end."""
        leaves_at = max(self.loop.time(), self.open_from)
        arrives_at = leaves_at + self.link.round_trip / 2
        self.on_the_way.append((arrives_at, data))
        if len(self.on_the_way) == 1:
            self.loop.call_at(arrives_at, self.deliver)

    def deliver(self) -> None:
        """Let the other end send what has arrived."""
        now = self.loop.time() + RESOLUTION
        while self.on_the_way and self.on_the_way[0][0] <= now:
            _, data = self.on_the_way.popleft()
            self.other.send(data)
        if self.on_the_way:
            self.loop.call_at(self.on_the_way[0][0], self.deliver)

    def send(self, data: bytes) -> None:
        if self.is_dead or self.transport.is_closing():
            return
        if data:
            self.transport.write(data)
        else:
            self.transport.close()


class BotsEnd(End):
    """The end of a connection that a bot has opened."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Not at once: an old asyncio (seen with 3.11.2) begins to read after this method.
        self.loop.call_soon(self.transport.pause_reading)
        self.began_at = self.loop.time()
        if self.link.is_cut:
            self.link.waiting.append(self)
        else:
            self.open()

    def open(self) -> None:
        # A connection to a port of this machine is there at once. Over a link TCP's handshake takes
        # a round trip, so the first thing that the bot sends is held back by one.
        self.open_from = self.loop.time() + self.link.round_trip
        self.opening = self.loop.create_task(self.open_other())

    async def open_other(self) -> None:
        self.other = End(self.link)
        self.other.other = self
        try:
            await self.loop.create_connection(lambda: self.other, "127.0.0.1", self.link.behind)
        except OSError:
            self.transport.abort()
            return
        if self.link.is_cut:  # just now
            self.other.transport.abort()
            self.transport.abort()
            return
        self.link.opened += 1
        self.link.ends.add(self)
        self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self in self.link.ends:
            self.link.ends.remove(self)
            super().connection_lost(error)

    def cut(self, *, silently: bool) -> None:
        """End the local Discord's side, and the bot's too, or do not tell it."""
        self.is_dead = True
        self.other.transport.abort()
        if not silently:
            self.transport.abort()

    def open_when_sent_again(self) -> None:
        """Open it when the bot's machine, which had no answer yet, asks again."""
        waited = self.loop.time() - self.began_at
        again = next(seconds for seconds in SYN_AGAIN if seconds > waited)
        self.loop.call_later(again - waited, self.open)


class Link:
    """The forwarder: a port for the bots, and the local Discord behind it."""

    def __init__(self, behind: int, round_trip: float) -> None:
        self.behind = behind
        self.round_trip = round_trip
        self.port = 0
        self.opened = 0  # connections so far
        self.is_cut = False
        self.ends: set[BotsEnd] = set()
        self.waiting: list[BotsEnd] = []  # for an answer, since the link is cut
        self.server: asyncio.Server | None = None

    # --- the commands

    async def listen(self) -> int:
        """Returns the port."""
        loop = asyncio.get_running_loop()
        if self.server is None:
            self.server = await loop.create_server(
                lambda: BotsEnd(self), "127.0.0.1", self.port, backlog=1024
            )
        self.port = self.server.sockets[0].getsockname()[1]
        return self.port

    async def count(self) -> int:
        return self.opened

    async def cut(self, silently: bool) -> None:
        """Let nothing through any more.

        Connections end, and new ones are refused. Silently: nothing that is sent arrives, nobody is
        told, and a new connection gets no answer.
        """
        self.is_cut = True
        for end in list(self.ends):
            end.cut(silently=silently)
        if self.server is not None and not silently:
            self.server.close()
            self.server = None

    async def restore(self) -> None:
        """Let new connections through. Those that were cut are over."""
        self.is_cut = False
        await self.listen()
        for end in self.waiting:
            end.open_when_sent_again()
        self.waiting.clear()


async def serve(behind: int, round_trip: float) -> None:
    await commands.obey(Link(behind, round_trip))


if __name__ == "__main__":
    commands.run(serve(int(sys.argv[1]), float(sys.argv[2])))
