"""What happens in the local Discord, in lines that a person reads."""

from __future__ import annotations

import re
from collections.abc import Iterable

from . import LocalDiscord, User
from .interactions import (
    BUTTON,
    EPHEMERAL,
    OTHER_SELECTS,
    STRING_SELECT,
    TEXT_DISPLAY,
    parts_of,
)
from .world import Json

MENUS_THAT_ARE_NOT_HERE = "[a menu of users, roles or channels, which the playground does not have]"


def listed_names(users: Iterable[User]) -> str:
    return ", ".join(user.name for user in users)


def short(text: str, length: int) -> str:
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    beginning = text[: length - 1]
    return f"{beginning}…"


def embed_text(embed: Json) -> str:
    """An embed in a line."""
    head = []
    for name in ("title", "description"):
        if embed.get(name):
            head.append(short(embed[name], 200))
    parts = [" — ".join(head)]
    for field in embed.get("fields", []):
        name = short(field["name"], 40)
        value = short(field["value"], 60)
        parts.append(f"{name}: {value}")
    if embed.get("author"):
        parts.append(embed["author"]["name"])
    if embed.get("footer"):
        parts.append(embed["footer"]["text"])
    for name in ("image", "thumbnail"):
        if embed.get(name):
            parts.append(name)
    text = "; ".join(filter(None, parts))
    return f"[embed: {text}]"


def component_text(component: Json) -> str:
    """A button as [Label], a menu as [a | b], a text as it is; nothing for what holds others."""
    kind = component["type"]
    if kind == TEXT_DISPLAY:
        return str(component["content"])
    if kind == BUTTON:
        off = " (off)" if component.get("disabled") else ""
        return f"[{button_text(component)}{off}]"
    if kind == STRING_SELECT:
        labels = [option["label"] for option in component["options"]]
        return f"[{' | '.join(labels)}]"
    if kind in OTHER_SELECTS:
        return MENUS_THAT_ARE_NOT_HERE
    return ""


def button_text(button: Json) -> str:
    emoji = button.get("emoji") or {}
    parts = [emoji.get("name"), button.get("label")]
    return " ".join(filter(None, parts))


class Texts:
    """The lines, with the names of those who are in this Discord."""

    def __init__(self, discord: LocalDiscord) -> None:
        self.discord = discord

    def line(self, event: str, data: Json, actor: User) -> str:
        """What somebody does with a message."""
        match event:
            case "MESSAGE_UPDATE" if data["edited_timestamp"]:
                does = f" edits: {self.message(data)}"
            case "MESSAGE_CREATE" | "MESSAGE_UPDATE":
                audience = self._audience(data)
                does = f"{audience}: {self.message(data)}"
            case "MESSAGE_DELETE":
                does = f" deletes {self._quote(data['id'])}"
            case "MESSAGE_DELETE_BULK":
                does = f" deletes {len(data['ids'])} messages"
            case _:
                does = self._reaction(event, data)
        return f"{actor.name}{does}"

    def _reaction(self, event: str, data: Json) -> str:
        message = self._quote(data["message_id"])
        if event == "MESSAGE_REACTION_REMOVE_ALL":
            return f" takes all reactions away from {message}"
        emoji = data["emoji"]["name"]
        if event == "MESSAGE_REACTION_ADD":
            return f" reacts {emoji} to {message}"
        return f" takes {emoji} away from {message}"

    def _audience(self, message: Json) -> str:
        """To whom a message is, if not to all."""
        original = message.get("referenced_message")
        if original:
            return f" → {original['author']['username']}"
        if message["flags"] & EPHEMERAL:
            person = message["interaction_metadata"]["user"]
            return f" (only {person['username']} sees this)"
        channel_id = int(message["channel_id"])
        direct = self.discord.direct.get(channel_id)
        if direct is None:
            return ""
        _, partner = direct
        return f" (direct message to {partner.name})"

    def message(self, message: Json) -> str:
        """A message in short."""
        parts = [self._without_ids(message["content"])]
        parts += map(embed_text, message["embeds"])
        parts += map(component_text, parts_of(message["components"]))
        for file in message["attachments"]:
            name, size = file["filename"], file["size"]
            parts.append(f"[file: {name}, {size} bytes]")
        return " ".join(filter(None, parts)) or "(no text)"

    def _without_ids(self, content: str) -> str:
        """The text with names in it, and its further lines indented."""
        for user in self.discord.users:
            content = re.sub(f"<@!?{user.id}>", f"@{user.name}", content)
        guild = self.discord.guild
        content = content.replace(f"<#{guild.channel_id}>", "#general")
        return content.replace("\n", "\n    ")

    def _quote(self, message_id: str) -> str:
        message = self.discord.messages.get(message_id)
        if message is None:
            return "a message"
        author = message["author"]["username"]
        text = short(self.message(message), 40)
        return f'{author}\'s "{text}"'
