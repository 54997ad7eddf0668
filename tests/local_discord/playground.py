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
from collections.abc import Callable, Iterator
from typing import Any

from . import Account, Interaction, LocalDiscord, User
from .bots import Bots
from .interactions import (
    ANSWER_TIMEOUT,
    BUTTON,
    LABEL,
    LOADING,
    STRING_SELECT,
    TEXT_INPUT,
    parts_of,
)
from .slash import Unclear, parse, slash_commands, usages
from .texts import Texts, component_text, listed_names
from .world import Json

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
REMARKS = (
    "Slash commands are there at once. On the real Discord, upload them first: "
    "run_bots.py --sync-commands",
    "Not here: roles, kicks, threads, pins, polls, voice, your own files, autocomplete, "
    "context menus.",
    "Tokens are made up here, so an empty or a wrong one makes no difference.",
)
HINT = (
    "Each line that you type is a message to the bots, for example: {example}\n"
    "More: --help. To end: quit, or Ctrl-C."
)
# Seconds that answers may take: the first one to a message, one after another, and one that the
# bot has announced.
FIRST_ANSWER = 1.0
QUIET = 0.5
ANNOUNCED = 10.0
LOOK_INTERVAL = 0.02  # seconds

LINK = 5  # the style of a button that opens a web page
INPUT_LENGTH = 4000  # of a form's field, where it does not say less


def help_text() -> str:
    lines = ["what you can type:"]
    for example, text in EXAMPLES.items():
        lines.append(f"  {example:<18}{text}")
    for name, (argument, text) in COMMANDS.items():
        usage = f"{name} {argument}"
        lines.append(f"  {usage:<18}{text}")
    return "\n".join([*lines, *REMARKS])


HELP = help_text()


# --- buttons, menus and forms


def same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def chosen(component: Json, label: str) -> list[str] | None:
    """The values that a label such as A | B chooses from a menu; [] if it is this button's.

    Returns None if the label means another component, or this one is switched off.
    """
    if component.get("disabled"):
        return None
    if component["type"] == BUTTON:
        with_emoji = component_text(component).strip("[]")
        own_label = component.get("label") or ""
        is_meant = same(with_emoji, label) or same(own_label, label)
        return [] if is_meant else None
    choices = [choice.strip().casefold() for choice in label.split("|")]
    values = []
    for option in component["options"]:
        if option["label"].casefold() in choices:
            values.append(option["value"])
    return values if len(values) == len(choices) else None


def inputs_of(form: Json) -> dict[str, Json]:
    """The text inputs of a form, by their labels."""
    inputs = {}
    label = ""
    for component in parts_of(form["components"]):
        if component["type"] == LABEL:
            label = component["label"]
        elif component["type"] == TEXT_INPUT:
            inputs[component.get("label") or label] = component
    return inputs


def how_to_fill(form: Json) -> str:
    return f"Type: --fill {' | '.join(inputs_of(form))}"


def value_of(label: str, field: Json, text: str) -> str:
    """What is filled into a field of a form. Raises `Unclear`."""
    value = text or field.get("value") or ""
    if not value:
        if field.get("required", True):
            raise Unclear(f"{label} must not be empty.")
        return value
    least = field.get("min_length", 0)
    most = field.get("max_length", INPUT_LENGTH)
    if not least <= len(value) <= most:
        raise Unclear(f"{label} has {len(value)} characters. The form does not allow that.")
    return value


# --- slash commands


def find_slash_command(bots: list[Account], name: str) -> tuple[Account, Json]:
    """The one of that name, and the bot that has it. Raises `Unclear`."""
    found = []
    for bot in bots:
        for command in slash_commands(bot.commands):
            if command["name"] == name:
                found.append((bot, command))
    if not found:
        problem = f"There is no slash command /{name}. " if name else ""
        raise Unclear(problem + known_slash_commands(bots))
    if len(found) > 1:
        ways = []
        for bot, _ in found:
            ways.append(f"@{bot.user.name} /{name}")
        either = " or ".join(ways)
        raise Unclear(f"Several bots have /{name}. Type {either}.")
    return found[0]


def known_slash_commands(bots: list[Account]) -> str:
    lines = []
    for bot in bots:
        for command in slash_commands(bot.commands):
            for usage in usages(command):
                lines.append(f"  {usage:<40} {bot.user.name}")
    if not lines:
        names = listed_names(bot.user for bot in bots)
        return f"{names}: no slash commands."
    return "\n".join(["These are there:", *lines])


class Playground:
    """A person at a terminal, or at the end of a pipe, in front of the local Discord."""

    def __init__(self, discord: LocalDiscord, env_file: str | None) -> None:
        self.discord = discord
        self.texts = Texts(discord)
        self.bots = Bots(discord, env_file, self.tell)
        self.me = discord.people[0]
        self.partner: Account | None = None  # the bot that gets direct messages
        self.terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self.stop_asked = asyncio.Event()
        self._prompts: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._prompt = ""  # the one that stands at the bottom now
        self._busy: dict[str, float] = {}  # by who does something: until when more may come of it
        self._form: Json | None = None  # the one that is open
        self._waiting: set[asyncio.Task[None]] = set()
        discord.on_event = self.on_event
        if readline:
            readline.set_completer(self._complete)
            readline.set_completer_delims(" :")
            readline.parse_and_bind("tab: complete")

    @property
    def accounts(self) -> list[Account]:
        return list(self.bots.accounts.values())

    # --- lines in and out

    async def talk(self) -> None:
        """Wait for the bots, then do line after line of what the person types."""
        await self.bots.settled.wait()
        self.tell(HINT.format(example=self._example()))
        lines = self._start_to_read()
        while True:
            self._prompts.put(self._next_prompt())
            line = await lines.get()
            if line in ("quit", "exit", "--quit"):
                return
            await self.bots.settled.wait()  # they may just be starting again
            try:
                await self._do(line)
            except Unclear as problem:
                self.tell(str(problem))
            if not self.terminal:
                await self._answers()

    def _example(self) -> str:
        """Something that the bots answer: a command of their own, if they have one."""
        for bot in self.accounts:
            for command in slash_commands(bot.commands):
                return usages(command)[0]
        return next(filter(None, self.bots.text_commands), "ping")

    def _next_prompt(self) -> str:
        if self.partner not in self.accounts:
            self.partner = None
        if self.partner is None:
            return f"{self.me.name}> "
        return f"{self.me.name} → {self.partner.user.name}> "

    def _start_to_read(self) -> asyncio.Queue[str]:
        """A queue that gets the lines of stdin. To read blocks, so a thread does it."""
        lines: asyncio.Queue[str] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def put(line: str) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)

        thread = threading.Thread(target=self._read_lines, args=[put], daemon=True)
        thread.start()
        return lines

    def _read_lines(self, put: Callable[[str], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            with contextlib.suppress(OSError, EOFError):  # the terminal is gone, or it is the end
                while True:
                    line = self._read_line(self._prompts.get())
                    put(line.strip())
            put("quit")

    def _read_line(self, prompt: str) -> str:
        if self.terminal:
            self._prompt = prompt
            line = input(prompt)
            self._prompt = ""
            return line
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line

    def _complete(self, start: str, index: int) -> str | None:
        """What the Tab key makes of the start of a word: the next of all that fit."""
        words = list(COMMANDS)
        for bot in self.accounts:
            for command in slash_commands(bot.commands):
                words.append(f"/{command['name']}")
        for user in self.discord.users:
            words.append(f"@{user.name}")
        fitting = [word for word in words if word.startswith(start)]
        if index >= len(fitting):
            return None
        return f"{fitting[index]} "

    def show(self, text: str, file: Any = None) -> None:
        """Print a line; on a terminal above the prompt and what is typed there."""
        prompt = self._prompt
        try:
            if prompt:
                # Spaces, because an old Windows console does not know the code that clears a line.
                spaces = " " * (shutil.get_terminal_size().columns - 1)
                print(f"\r{spaces}", end="\r", flush=True)
            print(text, file=file, flush=True)
            if prompt:
                typed = readline.get_line_buffer() if readline else ""
                print(prompt + typed, end="", flush=True)
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
            await asyncio.sleep(LOOK_INTERVAL)

    # --- what a person types

    async def _do(self, line: str) -> None:
        if not line:
            return
        self._busy = {}
        if line.startswith("--"):
            await self._do_command(line)
            return
        if self.partner is not None:
            self._check_ready(self.partner)
        slash_command = re.fullmatch(r"(?:@(\S.*?)\s+)?/(.*)", line)
        if slash_command:
            await self._call(*slash_command.groups())
            return
        if not any(bot.ready for bot in self.accounts):
            self.tell("No bot is ready. Nobody hears you.")
        await self._say(line)

    async def _do_command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name not in COMMANDS:
            raise Unclear(f"There is no {name}. --help shows what there is.")
        argument, _ = COMMANDS[name]
        if argument and not rest:
            raise Unclear(f"{name} needs something after it: {name} {argument}")
        do = getattr(self, f"_do_{name[2:]}")
        await do(rest)

    async def _say(self, text: str, reply_to: str | None = None) -> None:
        text = self._with_mentions(text)
        await self.discord.say(text, self.me, self.channel_id, reply_to)

    async def _do_help(self, _: str) -> None:
        guild = self.discord.guild
        bots = listed_names(self.bot_users)
        people = listed_names(self.discord.people)
        self.tell(HELP)
        owner = guild.owner.name
        self.tell(f"\nbots: {bots}\npeople: {people} ({owner} may do all)")
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
        await self._say(text, message["id"])

    async def _do_react(self, emoji: str) -> None:
        if emoji.isascii() or " " in emoji:
            raise Unclear("Give the emoji itself, such as: --react 👍")
        message = self._last_of_a_bot()
        reactions = self.discord.reactions.get(message["id"], {})
        is_there = self.me in reactions.get(emoji, [])
        await self.discord.react(message, emoji, self.me, take_away=is_there)

    async def _do_click(self, label: str) -> None:
        texts = []
        for message, component in self._clickable():
            texts.append(component_text(component))
            values = chosen(component, label)
            if values is None:
                continue
            if component.get("style") == LINK:
                raise Unclear(f"[{label}] opens a web page: {component['url']}")
            interaction = await self.discord.click(message, component, values, self.me)
            self._expect_answer(interaction, f"[{label}]")
            return
        problem = f"There is no button [{label}] that can be pressed here, and no menu with it."
        there = f"These are there: {' '.join(texts)}" if texts else "There is none at all."
        raise Unclear(f"{problem} {there}")

    def _clickable(self) -> Iterator[tuple[Json, Json]]:
        """The messages here and their buttons and menus, the newest message first."""
        for message in reversed(self._messages()):
            for component in parts_of(message["components"]):
                if component["type"] in (BUTTON, STRING_SELECT):
                    yield message, component

    async def _do_fill(self, texts: str) -> None:
        form = self._form
        if form is None:
            raise Unclear("No form is open.")
        inputs = inputs_of(form)
        values = [value.strip() for value in texts.split("|")]
        if len(values) != len(inputs):
            raise Unclear(f"The form has {len(inputs)} fields. {how_to_fill(form)}")
        answers = {}
        for (label, field), text in zip(inputs.items(), values, strict=True):
            answers[field["custom_id"]] = value_of(label, field, text)
        self._form = None
        bot = self._find_bot(form["bot"])
        interaction = await self.discord.submit(bot, form, answers, self.me, self.channel_id)
        self._expect_answer(interaction, "the form")

    async def _do_edit(self, text: str) -> None:
        message = self._last_of_mine()
        body = {"content": self._with_mentions(text)}
        await self.discord.edit(message, self.me, body)

    async def _do_delete(self, _: str) -> None:
        await self.discord.delete([self._last_of_mine()], self.me)

    async def _do_restart(self, _: str) -> None:
        self.bots.settled.clear()
        self.bots.restart_asked.set()
        await self.bots.settled.wait()

    async def _call(self, bot_name: str | None, text: str) -> None:
        """Call a slash command."""
        name, _, rest = text.partition(" ")
        bot, command = find_slash_command(self._addressed(bot_name), name)
        self._check_ready(bot)
        typed = self._with_mentions(rest.strip())
        options = parse(command, typed, self._find_id)
        channel_id = self._channel_with(bot)
        interaction = await self.discord.call(
            bot, name, self.me, options=options, channel_id=channel_id
        )
        self._expect_answer(interaction, f"/{name}")

    def _addressed(self, bot_name: str | None) -> list[Account]:
        """The bots that a slash command may be meant for."""
        if bot_name:
            return [self._find_bot(bot_name)]
        if self.partner is not None:
            return [self.partner]
        return self.accounts

    def _expect_answer(self, interaction: Interaction, asked: str) -> None:
        """Tell the person if the bot does not answer in time."""
        task = asyncio.create_task(self._wait_for_answer(interaction, asked))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _wait_for_answer(self, interaction: Interaction, asked: str) -> None:
        while not interaction.answered and not interaction.late:
            await asyncio.sleep(LOOK_INTERVAL)
        if interaction.late:
            name = interaction.account.user.name
            problem = f"{name} has not answered {asked} within {ANSWER_TIMEOUT} seconds."
            self.tell(f"{problem} On Discord people now see: The application did not respond")

    # --- who and what is meant

    @property
    def bot_users(self) -> list[User]:
        return [bot.user for bot in self.accounts]

    @property
    def channel_id(self) -> int:
        """Where the person writes."""
        if self.partner is None:
            return self.discord.guild.channel_id
        return self._channel_with(self.partner)

    def _channel_with(self, bot: Account) -> int:
        """Where the person calls this bot: in its direct messages, while they write any."""
        if self.partner is None:
            return self.discord.guild.channel_id
        return self.discord.direct_channel(bot, self.me)

    def _with_mentions(self, text: str) -> str:
        """The text with Discord's mention for each @name of a bot or a person."""
        users = sorted(self.discord.users, key=lambda user: len(user.name), reverse=True)
        for user in users:
            name = re.escape(user.name)
            text = re.sub(rf"(?i)(?<!\w)@{name}(?!\w)", user.mention, text)
        return text

    def _find_user(self, name: str) -> User | None:
        name = name.lstrip("@")
        for user in self.discord.users:
            if same(user.name, name):
                return user
        return None

    def _find_bot(self, name: str) -> Account:
        for bot in self.accounts:
            if same(bot.user.name, name.lstrip("@")):
                return bot
        bots = listed_names(self.bot_users)
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
            if text == user.mention or same(text, user.name):
                return user.id
        return None

    def _messages(self) -> list[Json]:
        """The messages here."""
        return self.discord.messages_in(self.channel_id)

    def _last_of_a_bot(self) -> Json:
        for message in reversed(self._messages()):
            if message["author"]["bot"]:
                return message
        raise Unclear("There is no message of a bot here.")

    def _last_of_mine(self) -> Json:
        for message in reversed(self._messages()):
            if message["author"]["id"] == str(self.me.id):
                return message
        raise Unclear(f"There is no message of {self.me.name} here.")

    # --- what the bots do

    def on_event(self, event: str, data: Json, actor: User) -> None:
        """Show what a bot does, and what the person's own commands did."""
        if actor.bot:
            self._on_bot(event, data, actor)
            return
        self._expect_more(actor, FIRST_ANSWER)
        if event != "MESSAGE_CREATE":  # the person has just typed it
            self.tell(self.texts.line(event, data, actor))

    def _on_bot(self, event: str, data: Json, actor: User) -> None:
        self._expect_more(actor, QUIET)
        match event:
            case "TYPING_START":
                self._expect_more(actor, ANNOUNCED)
            case "MESSAGE_CREATE" if data["flags"] & LOADING:
                self._expect_more(actor, ANNOUNCED)
                self.show(f"{actor.name} is thinking …")
            case "FORM":
                self._form = data | {"bot": actor.name}
                title = data["title"]
                self.tell(f"{actor.name} opens a form: {title}. {how_to_fill(data)}")
            case "NOT_FOUND":
                problem = f"{actor.name} asks Discord for {data['request']}."
                self.tell(
                    f"{problem} The playground does not have that. "
                    "The bot gets a 404. It works only on the real Discord."
                )
            case _:
                self.show(self.texts.line(event, data, actor))

    def _expect_more(self, actor: User, seconds: float) -> None:
        self._busy[actor.name] = time.monotonic() + seconds
