"""A Discord of our own: REST API and gateway version 10 on a local port, made to fail in the ways Discord does.

    async with LocalDiscord() as discord:
        account = discord.add_bot("music")
        account.fail("identify", faults.close(4014))

`redirect.py` runs a script with discord.py pointed at it.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Self

from aiohttp import web

from . import faults
from .gateway import Connection
from .rest import Rest
from .world import INTENTS, Account, Faults, Guild, User, member_payload, snowflake

__all__ = ["Account", "Connection", "Guild", "LocalDiscord", "User", "faults"]


class LocalDiscord(Faults):
    """The server. `round_trip` is the time, in seconds, that each exchange takes beyond the machine's own."""

    def __init__(self, *, round_trip: float = 0.0, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.round_trip = round_trip
        self.tls = tls
        self.heartbeat_interval_ms = 41_250
        self.accounts: dict[str, Account] = {}
        self.guild = Guild("Test server")
        self.people = [User("Alex")]
        self.connections: list[Connection] = []
        self.opened = 0  # gateway connections so far
        self.deaf = False  # answers nothing at the gateway any more, not even a close
        self.requests: list[str] = []
        self.invalid_requests = 0  # answered with 401, 403 or 429: Discord allows 10,000 in 10 minutes
        self.interactions: dict[str, Account] = {}  # by the interaction's token
        self.port = 0
        self._runner: web.AppRunner | None = None

    # --- the server

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}/api/v10"

    @property
    def gateway_url(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://localhost:{self.port}/"

    async def start(self) -> None:
        """Listen; again on the same port after a stop."""
        app = web.Application()
        Rest(self).add_routes(app)
        app.router.add_get("/", self._gateway)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls, backlog=1024)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        action = self.next_action("upgrade")
        if action is not None and (response := await action(request)) is not None:
            self.count_invalid(response.status)
            return response  # type: ignore[no-any-return]
        try:
            return await Connection(self, request).run()
        except ConnectionError:
            return web.Response()  # the bot went away before it was connected

    async def stop(self) -> None:
        """Cut every connection and listen no more, as a network that goes away."""
        for connection in list(self.connections):
            await faults.drop()(connection)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def travel(self) -> None:
        """Take the time that a round trip takes."""
        if self.round_trip:
            await asyncio.sleep(self.round_trip)

    # --- who is there

    def add_bot(self, name: str, token: str = "", guilds: list[Guild] | None = None, **settings: Any) -> Account:
        """A new bot, in the one server that there is unless told otherwise."""
        guilds = [self.guild] if guilds is None else guilds
        account = Account(user=User(name, bot=True), token=token, guilds=guilds, **settings)
        self.accounts[account.token] = account
        return account

    def members(self, guild: Guild) -> list[Account]:
        return [account for account in self.accounts.values() if guild in account.guilds]

    def count_invalid(self, status: int) -> None:
        self.invalid_requests += status in (401, 403, 429)

    # --- messages

    def message(
        self, channel_id: int, author: User, content: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """A message object."""
        body = body or {}
        guild_id = self.guild_of(channel_id)
        message = {
            "id": str(snowflake()),
            "channel_id": str(channel_id),
            "author": author.payload(),
            "content": content,
            "timestamp": "2024-01-01T00:00:00.000000+00:00",
            "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False,
            "mentions": [],
            "mention_roles": [],
            "attachments": [],
            "embeds": body.get("embeds", []),
            "components": body.get("components", []),
            "pinned": False,
            "type": 0,
            "flags": 0,
        }
        if guild_id is not None:
            message["guild_id"] = str(guild_id)
            message["member"] = {key: value for key, value in member_payload(author).items() if key != "user"}
        if "message_reference" in body:
            message |= {"message_reference": body["message_reference"], "type": 19}
        return message

    def guild_of(self, channel_id: int) -> int | None:
        """The server that a channel is in, or None for a direct message's channel."""
        for account in self.accounts.values():
            for guild in account.guilds:
                if guild.channel_id == channel_id:
                    return guild.id
        return None

    async def say(self, content: str, author: User | None = None, channel_id: int | None = None) -> dict[str, Any]:
        """A person's message, which goes to every bot that hears it."""
        message = self.message(channel_id or self.guild.channel_id, author or self.people[0], content)
        await self.deliver(message)
        return message

    async def call(self, account: Account, command: str, author: User | None = None) -> None:
        """A person calls a bot's slash command, which has no options."""
        author = author or self.people[0]
        interaction = {
            "id": str(snowflake()),
            "application_id": str(account.user.id),
            "type": 2,
            "data": {"id": str(snowflake()), "name": command, "type": 1},
            "guild_id": str(self.guild.id),
            "channel": {"id": str(self.guild.channel_id), "type": 0, "name": "general", "permissions": "0"},
            "channel_id": str(self.guild.channel_id),
            "member": member_payload(author) | {"permissions": "0"},
            "token": f"interaction-{snowflake()}",
            "version": 1,
            "locale": "en-US",
            "entitlements": [],
            "authorizing_integration_owners": {},
            "context": 0,
            "attachment_size_limit": 10_485_760,
        }
        self.interactions[interaction["token"]] = account
        for connection in account.live:
            await connection.session.dispatch("INTERACTION_CREATE", interaction)

    async def deliver(self, message: dict[str, Any], nonce: Any = None) -> None:
        guild_id = int(message["guild_id"]) if "guild_id" in message else None
        for connection in list(self.connections):
            session = connection.session
            if session is None or session.connection is not connection or not connection.hears(guild_id):
                continue
            # Without the Message Content intent the text of others' messages in servers is empty.
            own = int(message["author"]["id"]) == session.account.user.id
            sees = own or guild_id is None or session.intents & INTENTS["message_content"]
            data = message if sees else message | {"content": "", "embeds": [], "components": []}
            await session.dispatch("MESSAGE_CREATE", data | ({"nonce": nonce} if nonce and own else {}))
