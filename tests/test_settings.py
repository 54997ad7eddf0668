"""What is read from the env file, the process environment and the command line."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import run_bots

from .local_discord import LocalDiscord
from .program import SCRIPT, Program, needs_windows, until

ROOT = SCRIPT.parent


async def test_no_token_is_said_in_plain_lines_with_78(program: Program) -> None:
    (program.folder / ".env").write_text("DISCORD_BOT_TOKEN1=\nOTHER=1\n")
    await program.start()
    assert await program.end() == 78
    assert "DISCORD_BOT_TOKEN1=" in program.stderr
    assert "https://discord.com/developers/applications" in program.stderr
    assert ".env.example" in program.stderr
    assert len(program.stderr.splitlines()) < 8
    program.assert_clean()


async def test_a_named_env_file_that_is_missing_is_an_error(program: Program) -> None:
    await program.start("--env-file", "nowhere.env")
    assert await program.end() == 78
    assert "nowhere.env" in program.stderr
    program.assert_clean()


async def test_an_env_file_in_another_place_can_be_named(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot"))
    (program.folder / ".env").rename(program.folder / "my bots.env")
    await program.start("--env-file", "my bots.env")
    await program.logged("1 bot from my bots.env")
    await program.logged("ready as bot")
    assert await program.stop() == 0


async def test_the_env_file_beside_the_script_is_the_second_choice(
    program: Program, discord: LocalDiscord, tmp_path: Path
) -> None:
    program.write_env(discord.add_bot("bot"))
    program.copy_script()
    program.folder = tmp_path / "elsewhere"
    program.folder.mkdir()
    await program.start()
    await program.logged("ready as bot")
    assert await program.stop() == 0


async def test_bots_are_ordered_by_number_and_numbers_may_have_gaps(
    program: Program, discord: LocalDiscord
) -> None:
    bots = {number: discord.add_bot(f"n{number}") for number in (12, 3, 1)}
    lines = [f"DISCORD_BOT_TOKEN{number}={bot.token}" for number, bot in bots.items()]
    (program.folder / ".env").write_text(
        "\n".join([*lines, "DISCORD_BOT_TOKEN2=", "DISCORD_BOT_NAME3=music"])
    )
    await program.start("--only", "99")
    assert await program.end() == 78
    assert "These are there: 1 (bot1), 3 (music), 12 (bot12)." in program.stderr


async def test_the_process_environment_wins(program: Program, discord: LocalDiscord) -> None:
    in_file, in_environment = discord.add_bot("in-file"), discord.add_bot("in-environment")
    program.write_env(in_file)
    program.environment["DISCORD_BOT_TOKEN1"] = in_environment.token
    await program.start()
    await program.logged("ready as in-environment")
    assert await program.stop() == 0
    assert not in_file.requests


async def test_the_process_environment_alone_is_enough(
    program: Program, discord: LocalDiscord
) -> None:
    program.copy_script()  # so that nobody's .env is beside it
    program.environment["DISCORD_BOT_TOKEN5"] = discord.add_bot("bot").token
    await program.start()
    await program.logged("1 bot from the environment")
    await program.logged("ready as bot")
    assert await program.stop() == 0


async def test_a_token_can_stand_in_a_file(program: Program, discord: LocalDiscord) -> None:
    bot = discord.add_bot("bot")
    (program.folder / "secret").write_text(bot.token + "\n")
    (program.folder / ".env").write_text("DISCORD_BOT_TOKEN1_FILE=secret\n")
    await program.start()
    await program.logged("ready as bot")
    bot.token_reset = True
    await bot.live[0].close(4000)
    assert await program.end() == 78
    assert "DISCORD_BOT_TOKEN1_FILE (.env, line 1)" in program.stderr


async def test_a_token_file_that_is_missing_is_named(program: Program) -> None:
    (program.folder / ".env").write_text("DISCORD_BOT_TOKEN1_FILE=nowhere\n")
    await program.start()
    assert await program.end() == 78
    assert "DISCORD_BOT_TOKEN1_FILE (.env, line 1): This file cannot be read" in program.stderr
    program.assert_clean()


@pytest.mark.parametrize("data", [b"", b"\n", b"a\nb\n", b"\xff\xfe\xfa"])
async def test_a_token_file_without_one_token_is_refused(data: bytes, program: Program) -> None:
    (program.folder / "secret").write_bytes(data)
    (program.folder / ".env").write_text("DISCORD_BOT_TOKEN1_FILE=secret\n")
    await program.start()
    assert await program.end() == 78
    assert "DISCORD_BOT_TOKEN1_FILE (.env, line 1): " in program.stderr
    program.assert_clean()


async def test_other_variables_reach_the_process_environment_and_tokens_do_not(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(
        discord.add_bot("bot"), extra="CITY=Rome\nWEATHER_KEY=a$b${CITY}\nFROM_BOTH=file\n"
    )
    program.environment["FROM_BOTH"] = "process"
    program.extend(
        """
        async def cog_load(self):
            log.info("%s %s", os.environ["WEATHER_KEY"], os.environ["FROM_BOTH"])
            log.info("tokens: %s", [name for name in os.environ if "TOKEN" in name])
        """
    )
    await program.start()
    await program.logged("ready as bot")
    assert await program.stop() == 0
    assert "a$bRome process" in program.stderr
    assert "tokens: []" in program.stderr


@needs_windows
async def test_a_lower_case_name_in_the_file_does_not_win_over_the_process_environment(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot"), extra="weather_key=file\n")
    program.environment["WEATHER_KEY"] = "process"
    program.extend(
        'async def cog_load(self):\n    log.info("it is %s", os.environ["WEATHER_KEY"])\n'
    )
    await program.start()
    await program.logged("it is process")
    assert await program.stop() == 0


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932"])
async def test_every_name_can_be_shown_whatever_the_code_page(
    encoding: str, program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("音楽 🎵"))
    program.environment["PYTHONIOENCODING"] = encoding
    program.encoding = encoding
    await program.start("--check")
    assert await program.end() == 0
    assert "\\U0001f3b5" in program.stdout
    program.assert_clean()
    await program.start()
    await program.logged("ready as")
    assert await program.stop() == 0
    program.assert_clean()


async def test_the_version_is_a_result_on_stdout(program: Program) -> None:
    await program.start("--version")
    assert await program.end() == 0
    assert program.stdout.startswith(f"run_bots {run_bots.__version__}")
    assert program.stderr == ""


async def test_help_is_the_docstring_and_names_every_variable(program: Program) -> None:
    await program.start("--help")
    assert await program.end() == 0
    assert run_bots.__doc__ is not None
    assert run_bots.__doc__.strip() in program.stdout
    assert all(name in program.stdout for name in run_bots.SETTINGS)


async def test_wrong_usage_ends_with_2(program: Program) -> None:
    await program.start("--env-fiel", "x")
    assert await program.end() == 2
    program.assert_clean()


def test_the_inline_metadata_equals_the_requirements() -> None:
    block = re.search(r"(?m)^# /// script\n((?:#.*\n)+?)# ///$", SCRIPT.read_text(encoding="utf-8"))
    assert block is not None
    metadata = tomllib.loads(
        "".join(line.removeprefix("#").removeprefix(" ") for line in block[1].splitlines(True))
    )
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert metadata["dependencies"] == [line for line in lines if not line.startswith("#")]
    assert metadata["requires-python"] == ">=3.11"


COMMANDS = [["run_bots.py"], ["-m", "tests.local_discord"], ["-m", "tests.benchmark"]]


def find_python(version: str) -> Path | str | None:
    """A Python of this version, installed beside the one that runs the tests or on the PATH."""
    for python in (
        *Path(sys.base_prefix).parent.glob(f"{version}.*/bin/python"),
        shutil.which(f"python{version}"),
    ):
        if python and not subprocess.run([python, "--version"], capture_output=True).returncode:
            return python
    return None


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8", "3.9", "3.10"])
def test_an_older_python_is_told_in_one_line(version: str) -> None:
    python = find_python(version)
    if python is None:
        pytest.skip(f"there is no Python {version}")
    for command in COMMANDS:
        done = subprocess.run([python, *command], capture_output=True, encoding="utf-8", cwd=ROOT)
        assert done.returncode == 78
        assert len(done.stderr.splitlines()) == 1
        assert "needs Python 3.11" in done.stderr


def test_a_missing_package_is_told_in_one_line() -> None:
    for command in COMMANDS:
        # -S leaves out the installed packages.
        done = subprocess.run(
            [sys.executable, "-S", "-E", *command], capture_output=True, encoding="utf-8", cwd=ROOT
        )
        assert done.returncode == 78
        (line,) = done.stderr.splitlines()
        assert line.startswith("No module named 'aiohttp'. ")
        assert " python -m pip install -r requirements.txt" in line


async def test_the_first_signal_may_come_before_the_bots(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot"))
    await program.start()
    await until(lambda: "1 bot from" in program.stderr)
    assert await program.stop() == 0
    program.assert_clean()
