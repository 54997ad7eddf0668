"""A Discord of our own: REST API and gateway version 10 on a local port, made to fail in the ways Discord does.

    async with LocalDiscord() as discord:
        account = discord.add_bot("music")
        account.fail("identify", faults.close(4014))

`redirect.py` runs a script with discord.py pointed at it.
"""

from __future__ import annotations

import asyncio
import copy
import datetime
import ssl
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

from . import faults
from .gateway import Connection, Session
from .interactions import (
    COMMAND,
    COMPONENT,
    EPHEMERAL,
    FILE_SIZE_LIMIT,
    LOADING,
    SUBMITTED_FORM,
    TEXT_INPUT,
    Interaction,
    parts_of,
)
from .rest import Rest
from .world import (
    EVERYONE,
    INTENTS,
    Account,
    Faults,
    Guild,
    User,
    emoji_payload,
    member_payload,
    snowflake,
)

__all__ = ["Account", "Connection", "Guild", "Interaction", "LocalDiscord", "User", "faults"]


class LocalDiscord(Faults):
    """The server. `round_trip` is the time, in seconds, that each exchange takes beyond the machine's own."""

    def __init__(self, *, round_trip: float = 0.0, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.round_trip = round_trip
        self.tls = tls
        self.heartbeat_interval_ms = 41_250
        self.accounts: dict[str, Account] = {}
        self.people = [User("Alex")]
        self.guild = Guild("Test server", owner=self.people[0])
        self.connections: list[Connection] = []
        self.opened = 0  # gateway connections so far
        self.deaf = False  # answers nothing at the gateway any more, not even a close
        self.requests: list[str] = []
        self.rest_connections: set[Any] = set()  # over which requests came, so far
        self.invalid_requests = (
            0  # answered with 401, 403 or 429: Discord allows 10,000 in 10 minutes
        )
        self.messages: dict[str, dict[str, Any]] = {}  # by id, the oldest first
        self.reactions: dict[str, dict[str, list[User]]] = {}  # by the message's id and the emoji
        self.direct: dict[int, tuple[Account, User]] = {}  # the channels of direct messages
        self.interactions: dict[str, Interaction] = {}  # by token
        # Called with every event of a channel, its data, and whoever did it. A look-on, for a person's interface.
        self.on_event: Callable[[str, dict[str, Any], User], None] = lambda event, data, actor: None
        self.port = 0
        self._runner: web.AppRunner | None = None

    # --- the server

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}/api/v10"

    @property
    def gateway_url(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.port}/"

    async def start(self) -> None:
        """Listen; again on the same port after a stop."""
        app = web.Application(client_max_size=FILE_SIZE_LIMIT)
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

    def add_bot(
        self, name: str, token: str = "", guilds: list[Guild] | None = None, **settings: Any
    ) -> Account:
        """A new bot, in the one server that there is unless told otherwise."""
        guilds = [self.guild] if guilds is None else guilds
        user = User(name, bot=True)
        account = Account(user=user, token=token, guilds=guilds, owner=self.people[0], **settings)
        self.accounts[account.token] = account
        return account

    @property
    def users(self) -> list[User]:
        return [*self.people, *(account.user for account in self.accounts.values())]

    async def join(self, person: User) -> None:
        """Another person comes into the server."""
        self.people.append(person)
        for connection in list(self.connections):
            session = connection.session
            if (
                session is not None
                and session.intents & INTENTS["members"]
                and session.has_guild(self.guild.id)
            ):
                await session.dispatch(
                    "GUILD_MEMBER_ADD", member_payload(person) | {"guild_id": str(self.guild.id)}
                )

    def members(self, guild: Guild) -> list[Account]:
        return [account for account in self.accounts.values() if guild in account.guilds]

    def count_invalid(self, status: int) -> None:
        self.invalid_requests += status in (401, 403, 429)

    # --- channels

    def guild_of(self, channel_id: int) -> Guild | None:
        """The server that a channel is in, or None for direct messages."""
        for account in self.accounts.values():
            for guild in account.guilds:
                if guild.channel_id == channel_id:
                    return guild
        return None

    def direct_channel(self, account: Account, person: User) -> int:
        """The channel of the direct messages between a bot and a person."""
        for channel_id, (bot, other) in self.direct.items():
            if bot is account and other == person:
                return channel_id
        channel_id = snowflake()
        self.direct[channel_id] = account, person
        return channel_id

    def channel(self, channel_id: int) -> dict[str, Any] | None:
        """A channel object."""
        if channel_id in self.direct:
            _, person = self.direct[channel_id]
            return {
                "id": str(channel_id),
                "type": 1,
                "recipients": [person.payload()],
                "last_message_id": None,
            }
        guild = self.guild_of(channel_id)
        return None if guild is None else guild.channel()

    async def publish(
        self, event: str, data: dict[str, Any], actor: User, nonce: Any = None
    ) -> None:
        """Send an event of a channel to every bot that hears it. `on_event` gets it too, with whoever did it."""
        self.on_event(event, data, actor)
        if data.get("flags", 0) & EPHEMERAL:
            return
        for session in self._sessions():
            if not session.hears(event, int(data["channel_id"]), self.direct):
                continue
            bot_id = str(session.account.user.id)
            own = nonce is not None and actor == session.account.user
            seen = data | {"nonce": nonce} if own else data
            if (
                "content" in data
                and "guild_id" in data
                and not session.intents & INTENTS["message_content"]
            ):
                # Without the Message Content intent the text of others' messages in servers is empty.
                concerned = data["author"], *data["mentions"]
                if bot_id not in [user["id"] for user in concerned]:
                    seen = seen | {"content": "", "embeds": [], "components": [], "attachments": []}
            await session.dispatch(event, seen)

    def _sessions(self) -> list[Session]:
        """Every session that goes on. A bot that is not connected now gets what it missed at its RESUME."""
        sessions = []
        for account in self.accounts.values():
            sessions += [
                session
                for session in account.sessions.values()
                if session.is_ready and not session.ended
            ]
        return sessions

    # --- messages

    def message(
        self, channel_id: int, author: User, body: dict[str, Any], files: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """A message object."""
        content = body.get("content") or ""
        guild = self.guild_of(channel_id)
        message = {
            "id": str(snowflake()),
            "channel_id": str(channel_id),
            "author": author.payload(),
            "content": content,
            "timestamp": now(),
            "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False,
            "mentions": self._mentions(content),
            "mention_roles": [],
            "attachments": files,
            "embeds": body.get("embeds", []),
            "components": body.get("components", []),
            "pinned": False,
            "type": 0,
            "flags": body.get("flags", 0),
        }
        if guild is not None:
            message["guild_id"] = str(guild.id)
            message["member"] = {
                key: value for key, value in member_payload(author).items() if key != "user"
            }
        if "message_reference" in body:
            original = self.messages.get(str(body["message_reference"]["message_id"]))
            reference = {"type": 0, "channel_id": str(channel_id), **body["message_reference"]}
            message |= {"type": 19, "message_reference": reference, "referenced_message": original}
            pings = body.get("allowed_mentions", {"replied_user": True}).get("replied_user")
            if (
                original
                and pings
                and original["author"]["id"] not in [user["id"] for user in message["mentions"]]
            ):
                message["mentions"] += self._mentions(f"<@{original['author']['id']}>")
        return message

    def _mentions(self, content: str) -> list[dict[str, Any]]:
        found = [user for user in self.users if user.mention in content]
        members = [
            {key: value for key, value in member_payload(user).items() if key != "user"}
            for user in found
        ]
        return [
            user.payload() | {"member": member} for user, member in zip(found, members, strict=True)
        ]

    async def post(
        self,
        channel_id: int,
        author: User,
        body: dict[str, Any],
        files: list[dict[str, Any]] | None = None,
        interaction: Interaction | None = None,
    ) -> dict[str, Any]:
        """Write a message."""
        message = self.message(channel_id, author, body, files or [])
        if interaction is not None:
            message |= interaction.metadata()
        self.messages[message["id"]] = message
        await self.publish("MESSAGE_CREATE", message, author, body.get("nonce"))
        return message

    async def edit(
        self,
        message: dict[str, Any],
        author: User,
        body: dict[str, Any],
        files: list[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """Change a message: what the body names, and nothing else."""
        first_answer = message["flags"] & LOADING
        if "content" in body:
            message["content"] = body["content"] or ""
            message["mentions"] = self._mentions(message["content"])
        for name in ("embeds", "components"):
            if name in body:
                message[name] = body[name] or []
        if files or "attachments" in body:
            kept = [file["id"] for file in body.get("attachments") or []]
            message["attachments"] = [
                file for file in message["attachments"] if file["id"] in kept
            ] + (files or [])
        if first_answer:
            message["flags"] = message["flags"] & ~LOADING | body.get("flags", 0)
        else:
            message["edited_timestamp"] = now()
        await self.publish("MESSAGE_UPDATE", message, author)
        return message

    async def delete(
        self, messages: list[dict[str, Any]], author: User, *, bulk: bool = False
    ) -> None:
        """Delete messages, which are all in one channel."""
        place = {key: messages[0][key] for key in ("channel_id", "guild_id") if key in messages[0]}
        if bulk:
            await self.publish(
                "MESSAGE_DELETE_BULK", place | {"ids": [it["id"] for it in messages]}, author
            )
        else:
            flags = {"flags": messages[0]["flags"]}
            await self.publish("MESSAGE_DELETE", place | flags | {"id": messages[0]["id"]}, author)
        for message in messages:
            self.messages.pop(message["id"], None)

    async def say(
        self,
        content: str,
        author: User | None = None,
        channel_id: int | None = None,
        reply_to: str | None = None,
    ) -> dict[str, Any]:
        """A person's message, which goes to every bot that hears it."""
        body: dict[str, Any] = {"content": content}
        if reply_to is not None:
            body["message_reference"] = {"message_id": reply_to}
        return await self.post(channel_id or self.guild.channel_id, author or self.people[0], body)

    async def react(
        self, message: dict[str, Any], emoji: str, user: User, *, take_away: bool = False
    ) -> None:
        """Put a reaction on a message, or take it away."""
        users = self.reactions.setdefault(message["id"], {}).setdefault(emoji, [])
        if (user in users) != take_away:
            return
        (users.remove if take_away else users.append)(user)
        if not users:
            del self.reactions[message["id"]][emoji]
        data = {
            "message_id": message["id"],
            "user_id": str(user.id),
            "emoji": emoji_payload(emoji),
            "burst": False,
        }
        data |= {"type": 0} | {
            key: message[key] for key in ("channel_id", "guild_id") if key in message
        }
        if not take_away:
            data["message_author_id"] = message["author"]["id"]
            if "guild_id" in message:
                data["member"] = member_payload(user)
        await self.publish(f"MESSAGE_REACTION_{'REMOVE' if take_away else 'ADD'}", data, user)

    async def clear_reactions(self, message: dict[str, Any], user: User) -> None:
        """Take every reaction away from a message."""
        self.reactions.pop(message["id"], None)
        place = {key: message[key] for key in ("channel_id", "guild_id") if key in message}
        await self.publish(
            "MESSAGE_REACTION_REMOVE_ALL", place | {"message_id": message["id"]}, user
        )

    # --- slash commands and buttons

    async def call(
        self,
        account: Account,
        command: str,
        author: User | None = None,
        *,
        options: list[dict[str, Any]] | None = None,
        channel_id: int | None = None,
    ) -> Interaction:
        """A person calls a bot's slash command."""
        known = next(
            (it for it in account.commands if it["name"] == command), {"id": str(snowflake())}
        )
        options = options or []
        data = {
            "id": known["id"],
            "name": command,
            "type": 1,
            "options": options,
            "resolved": self._resolved(options),
        }
        if "guild_id" in known:
            data["guild_id"] = known["guild_id"]
        channel_id = channel_id or self.guild.channel_id
        return await self._interact(
            Interaction(account, author or self.people[0], channel_id, COMMAND, data)
        )

    async def click(
        self, message: dict[str, Any], component: dict[str, Any], values: list[str], author: User
    ) -> Interaction:
        """A person presses a button under a message, or chooses from a menu."""
        account = next(
            it for it in self.accounts.values() if str(it.user.id) == message["author"]["id"]
        )
        data = {
            "custom_id": component["custom_id"],
            "component_type": component["type"],
            "values": values,
        }
        return await self._interact(
            Interaction(account, author, int(message["channel_id"]), COMPONENT, data, message)
        )

    async def submit(
        self,
        account: Account,
        form: dict[str, Any],
        values: dict[str, str],
        author: User,
        channel_id: int,
    ) -> Interaction:
        """A person fills in a form. The values are by the `custom_id` of its text inputs."""
        components = copy.deepcopy(form["components"])
        for component in parts_of(components):
            if component["type"] == TEXT_INPUT:
                component["value"] = values[component["custom_id"]]
        data = {"custom_id": form["custom_id"], "components": components}
        return await self._interact(Interaction(account, author, channel_id, SUBMITTED_FORM, data))

    def _resolved(self, options: list[dict[str, Any]]) -> dict[str, Any]:
        """The users and channels that the options name, by their ids."""
        if options and "options" in options[0]:  # of a subcommand
            return self._resolved(options[0]["options"])
        ids = [str(option["value"]) for option in options]
        users = [user for user in self.users if str(user.id) in ids]
        members = {
            str(user.id): member_payload(user) | {"permissions": self.guild.permissions(user)}
            for user in users
        }
        for member in members.values():
            del member["user"]
        channels = {
            channel["id"]: channel for channel in [self.guild.channel()] if channel["id"] in ids
        }
        channels = {key: channel | {"permissions": EVERYONE} for key, channel in channels.items()}
        return {
            "users": {str(user.id): user.payload() for user in users},
            "members": members,
            "channels": channels,
        }

    async def _interact(self, interaction: Interaction) -> Interaction:
        self.interactions[interaction.token] = interaction
        guild = self.guild_of(interaction.channel_id)
        payload = interaction.payload() | {"channel": self.channel(interaction.channel_id)}
        if guild is None:
            payload |= {
                "user": interaction.author.payload(),
                "context": 1,
                "app_permissions": EVERYONE,
            }
        else:
            permissions = {"permissions": guild.permissions(interaction.author)}
            payload |= {"guild_id": str(guild.id), "context": 0, "app_permissions": EVERYONE}
            payload |= {"member": member_payload(interaction.author) | permissions}
        for connection in interaction.account.live:
            if connection.session.has_guild(guild.id if guild else 0):
                await connection.session.dispatch("INTERACTION_CREATE", payload)
        return interaction


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()
