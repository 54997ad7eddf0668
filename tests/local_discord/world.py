"""Who and what there is in the local Discord: bots' accounts, servers, people, and what happened to them."""

from __future__ import annotations

import base64
import itertools
import time
from dataclasses import dataclass, field
from typing import Any

# Discord's ids (snowflakes) hold the time in their upper bits: https://docs.discord.com/developers/reference#snowflakes
DISCORD_EPOCH_MS = 1_420_070_400_000
_counter = itertools.count(1)

# https://docs.discord.com/developers/events/gateway#gateway-intents
INTENTS = {
    "members": 1 << 1,
    "presences": 1 << 8,
    "guild_messages": 1 << 9,
    "guild_message_reactions": 1 << 10,
    "direct_messages": 1 << 12,
    "direct_message_reactions": 1 << 13,
    "message_content": 1 << 15,
}
KNOWN_INTENTS = sum(1 << bit for bit in (*range(17), 20, 21, 24, 25))
# https://docs.discord.com/developers/resources/application#application-object-application-flags
# For each privileged intent, the flag that it has in a verified application and the one below 100 servers.
PRIVILEGED_FLAGS = {
    "presences": 1 << 12 | 1 << 13,
    "members": 1 << 14 | 1 << 15,
    "message_content": 1 << 18 | 1 << 19,
}
EVERYONE = "2248473465835073"  # the permissions that everyone has in a new server


def snowflake() -> int:
    """A new id, as Discord makes them: milliseconds since 2015 above 22 bits."""
    return (int(time.time() * 1000) - DISCORD_EPOCH_MS) << 22 | next(_counter) & 0x3FFFFF


def make_token(user_id: int, secret: str = "made-up-secret-of-this-bot") -> str:
    """A token in the form that Discord gives them: the bot's id in base64, a time, a secret."""
    return f"{base64.b64encode(str(user_id).encode()).decode().rstrip('=')}.G{user_id % 10_000:05}.{secret}"


@dataclass
class Faults:
    """Which action is taken at which moment, and how many times still."""

    actions: dict[str, list[Any]] = field(default_factory=dict)

    def fail(self, moment: str, action: Any, times: float = float("inf")) -> None:
        """From now on, take `action` at `moment`; after `times` times, all is well again (or the next one's turn)."""
        self.actions.setdefault(moment, []).append([action, times])

    def heal(self) -> None:
        """Forget every fault."""
        self.actions.clear()

    def next_action(self, moment: str) -> Any:
        """The action to take at this moment, or None."""
        queue = self.actions.get(moment)
        if not queue:
            return None
        action = queue[0][0]
        queue[0][1] -= 1
        if queue[0][1] <= 0:
            queue.pop(0)
        return action


@dataclass
class User:
    """A person or a bot's user."""

    name: str
    id: int = field(default_factory=snowflake)
    bot: bool = False

    def payload(self) -> dict[str, Any]:
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


@dataclass
class Guild:
    """A server with one text channel; its members are known to the accounts that are in it."""

    name: str
    owner: User = field(default_factory=lambda: User("owner"))
    id: int = field(default_factory=snowflake)
    channel_id: int = field(default_factory=snowflake)

    def channel(self) -> dict[str, Any]:
        """The text channel."""
        return {
            "id": str(self.channel_id),
            "guild_id": str(self.id),
            "name": "general",
            "type": 0,
            "position": 0,
            "parent_id": None,
            "permission_overwrites": [],
            "topic": None,
            "nsfw": False,
            "last_message_id": None,
        }

    def permissions(self, user: User) -> str:
        """What this person may do: the owner everything, the others what everyone may."""
        return str((1 << 53) - 1) if user == self.owner else EVERYONE

    def payload(self, members: list[User]) -> dict[str, Any]:
        """What GUILD_CREATE carries."""
        everyone = {"id": str(self.id), "name": "@everyone", "permissions": EVERYONE, "position": 0}
        everyone |= {"color": 0, "hoist": False, "managed": False, "mentionable": False, "flags": 0}
        return {
            "id": str(self.id),
            "name": self.name,
            "owner_id": str(self.owner.id),
            "unavailable": False,
            "member_count": len(members),
            "large": False,
            "joined_at": "2024-01-01T00:00:00.000000+00:00",
            "roles": [everyone],
            "channels": [self.channel()],
            "members": [member_payload(user) for user in members],
            "emojis": [],
            "stickers": [],
            "threads": [],
            "presences": [],
            "voice_states": [],
            "stage_instances": [],
            "guild_scheduled_events": [],
            "soundboard_sounds": [],
            "features": [],
            "verification_level": 0,
            "default_message_notifications": 0,
            "explicit_content_filter": 0,
            "mfa_level": 0,
            "nsfw_level": 0,
            "premium_tier": 0,
            "premium_progress_bar_enabled": False,
            "preferred_locale": "en-US",
            "system_channel_flags": 0,
            "afk_timeout": 300,
            "icon": None,
        }


def member_payload(user: User) -> dict[str, Any]:
    return {
        "user": user.payload(),
        "nick": None,
        "roles": [],
        "joined_at": "2024-01-01T00:00:00.000000+00:00",
        "deaf": False,
        "mute": False,
        "flags": 0,
    }


def emoji_payload(emoji: str) -> dict[str, Any]:
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
    owner: User = field(default_factory=lambda: User("owner"))
    privileged: set[str] = field(default_factory=lambda: {"message_content"})
    shards: int = 1  # what /gateway/bot recommends
    max_concurrency: int = 1  # of its shards' IDENTIFYs within 5 seconds
    sharding_required: bool = False  # an IDENTIFY with fewer shards is closed with 4011
    token_reset: bool = False  # the token is refused from now on

    requests: list[str] = field(default_factory=list)
    identifies: list[Identify] = field(default_factory=list)
    resumes: list[float] = field(default_factory=list)
    used_before: int = (
        0  # IDENTIFYs that Discord has counted already, as those of an earlier process
    )
    reset_after: float = 86_400  # seconds until it counts anew
    updates: list[dict[str, Any]] = field(default_factory=list)  # its presences and voice states
    client_closes: list[int | None] = field(
        default_factory=list
    )  # how the bot ended each of its connections
    commands: list[dict[str, Any]] = field(default_factory=list)  # its slash commands, as uploaded
    messages: list[dict[str, Any]] = field(
        default_factory=list
    )  # what the bot has said: the requests' JSON
    sessions: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.token = self.token or make_token(self.user.id)

    @property
    def live(self) -> list[Any]:
        """The gateway connections that have a session and are open now."""
        return [
            session.connection
            for session in self.sessions.values()
            if session.connection is not None
        ]

    def forget_sessions(self) -> None:
        """Discord ends its sessions: a RESUME is refused."""
        for session in self.sessions.values():
            session.ended = True

    @property
    def online(self) -> bool:
        """Whether people see this bot as online: it has a session that has not ended, connected or not."""
        return any(not session.ended for session in self.sessions.values())

    @property
    def ready(self) -> bool:
        """Whether every shard of the bot has a live session that got its READY."""
        live = [
            session
            for session in self.sessions.values()
            if session.connection is not None and session.is_ready
        ]
        return bool(live) and len(live) == (live[0].shard or (0, 1))[1]

    def allows(self, intents: int) -> bool:
        """Whether every privileged intent among these is switched on in the Developer Portal."""
        return all(name in self.privileged for name in PRIVILEGED_FLAGS if intents & INTENTS[name])

    def application(self) -> dict[str, Any]:
        """What GET /oauth2/applications/@me answers."""
        # The lower of the two bits is the verified form; a small application has the "limited" one.
        flags = sum(
            PRIVILEGED_FLAGS[name] & ~(PRIVILEGED_FLAGS[name] >> 1) for name in self.privileged
        )
        return {
            "id": str(self.user.id),
            "name": self.user.name,
            "icon": None,
            "description": "",
            "summary": "",
            "bot_public": True,
            "bot_require_code_grant": False,
            "verify_key": "0" * 64,
            "owner": self.owner.payload(),
            "team": None,
            "flags": flags,
            "approximate_guild_count": len(self.guilds),
            "interactions_endpoint_url": None,
            "bot": self.user.payload(),
        }
