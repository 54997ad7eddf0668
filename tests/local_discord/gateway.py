"""The local Discord's gateway, version 10: https://docs.discord.com/developers/events/gateway"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import zlib
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from .world import INTENTS, KNOWN_INTENTS, Account, Identify, User

if TYPE_CHECKING:
    from . import LocalDiscord

DISPATCH, HEARTBEAT, IDENTIFY, PRESENCE, VOICE_STATE, RESUME, RECONNECT, REQUEST_MEMBERS = (
    0,
    1,
    2,
    3,
    4,
    6,
    7,
    8,
)
INVALID_SESSION, HELLO, HEARTBEAT_ACK = 9, 10, 11
# https://docs.discord.com/developers/topics/opcodes-and-status-codes#gateway-gateway-close-event-codes
UNKNOWN_OPCODE, DECODE_ERROR, NOT_AUTHENTICATED, BAD_TOKEN, TWICE, BAD_SEQUENCE, TIMED_OUT = (
    4001, 4002, 4003, 4004, 4005, 4007, 4009,
)  # fmt: skip
INVALID_SHARD, SHARDING_REQUIRED, INVALID_INTENTS, DISALLOWED_INTENTS = 4010, 4011, 4013, 4014


def zstd_compressor() -> Any:
    """A zstd stream, by whichever of the two modules there is, as in discord.py."""
    try:
        from compression import zstd  # Python 3.14 and newer
    except ImportError:
        import zstandard

        old_stream = zstandard.ZstdCompressor().compressobj()
        return lambda data: (
            old_stream.compress(data) + old_stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        )
    stream = zstd.ZstdCompressor()
    return lambda data: stream.compress(data, stream.FLUSH_BLOCK)


class Session:
    """What Discord knows of a bot's (or a shard's) session; it outlives its connection until it is ended."""

    def __init__(self, account: Account, shard: tuple[int, int] | None, intents: int) -> None:
        self.account = account
        self.shard = shard
        self.intents = intents
        self.id = secrets.token_hex(16)
        self.history: list[dict[str, Any]] = []
        self.connection: Connection | None = None
        self.ended = False
        self.is_ready = False

    def has_guild(self, guild_id: int) -> bool:
        """Whether events of this server (0: direct messages) go to this shard."""
        return self.shard is None or (guild_id >> 22) % self.shard[1] == self.shard[0]

    def hears(self, event: str, channel_id: int, direct: dict[int, tuple[Account, User]]) -> bool:
        """Whether this session gets such an event of that channel, which may be one of these direct messages."""
        kind = "message_reactions" if "REACTION" in event else "messages"
        if channel_id in direct:
            account, _ = direct[channel_id]
            return (
                account is self.account
                and self.has_guild(0)
                and bool(self.intents & INTENTS[f"direct_{kind}"])
            )
        guild = next(
            (guild for guild in self.account.guilds if guild.channel_id == channel_id), None
        )
        return (
            guild is not None
            and self.has_guild(guild.id)
            and bool(self.intents & INTENTS[f"guild_{kind}"])
        )

    async def dispatch(self, event: str, data: Any) -> None:
        """Send an event, and keep it for a RESUME."""
        payload = {"op": DISPATCH, "t": event, "s": len(self.history) + 1, "d": data}
        self.history.append(payload)
        if self.connection is not None:
            await self.connection.send(payload)


class Connection:
    """One WebSocket connection of a bot."""

    def __init__(self, discord: LocalDiscord, request: web.Request) -> None:
        self.discord = discord
        self.request = request
        self.ws = web.WebSocketResponse(max_msg_size=0, autoclose=False)
        self.session: Session | None = None
        self.compress = self._compressor(request.query.get("compress"))
        self.closed_by_us = False

    @staticmethod
    def _compressor(kind: str | None) -> Any:
        """One stream a connection; every message ends in a flush."""
        if kind == "zlib-stream":
            zlib_stream = zlib.compressobj()
            return lambda data: zlib_stream.compress(data) + zlib_stream.flush(zlib.Z_SYNC_FLUSH)
        if kind == "zstd-stream":
            return zstd_compressor()
        return None

    @property
    def transport(self) -> asyncio.Transport | None:
        return self.request.transport

    async def send(self, payload: dict[str, Any]) -> None:
        text = json.dumps(payload)
        try:
            if self.compress is None:
                await self.ws.send_str(text)
            else:
                await self.ws.send_bytes(self.compress(text.encode()))
        except ConnectionError:
            pass  # the bot has gone; run() notices

    async def close(self, code: int, *, hang_up: bool = False) -> None:
        """Close from Discord's side. The session stays resumable, as after most of Discord's close codes.

        To hang up is not to wait for the bot's own close frame.
        """
        self.closed_by_us = True
        if self.session is not None:
            self.session.connection = None
            if code in (1000, BAD_TOKEN, BAD_SEQUENCE, TIMED_OUT) or code >= INVALID_SHARD:
                self.session.ended = True
        if hang_up and self.transport is not None:
            closing = asyncio.create_task(self.ws.close(code=code))
            await asyncio.sleep(0)  # its frame is written
            self.transport.close()
            await closing
        else:
            await self.ws.close(code=code)

    async def run(self) -> web.StreamResponse:
        await self.discord.travel()
        await self.ws.prepare(self.request)
        self.discord.connections.append(self)
        self.discord.opened += 1
        try:
            if not await self.fault("connect"):
                await self.discord.travel()
                await self.send(
                    {"op": HELLO, "d": {"heartbeat_interval": self.discord.heartbeat_interval_ms}}
                )
                async for message in self.ws:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        await self.receive(message.data)
            if self.discord.deaf:
                await asyncio.sleep(3600)
            await self.ws.close()
        finally:
            self.discord.connections.remove(self)
            session = self.session
            if session is not None and not self.closed_by_us:
                code = self.ws.close_code
                session.account.client_closes.append(code)
                # Closed by the bot with 1000 or 1001, the session is over and the bot offline; after anything
                # else it waits for a RESUME.
                session.ended = session.ended or code in (1000, 1001)
            if session is not None and session.connection is self:
                session.connection = None
        return self.ws

    async def receive(self, text: str) -> None:
        try:
            payload = json.loads(text)
            op, data = payload["op"], payload["d"]
        except (ValueError, TypeError, KeyError):
            await self.close(DECODE_ERROR)
            return
        if op == HEARTBEAT:
            # discord.py notes the time of a heartbeat after it has been sent: the ACK must not be faster than that.
            await asyncio.sleep(0.02)
            if not await self.fault("heartbeat"):
                await self.send({"op": HEARTBEAT_ACK, "d": None})
        elif op == IDENTIFY:
            await self.discord.travel()
            await self.identify(data)
        elif op == RESUME:
            await self.discord.travel()
            await self.resume(data)
        elif self.session is None:
            await self.close(NOT_AUTHENTICATED)
        elif op == REQUEST_MEMBERS:
            await self.request_members(data)
        elif op in (PRESENCE, VOICE_STATE):
            self.session.account.updates.append(payload)
        else:
            await self.close(UNKNOWN_OPCODE)

    async def identify(self, data: dict[str, Any]) -> None:
        if self.session is not None:
            return await self.close(TWICE)
        account = self.discord.accounts.get(data["token"])
        if account is None or account.token_reset:
            return await self.close(BAD_TOKEN)
        shard = tuple(data["shard"]) if "shard" in data else None
        intents = data["intents"]
        account.identifies.append(Identify(time.monotonic(), shard, intents))
        self.session = Session(account, shard, intents)
        if await self.fault("identify"):
            return None
        refusal = self._refusal(account, shard, intents)
        if refusal is not None:
            return await self.close(refusal)
        self.session.connection = self
        account.sessions[self.session.id] = self.session
        guilds = [guild for guild in account.guilds if self.session.has_guild(guild.id)]
        ready = {
            "v": 10,
            "user": account.user.payload(),
            "guilds": [{"id": str(guild.id), "unavailable": True} for guild in guilds],
            "session_id": self.session.id,
            "resume_gateway_url": self.discord.gateway_url,
            "application": {"id": str(account.user.id), "flags": account.application()["flags"]},
        }
        if shard is not None:
            ready["shard"] = list(shard)
        await self.session.dispatch("READY", ready)
        self.session.is_ready = True
        for guild in guilds:
            members = [*self.discord.people, *(other.user for other in self.discord.members(guild))]
            await self.session.dispatch("GUILD_CREATE", guild.payload(members))
        await self.fault("ready")
        return None

    @staticmethod
    def _refusal(account: Account, shard: tuple[int, ...] | None, intents: int) -> int | None:
        """The close code for an IDENTIFY that Discord does not take, or None."""
        if shard is not None and not 0 <= shard[0] < shard[1]:
            return INVALID_SHARD
        if account.sharding_required and (shard or (0, 1))[1] < account.shards:
            return SHARDING_REQUIRED
        if intents & ~KNOWN_INTENTS:
            return INVALID_INTENTS
        if not account.allows(intents):
            return DISALLOWED_INTENTS
        return None

    async def resume(self, data: dict[str, Any]) -> None:
        account = self.discord.accounts.get(data["token"])
        if account is None or account.token_reset:
            return await self.close(BAD_TOKEN)
        account.resumes.append(time.monotonic())
        session = account.sessions.get(data["session_id"])
        self.session = session
        if await self.fault("resume", account):
            return None
        if session is None or session.ended:
            self.session = None
            return await self.send({"op": INVALID_SESSION, "d": False})
        if not 0 <= (data["seq"] or 0) <= len(session.history):
            return await self.close(BAD_SEQUENCE)
        if session.connection is not None:
            await session.connection.close(4000)
        session.connection = self
        for payload in session.history[data["seq"] or 0 :]:
            await self.send(payload)
        await session.dispatch("RESUMED", {})
        return None

    async def request_members(self, data: dict[str, Any]) -> None:
        """Opcode 8: the one chunk that a small server needs."""
        assert self.session is not None
        guild_id = int(data["guild_id"])
        for guild in self.session.account.guilds:
            if guild.id == guild_id:
                users = [
                    *self.discord.people,
                    *(other.user for other in self.discord.members(guild)),
                ]
                members = guild.payload(users)["members"]
                chunk = {
                    "guild_id": str(guild_id),
                    "members": members,
                    "chunk_index": 0,
                    "chunk_count": 1,
                }
                await self.session.dispatch(
                    "GUILD_MEMBERS_CHUNK", chunk | {"nonce": data.get("nonce")}
                )

    async def fault(self, moment: str, account: Account | None = None) -> bool:
        """Take the scripted action of this moment. Whether it dealt with the moment."""
        account = account or (self.session.account if self.session else None)
        for faults in (account, self.discord):
            action = faults.next_action(moment) if faults is not None else None
            if action is not None and await action(self):
                return True
        return False
