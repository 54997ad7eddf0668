"""What a bot comes back from, and with what.

There are outages, refused sessions, and a setup that the world keeps from working.
"""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import time

import pytest

from .local_discord import Guild, LocalDiscord, faults
from .program import Program, contents, needs_posix_signals, until, write

COUNTER = """
    count = 0

    @commands.Cog.listener("on_message")
    async def counted(self, message):
        if message.content == "count":
            self.count += 1
            await message.channel.send(f"number {self.count}")
    """
PLAIN = """
    import discord

    class Plain(discord.Client):
        count = 0

        def __init__(self, settings):
            super().__init__(intents=settings.intents)

        async def on_message(self, message):
            if message.content == "count":
                self.count += 1
                await message.channel.send(f"number {self.count}")
    """
CLIENT = "Bot(settings).start"
SHORT_WAITS = (
    ("HAND_BACK_AFTER = 45", "HAND_BACK_AFTER = 1"),
    ("NETWORK_DELAY = 25", "NETWORK_DELAY = 1"),
)


def use_plain_client(program: Program) -> None:
    write(program, "plain.py", PLAIN)
    program.change_script(CLIENT, "__import__('plain').Plain(settings).start")


@pytest.mark.parametrize("kind", ["default", "plain", "two shards"])
async def test_a_client_and_its_session_survive_an_outage(
    kind: str, program: Program, discord: LocalDiscord
) -> None:
    guilds = [discord.guild, Guild("another", id=discord.guild.id + (1 << 22))]
    bot = discord.add_bot("bot", guilds=guilds, shards=2 if kind == "two shards" else 1)
    for change in SHORT_WAITS:  # discord.py is handed back its wait again and again
        program.change_script(*change)
    if kind == "plain":
        use_plain_client(program)
    else:
        program.extend(COUNTER)
    program.write_env(bot)
    await program.start("--log-level", "debug")
    await program.logged("ready as bot")
    await discord.say("count")
    await until(lambda: contents(bot) == ["number 1"])
    await discord.stop()
    await program.logged("Discord cannot be reached", times=4)
    await discord.say("count")
    await discord.start()
    await until(lambda: bot.ready and contents(bot) == ["number 1", "number 2"])
    assert len(bot.identifies) == bot.shards
    assert len(bot.resumes) == bot.shards
    await program.logged("ready as bot", times=2)
    assert await program.stop() == 0
    assert bot.client_closes[-1] == 1000
    program.assert_clean()


@pytest.mark.parametrize("kind", ["default", "plain"])
async def test_a_first_connection_that_is_long_in_coming_needs_no_new_log_in(
    kind: str, program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    discord.fail("upgrade", faults.status(503), times=4)
    for change in SHORT_WAITS:
        program.change_script(*change)
    if kind == "plain":
        use_plain_client(program)
    program.write_env(bot)
    await program.start()
    await program.logged("ready as bot")
    assert bot.requests.count("GET /users/@me") == 1
    assert len(bot.identifies) == 1
    assert await program.stop() == 0
    program.assert_clean()


FIRST_CONNECTIONS = {
    "closed before HELLO": ("connect", faults.close(4000)),
    "dropped before HELLO": ("connect", faults.drop()),
    "closed at IDENTIFY": ("identify", faults.close(4000)),
}


@pytest.mark.parametrize("how", FIRST_CONNECTIONS)
async def test_a_plain_client_comes_up_though_its_first_connection_is(
    how: str, program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    discord.fail(*FIRST_CONNECTIONS[how], times=1)
    use_plain_client(program)
    program.write_env(bot)
    await program.start()
    await program.logged("ready as bot")
    assert bot.requests.count("GET /users/@me") == 1
    assert await program.stop() == 0
    program.assert_clean()


@pytest.mark.parametrize("kind", ["default", "plain", "two shards"])
async def test_a_session_that_is_over_is_no_failure(
    kind: str, program: Program, discord: LocalDiscord
) -> None:
    guilds = [discord.guild, Guild("another", id=discord.guild.id + (1 << 22))]
    bot = discord.add_bot("bot", guilds=guilds, shards=2 if kind == "two shards" else 1)
    if kind == "plain":
        use_plain_client(program)
    program.change_script("NETWORK_DELAY = 25", "NETWORK_DELAY = 1")
    program.change_script("HELLO_TIMEOUT = 10", "HELLO_TIMEOUT = 4")
    program.change_script("READY_TIMEOUT = 60", "READY_TIMEOUT = 8")
    program.write_env(bot)
    await program.start("--log-level", "debug")
    await program.logged("ready as bot")
    await discord.stop()
    await program.logged("Discord cannot be reached", times=4)
    bot.forget_sessions()
    await discord.start()
    await program.logged("ready as bot", times=2)
    assert (len(bot.identifies), len(bot.resumes)) == (2 * bot.shards, bot.shards)
    losses = re.findall(r"connection was lost \(close code \d+\)\. Trying", program.stderr)
    assert len(losses) == bot.shards
    await asyncio.sleep(8 if kind == "two shards" else 0)
    assert "does not answer at the gateway" not in program.stderr
    assert await program.stop() == 0
    program.assert_clean()


@needs_posix_signals
async def test_sighup_ends_the_waits_for_the_network(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot("one"), discord.add_bot("two")]
    program.change_script("longest = min(NETWORK_DELAY, 2**self.unreached)", "longest = 1000")
    program.write_env(*bots)
    await discord.stop()
    await program.start()
    await program.logged("Trying again in", times=2)
    await discord.start()
    program.send(signal.SIGHUP)
    await until(lambda: all(bot.ready for bot in bots))
    assert await program.stop() == 0
    program.assert_clean()


async def test_the_first_bot_that_gets_through_ends_the_waits_of_the_others(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(f"bot{n}") for n in range(4)]
    program.change_script(
        "longest = min(NETWORK_DELAY, 2**self.unreached)", "longest = next(WAITS)"
    )
    program.change_script(
        "class Pace:", "WAITS = iter([1000, 1000, 1000] + [1] * 1000)\n\n\nclass Pace:"
    )
    program.write_env(*bots)
    await discord.stop()
    await program.start("--log-level", "debug")
    await program.logged("Trying again in", times=4)
    await discord.start()
    await until(lambda: all(bot.ready for bot in bots))
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_final_close_code_is_heeded_though_discord_hangs_up_behind_it(
    tls_program: Program, tls_discord: LocalDiscord
) -> None:
    bots = [tls_discord.add_bot(f"bot{n}") for n in range(10)]
    for bot in bots:
        bot.fail("identify", faults.close_and_hang_up(4014))
    tls_program.write_env(*bots)
    await tls_program.start()
    assert await tls_program.end() == 78
    assert [len(bot.identifies) for bot in bots] == [1] * 10
    tls_program.assert_clean()


async def test_an_identify_without_an_answer_is_given_up_and_tried_again(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    bot.fail("identify", faults.silence(), times=1)
    program.change_script("HELLO_TIMEOUT = 10", "HELLO_TIMEOUT = 0.5")
    program.change_script("READY_TIMEOUT = 60", "READY_TIMEOUT = 1")
    program.write_env(bot)
    await program.start()
    await program.logged("Discord does not answer at the gateway")
    await program.logged("ready as bot")
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_page_in_the_place_of_the_gateway_is_called_that(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    discord.fail("upgrade", faults.captive_portal(), times=1)
    program.write_env(bot)
    await program.start()
    await program.logged("the answer is not from Discord")
    await program.logged("ready as bot")
    assert await program.stop() == 0


# --- Discord's own count of IDENTIFYs


async def test_a_bot_that_has_few_identifies_left_waits_until_they_are_counted_anew(
    program: Program, discord: LocalDiscord
) -> None:
    bot, other = discord.add_bot("bot", used_before=501, reset_after=3), discord.add_bot("other")
    program.write_env(bot, other)
    await program.start()
    await program.logged("only 499 times more before it resets the token. Trying again in")
    await program.logged("ready as other")
    assert not bot.identifies
    bot.used_before = 0
    await program.logged("ready as bot")
    assert await program.stop() == 0
    program.assert_clean()


async def test_check_shows_how_many_identifies_are_left(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot", used_before=777))
    await program.start("--check")
    assert await program.end() == 0
    assert program.stdout.splitlines()[1].split()[-1] == "223"


async def test_shards_identify_side_by_side_where_discord_allows_it(
    program: Program, discord: LocalDiscord
) -> None:
    guilds = [Guild(f"server {n}", id=(n << 22) + 1) for n in range(8)]
    big = discord.add_bot("big", guilds=guilds, shards=8, max_concurrency=8)
    program.write_env(big)
    await program.start()
    await program.logged("ready as big")
    assert big.identifies[-1].at - big.identifies[0].at < 20  # 35 one after another
    assert await program.stop() == 0
    program.assert_clean()


# --- A setup that does not end well


WORLDS = {
    "an address": "ConnectionRefusedError",
    "a timeout": "TimeoutError",
    "a driver's own error": "DatabaseIsAway",
    "a cancelled task": "asyncio.CancelledError",
}


@pytest.mark.parametrize("what", WORLDS)
async def test_a_setup_is_tried_again_that_fails_because_of(
    what: str, program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    code = f"""
        import asyncio, os

        class DatabaseIsAway(Exception):
            pass

        async def setup(bot):
            if not os.path.exists("database"):
                raise {WORLDS[what]}("the database is away")
        """
    write(program, "stored.py", code)
    program.write_env(bot, extra="DISCORD_BOT_EXTENSIONS1=stored")
    await program.start()
    await program.logged("Trying again in")
    (line, *_) = [line for line in program.lines_of("bot") if "Trying again in" in line]
    assert "DISCORD_BOT_EXTENSIONS1 (.env, line 3): " in line
    if what != "a cancelled task":
        assert "Extension 'stored'" in line
        assert "(stored.py, line 9" in line
    (program.folder / "database").touch()
    await program.logged("ready as bot")
    assert await program.stop() == 0
    program.assert_clean()


async def test_the_waits_between_setups_that_fail_grow_though_each_one_logs_in(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        async def setup(bot):
            raise OSError("the database is away")
        """
    write(program, "one.py", code)
    program.write_env(discord.add_bot("bot"), extra="DISCORD_BOT_EXTENSIONS=one")
    await program.start("--log-level", "debug")
    await program.logged("Trying again in", times=4)
    waits = re.findall(r"Trying again in ([\d.]+) s", program.stderr)
    assert float(waits[2]) >= 2  # 0.5 to 1, 1 to 2, 2 to 4 …
    assert float(waits[3]) >= 4
    assert await program.stop() == 0


async def test_a_setup_whose_upload_of_commands_gets_a_503_is_tried_again(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    bot.fail(f"PUT /applications/{bot.user.id}/commands", faults.status(503), times=1)
    write(program, "syncing.py", "async def setup(bot):\n    await bot.tree.sync()\n")
    program.write_env(bot, extra="DISCORD_BOT_EXTENSIONS1=syncing")
    await program.start()
    await program.logged("Trying again in")
    await program.logged("ready as bot")
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_setup_that_does_not_end_is_named_and_check_says_so(
    program: Program, discord: LocalDiscord
) -> None:
    write(program, "waiting.py", "async def setup(bot):\n    await bot.wait_until_ready()\n")
    program.change_script("SETUP_TIMEOUT = 60", "SETUP_TIMEOUT = 1")
    program.write_env(discord.add_bot("bot"), extra="DISCORD_BOT_EXTENSIONS1=waiting")
    await program.start("--check")
    assert await program.end() == 78
    assert re.search(r"PROBLEM: DISCORD_BOT_EXTENSIONS1 .*setup took more than 1 s", program.stdout)
    program.stderr = ""
    await program.start()
    await program.logged("setup took more than 1 s")
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_setup_does_not_run_again_after_an_outage(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        import asyncio

        async def setup(bot):
            await asyncio.start_server(lambda *_: None, "127.0.0.1", PORT)
        """
    bot = discord.add_bot("bot")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    write(program, "web.py", code.replace("PORT", str(port)))
    for change in SHORT_WAITS:
        program.change_script(*change)
    program.write_env(bot, extra="DISCORD_BOT_EXTENSIONS1=web")
    await program.start("--log-level", "debug")
    await program.logged("ready as bot")
    await discord.stop()
    await program.logged("Discord cannot be reached", times=4)
    await discord.start()
    await program.logged("ready as bot", times=2)
    assert await program.stop() == 0
    assert "in use" not in program.stderr


# --- What one bot's end leaves to the others


async def test_a_helpers_task_lives_on_when_the_bot_ends_that_started_it(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    write(
        program,
        "helper.py",
        """
        import asyncio
        beats = 0
        task = None

        async def beat():
            global beats
            while True:
                await asyncio.sleep(0.05)
                beats += 1

        def start():
            global task
            task = task or asyncio.create_task(beat())
        """,
    )
    code = """
        import helper

        async def on_message(message):
            if message.content == "beats":
                await message.channel.send(str(helper.beats))

        async def setup(bot):
            helper.start()
            bot.add_listener(on_message)
        """
    write(program, "first.py", code)
    write(program, "second.py", code)
    settings = "DISCORD_BOT_EXTENSIONS1=first\nDISCORD_BOT_EXTENSIONS2=second"
    two.fail("GET /users/@me", faults.status(503), times=1)  # so that the first starts it
    program.write_env(one, two, extra=settings)
    await program.start()
    await until(lambda: one.ready and two.ready)
    env_file = program.folder / ".env"
    env_file.write_text(env_file.read_text().replace(one.token, ""))
    await program.logged("[one] stopped")
    beats = []
    for turn in range(1, 3):
        await discord.say("beats")
        await until(lambda turn=turn: len(two.messages) == turn)
        beats.append(int(contents(two)[-1]))
        await asyncio.sleep(0.3)
    assert beats[0] < beats[1]
    assert await program.stop() == 0
    program.assert_clean()


async def test_the_garbage_collector_still_leaves_the_others_alone_when_a_bot_has_ended(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    code = """
        import gc

        async def on_message(message):
            if message.content == "frozen":
                await message.channel.send(str(gc.get_freeze_count()))

        async def setup(bot):
            bot.add_listener(on_message)
        """
    write(program, "frozen.py", code)
    program.write_env(one, two, extra="DISCORD_BOT_EXTENSIONS1=frozen")
    await program.start()
    await program.logged("2 of 2 bots are ready")
    program.write_env(one, extra="DISCORD_BOT_EXTENSIONS1=frozen")
    await program.logged("[two] stopped")
    await asyncio.sleep(1.5)
    await discord.say("frozen")
    await until(lambda: one.messages)
    assert int(contents(one)[0]) > 10_000
    assert await program.stop() == 0


async def test_a_bot_that_comes_back_uses_the_connections_that_are_open(
    program: Program, discord: LocalDiscord
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    program.write_env(one, two)
    await program.start()
    await program.logged("2 of 2 bots are ready")
    connections = len(discord.rest_connections)
    program.write_env(one, two, extra="DISCORD_BOT_PREFIX2=?")
    await program.logged("ready as two", times=2)
    await discord.say("ping")
    await until(lambda: one.messages and two.messages)
    assert len(discord.rest_connections) == connections
    assert await program.stop() == 0
    program.assert_clean()


# --- Odd things that discord.py, Discord and bots do


@pytest.mark.parametrize("kind", ["default", "plain"])
async def test_an_invalid_session_in_the_place_of_hello_is_no_tight_loop(
    kind: str, program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    if kind == "plain":
        use_plain_client(program)
    program.write_env(bot)
    await program.start()
    await program.logged("ready as bot")
    discord.fail("connect", faults.invalid_session())
    before = discord.opened
    await bot.live[0].close(4000)
    await asyncio.sleep(4)
    assert discord.opened - before < 15
    assert await program.stop() == 0


async def test_a_count_that_begins_anew_at_once_is_no_tight_loop(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot", used_before=600, reset_after=0)
    program.write_env(bot)
    await program.start()
    await program.logged("Trying again in")
    await asyncio.sleep(3)
    assert bot.requests.count("GET /gateway/bot") < 4
    assert await program.stop() == 0


async def test_a_page_in_the_place_of_discords_count_is_tried_again(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    bot.fail("GET /gateway/bot", faults.captive_portal(), times=1)
    program.write_env(bot)
    await program.start()
    await program.logged("ready as bot")
    assert "the answer is not from Discord" in program.stderr
    assert await program.stop() == 0
    program.assert_clean()


# discord.py ends its wait for a connection, HELLO included, after 60 seconds. Here it does after 7.
SHORT_PATIENCE = """
import types
wait_for = asyncio.wait_for
impatient = types.SimpleNamespace(**vars(asyncio))
impatient.wait_for = lambda work, timeout=None: wait_for(work, 7 if timeout == 60.0 else timeout)
discord.shard.asyncio = discord.client.asyncio = impatient
"""


@pytest.mark.parametrize("kind", ["default", "plain", "two shards"])
async def test_a_connection_without_hello_costs_no_session(
    kind: str, program: Program, discord: LocalDiscord
) -> None:
    guilds = [discord.guild, Guild("another", id=discord.guild.id + (1 << 22))]
    bot = discord.add_bot(
        "bot", guilds=guilds, shards=2 if kind == "two shards" else 1, max_concurrency=2
    )
    program.change_script("class Pool", f"{SHORT_PATIENCE}class Pool")
    program.change_script("HELLO_TIMEOUT = 10", "HELLO_TIMEOUT = 2")
    program.change_script("HAND_BACK_AFTER = 45", "HAND_BACK_AFTER = 1")
    if kind == "plain":
        use_plain_client(program)
    program.write_env(bot)
    await program.start()
    await program.logged("ready as bot")
    discord.fail("connect", faults.hang(30), times=1)
    for connection in list(discord.connections):
        await faults.drop()(connection)
    await program.logged("ready as bot", times=2)
    assert len(bot.identifies) == bot.shards
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_connection_that_is_cut_before_identify_is_followed_by_another(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    use_plain_client(program)
    program.write_env(bot)
    await program.start()
    await program.logged("ready as bot")
    bot.forget_sessions()
    discord.fail("connect", faults.pass_by(), times=1)  # the RESUME, which is refused
    discord.fail("connect", faults.hello_and_drop(), times=1)
    await bot.live[0].close(4000)
    await program.logged("ready as bot", times=2)
    assert await program.stop() == 0
    program.assert_clean()


WORKS_ON = """
    async def cog_load(self):
        if not os.path.exists("once"):
            open("once", "w").close()
            self.task = asyncio.create_task(self.work())

    async def work(self):
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(%s)
            await self.bot.close()
    """


async def test_a_client_that_has_ended_cannot_close_the_next_one(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    program.change_script("TASKS_UNTIL = 7.5", "TASKS_UNTIL = 0.1")
    program.extend(WORKS_ON % 3)
    program.write_env(bot)
    await program.start()
    await program.logged("ready as bot")
    program.write_env(bot, extra="DISCORD_BOT_PREFIX1=?")
    await program.logged("ready as bot", times=2)
    await asyncio.sleep(3)
    assert bot.ready
    assert "closed itself" not in program.stderr
    assert await program.stop() == 0


@pytest.mark.parametrize("where", ["finally", "cog_unload"])
async def test_a_close_in_a_bots_own_clean_up_does_not_wait_for_itself(
    where: str, program: Program, discord: LocalDiscord
) -> None:
    program.extend(
        WORKS_ON % 0
        if where == "finally"
        else "async def cog_unload(self):\n    await self.bot.close()\n"
    )
    program.write_env(discord.add_bot("bot"))
    await program.start()
    await program.logged("ready as bot")
    started = time.monotonic()
    assert await program.stop() == 0
    assert time.monotonic() - started < 4
    program.assert_clean()


async def test_a_stop_while_a_connection_is_being_made_starts_no_session(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    discord.fail("upgrade", faults.hang(1.5))
    program.extend(WORKS_ON % 3)
    program.write_env(bot)
    await program.start()
    await until(lambda: "GET /gateway/bot" in bot.requests)
    await asyncio.sleep(0.5)
    assert await program.stop() == 0
    assert not bot.identifies
    assert "ready as bot" not in program.stderr
    program.assert_clean()


@needs_posix_signals
async def test_a_save_while_a_refused_bot_ends_starts_it_again(
    program: Program, discord: LocalDiscord
) -> None:
    bot, other = discord.add_bot("bot"), discord.add_bot("other")
    program.extend("async def cog_unload(self):\n    await asyncio.sleep(2)\n")
    program.write_env(bot, other)
    await program.start()
    await program.logged("2 of 2 bots are ready")
    await bot.live[0].close(4014)
    await asyncio.sleep(0.5)
    program.send(signal.SIGHUP)
    await program.logged("ready as bot", times=2)
    assert await program.stop() == 0


async def test_a_client_that_was_replaced_is_freed(program: Program, discord: LocalDiscord) -> None:
    bot = discord.add_bot("bot")
    discord.heartbeat_interval_ms = 500
    code = """
        import gc, sys, weakref

        async def on_message(message):
            if message.content == "alive":
                gc.collect()
                await message.channel.send(str(sum(client() is not None for client in sys.clients)))

        async def setup(bot):
            sys.clients = [*getattr(sys, "clients", []), weakref.ref(bot)]
            bot.add_listener(on_message)
        """
    write(program, "alive.py", code)
    program.write_env(bot, extra="DISCORD_BOT_EXTENSIONS1=alive")
    await program.start()
    await program.logged("ready as bot")
    for turn in range(2):
        program.write_env(bot, extra=f"DISCORD_BOT_EXTENSIONS1=alive\nDISCORD_BOT_PREFIX1={turn}")
        await program.logged("ready as bot", times=2 + turn)
    await asyncio.sleep(3)
    await discord.say("alive")
    await until(lambda: bot.messages)
    assert contents(bot) == ["1"]
    assert await program.stop() == 0


HANDLERS = {
    "asyncio": "asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, lambda: None)",
    "an odd signal": "signal.signal(signal.SIGRTMIN + 3, lambda *_: None)",
}


@needs_posix_signals
@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="needs real-time signals")
@pytest.mark.parametrize("kind", HANDLERS)
async def test_a_bots_own_handler_of_another_signal_keeps_no_signal_from_the_program(
    kind: str, program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    program.extend(f"async def cog_load(self):\n    import signal\n    {HANDLERS[kind]}\n")
    program.write_env(bot)
    await program.start()
    await program.logged("ready as bot")
    program.send(signal.SIGUSR2 if kind == "asyncio" else signal.SIGRTMIN + 3)
    await asyncio.sleep(0.5)
    assert await program.stop() == 0
    assert bot.client_closes == [1000]
    program.assert_clean()
