"""What a person types into the playground, and what it shows."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import shutil
import sys
import threading
import time
from typing import Any

from . import Account, Interaction, LocalDiscord, User
from .bots import Bots
from .interactions import (
    ANSWER_TIMEOUT,
    BUTTON,
    EPHEMERAL,
    LABEL,
    LOADING,
    OTHER_SELECTS,
    STRING_SELECT,
    TEXT_DISPLAY,
    TEXT_INPUT,
    parts_of,
)
from .slash import Unclear, parse, slash_commands, usages

try:
    import readline  # input() then has the arrow keys, a history, and Tab
except ModuleNotFoundError:  # Windows
    readline = None  # type: ignore[assignment]

# By its first word: what comes after it, and what it does.
COMMANDS = {
    "--help": ("", "show this"),
    "--as": ("NAME", "write as this person from now on; a new name joins the server"),
    "--dm": ("BOT", "write direct messages to this bot from now on"),
    "--channel": ("", "write in #general again"),
    "--reply": ("TEXT", "reply to the last message of a bot"),
    "--react": ("EMOJI", "react to the last message of a bot; once more takes it away"),
    "--click": ("LABEL", "press this button, or choose this from a menu; A | B chooses both"),
    "--fill": ("A | B | C", "fill in the form that a bot has opened, from top to bottom"),
    "--edit": ("TEXT", "change your last message"),
    "--delete": ("", "delete your last message"),
    "--restart": ("", "start run_bots.py again; a saved .py file or .env does it too"),
    "--quit": ("", "end; so do quit and Ctrl-C"),
}
EXAMPLES = {
    "hello": "a message; @name in it mentions a bot or a person",
    "/roll sides:6": "a slash command with its options; / alone shows them all",
    "@dice /roll": "the same, where two bots have such a command",
}
HELP = "\n".join(
    ["what you can type:"]
    + [f"  {what:<18}{text}" for what, text in EXAMPLES.items()]
    + [f"  {f'{name} {argument}':<18}{text}" for name, (argument, text) in COMMANDS.items()]
    + [
        "Slash commands are there at once. On the real Discord, upload them first: run_bots.py --sync-commands"
    ]
    + [
        "Not here: roles, kicks, threads, pins, polls, voice, your own files, autocomplete, context menus."
    ]
)
HINT = "Each line that you type is a message to the bots, for example: ping. More: --help. To end: quit, or Ctrl-C."
# Seconds that answers may take: the first one to a message, one after another, and one that the bot has announced.
FIRST_ANSWER, QUIET, ANNOUNCED = 1.0, 0.5, 10.0
LINK = 5  # the style of a button that opens a web page


def short(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def embed_text(embed: dict[str, Any]) -> str:
    """An embed in a line."""
    head = " — ".join(
        short(embed[name], 200) for name in ("title", "description") if embed.get(name)
    )
    fields = [
        f"{short(field['name'], 40)}: {short(field['value'], 60)}"
        for field in embed.get("fields", [])
    ]
    rest = [
        embed[name]["text" if name == "footer" else "name"]
        for name in ("author", "footer")
        if embed.get(name)
    ]
    pictures = [name for name in ("image", "thumbnail") if embed.get(name)]
    return f"[embed: {'; '.join(filter(None, [head, *fields, *rest, *pictures]))}]"


def component_text(component: dict[str, Any]) -> str:
    """A button as [Label], a menu as [a | b], a text as it is; nothing for what only holds others."""
    if component["type"] == TEXT_DISPLAY:
        return str(component["content"])
    if component["type"] == BUTTON:
        emoji = (component.get("emoji") or {}).get("name", "")
        label = " ".join(filter(None, [emoji, component.get("label")]))
        return f"[{label}{' (off)' if component.get('disabled') else ''}]"
    if component["type"] == STRING_SELECT:
        return f"[{' | '.join(option['label'] for option in component['options'])}]"
    if component["type"] in OTHER_SELECTS:
        return "[a menu of users, roles or channels, which the playground does not have]"
    return ""


class Playground:
    """A person at a terminal, or at the end of a pipe, in front of the local Discord."""

    def __init__(self, discord: LocalDiscord, env_file: str | None) -> None:
        self.discord = discord
        self.bots = Bots(discord, env_file, self.tell)
        self.me = discord.people[0]
        self.partner: Account | None = None  # the bot that gets direct messages
        self.terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self.stop_asked = asyncio.Event()
        self._prompts: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._prompt = ""  # the one that stands at the bottom now
        self._busy: dict[str, float] = {}  # by who does something: until when more may come of it
        self._form: dict[str, Any] | None = None  # the one that is open
        self._waiting: set[asyncio.Task[None]] = set()
        discord.on_event = self.on_event
        if readline:
            readline.set_completer(self._complete)
            readline.set_completer_delims(" :")
            readline.parse_and_bind("tab: complete")

    # --- lines in and out

    async def talk(self) -> None:
        """Wait for the bots, then do line after line of what the person types."""
        await self.bots.settled.wait()
        self.tell(HINT)
        lines: asyncio.Queue[str] = asyncio.Queue()
        threading.Thread(
            target=self._read_lines, args=(asyncio.get_running_loop(), lines), daemon=True
        ).start()
        while True:
            if self.partner not in self.bots.accounts.values():
                self.partner = None
            place = f" → {self.partner.user.name}" if self.partner else ""
            self._prompts.put(f"{self.me.name}{place}> ")
            line = await lines.get()
            if line in ("quit", "exit", "--quit"):
                return
            await self.bots.settled.wait()  # they may just be starting again
            try:
                await self._do(line)
            except Unclear as why:
                self.tell(str(why))
            if not self.terminal:
                await self._answers()

    def _read_lines(self, loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[str]) -> None:
        """Put the lines of stdin into the queue. It blocks, so it runs in a thread."""
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            with contextlib.suppress(OSError, EOFError):  # the terminal is gone, or it is the end
                while True:
                    prompt = self._prompts.get()
                    if self.terminal:
                        self._prompt = prompt
                        line = input(prompt)
                        self._prompt = ""
                    elif not (line := sys.stdin.readline()):
                        break
                    loop.call_soon_threadsafe(lines.put_nowait, line.strip())
            loop.call_soon_threadsafe(lines.put_nowait, "quit")

    def _complete(self, start: str, index: int) -> str | None:
        """What the Tab key makes of the start of a word: the next of all that fit."""
        slash = [
            it["name"] for bot in self.bots.accounts.values() for it in slash_commands(bot.commands)
        ]
        words = [
            *COMMANDS,
            *(f"/{name}" for name in slash),
            *(f"@{user.name}" for user in self.discord.users),
        ]
        return [*(f"{word} " for word in words if word.startswith(start)), None][index]

    def show(self, text: str, file: Any = None) -> None:
        """Print a line; on a terminal above the prompt and what is typed there."""
        prompt = self._prompt
        try:
            if (
                prompt
            ):  # spaces, because an old Windows console does not know the code that clears a line
                print("\r" + " " * (shutil.get_terminal_size().columns - 1), end="\r", flush=True)
            print(text, file=file, flush=True)
            if prompt:
                print(prompt + (readline.get_line_buffer() if readline else ""), end="", flush=True)
        except OSError:  # nobody reads it any more, as with: | head -1
            self.stop_asked.set()

    def tell(self, text: str) -> None:
        """Print what is about the playground and not said by a bot."""
        self.show(text, sys.stderr)

    async def _answers(self) -> None:
        """Wait until all answers should be there."""
        if self._waiting:
            await asyncio.wait(self._waiting)
        while time.monotonic() < max(self._busy.values(), default=0):
            await asyncio.sleep(0.02)

    # --- what a person types

    @property
    def channel_id(self) -> int:
        return (
            self.discord.direct_channel(self.partner, self.me)
            if self.partner
            else self.discord.guild.channel_id
        )

    async def _do(self, line: str) -> None:
        if not line:
            return
        self._busy = {}
        if self.partner and not line.startswith("--"):
            self._check_ready(self.partner)
        word, _, rest = line.partition(" ")
        if word in COMMANDS:
            argument, _ = COMMANDS[word]
            if argument and not rest.strip():
                raise Unclear(f"{word} needs something after it: {word} {argument}")
            await getattr(self, f"_do_{word[2:]}")(rest.strip())
        elif word.startswith("--"):
            raise Unclear(f"There is no {word}. --help shows what there is.")
        elif called := re.fullmatch(r"(?:@(\S.*?)\s+)?/(.*)", line):
            await self._call(called[1], called[2])
        else:
            if not any(bot.ready for bot in self.bots.accounts.values()):
                self.tell("No bot is ready. Nobody hears you.")
            await self.discord.say(self._with_mentions(line), self.me, self.channel_id)

    async def _do_help(self, _: str) -> None:
        bots = listed_names(account.user for account in self.bots.accounts.values())
        guild = self.discord.guild
        self.tell(
            f"{HELP}\n\nbots: {bots}\npeople: {listed_names(self.discord.people)} ({guild.owner.name} may do all)"
        )
        self.tell(f"server: {guild.name}, id {guild.id}; channel: #general, id {guild.channel_id}")

    async def _do_as(self, name: str) -> None:
        person = self._find_user(name)
        if person is None:
            person = User(name)
            await self.discord.join(person)
        elif person.bot:
            raise Unclear(f"{person.name} is a bot. Give the name of a person.")
        self.me = person

    async def _do_dm(self, name: str) -> None:
        self.partner = self._find_bot(name)

    async def _do_channel(self, _: str) -> None:
        self.partner = None

    async def _do_reply(self, text: str) -> None:
        message = self._last_of_a_bot()
        await self.discord.say(
            self._with_mentions(text), self.me, self.channel_id, reply_to=message["id"]
        )

    async def _do_react(self, emoji: str) -> None:
        if emoji.isascii() or " " in emoji:
            raise Unclear("Give the emoji itself, such as: --react 👍")
        message = self._last_of_a_bot()
        there = self.me in self.discord.reactions.get(message["id"], {}).get(emoji, [])
        await self.discord.react(message, emoji, self.me, take_away=there)

    async def _do_click(self, label: str) -> None:
        choices = [choice.strip().casefold() for choice in label.split("|")]
        there = []
        for message in reversed(self._messages()):
            for component in parts_of(message["components"]):
                values = [
                    it["value"]
                    for it in component.get("options", [])
                    if it["label"].casefold() in choices
                ]
                texts = (component_text(component).strip("[]"), component.get("label") or "")
                is_button = component["type"] == BUTTON and any(
                    self._same(text, label) for text in texts
                )
                if component["type"] in (BUTTON, STRING_SELECT):
                    there.append(component_text(component))
                if component.get("disabled"):
                    continue
                if len(values) != len(choices) and not is_button:
                    continue
                if component.get("style") == LINK:
                    raise Unclear(f"[{label}] opens a web page: {component['url']}")
                interaction = await self.discord.click(message, component, values, self.me)
                self._expect_answer(interaction, f"[{label}]")
                return
        what = f"These are there: {' '.join(there)}" if there else "There is none at all."
        raise Unclear(
            f"There is no button [{label}] that can be pressed here, and no menu with it. {what}"
        )

    async def _do_fill(self, texts: str) -> None:
        if self._form is None:
            raise Unclear("No form is open.")
        inputs = self._inputs(self._form)
        values = [value.strip() for value in texts.split("|")]
        if len(values) != len(inputs):
            raise Unclear(f"The form has {len(inputs)} fields. Type: --fill {' | '.join(inputs)}")
        answers = {}
        for (label, field), text in zip(inputs.items(), values, strict=True):
            value = text or field.get("value") or ""
            if field.get("required", True) and not value:
                raise Unclear(f"{label} must not be empty.")
            if (
                not field.get("min_length", 0) <= len(value) <= field.get("max_length", 4000)
                and value
            ):
                raise Unclear(f"{label} has {len(value)} characters. The form does not allow that.")
            answers[field["custom_id"]] = value
        form, self._form = self._form, None
        bot = self._find_bot(form["bot"])
        self._expect_answer(
            await self.discord.submit(bot, form, answers, self.me, self.channel_id), "the form"
        )

    @staticmethod
    def _inputs(form: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The text inputs of a form, by their labels."""
        inputs = {}
        label = ""
        for component in parts_of(form["components"]):
            if component["type"] == LABEL:
                label = component["label"]
            elif component["type"] == TEXT_INPUT:
                inputs[component.get("label") or label] = component
        return inputs

    async def _do_edit(self, text: str) -> None:
        await self.discord.edit(
            self._last_of_mine(), self.me, {"content": self._with_mentions(text)}
        )

    async def _do_delete(self, _: str) -> None:
        await self.discord.delete([self._last_of_mine()], self.me)

    async def _do_restart(self, _: str) -> None:
        self.bots.settled.clear()
        self.bots.restart_asked.set()
        await self.bots.settled.wait()

    async def _call(self, bot_name: str | None, text: str) -> None:
        """Call a slash command."""
        bots = list(self.bots.accounts.values())
        if bot_name:
            bots = [self._find_bot(bot_name)]
        elif self.partner:
            bots = [self.partner]
        name, _, rest = text.partition(" ")
        found = [
            (bot, it) for bot in bots for it in slash_commands(bot.commands) if it["name"] == name
        ]
        if not found:
            known = [
                f"  {usage:<40} {bot.user.name}"
                for bot in bots
                for it in slash_commands(bot.commands)
                for usage in usages(it)
            ]
            problem = f"There is no slash command /{name}. " if name else ""
            there = (
                ["These are there:", *known]
                if known
                else [f"{listed_names(bot.user for bot in bots)}: no slash commands."]
            )
            raise Unclear(problem + "\n".join(there))
        if len(found) > 1:
            ways = " or ".join(f"@{bot.user.name} /{name}" for bot, _ in found)
            raise Unclear(f"Several bots have /{name}. Type {ways}.")
        [(bot, command)] = found
        self._check_ready(bot)
        options = parse(command, self._with_mentions(rest.strip()), self._find_id)
        channel_id = self.discord.direct_channel(bot, self.me) if self.partner else self.channel_id
        interaction = await self.discord.call(
            bot, name, self.me, options=options, channel_id=channel_id
        )
        self._expect_answer(interaction, f"/{name}")

    def _expect_answer(self, interaction: Interaction, what: str) -> None:
        async def wait() -> None:
            while not interaction.answered and not interaction.late:
                await asyncio.sleep(0.02)
            if interaction.late:
                name = interaction.account.user.name
                problem = f"{name} has not answered {what} within {ANSWER_TIMEOUT} seconds."
                self.tell(f"{problem} On Discord people now see: The application did not respond")

        task = asyncio.create_task(wait())
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    # --- who and what is meant

    @staticmethod
    def _same(one: str, other: str) -> bool:
        return one.casefold() == other.casefold()

    def _with_mentions(self, text: str) -> str:
        """The text with Discord's mention for each @name of a bot or a person."""
        for user in sorted(self.discord.users, key=lambda user: -len(user.name)):
            text = re.sub(rf"(?i)(?<!\w)@{re.escape(user.name)}(?!\w)", user.mention, text)
        return text

    def _find_user(self, name: str) -> User | None:
        return next(
            (user for user in self.discord.users if self._same(user.name, name.lstrip("@"))), None
        )

    def _find_bot(self, name: str) -> Account:
        for account in self.bots.accounts.values():
            if self._same(account.user.name, name.lstrip("@")):
                return account
        bots = listed_names(account.user for account in self.bots.accounts.values())
        raise Unclear(f"There is no bot {name}. These are there: {bots}.")

    @staticmethod
    def _check_ready(bot: Account) -> None:
        if not bot.ready:
            raise Unclear(f"{bot.user.name} is not ready.")

    def _find_id(self, text: str) -> int | None:
        """The id of a mentioned user, or of the channel."""
        if text == "#general":
            return self.discord.guild.channel_id
        for user in self.discord.users:
            if text == user.mention or self._same(text, user.name):
                return user.id
        return None

    def _messages(self) -> list[dict[str, Any]]:
        """The messages here."""
        return [
            it for it in self.discord.messages.values() if it["channel_id"] == str(self.channel_id)
        ]

    def _last_of_a_bot(self) -> dict[str, Any]:
        messages = [message for message in self._messages() if message["author"]["bot"]]
        if not messages:
            raise Unclear("There is no message of a bot here.")
        return messages[-1]

    def _last_of_mine(self) -> dict[str, Any]:
        messages = [
            message for message in self._messages() if message["author"]["id"] == str(self.me.id)
        ]
        if not messages:
            raise Unclear(f"There is no message of {self.me.name} here.")
        return messages[-1]

    # --- what the bots do

    def on_event(self, event: str, data: dict[str, Any], actor: User) -> None:
        """Show what a bot does, and what the person's own commands did."""
        if not actor.bot:
            self._busy[actor.name] = time.monotonic() + FIRST_ANSWER
            if event != "MESSAGE_CREATE":  # the person has just typed it
                self.tell(self._line(event, data, actor))
            return
        announced = event == "TYPING_START" or (
            event == "MESSAGE_CREATE" and bool(data["flags"] & LOADING)
        )
        self._busy[actor.name] = time.monotonic() + (ANNOUNCED if announced else QUIET)
        if event == "FORM":
            self._form = data | {"bot": actor.name}
            self.tell(
                f"{actor.name} opens a form: {data['title']}. Type: --fill {' | '.join(self._inputs(data))}"
            )
        elif event == "NOT_FOUND":
            what = f"{actor.name} asks Discord for {data['request']}. The playground does not have that."
            self.tell(f"{what} The bot gets a 404. It works only on the real Discord.")
        elif event != "TYPING_START":
            self.show(
                f"{actor.name} is thinking …" if announced else self._line(event, data, actor)
            )

    def _line(self, event: str, data: dict[str, Any], actor: User) -> str:
        """What somebody does with a message."""
        if event == "MESSAGE_UPDATE" and data["edited_timestamp"]:
            return f"{actor.name} edits: {self._text(data)}"
        if event in ("MESSAGE_CREATE", "MESSAGE_UPDATE"):
            return f"{actor.name}{self._audience(data)}: {self._text(data)}"
        if event == "MESSAGE_DELETE":
            return f"{actor.name} deletes {self._quote(data['id'])}"
        if event == "MESSAGE_DELETE_BULK":
            return f"{actor.name} deletes {len(data['ids'])} messages"
        message = self._quote(data["message_id"])
        if event == "MESSAGE_REACTION_REMOVE_ALL":
            return f"{actor.name} takes all reactions away from {message}"
        emoji = data["emoji"]["name"]
        if event == "MESSAGE_REACTION_ADD":
            return f"{actor.name} reacts {emoji} to {message}"
        return f"{actor.name} takes {emoji} away from {message}"

    def _audience(self, message: dict[str, Any]) -> str:
        """To whom a message is, if not to all."""
        if message.get("referenced_message"):
            return f" → {message['referenced_message']['author']['username']}"
        if message["flags"] & EPHEMERAL:
            return f" (only {message['interaction_metadata']['user']['username']} sees this)"
        if int(message["channel_id"]) in self.discord.direct:
            return f" (direct message to {self.discord.direct[int(message['channel_id'])][1].name})"
        return ""

    def _text(self, message: dict[str, Any]) -> str:
        """A message in short."""
        content = message["content"]
        for user in self.discord.users:
            content = re.sub(f"<@!?{user.id}>", f"@{user.name}", content)
        content = content.replace(f"<#{self.discord.guild.channel_id}>", "#general").replace(
            "\n", "\n    "
        )
        parts = [content, *map(embed_text, message["embeds"])]
        parts += map(component_text, parts_of(message["components"]))
        parts += [
            f"[file: {file['filename']}, {file['size']} bytes]" for file in message["attachments"]
        ]
        return " ".join(filter(None, parts)) or "(no text)"

    def _quote(self, message_id: str) -> str:
        message = self.discord.messages.get(message_id)
        if message is None:
            return "a message"
        return f'{message["author"]["username"]}\'s "{short(self._text(message), 40)}"'


def listed_names(users: Any) -> str:
    return ", ".join(user.name for user in users)
