"""Every line says whose it is, and no token is ever printed."""

from __future__ import annotations

import re

from .local_discord import LocalDiscord, faults
from .program import Program, until

PREFIX = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[(\w+) *\] ([\w.]+): (.*)$")


async def test_each_line_of_discord_py_carries_the_bots_name(
    program: Program, discord: LocalDiscord
) -> None:
    discord.heartbeat_interval_ms = 100
    bots = [discord.add_bot("one"), discord.add_bot("two")]
    program.write_env(*bots)
    await program.start("--log-level", "debug")
    await program.logged("2 of 2 bots are ready")
    await program.logged("websocket alive with sequence", times=4)
    await discord.say("ping")
    await until(lambda: all(bot.messages for bot in bots))
    assert await program.stop() == 0
    lines = [match for match in map(PREFIX.match, program.stderr.splitlines()) if match]
    library = [match for match in lines if match[2].startswith("discord.")]
    assert {match[2] for match in library} >= {"discord.client", "discord.gateway", "discord.http"}
    assert all(match[3].startswith(("[one] ", "[two] ")) for match in library)
    assert {match[3][:5] for match in library if "websocket alive" in match[3]} == {
        "[one]",
        "[two]",
    }


async def test_the_programs_own_lines_carry_no_bots_name(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("one"))
    await program.start()
    await program.logged("1 of 1 bots are ready")
    assert await program.stop() == 0
    for words in ("1 bot from .env", "1 of 1 bots are ready", "Stopping all bots"):
        (line,) = [line for line in program.stderr.splitlines() if words in line]
        assert f"run_bots: {words}" in line


async def test_a_ready_bot_is_named_with_its_id_and_servers(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("music")
    program.write_env(bot)
    await program.start()
    await program.logged(f"[music] ready as music ({bot.user.id}) in 1 server")
    assert await program.stop() == 0


async def test_a_bug_in_a_handler_is_shown_with_its_traceback_and_the_bot_goes_on(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    program.write_env(bot)
    program.extend(
        """
        @commands.Cog.listener("on_message")
        async def fail(self, message):
            if message.content == "fail":
                raise ValueError("a bug of mine")
        """
    )
    await program.start()
    await program.logged("ready as bot")
    await discord.say("fail")
    await program.logged("ValueError: a bug of mine")
    await discord.say("ping")
    await until(lambda: bot.messages)
    assert await program.stop() == 0
    assert "Traceback" in program.stderr
    assert any("Ignoring exception in on_message" in line for line in program.lines_of("bot"))


async def test_an_unexpected_exception_is_shown_with_its_traceback_and_tried_again(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    program.write_env(bot)
    bot.fail("ready", faults.unreadable_event(), times=1)
    await program.start()
    await program.logged("ready as bot", times=2)
    assert await program.stop() == 0
    assert "Traceback" in program.stderr
    assert "Unexpected error: KeyError('type')" in program.stderr


async def test_no_token_is_printed_whatever_happens(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(name) for name in ("one", "two", "three", "four")]
    bots[1].token_reset = True
    bots[2].fail("identify", faults.close(4004))
    bots[3].fail("GET /users/@me", faults.status(503))
    program.write_env(*bots)
    program.extend(
        """
        @commands.Cog.listener("on_message")
        async def tell(self, message):
            log.info("%r %r %s", self.bot, vars(self.bot.http), self.bot.http.token)
            log.info("no place for it", self.bot.http.token)
            print(self.bot.http.token)
            import threading
            threading.Thread(target=int, args=[self.bot.http.token]).start()
            raise ValueError("Bot " + self.bot.http.token)
        """
    )
    await program.start("--log-level", "debug")
    await program.logged("1 of 4 bots are ready")
    await discord.say("tell")
    await program.logged("ValueError: Bot [token of one]")
    assert await program.stop() == 0
    output = program.stderr + program.stdout
    assert not any(bot.token in output for bot in bots)
    assert "made-up-secret" not in output


async def test_the_log_level_can_be_set(program: Program, discord: LocalDiscord) -> None:
    program.write_env(discord.add_bot("one"))
    await program.start("--log-level", "ERROR")
    await until(lambda: discord.connections)
    assert await program.stop() == 0
    assert program.stderr == ""
