"""The local Discord's gateway, version 10: https://docs.discord.com/developers/events/gateway"""

from __future__ import annotations

import asyncio
import enum
import json
import secrets
import time
import zlib
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from .world import KNOWN_INTENTS, Account, Guild, Identify, Intents, Json, User

if TYPE_CHECKING:
    from . import LocalDiscord


class Op(enum.IntEnum):
    """What a message is about."""

    DISPATCH = 0
    HEARTBEAT = 1
    IDENTIFY = 2
    PRESENCE = 3
    VOICE_STATE = 4
    RESUME = 6
    RECONNECT = 7
    REQUEST_MEMBERS = 8
    INVALID_SESSION = 9
    HELLO = 10
    HEARTBEAT_ACK = 11


# Why a connection is closed:
# https://docs.discord.com/developers/topics/opcodes-and-status-codes#gateway-gateway-close-event-codes
UNKNOWN_ERROR = 4000
UNKNOWN_OPCODE = 4001
DECODE_ERROR = 4002
NOT_AUTHENTICATED = 4003
BAD_TOKEN = 4004
TWICE = 4005
BAD_SEQUENCE = 4007
TIMED_OUT = 4009
INVALID_SHARD = 4010
SHARDING_REQUIRED = 4011
INVALID_INTENTS = 4013
DISALLOWED_INTENTS = 4014

# The close codes that end a session; all the others leave it for a RESUME.
FINAL = {1000, BAD_TOKEN, BAD_SEQUENCE, TIMED_OUT}  # of Discord's; and all from INVALID_SHARD on
FINAL_OF_A_BOT = {1000, 1001}

HEARTBEAT_ACK_DELAY = 0.02  # seconds
HIDDEN = {"content": "", "embeds": [], "components": [], "attachments": []}


def compressor(kind: str | None) -> Any:
    """One stream for a connection; every message ends in a flush."""
    if kind == "zlib-stream":
        stream = zlib.compressobj()
        return lambda data: stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)
    if kind == "zstd-stream":
        return zstd_compressor()
    return None


def zstd_compressor() -> Any:
    """A zstd stream, by whichever of the two modules there is, as in discord.py."""
    try:
        from compression import zstd  # Python 3.14 and newer
    except ImportError:
        return old_zstd_compressor()
    stream = zstd.ZstdCompressor()
    return lambda data: stream.compress(data, stream.FLUSH_BLOCK)


def old_zstd_compressor() -> Any:
    import zstandard

    stream = zstandard.ZstdCompressor().compressobj()
    end_block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return lambda data: stream.compress(data) + stream.flush(end_block)


class Session:
    """What Discord knows of a bot's (or a shard's) session.

    It outlives its connection until it is ended.
    """

    def __init__(self, account: Account, shard: tuple[int, int] | None, intents: int) -> None:
        self.account = account
        self.shard = shard
        self.intents = intents
        self.id = secrets.token_hex(16)
        self.history: list[Json] = []
        self.connection: Connection | None = None
        self.ended = False
        self.is_ready = False

    @property
    def shards(self) -> int:
        """How many of them the bot has."""
        return 1 if self.shard is None else self.shard[1]

    def has_guild(self, guild_id: int) -> bool:
        """Whether events of this server (0: direct messages) go to this shard."""
        if self.shard is None:
            return True
        number, shards = self.shard
        return (guild_id >> 22) % shards == number

    def gets(self, intent: str, guild_id: int) -> bool:
        """Whether the events of an intent in this server (0: direct messages) come here."""
        return self.has_guild(guild_id) and bool(self.intents & Intents[intent])

    def hears(self, event: str, channel_id: int, direct: dict[int, tuple[Account, User]]) -> bool:
        """Whether this session gets such an event of that channel.

        The channel may be one of these direct messages.
        """
        kind = "message_reactions" if "REACTION" in event else "messages"
        if channel_id in direct:
            account, _ = direct[channel_id]
            return account is self.account and self.gets(f"direct_{kind}", 0)
        for guild in self.account.guilds:
            if guild.channel_id == channel_id:
                return self.gets(f"guild_{kind}", guild.id)
        return False

    def as_seen(self, data: Json) -> Json:
        """What the data of an event is for this session.

        Without the Message Content intent, the text of others' messages in servers is empty.
        """
        if "content" not in data or "guild_id" not in data:
            return data
        bot_id = str(self.account.user.id)
        concerned = [user["id"] for user in (data["author"], *data["mentions"])]
        if bot_id in concerned or self.intents & Intents.message_content:
            return data
        return data | HIDDEN

    def refusal(self) -> int | None:
        """The close code where Discord does not take the IDENTIFY that asks for this session."""
        account, intents = self.account, self.intents
        if self.shard is not None and not 0 <= self.shard[0] < self.shards:
            return INVALID_SHARD
        if account.sharding_required and self.shards < account.shards:
            return SHARDING_REQUIRED
        if intents & ~KNOWN_INTENTS:
            return INVALID_INTENTS
        if not account.allows(intents):
            return DISALLOWED_INTENTS
        return None

    async def dispatch(self, event: str, data: Any) -> None:
        """Send an event, and keep it for a RESUME."""
        number = len(self.history) + 1
        payload = {"op": Op.DISPATCH, "t": event, "s": number, "d": data}
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
        self.compress = compressor(request.query.get("compress"))
        self.closed_by_us = False

    @property
    def transport(self) -> asyncio.Transport | None:
        return self.request.transport

    async def send(self, payload: Json) -> None:
        text = json.dumps(payload)
        try:
            if self.compress is None:
                await self.ws.send_str(text)
            else:
                await self.ws.send_bytes(self.compress(text.encode()))
        except ConnectionError:
            pass  # the bot has gone; run() notices

    async def close(self, code: int, *, hang_up: bool = False) -> None:
        """Close from Discord's side. The session stays resumable after most of its close codes.

        To hang up is not to wait for the bot's own close frame.
        """
        self.closed_by_us = True
        session = self.session
        if session is not None:
            session.connection = None
            session.ended = session.ended or code in FINAL or code >= INVALID_SHARD
        if not hang_up or self.transport is None:
            await self.ws.close(code=code)
            return
        closing = asyncio.create_task(self.ws.close(code=code))
        await asyncio.sleep(0)  # its frame is written
        self.transport.close()
        await closing

    async def run(self) -> web.StreamResponse:
        discord = self.discord
        await discord.travel()
        await self.ws.prepare(self.request)
        discord.connections.append(self)
        discord.opened += 1
        try:
            if not await self.fault("connect"):
                await self._listen()
            if discord.deaf:
                await asyncio.sleep(3600)
            await self.ws.close()
        finally:
            discord.connections.remove(self)
            self._leave_session()
        return self.ws

    async def _listen(self) -> None:
        await self.discord.travel()
        interval = {"heartbeat_interval": self.discord.heartbeat_interval_ms}
        await self.send({"op": Op.HELLO, "d": interval})
        async for message in self.ws:
            if message.type is aiohttp.WSMsgType.TEXT:
                await self._receive(message.data)

    def _leave_session(self) -> None:
        """The connection is over. The session waits for a RESUME, unless the bot has ended it."""
        session = self.session
        if session is None:
            return
        if not self.closed_by_us:
            code = self.ws.close_code
            session.account.client_closes.append(code)
            session.ended = session.ended or code in FINAL_OF_A_BOT
        if session.connection is self:
            session.connection = None

    async def _receive(self, text: str) -> None:
        try:
            payload = json.loads(text)
            op, data = payload["op"], payload["d"]
        except (ValueError, TypeError, KeyError):
            await self.close(DECODE_ERROR)
            return
        match op:
            case Op.HEARTBEAT:
                await self._acknowledge()
            case Op.IDENTIFY:
                await self.discord.travel()
                await self._identify(data)
            case Op.RESUME:
                await self.discord.travel()
                await self._resume(data)
            case _ if self.session is None:
                await self.close(NOT_AUTHENTICATED)
            case Op.REQUEST_MEMBERS:
                await self._send_members(self.session, data)
            case Op.PRESENCE | Op.VOICE_STATE:
                self.session.account.updates.append(payload)
            case _:
                await self.close(UNKNOWN_OPCODE)

    async def _acknowledge(self) -> None:
        # discord.py notes the time of a heartbeat after it has been sent: the ACK must not be
        # faster than that.
        await asyncio.sleep(HEARTBEAT_ACK_DELAY)
        if not await self.fault("heartbeat"):
            await self.send({"op": Op.HEARTBEAT_ACK, "d": None})

    async def _find_account(self, token: str) -> Account | None:
        """The bot of this token. The connection is closed if there is none."""
        account = self.discord.accounts.get(token)
        if account is None or account.token_reset:
            await self.close(BAD_TOKEN)
            return None
        return account

    async def _identify(self, data: Json) -> None:
        if self.session is not None:
            return await self.close(TWICE)
        account = await self._find_account(data["token"])
        if account is None:
            return
        shard = tuple(data["shard"]) if "shard" in data else None
        session = Session(account, shard, data["intents"])
        account.identifies.append(Identify(time.monotonic(), shard, session.intents))
        self.session = session
        if await self.fault("identify"):
            return
        refusal = session.refusal()
        if refusal is not None:
            return await self.close(refusal)
        session.connection = self
        account.sessions[session.id] = session
        await self._start(session)
        await self.fault("ready")

    async def _start(self, session: Session) -> None:
        account = session.account
        guilds = [guild for guild in account.guilds if session.has_guild(guild.id)]
        ready: Json = {"v": 10, "user": account.user.payload(), "session_id": session.id}
        ready["guilds"] = [{"id": str(guild.id), "unavailable": True} for guild in guilds]
        ready["resume_gateway_url"] = self.discord.gateway_url
        application = account.application()
        ready["application"] = {"id": application["id"], "flags": application["flags"]}
        if session.shard is not None:
            ready["shard"] = session.shard
        await session.dispatch("READY", ready)
        session.is_ready = True
        for guild in guilds:
            await session.dispatch("GUILD_CREATE", self._payload_of(guild))

    def _payload_of(self, guild: Guild) -> Json:
        bots = [account.user for account in self.discord.members(guild)]
        return guild.payload(self.discord.people + bots)

    async def _resume(self, data: Json) -> None:
        account = await self._find_account(data["token"])
        if account is None:
            return
        account.resumes.append(time.monotonic())
        session = account.sessions.get(data["session_id"])
        self.session = session
        if await self.fault("resume", account):
            return
        if session is None or session.ended:
            self.session = None
            return await self.send({"op": Op.INVALID_SESSION, "d": False})
        received = data["seq"] or 0
        if not 0 <= received <= len(session.history):
            return await self.close(BAD_SEQUENCE)
        if session.connection is not None:
            await session.connection.close(UNKNOWN_ERROR)
        session.connection = self
        for payload in session.history[received:]:
            await self.send(payload)
        await session.dispatch("RESUMED", {})

    async def _send_members(self, session: Session, data: Json) -> None:
        """The one chunk that a small server needs."""
        for guild in session.account.guilds:
            if str(guild.id) == str(data["guild_id"]):
                chunk = {"chunk_index": 0, "chunk_count": 1, "nonce": data.get("nonce")}
                chunk["guild_id"] = str(guild.id)
                chunk["members"] = self._payload_of(guild)["members"]
                await session.dispatch("GUILD_MEMBERS_CHUNK", chunk)

    async def fault(self, moment: str, account: Account | None = None) -> bool:
        """Take the scripted action of this moment. Whether it dealt with the moment."""
        if account is None and self.session is not None:
            account = self.session.account
        for faults in (account, self.discord):
            action = None if faults is None else faults.next_action(moment)
            if action is not None and await action(self):
                return True
        return False
