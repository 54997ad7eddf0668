"""Every hint leads right: what is wrong is called by its name, and the remedy mends it."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import run_bots

from .local_discord import LocalDiscord
from .local_discord.world import make_token
from .program import SCRIPT, Program, needs_posix_signals, until, write

TOKEN, OTHER = make_token(111_111_111_111_111_111), make_token(222_222_222_222_222_222)
THIRD = make_token(333_333_333_333_333_333)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and an environment that is this test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # the file's variables go there
    return tmp_path


def read(
    text: str | None, environment: Mapping[str, str] | None = None
) -> tuple[list[Any], list[str]]:
    """The bots of such an env file and environment, and what is said: warnings or problems."""
    path = Path(".env")
    if text is not None:
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
    try:
        reading = run_bots.Reading(path, environment or {})
        run_bots.Runner(path, None)._export(reading)
        return reading.bots, reading.warnings
    except run_bots.SettingsError as error:
        return [], list(error.args)


def assert_said(said: list[str], *words: str) -> None:
    """One of these sentences has all these words, and none has a token."""
    assert any(all(word in sentence for word in words) for sentence in said), said
    assert not any(token in sentence for sentence in said for token in (TOKEN, OTHER, THIRD)), said


# --- The env file

FILLED_EXAMPLE = (SCRIPT.parent / ".env.example").read_text(encoding="utf-8").replace(
    "DISCORD_BOT_TOKEN1=", f"DISCORD_BOT_TOKEN1={TOKEN}"
)  # fmt: skip


@pytest.mark.parametrize("name", [".env.txt", "env", "env.txt", ".env.env", ".env.example"])
async def test_an_env_file_by_another_name_is_found_and_the_remedy_is_to_rename_it(
    name: str, program: Program
) -> None:
    program.copy_script()
    (program.folder / name).write_text(FILLED_EXAMPLE, encoding="utf-8")
    await program.start()
    assert await program.end() == 78
    (line,) = [line for line in program.stderr.splitlines() if "ename" in line]
    assert f" {name}" in line
    assert re.search(r"\.env\b(?!\.\w)", line.replace(f" {name}", ""))
    assert TOKEN not in program.stderr
    program.assert_clean()


async def test_an_example_that_nobody_has_filled_in_is_not_the_file_to_rename(
    program: Program,
) -> None:
    program.copy_script()
    (program.folder / ".env.example").write_text(
        (SCRIPT.parent / ".env.example").read_text(encoding="utf-8"), encoding="utf-8"
    )
    await program.start()
    assert await program.end() == 78
    assert "Copy .env.example to .env" in program.stderr
    assert "ename" not in program.stderr


PASTED = {
    "below the empty ones": f"DISCORD_BOT_TOKEN1=\nDISCORD_BOT_TOKEN2=\nDISCORD_BOT_TOKEN1={TOKEN}",
    "above the empty ones": f"DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_TOKEN1=\nDISCORD_BOT_TOKEN2=",
    "below one in quotes": f"DISCORD_BOT_TOKEN1=''\nDISCORD_BOT_TOKEN1={TOKEN}",
    "between two": f"DISCORD_BOT_TOKEN1=\nDISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_TOKEN1= ",
}


@pytest.mark.parametrize("where", PASTED)
def test_an_empty_value_does_not_count_as_set(where: str, folder: Path) -> None:
    bots, said = read(PASTED[where])
    assert [bot.token for bot in bots] == [TOKEN], said
    assert not said


def test_two_values_of_one_variable_are_still_refused_across_an_empty_one(folder: Path) -> None:
    text = f"DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_TOKEN1=\nDISCORD_BOT_TOKEN1={OTHER}"
    bots, said = read(text)
    assert not bots
    assert_said(said, "DISCORD_BOT_TOKEN1 (.env, line 3): ", "DISCORD_BOT_TOKEN1 (.env, line 1)")


PLACEHOLDERS = [
    *("the first token", "the second token", "the token of your first bot", "my token"),
    *("a token", "token1", "bot_token", "<token>", "TOKEN", "your-token", "xxxx", "XXX.XXX.XXX"),
    *("replace me", "REPLACE_ME", "change me", "changeme", "todo", "put-token-here", "..."),
    *("bot token goes here", "insert_token_here", "${TOKEN}", "enter token", "secret"),
]


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_a_placeholder_is_called_one(text: str, folder: Path) -> None:
    bots, said = read(f"DISCORD_BOT_TOKEN1={text}")
    assert not bots
    assert_said(said, "DISCORD_BOT_TOKEN1 (.env, line 1): ", "placeholder")


@pytest.mark.parametrize("part", ["your", "here", "none", "the", "token", "xxxxx"])
def test_no_real_token_is_called_a_placeholder(part: str, folder: Path) -> None:
    token = f"{TOKEN[:-12]}{part}{TOKEN[-6:]}"
    bots, said = read(f"DISCORD_BOT_TOKEN1={token}")
    assert [bot.token for bot in bots] == [token]
    assert not said


# A token by another name, and its right name.
MISNAMED = {
    "BOT1_TOKEN": "DISCORD_BOT_TOKEN1",
    "BOT2_TOKEN": "DISCORD_BOT_TOKEN2",
    "DISCORD_BOT2_TOKEN": "DISCORD_BOT_TOKEN2",
    "DISCORD_TOKEN_2": "DISCORD_BOT_TOKEN2",
    "TOKEN2": "DISCORD_BOT_TOKEN2",
    "DISCORD_BOT_TOKEN_2": "DISCORD_BOT_TOKEN2",
    "Discord_Bot_Token2": "DISCORD_BOT_TOKEN2",
    "TOKEN": "DISCORD_BOT_TOKEN",
    "DISCORD_TOKEN": "DISCORD_BOT_TOKEN",
    "MAIN_BOT_TOKEN": "DISCORD_BOT_TOKEN",
    "MUSIC": "DISCORD_BOT_TOKEN",
}


@pytest.mark.parametrize("name", MISNAMED)
@pytest.mark.parametrize(
    "beside", ["", f"DISCORD_BOT_TOKEN9={OTHER}\n"], ids=["alone", "beside another"]
)
def test_a_token_by_another_name_is_told_its_right_name(
    name: str, beside: str, folder: Path
) -> None:
    bots, said = read(f"{beside}{name}={TOKEN}")
    assert len(bots) == bool(beside)
    assert_said(said, f"{name} (.env, line {2 if beside else 1})", "token", MISNAMED[name])
    assert re.search(r"DISCORD_BOT_TOKEN\d", " ".join(said))


NOT_TOKENS = {
    "a web token": f"API=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{'dozjgNryP4J3' * 4}",
    "a host": "HOST=my-database-server-of-the-bots.example.com-and-more-words-of-it",
    "a version": "PACKAGES=1.2.3",
    "what a script looks for": "DISCORD_TOKEN=unused",
}


@pytest.mark.parametrize("what", NOT_TOKENS)
def test_what_is_no_bots_token_is_left_alone(what: str, folder: Path) -> None:
    bots, said = read(f"DISCORD_BOT_TOKEN1={TOKEN}\n{NOT_TOKENS[what]}")
    assert len(bots) == 1
    assert not said
    name, _, value = NOT_TOKENS[what].partition("=")
    assert os.environ[name] == value


QUOTED = {
    "a token": ("TOKEN1", f'"{TOKEN}"', "token", TOKEN),
    "a token in single quotes": ("TOKEN1", f"'{TOKEN}'", "token", TOKEN),
    "a prefix": ("PREFIX1", '"?"', "prefix", "?"),
    "a prefix that ends in a space": ("PREFIX1", '"hey "', "prefix", "hey "),
    "a prefix that is a quote": ("PREFIX1", '"', "prefix", '"'),
    "a prefix of two quotes of two kinds": ("PREFIX1", "\"'", "prefix", "\"'"),
    "a name": ("NAME1", "'music'", "name", "music"),
    "extensions": ("EXTENSIONS1", '"greeter,cogs.music"', "extensions", ("greeter", "cogs.music")),
}


@pytest.mark.parametrize("what", QUOTED)
def test_a_matching_pair_of_quotes_around_a_variable_of_the_environment_is_taken_off(
    what: str, folder: Path
) -> None:
    name, text, field, value = QUOTED[what]
    environment = {"DISCORD_BOT_TOKEN1": TOKEN, f"DISCORD_BOT_{name}": text}
    bots, said = read(None, environment)
    assert [getattr(bot, field) for bot in bots] == [value], said


def test_quotes_in_a_token_that_are_no_pair_are_called_quotes(folder: Path) -> None:
    bots, said = read(None, {"DISCORD_BOT_TOKEN1": f'"{TOKEN}'})
    assert not bots
    assert_said(said, "DISCORD_BOT_TOKEN1 (the environment): ", "quote")


EXPANDED = {
    "a variable above": ("USER_X=me\nURL=postgres://${USER_X}:5432", "URL", "postgres://me:5432"),
    "a default": ("URL=${NOBODY_SET_THIS:-there}", "URL", "there"),
    "a variable that is not there": ("URL=a${NOBODY_SET_THIS}b", "URL", "ab"),
    "a variable of the environment": ("URL=${FROM_OUTSIDE}", "URL", "outside"),
    "single quotes": ("A=1\nURL='${A}'", "URL", "1"),  # python-dotenv expands there too
    "a dollar alone": ("URL=a$b", "URL", "a$b"),
    "a variable of both, where the environment wins": (
        "FROM_OUTSIDE=file\nURL=${FROM_OUTSIDE}",
        "URL",
        "outside",
    ),
    "a variable below": ("URL=a${BELOW}\nBELOW=1", "URL", "a"),
}


@pytest.mark.parametrize("what", EXPANDED)
def test_a_variable_of_the_bots_own_is_expanded_as_load_dotenv_does(
    what: str, folder: Path
) -> None:
    text, name, value = EXPANDED[what]
    os.environ["FROM_OUTSIDE"] = "outside"
    bots, said = read(f"DISCORD_BOT_TOKEN1={TOKEN}\n{text}\n", dict(os.environ))
    assert len(bots) == 1, said
    assert os.environ[name] == value


def test_the_programs_own_variables_stay_literal(folder: Path) -> None:
    text = f"A=1\nDISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_PREFIX1=${{A}}\nDISCORD_BOT_NAME1=$${{A}}"
    (bot,), said = read(text)
    assert (bot.prefix, bot.name) == ("${A}", "$${A}"), said


def test_a_value_of_a_tokens_form_does_not_reach_the_environment(folder: Path) -> None:
    read(f"DISCORD_BOT_TOKEN1={TOKEN}\nMUSIC={OTHER}\nTOKENS={OTHER},{THIRD}\nCOPY=${{MUSIC}}\n")
    assert not [name for name, text in os.environ.items() if OTHER in text or THIRD in text]


INTENTS = {
    "default,message content": "Did you mean message_content?",
    "message-content": "Did you mean message_content?",
    "default, guild messages": "Did you mean guild_messages?",
    "messagecontent": "Did you mean message_content?",
    "MessageContent": "Did you mean message_content?",
    "everything": "Did you mean ",
    "privileged": "Did you mean ",
    "-all": "There is no intent -all. Did you mean all?",
}


@pytest.mark.parametrize("text", INTENTS)
def test_an_intent_by_another_name_is_told_its_right_name(text: str, folder: Path) -> None:
    bots, said = read(f"DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_INTENTS1={text}")
    assert not bots
    assert_said(said, "DISCORD_BOT_INTENTS1 (.env, line 2): ", INTENTS[text])


SHADOWED = ["calendar", "queue", "random", "discord", "discord.ext.commands", "aiohttp", "dotenv"]


@pytest.mark.parametrize("name", SHADOWED)
def test_an_extension_by_the_name_of_a_module_that_all_need_is_told_to_be_renamed(
    name: str, folder: Path
) -> None:
    bots, said = read(f"DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_EXTENSIONS1={name}")
    assert not bots
    assert_said(said, "DISCORD_BOT_EXTENSIONS1 (.env, line 2): ", name.partition(".")[0], "ename")


TWINS = {
    "a wrong intent": f"DISCORD_BOT_TOKEN2={TOKEN}\nDISCORD_BOT_INTENTS2=nonsense",
    "a wrong extension": f"DISCORD_BOT_TOKEN2={TOKEN}\nDISCORD_BOT_EXTENSIONS2=a/b",
    "two tokens": f"DISCORD_BOT_TOKEN2={TOKEN}\nDISCORD_BOT_TOKEN2_FILE=nowhere",
    "curly quotes": f"DISCORD_BOT_TOKEN2={TOKEN}\nDISCORD_BOT_NAME2=“x”",
}


@pytest.mark.parametrize("what", TWINS)
def test_a_token_that_stands_twice_is_found_though_the_second_bot_also_has(
    what: str, folder: Path
) -> None:
    bots, said = read(f"DISCORD_BOT_TOKEN1={TOKEN}\n{TWINS[what]}")
    assert not bots
    assert len(said) == 2, said
    assert_said(said, "DISCORD_BOT_TOKEN2 (.env, line 2): ", "same bot as DISCORD_BOT_TOKEN1")


def test_a_name_that_stands_twice_is_found_though_one_bots_token_is_wrong(folder: Path) -> None:
    text = f"DISCORD_BOT_TOKEN1=the token\nDISCORD_BOT_TOKEN2={TOKEN}\nDISCORD_BOT_NAME1=bot2"
    bots, said = read(text)
    assert not bots
    assert len(said) == 2, said
    assert_said(said, "placeholder")
    assert_said(said, "same name")


# A bare token, and other lines whose name is what nobody may see.
SECRET_NAMES = {
    "a bare token": f"{TOKEN}\n{TOKEN}",
    "a bare token with = behind it": f"{TOKEN}=\n{TOKEN}=",
    "a bare token with = and more": f"{TOKEN}=a\n{TOKEN}=b",
    "export": f"export {TOKEN}=a\nexport {TOKEN}=b",
}


async def test_a_token_in_the_place_of_a_name_is_not_printed(program: Program) -> None:
    for what in SECRET_NAMES.values():
        (program.folder / ".env").write_text(f"DISCORD_BOT_TOKEN1={OTHER}\n{what}\n")
        program.stderr = ""
        await program.start("--check")
        assert await program.end() == 78
        assert "made-up-secret" not in program.stderr + program.stdout


# --- A bot's code


async def test_a_bot_that_loads_the_env_file_itself_gets_its_settings_and_no_token(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import os
        from dotenv import load_dotenv

        async def setup(bot):
            own = os.environ["KEY"]
            for override in (False, True):
                load_dotenv(override=override)
                load_dotenv(".env", override=override)
            print("own:", own, os.environ["KEY"])
            load_dotenv("other.env")
            print("other:", os.environ["ELSEWHERE"])
            print("tokens:", [name for name, text in os.environ.items() if "made-up" in text])
        """
    program.write_env(
        discord.add_bot("one"), discord.add_bot("two"),
        extra="DISCORD_BOT_EXTENSIONS1=one\nKEY=a${NOT_THERE}b\n",
    )  # fmt: skip
    (program.folder / "other.env").write_text("ELSEWHERE=there\n")
    write(program, "one.py", code)
    await program.start()
    await program.logged("2 of 2 bots are ready")
    assert await program.stop() == 0
    assert program.stdout.splitlines() == ["own: ab ab", "other: there", "tokens: []"]


# The code of an extension, and what is said of it.
CODE = {
    "a setup that is not async": (
        "def setup(bot):\n    bot.add_cog(Cog())",
        ["async def setup", "await bot.add_cog"],
    ),
    "a setup that is not async and adds nothing": (
        "def setup(bot):\n    pass",
        ["async def setup"],
    ),
    "a setup without an argument": ("async def setup():\n    pass", ["async def setup(bot)"]),
    "a whole bot": (
        "bot = commands.Bot('!', intents=discord.Intents.default())\nbot.run('token')",
        ["DISCORD_BOT_SCRIPT1"],
    ),
    "a whole bot by asyncio.run": (
        """
import asyncio

async def main():
    async with commands.Bot('!', intents=discord.Intents.default()) as bot:
        await bot.start('token')

asyncio.run(main())
        """,
        ["DISCORD_BOT_SCRIPT1"],
    ),
    "a whole bot behind its name": (
        "if __name__ == '__main__':\n    commands.Bot('!').run('token')",
        ["async def setup(bot)"],
    ),
}
HEAD = """
import discord
from discord.ext import commands

class Cog(commands.Cog):
    pass

"""


@pytest.mark.parametrize("what", CODE)
async def test_the_remedy_is_told_for(what: str, program: Program, discord: LocalDiscord) -> None:
    code, words = CODE[what]
    (program.folder / "one.py").write_text(HEAD + code)
    program.write_env(discord.add_bot("one"), extra="DISCORD_BOT_EXTENSIONS1=one")
    await program.start("--check")
    assert await program.end() == 78
    (row,) = [line for line in program.stdout.splitlines() if "PROBLEM" in line]
    assert "DISCORD_BOT_EXTENSIONS1 (.env, line 3): " in row
    assert all(word in row for word in words), row
    assert "RuntimeWarning" not in program.stderr


# --- Files and packages that take the place of others


def run_alone(program: Program) -> subprocess.CompletedProcess[str]:
    """Run the copied script by itself, without a local Discord."""
    return subprocess.run(
        [sys.executable, str(program.script)],
        cwd=program.folder,
        env=program.environment | {"PYTHONPATH": ""},
        capture_output=True,
        encoding="utf-8",
        timeout=30,
    )


@pytest.mark.parametrize("name", ["discord.py", "dotenv.py", "aiohttp.py", "calendar.py"])
async def test_a_file_that_hides_a_module_is_told_to_be_renamed(
    name: str, program: Program
) -> None:
    program.copy_script()
    write(program, name, "import random\n\nasync def setup(bot):\n    pass\n")
    stem = name.removesuffix(".py")
    write(program, ".env", f"DISCORD_BOT_TOKEN1={TOKEN}\nDISCORD_BOT_EXTENSIONS1={stem}\n")
    done = await asyncio.to_thread(run_alone, program)
    assert done.returncode == 78, done.stderr
    assert "ename" in done.stderr
    assert name in done.stderr
    assert "Traceback" not in done.stderr
    assert "pip install" not in done.stderr


async def test_a_file_that_only_has_the_name_of_a_module_and_hides_nothing_does_no_harm(
    program: Program, discord: LocalDiscord
) -> None:
    program.copy_script()
    write(program, "test.py", "1 / 0")
    program.write_env(discord.add_bot("one"))
    await program.start()
    await program.logged("ready as one")
    assert await program.stop() == 0


# --- The network


@pytest.mark.parametrize("arguments", [["--check"], []])
async def test_a_python_without_certificates_is_told_what_to_install(
    arguments: list[str], tls_program: Program, tls_discord: LocalDiscord
) -> None:
    (tls_program.folder / "none.pem").touch()
    tls_program.environment["SSL_CERT_FILE"] = str(tls_program.folder / "none.pem")
    tls_program.environment["SSL_CERT_DIR"] = str(tls_program.folder)
    tls_program.write_env(tls_discord.add_bot("one"))
    await tls_program.start(*arguments)
    await until(lambda: "certificates" in tls_program.stderr + tls_program.stdout)
    said = tls_program.stderr + tls_program.stdout
    assert "Check the network" not in said
    assert "ca-certificates" in said or "Install Certificates" in said
    assert await (tls_program.end() if arguments else tls_program.stop()) in (0, 78)


async def test_a_certificate_that_nobody_trusts_is_not_the_networks_fault(
    tls_program: Program, tls_discord: LocalDiscord
) -> None:
    del tls_program.environment["SSL_CERT_FILE"]
    tls_program.write_env(tls_discord.add_bot("one"))
    await tls_program.start("--check")
    assert await tls_program.end() == 78
    assert "certificate" in tls_program.stdout


class Proxy:
    """An HTTP proxy that knows CONNECT, and nothing else."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:  # it asked for nothing
            writer.close()
            return
        method, target, _ = head.split(" ", 2)
        self.asked.append(f"{method} {target.partition(':')[0]}")
        host, _, port = target.rpartition(":")
        upstream = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(self._copy(reader, upstream[1]), self._copy(upstream[0], writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    async def stop(self) -> None:
        self.server.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    yield proxy
    await proxy.stop()


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
async def test_the_proxy_of_the_environment_is_used_for_rest_and_gateway(
    variable: str, proxy: Proxy, tls_program: Program, tls_discord: LocalDiscord
) -> None:
    tls_program.environment[variable] = await proxy.start()
    tls_program.write_env(tls_discord.add_bot("one"))
    await tls_program.start()
    await tls_program.logged("ready as one")
    assert {"CONNECT localhost", "CONNECT 127.0.0.1"} <= set(proxy.asked)
    assert await tls_program.stop() == 0


async def test_a_proxy_that_does_not_answer_is_named(
    tls_program: Program, tls_discord: LocalDiscord
) -> None:
    tls_program.environment["HTTPS_PROXY"] = "http://127.0.0.1:9"
    tls_program.write_env(tls_discord.add_bot("one"))
    await tls_program.start("--check")
    assert await tls_program.end() == 78
    assert "127.0.0.1:9" in tls_program.stdout + tls_program.stderr


@pytest.mark.parametrize("place", ["environment", "env file", "env file that is saved"])
async def test_a_socks_proxy_is_told_to_need_another_package(
    place: str, program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("one")
    proxy = "HTTPS_PROXY=socks5://127.0.0.1:9\n"
    program.write_env(bot, extra=proxy if place == "env file" else "")
    if place == "environment":
        program.environment["HTTPS_PROXY"] = "socks5://127.0.0.1:9"
    await program.start()
    if place == "env file that is saved":
        await program.logged("1 of 1 bots are ready")
        program.write_env(bot, extra=f"{proxy}DISCORD_BOT_PREFIX=?")  # it starts again
    assert await program.end() == 78
    said = program.stderr + program.stdout
    assert "SOCKS" in said
    assert "aiohttp-socks" in said
    assert "Traceback" not in said


@needs_posix_signals
async def test_too_many_open_files_is_not_the_networks_fault(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import os, resource

        async def setup(bot):
            free = os.open(os.devnull, os.O_RDONLY)
            os.close(free)
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, most))
        """
    write(program, "one.py", code)
    program.write_env(discord.add_bot("one"), extra="DISCORD_BOT_EXTENSIONS1=one")
    await program.start()
    await program.logged(os.strerror(errno.EMFILE))
    assert "Check the network" not in program.stderr
    assert "ulimit -n" in program.stderr
    program.send()
    assert await program.end() == 0


# --- Packages that are not discord.py


@pytest.mark.parametrize("package", ["py-cord", "nextcord", "discord"])
async def test_a_package_that_is_not_discord_py_is_named_with_the_command(
    package: str, program: Program
) -> None:
    program.copy_script()
    site = program.folder / "site"
    (site / "discord").mkdir(parents=True)
    (site / "discord" / "__init__.py").write_text("__version__ = '1.7.3'\n")
    info = site / f"{package.replace('-', '_')}-2.6.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.6\n")
    (info / "RECORD").write_text("discord/__init__.py,,\n")
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(program.script)],
        cwd=program.folder,
        env=program.environment | {"PYTHONPATH": str(site)},
        capture_output=True,
        encoding="utf-8",
        timeout=30,
    )
    assert done.returncode == 78, done.stderr
    assert re.search(rf"pip uninstall -y .*\b{package}\b", done.stderr)
    assert "Traceback" not in done.stderr
