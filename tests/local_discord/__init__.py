"""A Discord of our own on a local port, made to fail in the ways Discord does.

It has the REST API and the gateway, both in version 10.

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
    MEMBER,
    Account,
    Faults,
    Guild,
    Json,
    User,
    emoji_payload,
    member_payload,
    snowflake,
)

__all__ = ["Account", "Connection", "Guild", "Interaction", "LocalDiscord", "User", "faults"]


# What all messages have besides. Those that reply to another have the type 19.
MESSAGE: Json = {
    "edited_timestamp": None,
    "tts": False,
    "mention_everyone": False,
    "mention_roles": [],
    "pinned": False,
    "type": 0,
}
REPLY = 19
Reactions = dict[str, list[User]]  # who has put it there, by the emoji
DirectMessages = tuple[Account, User]


class LocalDiscord(Faults):
    """The server.

    `round_trip` is the time, in seconds, that each exchange takes beyond the machine's own.
    """

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
        # Answered with 401, 403 or 429: Discord allows 10,000 in 10 minutes.
        self.invalid_requests = 0
        self.messages: dict[str, Json] = {}  # by id, the oldest first
        self.reactions: dict[str, Reactions] = {}  # by the message's id
        self.direct: dict[int, DirectMessages] = {}  # by the channel
        self.interactions: dict[str, Interaction] = {}  # by token
        # Called with every event of a channel, its data, and whoever did it: for the interface of
        # a person who looks on.
        self.on_event: Callable[[str, Json, User], None] = lambda event, data, actor: None
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
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._runner = runner
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self.tls, backlog=1024)
        await site.start()
        _, self.port = runner.addresses[0]

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        action = self.next_action("upgrade")
        response = None if action is None else await action(request)
        if response is not None:
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
        if guilds is None:
            guilds = [self.guild]
        user, owner = User(name, bot=True), self.people[0]
        account = Account(user=user, token=token, guilds=guilds, owner=owner, **settings)
        self.accounts[account.token] = account
        return account

    @property
    def users(self) -> list[User]:
        bots = [account.user for account in self.accounts.values()]
        return self.people + bots

    async def join(self, person: User) -> None:
        """Another person comes into the server."""
        self.people.append(person)
        data = member_payload(person) | {"guild_id": str(self.guild.id)}
        for connection in list(self.connections):
            session = connection.session
            if session is not None and session.gets("members", self.guild.id):
                await session.dispatch("GUILD_MEMBER_ADD", data)

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

    def channel(self, channel_id: int) -> Json | None:
        """A channel object."""
        if channel_id in self.direct:
            _, person = self.direct[channel_id]
            about = {"id": str(channel_id), "type": 1, "last_message_id": None}
            return about | {"recipients": [person.payload()]}
        guild = self.guild_of(channel_id)
        return None if guild is None else guild.channel()

    async def publish(self, event: str, data: Json, actor: User, nonce: Any = None) -> None:
        """Send an event of a channel to every bot that hears it.

        `on_event` gets it too, with whoever did it.
        """
        self.on_event(event, data, actor)
        if data.get("flags", 0) & EPHEMERAL:
            return
        channel_id = int(data["channel_id"])
        for session in self._sessions():
            if session.hears(event, channel_id, self.direct):
                seen = session.as_seen(data)
                if nonce is not None and actor == session.account.user:
                    seen = seen | {"nonce": nonce}
                await session.dispatch(event, seen)

    def _sessions(self) -> list[Session]:
        """Every session that goes on.

        A bot that is not connected now gets what it missed at its RESUME.
        """
        sessions: list[Session] = []
        for account in self.accounts.values():
            sessions += account.sessions.values()
        return [session for session in sessions if session.is_ready and not session.ended]

    # --- messages

    def messages_in(self, channel_id: int) -> list[Json]:
        """The messages of a channel, the oldest first."""
        messages = self.messages.values()
        return [message for message in messages if message["channel_id"] == str(channel_id)]

    def message(self, channel_id: int, author: User, body: Json, files: list[Json]) -> Json:
        """A message object."""
        message: Json = {"id": str(snowflake()), "channel_id": str(channel_id), **MESSAGE}
        message["author"] = author.payload()
        message["timestamp"] = now()
        message["content"] = body.get("content") or ""
        message["mentions"] = self._mentions(message["content"])
        message["attachments"] = files
        message["embeds"] = body.get("embeds", [])
        message["components"] = body.get("components", [])
        message["flags"] = body.get("flags", 0)
        guild = self.guild_of(channel_id)
        if guild is not None:
            message["guild_id"] = str(guild.id)
            message["member"] = MEMBER
        if "message_reference" in body:
            self._make_reply(message, body)
        return message

    def _make_reply(self, message: Json, body: Json) -> None:
        """Refer to the message that this one replies to, and mention its author."""
        reference = body["message_reference"]
        original = self.messages.get(str(reference["message_id"]))
        message["type"] = REPLY
        here = {"type": 0, "channel_id": message["channel_id"]}
        message["message_reference"] = here | reference
        message["referenced_message"] = original
        allowed = body.get("allowed_mentions", {"replied_user": True})
        if original and allowed.get("replied_user"):
            author_id = original["author"]["id"]
            mentioned = [user["id"] for user in message["mentions"]]
            if author_id not in mentioned:
                message["mentions"] += self._mentions(f"<@{author_id}>")

    def _mentions(self, content: str) -> list[Json]:
        found = [user for user in self.users if user.mention in content]
        return [user.payload() | {"member": MEMBER} for user in found]

    async def post(
        self,
        channel_id: int,
        author: User,
        body: Json,
        files: list[Json] | None = None,
        interaction: Interaction | None = None,
    ) -> Json:
        """Write a message."""
        message = self.message(channel_id, author, body, files or [])
        if interaction is not None:
            message |= interaction.metadata()
        self.messages[message["id"]] = message
        await self.publish("MESSAGE_CREATE", message, author, body.get("nonce"))
        return message

    async def edit(
        self, message: Json, author: User, body: Json, files: list[Json] | None = None
    ) -> Json:
        """Change a message: what the body names, and nothing else."""
        if "content" in body:
            message["content"] = body["content"] or ""
            message["mentions"] = self._mentions(message["content"])
        for name in ("embeds", "components"):
            if name in body:
                message[name] = body[name] or []
        self._edit_attachments(message, body, files or [])
        if message["flags"] & LOADING:  # it becomes the answer that was announced
            message["flags"] = message["flags"] & ~LOADING | body.get("flags", 0)
        else:
            message["edited_timestamp"] = now()
        await self.publish("MESSAGE_UPDATE", message, author)
        return message

    def _edit_attachments(self, message: Json, body: Json, files: list[Json]) -> None:
        if not files and "attachments" not in body:
            return
        named = [file["id"] for file in body.get("attachments") or []]
        kept = [file for file in message["attachments"] if file["id"] in named]
        message["attachments"] = kept + files

    async def delete(self, messages: list[Json], author: User, *, bulk: bool = False) -> None:
        """Delete messages, which are all in one channel."""
        ids = [message["id"] for message in messages]
        if bulk:
            data = place_of(messages[0])
            data["ids"] = ids
            await self.publish("MESSAGE_DELETE_BULK", data, author)
        else:
            data = place_of(messages[0]) | pick(messages[0], "id", "flags")
            await self.publish("MESSAGE_DELETE", data, author)
        for message_id in ids:
            self.messages.pop(message_id, None)

    async def say(
        self,
        content: str,
        author: User | None = None,
        channel_id: int | None = None,
        reply_to: str | None = None,
    ) -> Json:
        """A person's message, which goes to every bot that hears it."""
        author = author or self.people[0]
        body: Json = {"content": content}
        if reply_to is not None:
            body["message_reference"] = {"message_id": reply_to}
        return await self.post(channel_id or self.guild.channel_id, author, body)

    # --- reactions

    async def react(
        self, message: Json, emoji: str, user: User, *, take_away: bool = False
    ) -> None:
        """Put a reaction on a message, or take it away."""
        reactions = self.reactions.setdefault(message["id"], {})
        users = reactions.setdefault(emoji, [])
        if (user in users) != take_away:
            return
        data = place_of(message) | {"message_id": message["id"], "burst": False, "type": 0}
        data["user_id"] = str(user.id)
        data["emoji"] = emoji_payload(emoji)
        if take_away:
            users.remove(user)
            if not users:
                del reactions[emoji]
            await self.publish("MESSAGE_REACTION_REMOVE", data, user)
            return
        users.append(user)
        data["message_author_id"] = message["author"]["id"]
        if "guild_id" in message:
            data["member"] = member_payload(user)
        await self.publish("MESSAGE_REACTION_ADD", data, user)

    async def clear_reactions(self, message: Json, user: User) -> None:
        """Take every reaction away from a message."""
        self.reactions.pop(message["id"], None)
        data = place_of(message) | {"message_id": message["id"]}
        await self.publish("MESSAGE_REACTION_REMOVE_ALL", data, user)

    # --- slash commands and buttons

    async def call(
        self,
        account: Account,
        command: str,
        author: User | None = None,
        *,
        options: list[Json] | None = None,
        channel_id: int | None = None,
    ) -> Interaction:
        """A person calls a bot's slash command."""
        author = author or self.people[0]
        channel_id = channel_id or self.guild.channel_id
        options = options or []
        data: Json = {"name": command, "type": 1, "options": options}
        data["resolved"] = self._resolved(options)
        data["id"] = str(snowflake())
        for uploaded in account.commands:
            if uploaded["name"] == command:
                data |= pick(uploaded, "id", "guild_id")
                break
        return await self._interact(Interaction(account, author, channel_id, COMMAND, data))

    async def click(
        self, message: Json, component: Json, values: list[str], author: User
    ) -> Interaction:
        """A person presses a button under a message, or chooses from a menu."""
        account = self._account_of(message["author"]["id"])
        channel_id = int(message["channel_id"])
        data = {"custom_id": component["custom_id"], "values": values}
        data["component_type"] = component["type"]
        interaction = Interaction(account, author, channel_id, COMPONENT, data, message)
        return await self._interact(interaction)

    def _account_of(self, user_id: str) -> Account:
        for account in self.accounts.values():
            if str(account.user.id) == user_id:
                return account
        raise LookupError(f"no bot has the id {user_id}")

    async def submit(
        self, account: Account, form: Json, values: dict[str, str], author: User, channel_id: int
    ) -> Interaction:
        """A person fills in a form. The values are by the `custom_id` of its text inputs."""
        components = copy.deepcopy(form["components"])
        for component in parts_of(components):
            if component["type"] == TEXT_INPUT:
                component["value"] = values[component["custom_id"]]
        data = {"custom_id": form["custom_id"], "components": components}
        return await self._interact(Interaction(account, author, channel_id, SUBMITTED_FORM, data))

    def _resolved(self, options: list[Json]) -> Json:
        """The users and channels that the options name, by their ids."""
        if options and "options" in options[0]:  # of a subcommand
            return self._resolved(options[0]["options"])
        ids = [str(option["value"]) for option in options]
        users, members, channels = {}, {}, {}
        for user in self.users:
            user_id = str(user.id)
            if user_id in ids:
                users[user_id] = user.payload()
                permissions = self.guild.permissions(user)
                members[user_id] = MEMBER | {"permissions": permissions}
        channel = self.guild.channel()
        if channel["id"] in ids:
            channels[channel["id"]] = channel | {"permissions": EVERYONE}
        return {"users": users, "members": members, "channels": channels}

    async def _interact(self, interaction: Interaction) -> Interaction:
        self.interactions[interaction.token] = interaction
        author = interaction.author
        guild = self.guild_of(interaction.channel_id)
        payload = interaction.payload()
        payload["channel"] = self.channel(interaction.channel_id)
        payload["app_permissions"] = EVERYONE
        if guild is None:
            payload |= {"user": author.payload(), "context": 1}
        else:
            payload |= {"guild_id": str(guild.id), "context": 0}
            payload["member"] = member_payload(author)
            payload["member"]["permissions"] = guild.permissions(author)
        guild_id = 0 if guild is None else guild.id
        for connection in interaction.account.live:
            if connection.session.has_guild(guild_id):
                await connection.session.dispatch("INTERACTION_CREATE", payload)
        return interaction


def pick(source: Json, *keys: str) -> Json:
    """Only these of its keys, as far as it has them."""
    return {key: source[key] for key in keys if key in source}


def place_of(message: Json) -> Json:
    """Where a message is, as its events say it."""
    return pick(message, "channel_id", "guild_id")


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()
