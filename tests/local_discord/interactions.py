"""Slash commands, buttons and forms in use:
https://docs.discord.com/developers/interactions/overview
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from .world import Account, Json, User, snowflake

# The types of an interaction.
COMMAND = 2
COMPONENT = 3
SUBMITTED_FORM = 5

# Flags of a message.
EPHEMERAL = 1 << 6  # only one person sees it
LOADING = 1 << 7  # the answer is still to come

# The types of components.
BUTTON = 2
STRING_SELECT = 3
TEXT_INPUT = 4
OTHER_SELECTS = (5, 6, 7, 8)  # of users, roles, both, and channels
TEXT_DISPLAY = 10
LABEL = 18

FILE_SIZE_LIMIT = 10 * 1024 * 1024  # bytes
# Seconds; after that Discord tells the person that the application did not respond.
ANSWER_TIMEOUT = 3


class Answer(enum.IntEnum):
    """What a bot may answer."""

    MESSAGE = 4
    DEFERRED_MESSAGE = 5
    DEFERRED_UPDATE = 6
    UPDATE = 7
    FORM = 9


def parts_of(components: list[Json]) -> Iterator[Json]:
    """All the components of a message or a form, also those inside others, such as rows."""
    for component in components:
        yield component
        yield from parts_of(component.get("components", []))
        for name in ("accessory", "component"):  # where others hold a single one
            if component.get(name):
                yield from parts_of([component[name]])


@dataclass
class Interaction:
    """One of them, and what became of it."""

    account: Account
    author: User
    channel_id: int
    kind: int
    data: Json
    message: Json | None = None  # the one that has the button
    id: int = field(default_factory=snowflake)
    asked_at: float = field(default_factory=time.monotonic)
    answered: bool = False
    answer: Json | None = None  # the message that it made or changed

    @property
    def token(self) -> str:
        return f"interaction-{self.id}"

    @property
    def late(self) -> bool:
        return not self.answered and time.monotonic() > self.asked_at + ANSWER_TIMEOUT

    def payload(self) -> Json:
        """What INTERACTION_CREATE carries, but for the place and the person."""
        payload: Json = {"id": str(self.id), "type": self.kind, "data": self.data}
        payload |= {"token": self.token, "version": 1, "locale": "en-US", "entitlements": []}
        payload["application_id"] = str(self.account.user.id)
        payload["channel_id"] = str(self.channel_id)
        payload["authorizing_integration_owners"] = {}
        payload["attachment_size_limit"] = FILE_SIZE_LIMIT
        if self.message is not None:
            payload["message"] = self.message
        return payload

    def metadata(self) -> Json:
        """What the messages that come of it have more than others."""
        application_id = str(self.account.user.id)
        about = {"id": str(self.id), "type": self.kind, "user": self.author.payload()}
        return {
            "application_id": application_id,
            "webhook_id": application_id,
            "interaction_metadata": about | {"authorizing_integration_owners": {}},
        }
