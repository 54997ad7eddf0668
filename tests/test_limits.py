"""Discord's limits are kept whatever fails: https://docs.discord.com/developers/topics/rate-limits"""

from __future__ import annotations

import asyncio

import pytest

from .local_discord import LocalDiscord, faults
from .program import Program, until

LOOPS = {
    "every RESUME is closed": {"resume": faults.close(4000), "ready": faults.close(4000)},
    "every session is closed right after READY": {"ready": faults.close(4000)},
    "every session is closed right after READY with 1000": {"ready": faults.close(1000)},
    "every session is cut right after READY": {"ready": faults.drop()},
    "every IDENTIFY is an invalid session": {"identify": faults.invalid_session()},
    "every connection is closed before HELLO": {"connect": faults.close(4000)},
    "every session is asked to reconnect": {
        "ready": faults.ask_to_reconnect(),
        "resume": faults.ask_to_reconnect(),
    },
}


@pytest.mark.parametrize("name", LOOPS)
async def test_no_tight_loop_where(name: str, program: Program, discord: LocalDiscord) -> None:
    bot, other = discord.add_bot("bot"), discord.add_bot("other")
    for moment, fault in LOOPS[name].items():
        (discord if moment == "connect" else bot).fail(moment, fault)
    opened = discord.opened
    program.write_env(bot, *([] if "connect" in LOOPS[name] else [other]))
    await program.start()
    await until(lambda: discord.opened > opened)
    await asyncio.sleep(4)
    # Waits of at most 1, 2 and 4 s come between these, on average half as long. Without them there
    # are thousands.
    assert discord.opened - opened < 15
    assert len(bot.identifies) < 10
    assert len(other.identifies) <= 1
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_block_of_the_address_pauses_every_bot_together(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(f"bot{n}") for n in range(10)]
    discord.fail("REST", faults.cloudflare_block(retry_after=3), times=10)
    program.write_env(*bots)
    await program.start()
    await program.logged("Discord blocks this IP address (429)", times=10)
    assert discord.invalid_requests == 10
    await program.logged("ready as", times=10)
    assert discord.invalid_requests == 10
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_block_that_lasts_is_found_out_by_few_requests(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(f"bot{n}") for n in range(20)]
    discord.fail("REST", faults.cloudflare_block(retry_after=2))
    program.write_env(*bots)
    await program.start()
    await program.logged("Trying again in", times=21)
    await asyncio.sleep(1)
    assert discord.invalid_requests < 30
    assert await program.stop() == 0
    program.assert_clean()


@pytest.mark.parametrize("seconds", [0, -5])
async def test_a_block_that_says_that_it_is_over_is_no_tight_loop(
    seconds: int, program: Program, discord: LocalDiscord
) -> None:
    discord.fail("REST", faults.cloudflare_block(seconds))
    program.write_env(discord.add_bot("bot"))
    await program.start()
    await program.logged("Discord blocks this IP address (429)")
    await asyncio.sleep(2)
    assert discord.invalid_requests < 5
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_block_at_the_gateway_pauses_the_bots_too(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    discord.fail("upgrade", faults.cloudflare_block(retry_after=2), times=1)
    program.write_env(bot)
    await program.start()
    await program.logged("All bots wait 2 s")
    await program.logged("ready as bot")
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_rate_limit_of_discord_is_waited_for(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    bot.fail("GET /users/@me", faults.rate_limited(0.5), times=1)
    program.write_env(bot)
    await program.start()
    await program.logged("ready as bot")
    assert bot.requests.count("GET /users/@me") == 2
    assert "Trying again" not in program.stderr
    assert await program.stop() == 0


async def test_a_rate_limit_that_is_long_is_waited_for_too(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    bot.fail("GET /users/@me", faults.rate_limited(4), times=1)
    program.change_script("LOGIN_TIMEOUT = 30", "LOGIN_TIMEOUT = 2")
    program.write_env(bot)
    await program.start()
    await program.logged("Discord asks this bot to wait 4 s")
    await program.logged("ready as bot")
    assert discord.invalid_requests == 1
    assert await program.stop() == 0
    program.assert_clean()


async def test_a_proxy_that_refuses_the_gateway_is_no_refused_token_and_no_tight_loop(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("bot")
    discord.fail("upgrade", faults.status(401))
    program.write_env(bot)
    await program.start()
    await program.logged("Discord answers with status 401")
    await asyncio.sleep(3)
    assert discord.invalid_requests < 10
    assert "stopped: " not in program.stderr
    assert await program.stop() == 0
    program.assert_clean()
