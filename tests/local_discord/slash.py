"""Slash commands as a person types them: `/ask question:how are you count:3`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

# https://docs.discord.com/developers/interactions/application-commands#application-command-object-application-command-option-type
SUBCOMMAND, GROUP, STRING, INTEGER, BOOLEAN, USER, CHANNEL, MENTIONABLE, NUMBER = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    9,
    10,
)
KINDS = {
    STRING: "text",
    INTEGER: "whole number",
    BOOLEAN: "true or false",
    USER: "@name",
    CHANNEL: "#general",
    MENTIONABLE: "@name",
    NUMBER: "number",
}

Command = dict[str, Any]


class Unclear(Exception):
    """What the person has typed cannot be done. The text says why."""


def slash_commands(commands: list[Command]) -> list[Command]:
    """Those that are typed, without the ones in the menus of users and messages."""
    return [command for command in commands if command.get("type", 1) == 1]


def usages(command: Command, path: str = "/") -> list[str]:
    """How to type a command, and each of its subcommands."""
    path += command["name"]
    options = command.get("options", [])
    nested = [option for option in options if option["type"] in (SUBCOMMAND, GROUP)]
    if nested:
        return [usage for option in nested for usage in usages(option, f"{path} ")]
    texts = []
    for option in options:
        kind = "|".join(choice["name"] for choice in option.get("choices", [])) or KINDS.get(
            option["type"], "?"
        )
        texts.append(
            f"{option['name']}:<{kind}>"
            if option.get("required")
            else f"[{option['name']}:<{kind}>]"
        )
    return [" ".join([path, *texts])]


def parse(
    command: Command, text: str, find_id: Callable[[str], int | None], path: str = "/"
) -> list[dict[str, Any]]:
    """The options in the text after a command's name, in Discord's form. `find_id` finds a @name or a #channel.

    `path` is what stands before the name, where the command is a subcommand. Raises `Unclear`.
    """
    known = command.get("options", [])
    nested = {option["name"]: option for option in known if option["type"] in (SUBCOMMAND, GROUP)}
    if nested:
        name, _, rest = text.partition(" ")
        if name not in nested:
            raise Unclear(
                f"{path}{command['name']} needs one of these after it: {', '.join(nested)}."
            )
        options = parse(nested[name], rest.strip(), find_id, f"{path}{command['name']} ")
        return [{"name": name, "type": nested[name]["type"], "options": options}]

    how = f"Type: {usages(command, path)[0]}"
    names = "|".join(re.escape(option["name"]) for option in known)
    first, *parts = re.split(rf"(?:^|\s)({names}):", text) if names else [text]
    texts = {name: value.strip() for name, value in zip(parts[::2], parts[1::2], strict=True)}
    if first.strip():  # as in Discord, what has no name is for the first option that is not set
        free = [option["name"] for option in known if option["name"] not in texts]
        if not free:
            raise Unclear(f'There is no option for "{first.strip()}". {how}')
        texts[free[0]] = first.strip()
    missing = [
        option["name"]
        for option in known
        if option.get("required") and not texts.get(option["name"])
    ]
    if missing:
        raise Unclear(f"{', '.join(missing)} is missing. {how}")
    options = []
    for option in known:
        if texts.get(option["name"]):
            try:
                value = convert(option, texts[option["name"]], find_id)
            except ValueError as error:
                raise Unclear(
                    f'{option["name"]} is "{texts[option["name"]]}": {error}. {how}'
                ) from None
            options.append({"name": option["name"], "type": option["type"], "value": value})
    return options


def convert(option: dict[str, Any], text: str, find_id: Callable[[str], int | None]) -> Any:
    """An option's value. Raises `ValueError` if it does not fit."""
    kind = option["type"]
    for choice in option.get("choices", []):
        if text.casefold() in (choice["name"].casefold(), str(choice["value"]).casefold()):
            return choice["value"]
    if option.get("choices"):
        raise ValueError("it is not one of the choices")
    if kind == BOOLEAN:
        if text.lower() not in ("true", "false"):
            raise ValueError("it must be true or false")
        return text.lower() == "true"
    if kind in (USER, CHANNEL, MENTIONABLE):
        found = find_id(text)
        if found is None:
            raise ValueError(
                "there is nobody of that name" if kind != CHANNEL else "the one channel is #general"
            )
        return str(found)
    if kind in (INTEGER, NUMBER):
        try:
            measure = int(text) if kind == INTEGER else float(text)
        except ValueError:
            raise ValueError(f"it must be a {KINDS[kind]}") from None
        what, least, most = "it must be", option.get("min_value"), option.get("max_value")
    elif kind == STRING:
        measure, least, most = len(text), option.get("min_length"), option.get("max_length")
        what = "its number of characters must be"
    else:
        raise ValueError("the playground has no roles and sends no files")
    if least is not None and measure < least:
        raise ValueError(f"{what} {least} or more")
    if most is not None and measure > most:
        raise ValueError(f"{what} {most} or less")
    return text if kind == STRING else measure
