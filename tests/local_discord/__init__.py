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
from collections.abc import Callable, Iterable
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
OnEvent = Callable[[str, Json, User], None]


def ignore_event(event: str, data: Json, actor: User) -> None:
    pass


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
        alex = User("Alex")
        self.people = [alex]
        self.guild = Guild("Test server", owner=alex)
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
        self.on_event: OnEvent = ignore_event
        self.port = 0
        self._runner: web.AppRunner | None = None

    # --- the server

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://localhost:{self.port}/api/v10"

    @property
    def gateway_url(self) -> str:
        scheme = "wss" if self.tls else "ws"
        return f"{scheme}://127.0.0.1:{self.port}/"

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
        if action is not None:
            response = await action(request)
            if response is not None:
                self.count_invalid(response.status)
                return response  # type: ignore[no-any-return]
        connection = Connection(self, request)
        try:
            return await connection.run()
        except ConnectionError:
            return web.Response()  # the bot went away before it was connected

    async def stop(self) -> None:
        """Cut every connection and listen no more, as a network that goes away."""
        drop = faults.drop()
        for connection in list(self.connections):
            await drop(connection)
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
        user = User(name, bot=True)
        owner = self.people[0]
        account = Account(user=user, token=token, guilds=guilds, owner=owner, **settings)
        self.accounts[account.token] = account
        return account

    @property
    def users(self) -> Iterable[User]:
        yield from self.people
        for account in self.accounts.values():
            yield account.user

    async def join(self, person: User) -> None:
        """Another person comes into the server."""
        self.people.append(person)
        guild_id = self.guild.id
        data = member_payload(person)
        data["guild_id"] = str(guild_id)
        for connection in list(self.connections):
            session = connection.session
            if session is not None and session.gets("members", guild_id):
                await session.dispatch("GUILD_MEMBER_ADD", data)

    def members(self, guild: Guild) -> Iterable[Account]:
        for account in self.accounts.values():
            if guild in account.guilds:
                yield account

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
            channel: Json = {"id": str(channel_id), "type": 1, "last_message_id": None}
            channel["recipients"] = [person.payload()]
            return channel
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
        for session in list(self._sessions()):
            if session.hears(event, channel_id, self.direct):
                seen = session.as_seen(data)
                if nonce is not None and actor == session.account.user:
                    seen = seen | {"nonce": nonce}
                await session.dispatch(event, seen)

    def _sessions(self) -> Iterable[Session]:
        """Every session that goes on.

        A bot that is not connected now gets what it missed at its RESUME.
        """
        for account in self.accounts.values():
            for session in account.sessions.values():
                if session.is_ready and not session.ended:
                    yield session

    # --- messages

    def messages_in(self, channel_id: int) -> list[Json]:
        """The messages of a channel, the oldest first."""
        here = str(channel_id)
        found = []
        for message in self.messages.values():
            if message["channel_id"] == here:
                found.append(message)
        return found

    def message(self, channel_id: int, author: User, body: Json, files: list[Json]) -> Json:
        """A message object."""
        content = body.get("content") or ""
        message = dict(MESSAGE)
        message["id"] = str(snowflake())
        message["channel_id"] = str(channel_id)
        message["author"] = author.payload()
        message["timestamp"] = now()
        message["content"] = content
        message["mentions"] = self._mentions(content)
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
        original_id = str(reference["message_id"])
        original = self.messages.get(original_id)
        message["type"] = REPLY
        here = {"type": 0, "channel_id": message["channel_id"]}
        message["message_reference"] = here | reference
        message["referenced_message"] = original
        allowed = body.get("allowed_mentions", {"replied_user": True})
        if original and allowed.get("replied_user"):
            self._mention_author(message, original)

    def _mention_author(self, message: Json, original: Json) -> None:
        author_id = original["author"]["id"]
        mentions = message["mentions"]
        for user in mentions:
            if user["id"] == author_id:
                return
        mentions += self._mentions(f"<@{author_id}>")

    def _mentions(self, content: str) -> list[Json]:
        mentions = []
        for user in self.users:
            if user.mention in content:
                mention = user.payload()
                mention["member"] = MEMBER
                mentions.append(mention)
        return mentions

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
        nonce = body.get("nonce")
        await self.publish("MESSAGE_CREATE", message, author, nonce)
        return message

    async def edit(
        self, message: Json, author: User, body: Json, files: list[Json] | None = None
    ) -> Json:
        """Change a message: what the body names, and nothing else."""
        if "content" in body:
            content = body["content"] or ""
            message["content"] = content
            message["mentions"] = self._mentions(content)
        for name in ("embeds", "components"):
            if name in body:
                message[name] = body[name] or []
        if files or "attachments" in body:
            kept = kept_attachments(message, body)
            message["attachments"] = kept + (files or [])
        if message["flags"] & LOADING:  # it becomes the answer that was announced
            message["flags"] &= ~LOADING
            message["flags"] |= body.get("flags", 0)
        else:
            message["edited_timestamp"] = now()
        await self.publish("MESSAGE_UPDATE", message, author)
        return message

    async def delete(self, messages: list[Json], author: User, *, bulk: bool = False) -> None:
        """Delete messages, which are all in one channel."""
        ids = [message["id"] for message in messages]
        first = messages[0]
        data = place_of(first)
        if bulk:
            data["ids"] = ids
            await self.publish("MESSAGE_DELETE_BULK", data, author)
        else:
            data |= pick(first, "id", "flags")
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
        channel_id = channel_id or self.guild.channel_id
        body: Json = {"content": content}
        if reply_to is not None:
            body["message_reference"] = {"message_id": reply_to}
        return await self.post(channel_id, author, body)

    # --- reactions

    async def react(
        self, message: Json, emoji: str, user: User, *, take_away: bool = False
    ) -> None:
        """Put a reaction on a message, or take it away."""
        message_id = message["id"]
        reactions = self.reactions.setdefault(message_id, {})
        users = reactions.setdefault(emoji, [])
        if (user in users) != take_away:
            return
        data = place_of(message)
        data |= {"message_id": message_id, "burst": False, "type": 0}
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
        message_id = message["id"]
        self.reactions.pop(message_id, None)
        data = place_of(message)
        data["message_id"] = message_id
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
        interaction = Interaction(account, author, channel_id, COMMAND, data)
        return await self._interact(interaction)

    async def click(
        self, message: Json, component: Json, values: list[str], author: User
    ) -> Interaction:
        """A person presses a button under a message, or chooses from a menu."""
        bot_id = message["author"]["id"]
        account = self._account_of(bot_id)
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
                field = component["custom_id"]
                component["value"] = values[field]
        data = {"custom_id": form["custom_id"], "components": components}
        interaction = Interaction(account, author, channel_id, SUBMITTED_FORM, data)
        return await self._interact(interaction)

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
        channel_id = channel["id"]
        if channel_id in ids:
            channel["permissions"] = EVERYONE
            channels[channel_id] = channel
        return {"users": users, "members": members, "channels": channels}

    async def _interact(self, interaction: Interaction) -> Interaction:
        self.interactions[interaction.token] = interaction
        author = interaction.author
        guild = self.guild_of(interaction.channel_id)
        payload = interaction.payload()
        payload["channel"] = self.channel(interaction.channel_id)
        payload["app_permissions"] = EVERYONE
        if guild is None:
            guild_id = 0
            payload["context"] = 1
            payload["user"] = author.payload()
        else:
            guild_id = guild.id
            payload["context"] = 0
            payload["guild_id"] = str(guild_id)
            member = member_payload(author)
            member["permissions"] = guild.permissions(author)
            payload["member"] = member
        for connection in interaction.account.live:
            session = connection.session
            if session.has_guild(guild_id):
                await session.dispatch("INTERACTION_CREATE", payload)
        return interaction


def kept_attachments(message: Json, body: Json) -> list[Json]:
    """Those of a message that an edit names."""
    named = body.get("attachments") or []
    named_ids = [file["id"] for file in named]
    kept = []
    for file in message["attachments"]:
        if file["id"] in named_ids:
            kept.append(file)
    return kept


def pick(source: Json, *keys: str) -> Json:
    """Only these of its keys, as far as it has them."""
    picked = {}
    for key in keys:
        if key in source:
            picked[key] = source[key]
    return picked


def place_of(message: Json) -> Json:
    """Where a message is, as its events say it."""
    return pick(message, "channel_id", "guild_id")


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()
