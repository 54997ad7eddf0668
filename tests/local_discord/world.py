"""Bots' accounts, servers and people in the local Discord, and what happened to them."""

from __future__ import annotations

import base64
import enum
import itertools
import math
import time
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]  # an object of Discord's API

# Discord's ids (snowflakes) hold the time in their upper bits:
# https://docs.discord.com/developers/reference#snowflakes
DISCORD_EPOCH_MS = 1_420_070_400_000
_counter = itertools.count(1)


class Intents(enum.IntFlag):
    """Those that matter here: https://docs.discord.com/developers/events/gateway#gateway-intents"""

    members = 1 << 1
    presences = 1 << 8
    guild_messages = 1 << 9
    guild_message_reactions = 1 << 10
    direct_messages = 1 << 12
    direct_message_reactions = 1 << 13
    message_content = 1 << 15


# Bits 0 to 16, 20, 21, 24 and 25.
KNOWN_INTENTS = 0b11_0011_0001_1111_1111_1111_1111
# https://docs.discord.com/developers/resources/application#application-object-application-flags
# For each privileged intent, the flag that it has in an application below 100 servers.
PRIVILEGED_FLAGS = {"presences": 1 << 13, "members": 1 << 15, "message_content": 1 << 19}
EVERYONE = "2248473465835073"  # the permissions that everyone has in a new server
EVERYTHING = str((1 << 53) - 1)  # the permissions of the owner

# What Discord's objects have besides, the same for all of them here.
JOINED_AT = "2024-01-01T00:00:00.000000+00:00"
MEMBER: Json = {
    "nick": None,
    "roles": [],
    "joined_at": JOINED_AT,
    "deaf": False,
    "mute": False,
    "flags": 0,
}
EVERYONES_ROLE: Json = {
    "name": "@everyone",
    "permissions": EVERYONE,
    "position": 0,
    "color": 0,
    "hoist": False,
    "managed": False,
    "mentionable": False,
    "flags": 0,
}
CHANNEL: Json = {
    "name": "general",
    "type": 0,
    "position": 0,
    "parent_id": None,
    "permission_overwrites": [],
    "topic": None,
    "nsfw": False,
    "last_message_id": None,
}
GUILD_HAS_NO = (
    "emojis",
    "stickers",
    "threads",
    "presences",
    "voice_states",
    "stage_instances",
    "guild_scheduled_events",
    "soundboard_sounds",
    "features",
)
GUILD_HAS_LEVEL_0 = (
    "verification_level",
    "default_message_notifications",
    "explicit_content_filter",
    "mfa_level",
    "nsfw_level",
    "premium_tier",
    "system_channel_flags",
)
GUILD: Json = {
    "unavailable": False,
    "large": False,
    "joined_at": JOINED_AT,
    "premium_progress_bar_enabled": False,
    "preferred_locale": "en-US",
    "afk_timeout": 300,
    "icon": None,
}
APPLICATION: Json = {
    "icon": None,
    "description": "",
    "summary": "",
    "bot_public": True,
    "bot_require_code_grant": False,
    "verify_key": "0" * 64,
    "team": None,
    "interactions_endpoint_url": None,
}


def snowflake() -> int:
    """A new id, as Discord makes them: milliseconds since 2015 above 22 bits."""
    now_ms = int(time.time() * 1000)
    upper_bits = now_ms - DISCORD_EPOCH_MS << 22
    lower_bits = next(_counter) & 0x3FFFFF
    return upper_bits | lower_bits


def make_token(user_id: int, secret: str = "made-up-secret-of-this-bot") -> str:
    """A token in the form that Discord gives them: the bot's id in base64, a time, a secret."""
    id_bytes = str(user_id).encode()
    padded_id = base64.b64encode(id_bytes).decode()
    encoded_id = padded_id.rstrip("=")
    made_up_time = f"G{user_id % 10_000:05}"
    return f"{encoded_id}.{made_up_time}.{secret}"


@dataclass
class Fault:
    """An action that is taken this many times still."""

    action: Any
    times: float


@dataclass
class Faults:
    """Which action is taken at which moment, and how many times still."""

    actions: dict[str, list[Fault]] = field(default_factory=dict)

    def fail(self, moment: str, action: Any, times: float = math.inf) -> None:
        """From now on, take `action` at `moment`.

        After `times` times, all is well again, or it is the turn of the next action.
        """
        queue = self.actions.setdefault(moment, [])
        queue.append(Fault(action, times))

    def heal(self) -> None:
        """Forget every fault."""
        self.actions.clear()

    def next_action(self, moment: str) -> Any:
        """The action to take at this moment, or None."""
        queue = self.actions.get(moment)
        if not queue:
            return None
        fault = queue[0]
        fault.times -= 1
        if fault.times <= 0:
            queue.pop(0)
        return fault.action


@dataclass
class User:
    """A person or a bot's user."""

    name: str
    id: int = field(default_factory=snowflake)
    bot: bool = False

    def payload(self) -> Json:
        return {
            "id": str(self.id),
            "username": self.name,
            "global_name": None,
            "discriminator": "0",
            "avatar": None,
            "bot": self.bot,
            "public_flags": 0,
        }

    @property
    def mention(self) -> str:
        return f"<@{self.id}>"


def the_owner() -> User:
    return User("owner")


@dataclass
class Guild:
    """A server with one text channel; its members are known to the accounts that are in it."""

    name: str
    owner: User = field(default_factory=the_owner)
    id: int = field(default_factory=snowflake)
    channel_id: int = field(default_factory=snowflake)

    def channel(self) -> Json:
        """The text channel."""
        return {"id": str(self.channel_id), "guild_id": str(self.id), **CHANNEL}

    def permissions(self, user: User) -> str:
        """What this person may do: the owner everything, the others what everyone may."""
        return EVERYTHING if user == self.owner else EVERYONE

    def payload(self, members: list[User]) -> Json:
        """What GUILD_CREATE carries."""
        guild_id = str(self.id)
        everyone = {"id": guild_id, **EVERYONES_ROLE}
        payload = dict(GUILD)
        for name in GUILD_HAS_LEVEL_0:
            payload[name] = 0
        for name in GUILD_HAS_NO:
            payload[name] = []
        payload["id"] = guild_id
        payload["name"] = self.name
        payload["owner_id"] = str(self.owner.id)
        payload["roles"] = [everyone]
        payload["channels"] = [self.channel()]
        payload["members"] = [member_payload(user) for user in members]
        payload["member_count"] = len(members)
        return payload


def member_payload(user: User) -> Json:
    return {"user": user.payload(), **MEMBER}


def emoji_payload(emoji: str) -> Json:
    """An emoji object: a character, or `name:id` of a server's own."""
    name, _, emoji_id = emoji.partition(":")
    return {"name": name, "id": emoji_id or None}


@dataclass
class Identify:
    """An IDENTIFY as it came in."""

    at: float
    shard: tuple[int, int] | None
    intents: int


@dataclass
class Account(Faults):
    """A bot's application, its user and its token; what it may do, and what it did."""

    user: User = field(default_factory=lambda: User("bot", bot=True))
    token: str = ""
    guilds: list[Guild] = field(default_factory=list)
    owner: User = field(default_factory=the_owner)
    privileged: set[str] = field(default_factory=lambda: {"message_content"})
    shards: int = 1  # what /gateway/bot recommends
    max_concurrency: int = 1  # of its shards' IDENTIFYs within 5 seconds
    sharding_required: bool = False  # an IDENTIFY with fewer shards is closed with 4011
    token_reset: bool = False  # the token is refused from now on

    requests: list[str] = field(default_factory=list)
    identifies: list[Identify] = field(default_factory=list)
    resumes: list[float] = field(default_factory=list)
    # IDENTIFYs that Discord has counted already, as those of an earlier process.
    used_before: int = 0
    reset_after: float = 86_400  # seconds until it counts anew
    updates: list[Json] = field(default_factory=list)  # its presences and voice states
    # How the bot ended each of its connections.
    client_closes: list[int | None] = field(default_factory=list)
    commands: list[Json] = field(default_factory=list)  # its slash commands, as uploaded
    messages: list[Json] = field(default_factory=list)  # what it has said: the requests' JSON
    sessions: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.token:
            self.token = make_token(self.user.id)

    @property
    def _connected(self) -> list[Any]:
        sessions = self.sessions.values()
        return [session for session in sessions if session.connection is not None]

    @property
    def live(self) -> list[Any]:
        """The gateway connections that have a session and are open now."""
        return [session.connection for session in self._connected]

    def forget_sessions(self) -> None:
        """Discord ends its sessions: a RESUME is refused."""
        for session in self.sessions.values():
            session.ended = True

    @property
    def online(self) -> bool:
        """Whether people see this bot: it has a session that has not ended, connected or not."""
        return any(not session.ended for session in self.sessions.values())

    @property
    def ready(self) -> bool:
        """Whether every shard of the bot has a live session that got its READY."""
        ready = [session for session in self._connected if session.is_ready]
        if not ready:
            return False
        return len(ready) == ready[0].shards

    def allows(self, intents: int) -> bool:
        """Whether every privileged intent among these is switched on in the Developer Portal."""
        for name in PRIVILEGED_FLAGS:
            if intents & Intents[name] and name not in self.privileged:
                return False
        return True

    def application(self) -> Json:
        """What GET /oauth2/applications/@me answers."""
        flags = 0
        for name in self.privileged:
            flags |= PRIVILEGED_FLAGS[name]
        payload = dict(APPLICATION)
        payload["id"] = str(self.user.id)
        payload["name"] = self.user.name
        payload["owner"] = self.owner.payload()
        payload["bot"] = self.user.payload()
        payload["flags"] = flags
        payload["approximate_guild_count"] = len(self.guilds)
        return payload
