"""At home on a machine that nobody watches: systemd's notifications."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .local_discord import LocalDiscord, faults
from .program import Program, needs_unix_sockets, until


class Systemd:
    """The end of NOTIFY_SOCKET that systemd has: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html"""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)
        self._lines: list[str] = []

    @property
    def told(self) -> list[str]:
        """Every line so far."""
        try:
            while True:
                self._lines += self._socket.recv(8192).decode().splitlines()
        except BlockingIOError:
            return self._lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path, program: Program) -> Iterator[Systemd]:
    address = str(tmp_path / "not@ify")  # an @ has a meaning at the beginning alone
    program.environment["NOTIFY_SOCKET"] = address
    systemd = Systemd(address)
    yield systemd
    systemd.close()


@needs_unix_sockets
async def test_systemd_is_told_when_the_bots_are_ready_and_when_they_stop(
    program: Program, discord: LocalDiscord, systemd: Systemd
) -> None:
    bots = [discord.add_bot(f"bot{n}") for n in range(3)]
    program.write_env(*bots)
    await program.start()
    await until(lambda: "READY=1" in systemd.told)
    assert systemd.told.index("STATUS=3 of 3 bots are ready") < systemd.told.index("READY=1")
    assert "STOPPING=1" not in systemd.told
    assert await program.stop() == 0
    assert "STOPPING=1" in systemd.told
    program.assert_clean()


@needs_unix_sockets
async def test_systemd_sees_how_many_bots_are_ready_while_they_run(
    program: Program, discord: LocalDiscord, systemd: Systemd
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two")
    program.write_env(one, two)
    await program.start()
    await until(lambda: "READY=1" in systemd.told)
    two.fail("resume", faults.close(4000))
    two.fail("identify", faults.close(4000))
    told = len(systemd.told)
    await two.live[0].close(4000)
    await until(
        lambda: any(
            line.startswith("STATUS=1 of 2 bots are ready. Not ready: two (retrying since ")
            for line in systemd.told[told:]
        )
    )
    two.heal()
    await until(lambda: systemd.told[-1] == "STATUS=2 of 2 bots are ready")
    assert await program.stop() == 0


@needs_unix_sockets
async def test_a_bot_that_does_not_come_up_does_not_keep_systemd_waiting(
    program: Program, discord: LocalDiscord, systemd: Systemd
) -> None:
    good, bad = discord.add_bot("good"), discord.add_bot("bad")
    bad.fail("GET /users/@me", faults.status(503))
    program.write_env(good, bad)
    await program.start()
    await until(lambda: "READY=1" in systemd.told)
    status = "STATUS=1 of 2 bots are ready. Not ready: bad (retrying since "
    assert any(line.startswith(status) for line in systemd.told)
    assert await program.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
async def test_an_abstract_socket_is_told_too(
    program: Program, discord: LocalDiscord, tmp_path: Path
) -> None:
    address = "@" + str(tmp_path)[-90:]  # unique, and not too long
    systemd = Systemd(address)
    program.environment["NOTIFY_SOCKET"] = address
    program.write_env(discord.add_bot("bot"))
    await program.start()
    await until(lambda: "READY=1" in systemd.told)
    assert await program.stop() == 0
    systemd.close()


@needs_unix_sockets
async def test_a_notify_socket_that_nobody_reads_harms_nothing(
    program: Program, discord: LocalDiscord
) -> None:
    program.environment["NOTIFY_SOCKET"] = str(program.folder / "nobody")
    program.write_env(discord.add_bot("bot"))
    await program.start()
    await program.logged("1 of 1 bots are ready")
    assert await program.stop() == 0
    program.assert_clean()


@needs_unix_sockets
async def test_systemd_has_the_names_of_those_that_are_not_ready(
    program: Program, discord: LocalDiscord, systemd: Systemd
) -> None:
    bots = [discord.add_bot("good"), discord.add_bot("off", token_reset=True)]
    program.write_env(*bots)
    await program.start()
    await until(lambda: "READY=1" in systemd.told)
    status = [line for line in systemd.told if line.startswith("STATUS=")][-1]
    assert status.startswith("STATUS=1 of 2 bots are ready. Not ready: off (stopped since ")
    assert status.endswith("Discord refuses this token)")
    assert await program.stop() == 0


@needs_unix_sockets
async def test_a_status_is_never_too_long_for_systemd(
    program: Program, discord: LocalDiscord, systemd: Systemd
) -> None:
    bots = [discord.add_bot(f"{n}" + "𝄞" * 200, token_reset=True) for n in range(40)]
    program.write_env(discord.add_bot("good"), *bots)
    await program.start()
    await until(lambda: "READY=1" in systemd.told)
    statuses = [line for line in systemd.told if line.startswith("STATUS=")]
    assert 3000 < len(statuses[-1].encode()) < 4096
    assert await program.stop() == 0


@needs_unix_sockets
async def test_systemds_watchdog_hears_from_the_event_loop_each_second(
    program: Program, discord: LocalDiscord, systemd: Systemd
) -> None:
    program.write_env(discord.add_bot("bot"))
    program.extend(
        """
        @commands.Cog.listener("on_message")
        async def block(self, message):
            time.sleep(3)
        """
    )
    await program.start()
    await until(lambda: systemd.told.count("WATCHDOG=1") > 2)
    await discord.say("block")
    await asyncio.sleep(1)
    heard = systemd.told.count("WATCHDOG=1")
    await asyncio.sleep(1.5)
    assert systemd.told.count("WATCHDOG=1") == heard
    await until(lambda: systemd.told.count("WATCHDOG=1") > heard)
    assert await program.stop() == 0
