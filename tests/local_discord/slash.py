"""Slash commands as a person types them: `/ask question:how are you count:3`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from .world import Json

FindId = Callable[[str], int | None]  # of a @name or a #channel


# The types of options:
# https://docs.discord.com/developers/interactions/application-commands#application-command-object-application-command-option-type
SUBCOMMAND = 1
GROUP = 2
STRING = 3
INTEGER = 4
BOOLEAN = 5
USER = 6
CHANNEL = 7
MENTIONABLE = 9
NUMBER = 10
KINDS = {
    STRING: "text",
    INTEGER: "whole number",
    BOOLEAN: "true or false",
    USER: "@name",
    CHANNEL: "#general",
    MENTIONABLE: "@name",
    NUMBER: "number",
}
BOOLEANS = {"true": True, "false": False}


class Unclear(Exception):
    """What the person has typed cannot be done. The text says why."""


# --- what there is


def slash_commands(commands: list[Json]) -> list[Json]:
    """Those that are typed, without the ones in the menus of users and messages."""
    typed = []
    for command in commands:
        if command.get("type", 1) == 1:
            typed.append(command)
    return typed


def subcommands(command: Json) -> dict[str, Json]:
    """A command's subcommands and groups of them, by their names."""
    below = {}
    for option in command.get("options", []):
        if option["type"] in (SUBCOMMAND, GROUP):
            name = option["name"]
            below[name] = option
    return below


def usages(command: Json, path: str = "/") -> list[str]:
    """How to type a command, and each of its subcommands. `path` is what stands before it."""
    path += command["name"]
    below = subcommands(command)
    if not below:
        options = map(option_usage, command.get("options", []))
        return [" ".join([path, *options])]
    found = []
    for option in below.values():
        found += usages(option, f"{path} ")
    return found


def option_usage(option: Json) -> str:
    kind = KINDS.get(option["type"], "?")
    choices = option.get("choices", [])
    if choices:
        kind = "|".join(choice["name"] for choice in choices)
    usage = f"{option['name']}:<{kind}>"
    return usage if option.get("required") else f"[{usage}]"


# --- what is typed


def parse(command: Json, text: str, find_id: FindId, path: str = "/") -> list[Json]:
    """The options in the text after a command's name, in Discord's form.

    `path` is what stands before the name, where the command is a subcommand. Raises `Unclear`.
    """
    below = subcommands(command)
    if not below:
        try:
            return parse_options(command.get("options", []), text, find_id)
        except Unclear as problem:
            [usage] = usages(command, path)
            raise Unclear(f"{problem} Type: {usage}") from None
    path += command["name"]
    name, _, rest = text.partition(" ")
    if name not in below:
        names = ", ".join(below)
        raise Unclear(f"{path} needs one of these after it: {names}.")
    option = below[name]
    options = parse(option, rest.strip(), find_id, f"{path} ")
    return [{"name": name, "type": option["type"], "options": options}]


def parse_options(known: list[Json], text: str, find_id: FindId) -> list[Json]:
    texts = split_options([option["name"] for option in known], text)
    given, missing = [], []
    for option in known:
        if texts.get(option["name"]):
            given.append(option)
        elif option.get("required"):
            missing.append(option["name"])
    if missing:
        raise Unclear(f"{', '.join(missing)} is missing.")
    options = []
    for option in given:
        name = option["name"]
        value = convert(option, texts[name], find_id)
        options.append({"name": name, "type": option["type"], "value": value})
    return options


def split_options(names: list[str], text: str) -> dict[str, str]:
    """What is typed for each option."""
    parts = [text]
    if names:
        any_name = "|".join(map(re.escape, names))
        parts = re.split(rf"(?:^|\s)({any_name}):", text)
    unnamed, *rest = map(str.strip, parts)
    named, typed = rest[::2], rest[1::2]
    texts = dict(zip(named, typed, strict=True))
    if unnamed:  # as in Discord, it is for the first option that is not set
        free = [name for name in names if name not in texts]
        if not free:
            raise Unclear(f'There is no option for "{unnamed}".')
        texts[free[0]] = unnamed
    return texts


# --- what an option's text means


def convert(option: Json, text: str, find_id: FindId) -> Any:
    """An option's value. Raises `Unclear` if the text does not fit."""
    try:
        return to_value(option, text, find_id)
    except ValueError as problem:
        raise Unclear(f'{option["name"]} is "{text}": {problem}.') from None


def to_value(option: Json, text: str, find_id: FindId) -> Any:
    kind = option["type"]
    if option.get("choices"):
        return to_choice(option["choices"], text)
    if kind == STRING:
        least = option.get("min_length", 0)
        most = option.get("max_length", math.inf)
        check_range("its number of characters must be", len(text), least, most)
        return text
    if kind in (INTEGER, NUMBER):
        number = to_number(kind, text)
        least = option.get("min_value", -math.inf)
        most = option.get("max_value", math.inf)
        check_range("it must be", number, least, most)
        return number
    if kind == BOOLEAN:
        return to_boolean(text)
    if kind in (USER, CHANNEL, MENTIONABLE):
        return to_id(kind, find_id(text))
    raise ValueError("the playground has no roles and sends no files")


def to_choice(choices: list[Json], text: str) -> Any:
    wanted = text.casefold()
    for choice in choices:
        name, value = choice["name"], choice["value"]
        if wanted in (name.casefold(), str(value).casefold()):
            return value
    raise ValueError("it is not one of the choices")


def to_number(kind: int, text: str) -> float:
    convert_text = int if kind == INTEGER else float
    try:
        return convert_text(text)
    except ValueError:
        raise ValueError(f"it must be a {KINDS[kind]}") from None


def check_range(subject: str, size: float, least: float, most: float) -> None:
    if size < least:
        raise ValueError(f"{subject} {least} or more")
    if size > most:
        raise ValueError(f"{subject} {most} or less")


def to_boolean(text: str) -> bool:
    value = BOOLEANS.get(text.lower())
    if value is None:
        raise ValueError("it must be true or false")
    return value


def to_id(kind: int, found: int | None) -> str:
    if found is not None:
        return str(found)
    if kind == CHANNEL:
        raise ValueError("the one channel is #general")
    raise ValueError("there is nobody of that name")
