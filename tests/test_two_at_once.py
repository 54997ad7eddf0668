"""Never two sessions of one bot, and none that is lost: in one process, and in two."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import Any

import pytest

from .local_discord import Account, LocalDiscord, faults
from .program import Program, until, write

SHORT_WAITS = (
    ("LOSS_DELAY = 900", "LOSS_DELAY = 0.5"),
    ("NETWORK_DELAY = 25", "NETWORK_DELAY = 0.5"),
    ("IDENTIFY_BURST = 40", "IDENTIFY_BURST = 400"),
)


class Watch:
    """Looks, at each IDENTIFY of each bot, whether it has another session."""

    def __init__(self, bots: list[Account]) -> None:
        self.twice: list[str] = []
        for bot in bots:
            bot.fail("identify", self._look_at(bot))

    def _look_at(self, bot: Account) -> Any:
        async def look(connection: Any) -> bool:
            others = [it for it in connection.discord.connections if it is not connection]
            if any(
                it.session and it.session.account is bot and not it.closed_by_us for it in others
            ):
                self.twice.append(bot.user.name)
            return False

        return look


SLOW = """
import asyncio

async def setup(bot):
    await asyncio.sleep(0.1)

async def teardown(bot):
    await asyncio.sleep(0.3)
"""


class Storm:
    """What people, networks and Discord do to running bots, in an order that the seed decides."""

    def __init__(self, seed: int, program: Program, bots: list[Account]) -> None:
        self.chance = random.Random(seed)
        self.program = program
        self.bots = bots
        self.steps = [self.save, self.save, self.hang_up, self.mend]
        self.steps += [self.close, self.drop, self.refuse, self.forget, self.fail]

    def write(self, chosen: list[Account]) -> None:
        """Save the env file with these bots, in another order and with other settings."""
        numbers = self.chance.sample(range(1, 10), len(chosen))
        lines = []
        for number, bot in zip(numbers, chosen, strict=True):
            name = bot.user.name + self.chance.choice(["", "x"])
            lines.append(f"DISCORD_BOT_TOKEN{number}={bot.token}")
            lines.append(f"DISCORD_BOT_NAME{number}={name}")
            lines.append(f"DISCORD_BOT_PREFIX{number}={self.chance.choice('!?')}")
            lines.append(f"DISCORD_BOT_EXTENSIONS{number}={self.chance.choice(['', 'slow'])}")
        self.chance.shuffle(lines)
        new = self.program.folder / "new"
        new.write_text("\n".join(lines))
        new.chmod(0o600)
        new.replace(self.program.folder / ".env")

    async def step(self) -> None:
        await self.chance.choice(self.steps)(self.chance.choice(self.bots))

    async def save(self, _bot: Account) -> None:
        self.write(self.chance.sample(self.bots, self.chance.randint(1, len(self.bots))))

    async def hang_up(self, _bot: Account) -> None:
        if hasattr(signal, "SIGHUP"):
            self.program.send(signal.SIGHUP)

    async def mend(self, bot: Account) -> None:
        bot.token_reset = False

    async def close(self, bot: Account, code: int = 4000) -> None:
        for connection in bot.live:
            await connection.close(code)

    async def drop(self, bot: Account) -> None:
        for connection in bot.live:
            await faults.drop()(connection)

    async def refuse(self, bot: Account) -> None:
        bot.token_reset = True
        await self.close(bot, 4004)

    async def forget(self, bot: Account) -> None:
        bot.forget_sessions()
        await self.close(bot)

    async def fail(self, bot: Account) -> None:
        bot.fail("GET /users/@me", faults.status(503), times=1)


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_in_any_order_ends_as_the_file_says(
    seed: int, program: Program, discord: LocalDiscord
) -> None:
    for change in SHORT_WAITS:
        program.change_script(*change)
    steady = discord.add_bot("steady")  # so that the program never ends because all have
    bots = [discord.add_bot(f"bot{number}") for number in range(6)]
    storm = Storm(seed, program, bots)
    (program.folder / "slow.py").write_text(SLOW)
    program.environment["DISCORD_BOT_TOKEN20"] = steady.token
    discord.round_trip = storm.chance.choice([0, 0.02, 0.1])
    watch = Watch([steady, *bots])
    storm.write(bots[:4])
    await program.start()
    await program.logged("5 bots from .env")
    for _ in range(20):
        await asyncio.sleep(storm.chance.uniform(0, 0.4))
        await storm.step()
    for bot in bots:
        bot.token_reset = False
        bot.actions.pop("GET /users/@me", None)
    wanted = storm.chance.sample(bots, 4)
    storm.write(wanted)

    def is_as_written() -> bool:
        return all(bot.ready == (bot in wanted) for bot in bots)

    await until(is_as_written, timeout=40)
    await asyncio.sleep(1.5)
    assert is_as_written()
    assert [len(bot.live) for bot in bots] == [bot in wanted for bot in bots]
    assert not watch.twice
    assert len(steady.identifies) == 1
    assert await program.stop() == 0
    assert not any(bot.live for bot in [steady, *bots])
    program.assert_clean()


async def test_a_stopped_bot_whose_code_and_settings_are_saved_together_starts_once(
    program: Program, discord: LocalDiscord
) -> None:
    steady, bot = discord.add_bot("steady"), discord.add_bot("bot")
    write(program, "cog.py", "def oops(:")
    program.write_env(steady, bot, extra="DISCORD_BOT_EXTENSIONS2=cog")
    await program.start()
    await program.logged("1 of 2 bots are ready")
    write(program, "cog.py", "async def setup(bot):\n    pass\n")
    program.write_env(steady, bot, extra="DISCORD_BOT_EXTENSIONS2=cog\nDISCORD_BOT_PREFIX2=?")
    await program.logged("2 of 2 bots are ready")
    assert bot.requests.count("GET /users/@me") == 2  # the first start got so far too
    assert len(steady.identifies) == 1
    assert program.stderr.count("[bot] ready as bot") == 1
    assert await program.stop() == 0
    program.assert_clean()
