"""`python -m tests.local_discord`, for a newcomer and for somebody who writes an extension."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .local_discord import LocalDiscord
from .local_discord.bots import Bots
from .local_discord.playground import COMMANDS
from .program import SCRIPT, STRAY, needs_terminal, until

COMMAND = [sys.executable, "-m", "tests.local_discord"]
TEXT_COMMANDS = """
import io

import discord
from discord.ext import commands


class Choice(discord.ui.View):
    @discord.ui.button(label="Yes", emoji="👍")
    async def yes(self, interaction, button):
        await interaction.response.edit_message(content="You said yes.", view=None)

    @discord.ui.button(label="Later", disabled=True)
    async def later(self, interaction, button):
        raise AssertionError("nobody can press this")

    @discord.ui.select(options=[discord.SelectOption(label=it) for it in "ABC"], max_values=2)
    async def choose(self, interaction, select):
        await interaction.response.send_message(f"You chose {select.values}.")


class Tour(commands.Cog):
    def __init__(self, bot):
        self.bot = bot

    @commands.command()
    async def hello(self, ctx, who: discord.Member):
        reply = await ctx.reply(f"Hello {who.mention}!")
        await reply.edit(content="Goodbye.")
        await reply.delete()
        await ctx.message.add_reaction("👍")
        await ctx.message.clear_reactions()

    @commands.command()
    async def show(self, ctx):
        embed = discord.Embed(title="Weather", description="Sunny")
        embed.add_field(name="Wind", value="3 km/h")
        await ctx.send(embed=embed, file=discord.File(io.BytesIO(b"four"), "cat.png"))

    @commands.command()
    async def ask(self, ctx):
        await ctx.send("Sure?", view=Choice())

    @commands.command()
    async def whisper(self, ctx):
        await ctx.author.send(f"psst, {ctx.author.name}")

    @commands.command()
    async def ban(self, ctx, who: discord.Member):
        await who.ban()

    @commands.command()
    async def talk(self, ctx):
        await ctx.send("a" * 2001)

    @commands.command()
    async def clear(self, ctx):
        await ctx.channel.purge(limit=2)

    @commands.Cog.listener()
    async def on_reaction_add(self, reaction, user):
        if not user.bot:
            await reaction.message.channel.send(f"{user.name} likes {reaction.message.content}")

    @commands.Cog.listener()
    async def on_message_edit(self, before, after):
        if not after.author.bot:
            await after.channel.send(f"{before.content} is now {after.content}")


async def setup(bot):
    await bot.add_cog(Tour(bot))
"""
SLASH_COMMANDS = """
import asyncio
from typing import Literal

import discord
from discord import app_commands
from discord.ext import commands


class About(discord.ui.Modal, title="About you"):
    name = discord.ui.TextInput(label="Name", max_length=5)
    town = discord.ui.Label(text="Town", component=discord.ui.TextInput(default="Rome"))

    async def on_submit(self, interaction):
        await interaction.response.send_message(f"{self.name.value} of {self.town.component.value}")


class Slash(commands.Cog):
    group = app_commands.Group(name="set", description="Set something")

    @app_commands.command(description="All kinds of options")
    async def mix(
        self,
        interaction,
        text: str,
        count: app_commands.Range[int, 1, 9],
        share: float = 0.5,
        loud: bool = False,
        who: discord.Member = None,
        where: discord.TextChannel = None,
        colour: Literal["red", "blue"] = "red",
    ):
        options = [text, count, share, loud, who, where, colour]
        await interaction.response.send_message(", ".join(map(str, options)))

    @app_commands.command(description="An answer for one")
    async def secret(self, interaction):
        await interaction.response.send_message("hidden", ephemeral=True)

    @app_commands.command(description="An answer that takes time")
    async def think(self, interaction):
        await interaction.response.defer()
        await asyncio.sleep(0.1)
        await interaction.followup.send("thought")
        await interaction.edit_original_response(content="thought again")

    @app_commands.command(description="No answer")
    async def silence(self, interaction):
        pass

    @app_commands.command(description="A form")
    async def form(self, interaction):
        await interaction.response.send_modal(About())

    @group.command(description="Set the volume")
    async def volume(self, interaction, level: int):
        await interaction.response.send_message(f"volume {level}")


@app_commands.context_menu(name="Who is this?")
async def who(interaction, user: discord.Member):
    pass


async def setup(bot):
    await bot.add_cog(Slash())
    bot.tree.add_command(who)
"""


def start(folder: Path, **settings: str) -> subprocess.Popen[str]:
    """The playground in this folder, with pipes and these variables in its environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DISCORD_")}
    return subprocess.Popen(
        COMMAND,
        cwd=folder,
        env=clean | {"PYTHONPATH": str(SCRIPT.parent), "PYTHONIOENCODING": "utf-8"} | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def type_in(folder: Path, *lines: str, **settings: str) -> tuple[list[str], str]:
    """Type these lines into the playground. Returns the lines of stdout, and stderr."""
    with start(folder, **settings) as process:
        stdout, stderr = process.communicate("\n".join(lines), timeout=50)
    assert process.returncode == 0, stderr
    return stdout.splitlines(), stderr


def write_tour(folder: Path, code: str) -> None:
    (folder / "tour.py").write_text(code, encoding="utf-8")
    (folder / ".env").write_text(
        "DISCORD_BOT_NAME1=music\nDISCORD_BOT_EXTENSIONS1=tour\nDISCORD_BOT_INTENTS1=all\n"
        "DISCORD_BOT_NAME2=dice\n"
    )


def test_piped_lines_are_answered_by_every_bot_on_stdout(tmp_path: Path) -> None:
    stdout, stderr = type_in(tmp_path, "ping")
    assert sorted(stdout) == ["anna: pong", "ben: pong", "carla: pong"]
    assert not STRAY.search(stderr)


def test_scripts_answer_as_they_are(tmp_path: Path) -> None:
    scripts = SCRIPT.parent / "tests" / "scripts"
    for name in ("music.py", "hybrid.py"):
        shutil.copy(scripts / name, tmp_path / name)
    lines = ["DISCORD_BOT_SCRIPT1=music.py", "DISCORD_BOT_SCRIPT2=hybrid.py", "TOKEN=x"]
    (tmp_path / ".env").write_text("\n".join([*lines, "TEST_GUILD=100000000000000001"]))
    stdout, stderr = type_in(tmp_path, "?play", "/hi", "/secret")
    assert "bot1: music plays" in stdout
    assert any("hi there" in line for line in stdout)
    assert any("a secret" in line for line in stdout)
    assert not STRAY.search(stderr)


def test_it_needs_no_termios_which_windows_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "termios.py").write_text("raise ModuleNotFoundError")
    stdout, stderr = type_in(
        tmp_path, "ping", PYTHONPATH=os.pathsep.join([str(tmp_path), str(SCRIPT.parent)])
    )
    assert len(stdout) == 3
    assert not STRAY.search(stderr)


@needs_terminal
def test_ctrl_c_ends_it_quietly_in_a_terminal_and_leaves_the_terminal_as_it_was() -> None:
    import termios

    terminal, inside = os.openpty()
    before = termios.tcgetattr(terminal)
    with subprocess.Popen(
        COMMAND, cwd=SCRIPT.parent, stdin=inside, stdout=inside, stderr=inside
    ) as process:
        output = b""
        try:
            while b"Alex> " not in output:
                output += os.read(terminal, 4096)
            os.write(terminal, b"ping\n")
            while output.count(b"pong") < 3:
                output += os.read(terminal, 4096)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()
            print(output.decode())
    os.set_blocking(terminal, False)
    output += os.read(terminal, 65536)
    assert termios.tcgetattr(terminal) == before
    os.close(inside)
    os.close(terminal)
    assert not STRAY.search(output.decode())


def test_it_runs_the_persons_own_settings_and_never_uses_a_real_token(tmp_path: Path) -> None:
    real = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GReal1.a-real-token-of-this-person-"
    (tmp_path / "token.txt").write_text(f"{real}2")
    (tmp_path / ".env").write_text(
        f"DISCORD_BOT_TOKEN1={real}1\nDISCORD_BOT_NAME1=greeter\nDISCORD_BOT_PREFIX1=?\nDISCORD_BOT_EXTENSIONS1=greeter\n"
        "DISCORD_BOT_TOKEN2_FILE=token.txt\nDISCORD_BOT_TOKEN3=\nGREETING=Good day\n"
    )
    (tmp_path / "greeter.py").write_text(
        "import os\nfrom discord.ext import commands\n"
        "@commands.command()\nasync def hello(ctx):\n"
        "    print(dict(os.environ), ctx.bot.http.token)\n"
        "    await ctx.send(os.environ['GREETING'] + ' ' + ctx.author.display_name)\n"
        "async def setup(bot): bot.add_command(hello)\n"
    )
    stdout, stderr = type_in(
        tmp_path, "?hello", "ping", DISCORD_BOT_TOKEN4=f"{real}4", DISCORD_BOT_NAME4="dave"
    )
    assert stdout[0] == "greeter: Good day Alex"
    assert sorted(stdout[1:]) == ["bot2: pong", "dave: pong"]
    assert "made-up-secret" not in stderr
    assert "[token of greeter]" in stderr
    assert real not in stderr


def test_a_fresh_copy_of_the_example_env_file_runs(tmp_path: Path) -> None:
    (tmp_path / "my.env").write_bytes(SCRIPT.with_name(".env.example").read_bytes())
    command = [*COMMAND, "--env-file", "my.env"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parent)}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        input="ping\n",
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert sorted(done.stdout.splitlines()) == ["bot1: pong", "bot2: pong"]


def test_it_shows_replies_edits_reactions_deletions_embeds_files_and_direct_messages(
    tmp_path: Path,
) -> None:
    write_tour(tmp_path, TEXT_COMMANDS)
    stdout, stderr = type_in(
        tmp_path, "!hello @sam", "!show", "--as Zoe", "!whisper", "!ban @Sam", "!talk", "!clear"
    )
    assert stdout == [
        "music → Alex: Hello @Sam!",
        "music edits: Goodbye.",
        'music deletes music\'s "Goodbye."',
        'music reacts 👍 to Alex\'s "!hello @Sam"',
        'music takes all reactions away from Alex\'s "!hello @Sam"',
        "music: [embed: Weather — Sunny; Wind: 3 km/h] [file: cat.png, 4 bytes]",
        "music (direct message to Zoe): psst, Zoe",
        "music deletes 2 messages",
    ]
    assert "In content: Must be 2000 or fewer in length." in stderr
    assert "music asks Discord for PUT /guilds/" in stderr


def test_a_person_can_react_press_a_button_edit_reply_and_write_direct_messages(
    tmp_path: Path,
) -> None:
    write_tour(tmp_path, TEXT_COMMANDS)
    lines = [
        "!ask",
        "--react 👍",
        "--react :thumbsup:",
        "one",
        "--edit two",
        "--click later",
        "--click B | c",
    ]
    lines += [
        "--click yes",
        "--click yes",
        "--delete",
        "--dm music",
        "!ask",
        "--reply !ask",
        "--channel",
    ]
    stdout, stderr = type_in(tmp_path, *lines, "--foo", "--dm nobody")
    assert stdout == [
        "music: Sure? [👍 Yes] [Later (off)] [A | B | C]",
        "music: Alex likes Sure?",
        "music: one is now two",
        "music: You chose ['B', 'C'].",
        "music edits: You said yes.",
        "music (direct message to Alex): Sure? [👍 Yes] [Later (off)] [A | B | C]",
        "music (direct message to Alex): Sure? [👍 Yes] [Later (off)] [A | B | C]",
    ]
    assert 'Alex reacts 👍 to music\'s "Sure? [👍 Yes] [Later (off)] [A | B | C]"' in stderr
    assert "Give the emoji itself, such as: --react 👍" in stderr
    assert 'Alex deletes Alex\'s "two"' in stderr
    assert re.search(
        r"There is no button \[later\] .* "
        r"These are there: \[👍 Yes\] \[Later \(off\)\] \[A \| B \| C\]",
        stderr,
    )
    assert re.search(r"There is no button \[yes\] .* There is none at all\.", stderr)
    assert "There is no --foo." in stderr
    assert "There is no bot nobody. These are there: music, dice." in stderr


def test_slash_commands_are_called_with_their_options(tmp_path: Path) -> None:
    write_tour(tmp_path, SLASH_COMMANDS)
    stdout, stderr = type_in(
        tmp_path,
        "/mix text:how are you count:3",
        "/mix how are you count:9 share:1.5 loud:true who:@sam where:#general colour:blue",
        "@music /set volume level:3",
        "/secret",
        "/think",
        "/form",
        "--fill Alex",
        "--fill | Rome",
        "--fill Alexander | Rome",
        "--fill Alex |",
        "/set volume",
        "/silence",
        "/mix text:a count:10",
        "/mix text:a",
        "/nothing",
    )
    assert stdout == [
        "music: how are you, 3, 0.5, False, None, None, red",
        "music: how are you, 9, 1.5, True, Sam, general, blue",
        "music: volume 3",
        "music (only Alex sees this): hidden",
        "music is thinking …",
        "music: thought",
        "music edits: thought again",
        "music: Alex of Rome",
    ]
    assert "music opens a form: About you. Type: --fill Name | Town" in stderr
    assert "The form has 2 fields." in stderr
    assert "Name must not be empty." in stderr
    assert "Name has 9 characters." in stderr
    assert "level is missing. Type: /set volume level:<whole number>\n" in stderr
    assert "music has not answered /silence within 3 seconds." in stderr
    usage = "/mix text:<text> count:<whole number> [share:<number>] [loud:<true or false>]"
    assert f'count is "10": it must be 9 or less. Type: {usage}' in stderr
    assert f"count is missing. Type: {usage}" in stderr
    assert "There is no slash command /nothing. These are there:" in stderr
    assert re.search("^  /set volume level:<whole number> +music$", stderr, re.MULTILINE)


def test_a_command_that_two_bots_have_needs_the_name_of_one(tmp_path: Path) -> None:
    write_tour(tmp_path, SLASH_COMMANDS)
    stdout, stderr = type_in(tmp_path, "/secret", "@dice /secret", DISCORD_BOT_EXTENSIONS2="tour")
    assert stdout == ["dice (only Alex sees this): hidden"]
    assert "Several bots have /secret. Type @music /secret or @dice /secret." in stderr


def test_a_bot_that_does_not_load_starts_when_its_file_is_mended(tmp_path: Path) -> None:
    write_tour(tmp_path, "def broken(")
    with start(tmp_path) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write("ping\n")
        process.stdin.flush()
        assert process.stdout.readline() == "dice: pong\n"
        log = ""
        write_tour(tmp_path, TEXT_COMMANDS)
        while "music and dice are ready" not in log:
            log += process.stderr.readline()
        stdout, _ = process.communicate("!ask\n", timeout=50)
    assert stdout == "music: Sure? [👍 Yes] [Later (off)] [A | B | C]\n"
    assert "Extension 'tour' raised an error: SyntaxError" in log
    assert "music is not ready." in log
    assert (
        "tour.py was changed. The bots start again." in log
        or "tour.py were changed. The bots start again." in log
    )


async def test_a_restart_closes_every_bot_with_1000(
    tmp_path: Path, discord: LocalDiscord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bots = Bots(discord, None, print)
    running = asyncio.create_task(bots.run())
    await until(bots.settled.is_set)
    accounts = list(bots.accounts.values())
    bots.restart_asked.set()
    await until(lambda: all(len(account.identifies) == 2 and account.ready for account in accounts))
    assert [account.client_closes for account in accounts] == [[1000]] * len(accounts)
    running.cancel()
    await asyncio.wait([running])
    assert [account.client_closes for account in accounts] == [[1000, 1000]] * len(accounts)


def test_it_ends_with_1_where_no_bot_can_run_and_nobody_can_mend_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DISCORD_BOT_EXTENSIONS1=missing\n")
    with start(tmp_path) as process:
        _, stderr = process.communicate("ping\n", timeout=50)
    assert process.returncode == 1
    assert "Extension 'missing'" in stderr
    assert "run_bots.py has ended with code 78." in stderr


def test_help_says_the_same_inside_and_outside(tmp_path: Path) -> None:
    _, inside = type_in(tmp_path, "--help")
    done = subprocess.run(
        [*COMMAND, "--help"], cwd=SCRIPT.parent, capture_output=True, text=True, timeout=30
    )
    for name, (argument, text) in COMMANDS.items():
        line = re.compile(
            rf"^  {name} {re.escape(argument)} +{re.escape(text)}$".replace("  +", " +"),
            re.MULTILINE,
        )
        assert line.search(inside)
        assert line.search(done.stdout)
