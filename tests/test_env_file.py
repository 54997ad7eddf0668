"""The env file, as people really write it.

What cannot be right is refused before the first request.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import run_bots

from .local_discord import LocalDiscord
from .local_discord.world import make_token
from .program import Program, needs_file_modes

TOKEN, OTHER = make_token(111_111_111_111_111_111), make_token(222_222_222_222_222_222)

WRITTEN: dict[str, Callable[[str], bytes]] = {
    "UTF-8": lambda token: f"DISCORD_BOT_TOKEN1={token}".encode(),
    "UTF-8 with a byte order mark": lambda token: f"DISCORD_BOT_TOKEN1={token}".encode("utf-8-sig"),
    "UTF-16, as PowerShell writes it": lambda token: f"DISCORD_BOT_TOKEN1={token}\r\n".encode(
        "utf-16"
    ),
    "Windows line ends": lambda token: f"# bots\r\nDISCORD_BOT_TOKEN1={token}\r\n\r\n".encode(),
    "double quotes": lambda token: f'DISCORD_BOT_TOKEN1="{token}"\n'.encode(),
    "single quotes and spaces": lambda token: f" DISCORD_BOT_TOKEN1 = '{token}' \n".encode(),
    "export": lambda token: f"export DISCORD_BOT_TOKEN1={token}\n".encode(),
    "a comment behind it": lambda token: f"DISCORD_BOT_TOKEN1={token} # the first\n".encode(),
    "a space behind it": lambda token: f"DISCORD_BOT_TOKEN1={token}  \n".encode(),
    "spaces inside quotes": lambda token: f'DISCORD_BOT_TOKEN1=" {token} "\n'.encode(),
    "a token between angle brackets": lambda token: f"DISCORD_BOT_TOKEN1=<{token}>\n".encode(),
    "a pasted Bot in front": lambda token: f"DISCORD_BOT_TOKEN1=Bot {token}\n".encode(),
}


@pytest.mark.parametrize("way", WRITTEN)
async def test_a_token_is_read_from(way: str, program: Program, discord: LocalDiscord) -> None:
    bot = discord.add_bot("bot")
    (program.folder / ".env").write_bytes(WRITTEN[way](bot.token))
    await program.start()
    await program.logged("ready as bot")
    assert await program.stop() == 0
    assert "PROBLEM" not in program.stderr


# What is in the file, and the words that the program says of it.
REFUSED = {
    "the same token twice": (
        f"DISCORD_BOT_TOKEN1={TOKEN}\n\nDISCORD_BOT_TOKEN2={TOKEN}",
        [
            "DISCORD_BOT_TOKEN2 (.env, line 3): ",
            "the same bot as DISCORD_BOT_TOKEN1 (.env, line 1)",
        ],
    ),
    "two tokens of one bot": (
        f"DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_TOKEN2={TOKEN[:-3]}abc",
        [
            "DISCORD_BOT_TOKEN2 (.env, line 2): ",
            "the same bot as DISCORD_BOT_TOKEN1 (.env, line 1)",
        ],
    ),
    "a placeholder": (
        "# bots\nDISCORD_BOT_TOKEN1=your token",
        ["DISCORD_BOT_TOKEN1 (.env, line 2): ", "placeholder"],
    ),
    "another placeholder": (
        "DISCORD_BOT_TOKEN1=<token>",
        ["DISCORD_BOT_TOKEN1 (.env, line 1): ", "placeholder"],
    ),
    "x as a placeholder": (
        "DISCORD_BOT_TOKEN1=xxxxxxx",
        ["DISCORD_BOT_TOKEN1 (.env, line 1): ", "placeholder"],
    ),
    "curly quotes": (
        f"DISCORD_BOT_TOKEN1=“{TOKEN}”",
        ["DISCORD_BOT_TOKEN1 (.env, line 1): ", "curly quotes"],
    ),
    "a space inside": (
        f"DISCORD_BOT_TOKEN1={TOKEN[:9]} {TOKEN[9:]}",
        ["DISCORD_BOT_TOKEN1 (.env, line 1): ", "space"],
    ),
    "a control character inside": (
        f'DISCORD_BOT_TOKEN1="{TOKEN[:9]}\\t{TOKEN[9:]}"',
        ["DISCORD_BOT_TOKEN1", "control character"],
    ),
    "a character that nobody sees": (
        f"DISCORD_BOT_TOKEN1={TOKEN}\u200b",
        ["DISCORD_BOT_TOKEN1", "character"],
    ),
    "a path whose backslashes mean something": (
        f'DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_TOKEN2_FILE="C:\\tokens\\new.txt"',
        ["DISCORD_BOT_TOKEN2_FILE (.env, line 2): ", r"write / for \ in a path"],
    ),
    "a quote that is closed two lines later": (
        f'DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_NAME1="music\nDISCORD_BOT_TOKEN2={OTHER}\nDISCORD_BOT_NAME2=x"',
        ["DISCORD_BOT_NAME1 (.env, line 2): ", "quote"],
    ),
    "a quote behind it": (
        f"DISCORD_BOT_TOKEN1={TOKEN}'",
        ["DISCORD_BOT_TOKEN1 (.env, line 1): ", "Copy"],
    ),
    "a placeholder with dots": (
        "DISCORD_BOT_TOKEN1=your.token.here",
        ["DISCORD_BOT_TOKEN1", "placeholder"],
    ),
    "an unclosed quote": (f'\n\nDISCORD_BOT_TOKEN1="{TOKEN}\nOTHER=1', [".env, line 3: ", "quote"]),
    "no equals sign": (f"DISCORD_BOT_TOKEN1: {TOKEN}", [".env, line 1: ", "="]),
    "no equals sign and no value": ("DISCORD_BOT_TOKEN1", [".env, line 1: ", "="]),
    "the same variable twice": (
        f"DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_TOKEN1={OTHER}",
        ["DISCORD_BOT_TOKEN1 (.env, line 2): ", "DISCORD_BOT_TOKEN1 (.env, line 1)"],
    ),
    "two bots of one name": (
        f"DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_TOKEN2={OTHER}\nDISCORD_BOT_NAME1=bot2",
        ["DISCORD_BOT_NAME2 (default): ", "same name as DISCORD_BOT_NAME1 (.env, line 3)"],
    ),
    "an unknown intent": (
        f"DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_INTENTS1=default,mesage_content",
        [
            "DISCORD_BOT_INTENTS1 (.env, line 2): ",
            "mesage_content",
            "Did you mean message_content?",
        ],
    ),
    "an unknown intent for all": (
        f"DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_INTENTS=-member",
        ["DISCORD_BOT_INTENTS (.env, line 2): ", "Did you mean members?"],
    ),
    "an extension with its file's ending": (
        f"DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_EXTENSIONS1=music,greeter.py",
        ["DISCORD_BOT_EXTENSIONS1 (.env, line 2): ", "Write greeter for greeter.py"],
    ),
    "an extension with its folder": (
        f"DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_EXTENSIONS=cogs/music",
        ["DISCORD_BOT_EXTENSIONS (.env, line 2): ", "cogs.music for cogs/music.py"],
    ),
    "a misspelled variable and no bot": (
        f"discord_bot_token1={TOKEN}",
        ["discord_bot_token1 (.env, line 1): ", " DISCORD_BOT_TOKEN1"],
    ),
    "another program's variable and no bot": (
        f"DISCORD_TOKEN={TOKEN}",
        ["DISCORD_TOKEN (.env, line 1): ", " DISCORD_BOT_TOKEN1"],
    ),
    "a token file that is missing": (
        "DISCORD_BOT_TOKEN1_FILE=nowhere",
        ["DISCORD_BOT_TOKEN1_FILE (.env, line 1): ", "No such file"],
    ),
    "a token where its file should be named": (
        f"DISCORD_BOT_TOKEN1_FILE={TOKEN}",
        ["DISCORD_BOT_TOKEN1_FILE (.env, line 1): ", "No such file"],
    ),
    "a token and a token file": (
        f"DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_TOKEN1_FILE=there",
        ["DISCORD_BOT_TOKEN1_FILE (.env, line 2): ", "DISCORD_BOT_TOKEN1 (.env, line 1)"],
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_is(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, words = REFUSED[what]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # the file's variables go there
    Path(".env").write_text(text, encoding="utf-8")
    with pytest.raises(run_bots.SettingsError) as raised:
        run_bots.Reading(Path(".env"), {})
    problems = raised.value.args
    assert any(all(word in problem for word in words) for problem in problems), problems
    assert not any(
        part in problem
        for problem in problems
        for token in (TOKEN, OTHER)
        for part in token.split(".")
    )


async def test_nothing_is_sent_to_discord_when_a_bot_is_refused(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("good"), extra="DISCORD_BOT_TOKEN2=your token")
    await program.start()
    assert await program.end() == 78
    problem = "This is a placeholder. Put the bot's own token there."
    assert program.stderr == f"DISCORD_BOT_TOKEN2 (.env, line 3): {problem}\n"
    assert not discord.requests


async def test_all_problems_are_told_at_once(program: Program) -> None:
    lines = [
        "DISCORD_BOT_TOKEN1=your token",
        f"DISCORD_BOT_TOKEN2={TOKEN} {TOKEN}",
        "DISCORD_BOT_INTENTS2=nonsense",
    ]
    (program.folder / ".env").write_text("\n".join(lines))
    await program.start()
    assert await program.end() == 78
    assert [number for number in (1, 2, 3) if f".env, line {number}" in program.stderr] == [1, 2, 3]


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\0\0", b"DISCORD_BOT_TOKEN1=\xff\xfe\xfa"])
async def test_a_file_that_is_no_text_is_refused(data: bytes, program: Program) -> None:
    (program.folder / ".env").write_bytes(data)
    await program.start()
    assert await program.end() == 78
    assert ".env is not a text file" in program.stderr
    program.assert_clean()


@needs_file_modes
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may read every file")
async def test_a_file_that_cannot_be_read_is_told(program: Program) -> None:
    (program.folder / ".env").touch(mode=0)
    await program.start()
    assert await program.end() == 78
    assert ".env cannot be read: Permission denied" in program.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs the limits of POSIX for a name")
async def test_a_path_that_cannot_even_be_looked_for_is_told(program: Program) -> None:
    name = "x" * 300  # as a folder that others may not look into: the system gives an error
    (program.folder / ".env").write_text(f"DISCORD_BOT_TOKEN1_FILE={name}")
    await program.start()
    assert await program.end() == 78
    assert "DISCORD_BOT_TOKEN1_FILE (.env, line 1): This file cannot be read" in program.stderr
    await program.start("--env-file", name)
    assert await program.end() == 78
    assert "Check --env-file." in program.stderr
    program.assert_clean()


# What is in the file beside a good token, and what the warning says.
ODD = {
    "settings without a token": (
        "DISCORD_BOT_NAME7=music",
        ["DISCORD_BOT_NAME7", "There is no DISCORD_BOT_TOKEN7"],
    ),
    "an underscore too many": (
        "DISCORD_BOT_TOKEN_2=x",
        ["DISCORD_BOT_TOKEN_2 (.env, line 2)", " DISCORD_BOT_TOKEN2,"],
    ),
    "a letter too few": ("DISCORD_BOT_TOKN2=x", [" DISCORD_BOT_TOKEN2,"]),
    "no number": ("DISCORD_BOT_TOKEN=x", [" DISCORD_BOT_TOKEN1,"]),
    "number nought": ("DISCORD_BOT_TOKEN0=x", [" DISCORD_BOT_TOKEN1,"]),
    "another setting": ("DISCORD_BOT_PREFIXES3=x", [" DISCORD_BOT_PREFIX3,"]),
}


@pytest.mark.parametrize("what", ODD)
def test_a_warning_is_given_for(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, words = ODD[what]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # the file's variables go there
    Path(".env").write_text(f"DISCORD_BOT_TOKEN1={TOKEN}\n{text}\n")
    Path(".env").chmod(0o600)
    reading = run_bots.Reading(Path(".env"), {})
    (warning,) = reading.warnings
    assert all(word in warning for word in words), warning
    assert len(reading.bots) == 1


def test_a_variable_that_the_environment_cannot_hold_keeps_no_bot_from_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Environ(dict[str, str]):
        def __setitem__(self, name: str, text: str) -> None:  # as Windows does
            if len(text) > 32_767:
                raise ValueError("the environment variable is longer than 32767 characters")
            super().__setitem__(name, text)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", Environ(os.environ))
    Path(".env").write_text(f"DISCORD_BOT_TOKEN1={TOKEN}\n\nLONG={'x' * 32_768}\nSHORT=x\n")
    Path(".env").chmod(0o600)
    (bot,) = run_bots.Runner(Path(".env"), None).read()
    assert bot.token == TOKEN
    assert os.environ["SHORT"] == "x"


async def test_a_token_of_an_unusual_form_is_tried_and_masked(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot", token="an-odd-looking-token"))
    await program.start()
    await program.logged("ready as bot")
    assert await program.stop() == 0
    assert "an-odd-looking-token" not in program.stderr


@needs_file_modes
async def test_a_file_that_others_can_read_is_a_warning(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot"))
    (program.folder / ".env").chmod(0o644)
    await program.start()
    await program.logged("chmod 600 .env")
    await program.stop()
    (program.folder / ".env").chmod(0o600)
    program.stderr = ""
    await program.start()
    await program.logged("ready as bot")
    await program.stop()
    assert "WARNING" not in program.stderr
