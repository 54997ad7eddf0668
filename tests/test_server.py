"""At home on a machine that nobody watches: systemd's notifications, and SIGUSR1."""

from __future__ import annotations

import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .local_discord import LocalDiscord, faults
from .program import Program, needs_posix_signals, needs_unix_sockets, until


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
                self._lines += self._socket.recv(4096).decode().splitlines()
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
    await until(lambda: "STATUS=1 of 2 bots are ready" in systemd.told[told:])
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
    assert "STATUS=1 of 2 bots are ready" in systemd.told
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


TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@needs_posix_signals
async def test_sigusr1_logs_one_line_for_each_bot(program: Program, discord: LocalDiscord) -> None:
    up, down, off = discord.add_bot("up"), discord.add_bot("down"), discord.add_bot("off")
    down.fail("GET /users/@me", faults.status(503))
    off.token_reset = True
    program.write_env(up, down, off)
    await program.start()
    await program.logged("1 of 3 bots are ready")
    await up.live[0].close(4000)
    await program.logged("[up] ready as up", times=1)
    await until(lambda: up.resumes and up.ready)
    await program.logged("[up] ready as up", times=2)
    before = len(program.stderr)
    program.send(signal.SIGUSR1)
    await program.logged("off is stopped since", times=2)
    lines = [line for line in program.stderr[before:].splitlines() if " since " in line]
    assert len(lines) == 3
    assert re.search(
        rf"up is ready since {TIME}, latency \d+ ms, 1 servers, 1 reconnects$", lines[0]
    )
    assert re.search(rf"down is (retrying|starting) since {TIME}", lines[1])
    assert re.search(rf"off is stopped since {TIME}, 0 reconnects: ", lines[2])
    assert up.ready
    assert await program.stop() == 0
    program.assert_clean()
