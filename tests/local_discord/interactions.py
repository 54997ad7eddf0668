"""Slash commands, buttons and forms in use: https://docs.discord.com/developers/interactions/overview"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .world import Account, User, snowflake

COMMAND, COMPONENT, SUBMITTED_FORM = 2, 3, 5  # the types of an interaction
# What a bot may answer.
MESSAGE, DEFERRED_MESSAGE, DEFERRED_UPDATE, UPDATE, FORM = 4, 5, 6, 7, 9
EPHEMERAL, LOADING = (
    1 << 6,
    1 << 7,
)  # flags of a message: only one person sees it; the answer is still to come
FILE_SIZE_LIMIT = 10 * 1024 * 1024  # bytes
BUTTON, STRING_SELECT, TEXT_INPUT, TEXT_DISPLAY, LABEL = 2, 3, 4, 10, 18  # types of components
OTHER_SELECTS = (5, 6, 7, 8)  # of users, roles, both, and channels
ANSWER_TIMEOUT = (
    3  # seconds; after that Discord tells the person that the application did not respond
)


def parts_of(components: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All the components of a message or a form, also those in rows, sections, containers and labels."""
    for component in components:
        yield component
        single = [component[name] for name in ("accessory", "component") if component.get(name)]
        yield from parts_of([*component.get("components", []), *single])


@dataclass
class Interaction:
    """One of them, and what became of it."""

    account: Account
    author: User
    channel_id: int
    kind: int
    data: dict[str, Any]
    message: dict[str, Any] | None = None  # the one that has the button
    id: int = field(default_factory=snowflake)
    asked_at: float = field(default_factory=time.monotonic)
    answered: bool = False
    answer: dict[str, Any] | None = None  # the message that it made or changed

    @property
    def token(self) -> str:
        return f"interaction-{self.id}"

    @property
    def late(self) -> bool:
        return not self.answered and time.monotonic() > self.asked_at + ANSWER_TIMEOUT

    def payload(self) -> dict[str, Any]:
        """What INTERACTION_CREATE carries, but for the place and the person."""
        payload = {
            "id": str(self.id),
            "application_id": str(self.account.user.id),
            "type": self.kind,
            "data": self.data,
            "channel_id": str(self.channel_id),
            "token": self.token,
            "version": 1,
            "locale": "en-US",
            "entitlements": [],
            "authorizing_integration_owners": {},
            "attachment_size_limit": FILE_SIZE_LIMIT,
        }
        return payload if self.message is None else payload | {"message": self.message}

    def metadata(self) -> dict[str, Any]:
        """What the messages that come of it have more than others."""
        about = {"id": str(self.id), "type": self.kind, "user": self.author.payload()}
        return {
            "application_id": str(self.account.user.id),
            "webhook_id": str(self.account.user.id),
            "interaction_metadata": about | {"authorizing_integration_owners": {}},
        }
