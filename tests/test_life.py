"""A bot's life: log in, connect, retry, end. And that one bot's trouble is nobody else's."""

from __future__ import annotations

import asyncio
import textwrap

import pytest

from .local_discord import Guild, LocalDiscord, User, faults
from .program import Program, until


async def test_every_bot_of_the_env_file_comes_up_and_answers(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(name) for name in ("one", "two", "three")]
    program.write_env(*bots)
    await program.start()
    await program.logged("3 of 3 bots are ready")
    await discord.say("ping")
    await until(lambda: all(bot.messages for bot in bots))
    assert [message["content"] for bot in bots for message in bot.messages] == ["pong"] * 3
    assert await program.stop() == 0
    program.assert_clean()


@pytest.mark.parametrize("options", [(), ("--zlib",)])
async def test_a_bot_comes_up_with_each_compression_of_the_gateway(
    options: tuple[str, ...], program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    program.write_env(bot)
    program.redirect_options = options
    await program.start()
    await program.logged("ready as bot")
    assert {connection.request.query["compress"] for connection in bot.live} == {
        "zlib-stream" if options else "zstd-stream"
    }
    await discord.say("ping")
    await until(lambda: bot.messages)
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_bot_answers_people_alone_and_mentions_nobody(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("one"), discord.add_bot("two")]
    program.write_env(*bots)
    await program.start()
    await program.logged("2 of 2 bots are ready")
    await discord.say("ping", author=User("another bot", bot=True))
    await discord.say("ping", author=bots[0].user)
    await discord.say("a ping in the middle")
    await discord.say("!unknown")
    await discord.say("pingpong, @everyone")
    await until(lambda: all(bot.messages for bot in bots))
    assert await program.stop() == 0
    assert [len(bot.messages) for bot in bots] == [1, 1]
    assert all(bot.messages[0]["allowed_mentions"] == {"parse": []} for bot in bots)
    assert "ERROR" not in program.stderr
    program.assert_clean()


REFUSALS = {
    "the token at the login": ("GET /users/@me", faults.status(401), "Discord refuses this token"),
    "the token after the login": (
        "GET /oauth2/applications/@me",
        faults.status(401),
        "Discord refuses this token",
    ),
    "the token at the gateway": ("identify", faults.close(4004), "Discord refuses this token"),
    "the shard": ("identify", faults.close(4010), "close code 4010"),
    "the gateway version": ("identify", faults.close(4012), "close code 4012"),
    "the intents": ("identify", faults.close(4013), "close code 4013"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_stops_that_bot_at_once_and_says_what_to_do(
    name: str, program: Program, discord: LocalDiscord
) -> None:
    moment, fault, words = REFUSALS[name]
    bad, good = discord.add_bot("bad"), discord.add_bot("good")
    bad.fail(moment, fault)
    program.write_env(bad, good)
    await program.start()
    await program.logged("1 of 2 bots are ready")
    (line,) = [line for line in program.lines_of("bad") if "stopped: " in line]
    assert "DISCORD_BOT_TOKEN1 (.env, line 1): " in line
    assert words in line
    assert "ERROR" in line
    assert good.ready
    assert await program.stop() == 0
    assert bad.requests.count("GET /users/@me") == 1
    assert len(bad.identifies) == (moment == "identify")
    program.assert_clean()


async def test_a_missing_intent_is_named_with_the_address_where_to_switch_it_on(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot", privileged=set())
    program.write_env(bot)
    await program.start()
    assert await program.end() == 78
    (line,) = [line for line in program.lines_of("bot") if "stopped: " in line]
    assert "Message Content Intent" in line
    assert f"https://discord.com/developers/applications/{bot.user.id}/bot" in line
    assert len(bot.identifies) == 1
    program.assert_clean()


async def test_the_exit_code_is_78_when_all_have_ended_and_one_needs_a_person(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("one", token_reset=True), discord.add_bot("two", token_reset=True)]
    program.write_env(*bots)
    await program.start()
    assert await program.end() == 78
    assert [bot.requests for bot in bots] == [["GET /users/@me"]] * 2
    assert "stopped: " in program.lines_of("one")[-1]
    assert "stopped: " in program.lines_of("two")[-1]
    assert "applications/" + str(bots[0].user.id) in program.lines_of("one")[-1]
    program.assert_clean()


TROUBLES = {
    "5xx": ("GET /users/@me", faults.status(503)),
    "forbidden": ("GET /users/@me", faults.status(403)),
    "a cut connection": ("GET /users/@me", faults.drop()),
    "a captive portal": ("GET /users/@me", faults.captive_portal()),
    "a captive portal in Latin-1": ("GET /users/@me", faults.captive_portal("latin-1")),
    "a captive portal later": ("GET /oauth2/applications/@me", faults.captive_portal()),
    "a gateway that refuses": ("connect", faults.drop()),
    "a gateway that closes before HELLO": ("connect", faults.close(4000)),
    "a gateway that closes at IDENTIFY": ("identify", faults.close(4000)),
    "a gateway that closes after READY": ("ready", faults.close(4000)),
    "a gateway that breaks off after READY": ("ready", faults.drop()),
    "INVALID SESSION": ("identify", faults.invalid_session()),
}


@pytest.mark.parametrize("name", TROUBLES)
async def test_what_may_pass_is_tried_again_and_delays_nobody_else(
    name: str, program: Program, discord: LocalDiscord
) -> None:
    moment, fault = TROUBLES[name]
    troubled, fine = discord.add_bot("troubled"), discord.add_bot("fine")
    troubled.fail(moment, fault, times=1)
    if moment == "connect":  # nobody has said yet who it is
        discord.fail(moment, fault, times=1)
    program.write_env(troubled, fine)
    await program.start()
    await until(lambda: fine.ready and troubled.ready and "ready as troubled" in program.stderr)
    assert await program.stop() == 0
    assert len(fine.identifies) == 1
    program.assert_clean()


async def test_no_network_is_one_line_a_try_and_the_bots_come_up_when_it_is_back(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    program.write_env(bot)
    await discord.stop()
    await program.start("--log-level", "debug")
    await program.logged("Trying again in", times=2)
    await program.logged("0 of 1 bots are ready")
    await discord.start()
    await program.logged("ready as bot")
    assert await program.stop() == 0
    assert "Check the network" in program.stderr
    program.assert_clean()


async def test_a_lost_network_is_followed_by_a_resume_of_the_same_session(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("one"), discord.add_bot("two")]
    program.write_env(*bots)
    await program.start()
    await program.logged("2 of 2 bots are ready")
    await discord.stop()
    await program.logged("Discord cannot be reached", times=2)
    await discord.start()
    await until(lambda: all(bot.ready for bot in bots))
    await program.logged("ready as one", times=2)
    assert [len(bot.identifies) for bot in bots] == [1, 1]
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_login_without_an_answer_delays_nobody_and_can_be_stopped(
    program: Program, discord: LocalDiscord
) -> None:
    slow, fine = discord.add_bot("slow"), discord.add_bot("fine")
    slow.fail("GET /users/@me", faults.hang())
    program.write_env(slow, fine)
    await program.start()
    await program.logged("ready as fine")
    assert not slow.ready
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_login_without_an_answer_is_given_up_and_tried_again(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    bot.fail("GET /users/@me", faults.hang(), times=1)
    program.change_script("LOGIN_TIMEOUT = 30", "LOGIN_TIMEOUT = 1")
    program.write_env(bot)
    await program.start()
    await program.logged("Discord does not answer")
    await program.logged("ready as bot")
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_gateway_without_an_answer_is_given_up_and_tried_again(
    program: Program, discord: LocalDiscord
) -> None:
    discord.fail("upgrade", faults.hang(), times=1)
    program.change_script("CONNECT_TIMEOUT = 30", "CONNECT_TIMEOUT = 1")
    program.write_env(discord.add_bot("bot"))
    await program.start()
    await program.logged("Discord does not answer")
    await program.logged("ready as bot")
    await program.logged("1 of 1 bots are ready")
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_gateway_that_stays_away_is_tried_again_by_the_same_client(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    discord.fail("upgrade", faults.status(503), times=3)
    program.write_env(bot)
    await program.start()
    await program.logged("ready as bot")
    assert bot.requests.count("GET /users/@me") == 1
    assert await program.stop() == 0
    assert "Discord answers with status 503" in program.stderr
    program.assert_clean()


async def test_discord_asks_to_reconnect_and_the_bot_resumes(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    program.write_env(bot)
    await program.start()
    await program.logged("ready as bot")
    await faults.ask_to_reconnect()(bot.live[0])
    await until(lambda: bot.resumes and bot.ready)
    await program.logged("ready as bot", times=2)
    assert len(bot.identifies) == 1
    assert await program.stop() == 0
    assert bot.client_closes[-1] == 1000
    program.assert_clean()


async def test_a_gateway_that_stops_answering_heartbeats_is_left_and_resumed(
    program: Program, discord: LocalDiscord
) -> None:
    # discord.py gives up after 60 s without a word from the gateway, so the word is that the bot
    # reconnects.
    discord.heartbeat_interval_ms = 200
    bot = discord.add_bot("bot")
    program.write_env(bot)
    await program.start("--log-level", "debug")
    await program.logged("Keeping shard ID 0 websocket alive", times=2)
    keep_alive = [line for line in program.stderr.splitlines() if "websocket alive" in line]
    assert all("[bot]" in line for line in keep_alive)
    assert await program.stop() == 0


async def test_a_bot_that_discord_wants_sharded_runs_with_its_shards(
    program: Program, discord: LocalDiscord
) -> None:
    guilds = [Guild(f"server {n}", id=(n << 22) + 1) for n in range(1, 7)]
    big = discord.add_bot("big", guilds=guilds, shards=2, sharding_required=True)
    small = discord.add_bot("small")
    program.write_env(big, small)
    await program.start()
    await program.logged("ready as big", timeout=30)
    assert big.ready
    assert [identify.shard for identify in big.identifies] == [(0, 2), (1, 2)]
    assert "in 6 servers" in program.lines_of("big")[-1]
    assert small.ready
    assert await program.stop() == 0
    assert big.client_closes == [1000, 1000]
    program.assert_clean()


async def test_a_refusal_is_not_asked_for_again_by_every_shard(
    program: Program, discord: LocalDiscord
) -> None:
    guilds = [Guild(f"server {n}", id=(n << 22) + 1) for n in range(12)]
    bot = discord.add_bot("bot", guilds=guilds, shards=4, privileged=set())
    program.write_env(bot)
    await program.start()
    assert await program.end() == 78
    assert len(bot.identifies) <= 2
    assert "Message Content Intent" in program.lines_of("bot")[-1]
    program.assert_clean()


async def test_shards_that_reconnect_one_after_another_stay_in_their_sessions(
    program: Program, discord: LocalDiscord
) -> None:
    guilds = [Guild(f"server {n}", id=(n << 22) + 1) for n in range(12)]
    bot = discord.add_bot("bot", guilds=guilds, shards=2)
    program.write_env(bot)
    await program.start()
    await program.logged("ready as bot")
    for turn in range(8):
        resumes = len(bot.resumes)
        await faults.ask_to_reconnect()(bot.live[turn % 2])
        await until(lambda resumes=resumes: len(bot.resumes) > resumes and bot.ready, timeout=40)
    assert len(bot.identifies) == 2
    assert await program.stop() == 0
    program.assert_clean()


async def test_too_few_shards_by_discords_own_number_need_a_person(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    bot.fail("identify", faults.close(4011))
    program.write_env(bot)
    await program.start()
    assert await program.end() == 78
    assert len(bot.identifies) == 1
    program.assert_clean()


async def test_a_voice_connection_is_no_gateway_connection(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    # What discord.py's voice client does; a real one needs packages that this program does not.
    code = """
        async def on_message(message):
            for _ in range(0 if message.author.bot else 5):
                socket = await message._state.http.ws_connect(message.content, compress=15)
                await socket.close()
            if not message.author.bot:
                await message.channel.send("done")

        async def setup(bot):
            bot.add_listener(on_message)
        """
    (program.folder / "voice.py").write_text(textwrap.dedent(code))
    program.write_env(
        bot, extra="DISCORD_BOT_EXTENSIONS=voice\nDISCORD_BOT_INTENTS=all,-members,-presences"
    )
    await program.start()
    await program.logged("ready as bot")
    await discord.say(discord.gateway_url)
    await until(lambda: bot.messages)
    assert await program.stop() == 0
    assert "Trying again" not in program.stderr
    program.assert_clean()


async def test_the_summary_says_what_the_others_lack(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [
        discord.add_bot("good"),
        discord.add_bot("off", privileged=set()),
        discord.add_bot("flaky"),
    ]
    bots[2].fail("GET /users/@me", faults.status(503))
    program.write_env(*bots)
    await program.start()
    await program.logged("1 of 3 bots are ready. Not ready: off (stopped since ")
    await program.logged(": Discord answers with status 503)")
    assert await program.stop() == 0


async def test_the_summary_waits_only_for_so_long_and_comes_once(
    program: Program, discord: LocalDiscord
) -> None:
    good, slow, away = (discord.add_bot(name) for name in ("good", "slow", "away"))
    slow.fail("GET /users/@me", faults.hang())
    away.fail("GET /users/@me", faults.status(503))
    program.change_script("SETTLE_TIMEOUT = 30", "SETTLE_TIMEOUT = 2")
    program.write_env(good, slow, away)
    await program.start()
    await program.logged("slow (starting since ")
    await asyncio.sleep(2)
    assert program.stderr.count("1 of 3 bots are ready") == 1
    assert await program.stop() == 0


async def test_the_summary_of_bots_that_settled_is_not_said_again(
    program: Program, discord: LocalDiscord
) -> None:
    good, away = discord.add_bot("good"), discord.add_bot("away")
    away.fail("GET /users/@me", faults.status(503))
    program.change_script("SETTLE_TIMEOUT = 30", "SETTLE_TIMEOUT = 2")
    program.write_env(good, away)
    await program.start()
    await program.logged("1 of 2 bots are ready")
    await asyncio.sleep(2)
    assert program.stderr.count("1 of 2 bots are ready") == 1
    assert await program.stop() == 0


async def test_hundred_bots_come_up_and_stop_together(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(f"bot{n}") for n in range(100)]
    program.write_env(*bots)
    await program.start()
    await program.logged("100 of 100 bots are ready", timeout=40)
    assert await program.stop() == 0
    assert [bot.client_closes for bot in bots] == [[1000]] * 100
    program.assert_clean()
