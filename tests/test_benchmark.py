"""`python -m tests.benchmark`: that it shows every figure, and leaves nothing behind.

How good the figures are is no test.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from .benchmark import memory
from .benchmark.link import Link
from .program import SCRIPT, needs_posix_signals

SHORT = ["--rounds=1", "--seconds=0.1", "--settle=0", "--round-trip=0", "--members=1", "--pause=0"]
SHORT_LIFE = ["--every=0.4", "--link-seconds=0.4", "--outage-seconds=0.4", "--messages=5"]
COMMAND = [sys.executable, "-m", "tests.benchmark", *SHORT, *SHORT_LIFE]
LOAD_MEASURES = 14
ROUND_TRIP = 0.1
ENDED = (ConnectionError, asyncio.IncompleteReadError)  # what the end of a connection raises

Rows = list[list[str]]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *options], cwd=SCRIPT.parent, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    return done


def tables_in(output: str) -> list[Rows]:
    """The cells of every row of every table."""
    tables = []
    for block in output.strip().split("\n\n"):
        if not block.startswith("|"):
            continue
        lines = block.splitlines()
        assert len({len(line) for line in lines}) == 1, "the columns are not aligned"
        assert re.fullmatch(r"\| -+ (\| -+: )+\|", lines[1]), "this is not Markdown"
        rows = [line.strip("|").split("|") for line in lines]
        tables.append([[cell.strip() for cell in row] for row in rows])
    return tables


def tables(*options: str) -> list[Rows]:
    return tables_in(run(*options).stdout)


def by_measure(rows: Rows) -> dict[str, str]:
    """The first peer's figures."""
    return {row[0]: row[1] for row in rows}


def assert_figures(rows: Rows, *missing: str) -> None:
    """Each cell has a figure, but for the measures whose text has one of these words in it."""
    for measure, *cells in rows:
        absent = any(words in measure for words in missing)
        if sys.platform != "linux":
            absent = absent or "(MiB)" in measure or "CPU a message" in measure
        form = "-" if absent else r"-?[\d.,e-]+( \(-?[\d.]+x\))?"
        assert all(re.fullmatch(form, cell) for cell in cells), (measure, cells)


# --- The load ---


def test_every_peer_has_every_figure() -> None:
    ((head, _, *rows),) = tables("--tables=load", "--bots=2")
    assert head == ["bots: 2", "run_bots", "issue_516", "gather", "one_process"]
    assert len(rows) == LOAD_MEASURES
    assert_figures(rows, "memory a bot")  # nothing to compare with
    assert rows[-2][1] == "0", "run_bots.py leaves bots online"


def test_the_last_table_shows_how_figures_grow() -> None:
    one, two, (head, _, *rows) = tables("--tables=load", "--bots=1,2", "--peers=run_bots")
    assert [one[0], two[0]] == [["bots: 1", "run_bots"], ["bots: 2", "run_bots"]]
    assert head == ["run_bots, by the number of bots", "1", "2"]
    assert_figures(two[2:])
    assert [row[1] for row in rows] == [row[1] for row in one[2:]]
    assert [row[2].split()[0] for row in rows] == [row[1] for row in two[2:]]


def test_a_peer_that_fails_leaves_the_others_their_figures(tmp_path: Path) -> None:
    peer = tmp_path / "peer.py"
    peer.write_text("exit('no bots today')")
    done = run("--tables=load,link", "--bots=1", f"--peers=gather,{peer}")
    words = r"A process has ended by itself\. Its last words: no bots today$"
    assert re.search(r"from Ctrl-C \(s\) +\| +[\d.]+ \| +- \|", done.stdout)
    assert re.search(r"reply latency, median \(ms\) +\| +[\d.]+ \| +- \|", done.stdout)
    assert len(re.findall(words, done.stdout, re.MULTILINE)) == 2


@needs_posix_signals
@pytest.mark.parametrize("table", ["load", "outage"])
def test_ctrl_c_ends_it_and_all_its_processes(tmp_path: Path, table: str) -> None:
    peer, started = tmp_path / "peer.py", tmp_path / "pid"
    peer.write_text(
        f"import os, time; open({str(started)!r}, 'x').write(str(os.getpid())); time.sleep(60)"
    )
    command = [*COMMAND, f"--tables={table}", f"--peers={peer}"]
    with subprocess.Popen(
        command, cwd=SCRIPT.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while not (started.exists() and started.read_text()):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        # Also until the local Discord and the link, which have our stderr, have ended.
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (130, b"")
    assert b"Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_a_table_that_there_is_not_is_refused() -> None:
    done = subprocess.run(
        [*COMMAND, "--tables=lunch"], cwd=SCRIPT.parent, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "lunch is not one of load, link, outage, silence, memory" in done.stderr


# --- The real life ---


def test_replies_over_a_link_take_its_round_trip() -> None:
    peers = "--peers=run_bots,one_process"
    ((head, _, *rows),) = tables("--tables=link", "--bots=2", "--round-trip=50", peers)
    assert head == ["link, bots: 2", "run_bots", "one_process"]
    assert_figures(rows)
    for row in rows:
        if "latency" in row[0] or "from the first request" in row[0]:
            least = 50 if "(ms)" in row[0] else 0.15
            assert all(float(cell.split()[0].replace(",", "")) >= least for cell in row[1:]), row


def test_bots_come_back_after_an_outage() -> None:
    ((head, _, *rows),) = tables("--tables=outage", "--bots=2", "--peers=run_bots")
    assert head == ["outage, bots: 2", "run_bots"]
    assert_figures(rows)
    figures = by_measure(rows)
    assert figures["bots that do not answer in time"] == "0"
    assert int(figures["IDENTIFYs"]) + int(figures["RESUMEs"]) >= 2
    assert int(figures["messages of people"]) >= 2
    assert int(figures["log lines"]) > 0


def test_who_is_not_back_in_time_is_counted() -> None:
    """Nothing tells a bot of a short silence, so its next heartbeat is the first to find out."""
    ((_, _, *rows),) = tables("--tables=silence", "--bots=2", "--peers=gather", "--return-limit=0")
    figures = by_measure(rows)
    assert figures["until all bots answer (s)"] == "never"
    assert figures["bots that do not answer in time"] == "2"
    assert figures["messages missed"] == figures["messages of people"] != "0"


def test_memory_is_measured_with_both_compressions() -> None:
    ((head, _, *rows),) = tables("--tables=memory", "--bots=2", "--peers=run_bots,gather")
    assert head == ["memory, bots: 2", "run_bots", "gather"]
    kinds = [row[0].partition(":")[0] for row in rows]
    assert kinds == ["zlib"] * 3 + ["zstd"] * 3
    assert_figures(rows)


def test_a_missing_zstd_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    bots = {"bots": [1], "memory_bots": 1, "members": 1, "peers": ["gather"]}
    times = {"rounds": 1, "settle": 0, "start_timeout": 30, "messages": 1}
    output = memory.report(argparse.Namespace(**bots, **times))
    ((_, _, *rows),) = tables_in(output)
    assert {row[0].partition(":")[0] for row in rows} == {"zlib"}
    assert output.endswith(memory.NO_ZSTD)


# --- The link itself ---


class Echo(asyncio.Protocol):
    """Sends everything back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(data)


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    """A link to a server that sends everything back."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    link = Link(server.sockets[0].getsockname()[1], ROUND_TRIP)
    await link.listen()
    yield link
    await link.cut(silently=False)
    server.close()
    await asyncio.sleep(ROUND_TRIP)  # until all connections have ended


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]


@pytest.fixture
async def connect(link: Link) -> AsyncIterator[Connect]:
    """Opens a connection over the link."""
    opened = []

    async def open_connection() -> Streams:
        opened.append(await asyncio.open_connection("127.0.0.1", link.port))
        return opened[-1]

    yield open_connection
    for _, writer in opened:
        writer.close()


async def exchange(streams: Streams, data: bytes) -> float:
    """Send this, and get it back. Returns the seconds that it took."""
    began = time.perf_counter()
    reader, writer = streams
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    return time.perf_counter() - began


async def test_a_new_connection_costs_one_more_round_trip(link: Link, connect: Connect) -> None:
    streams = await connect()
    # A timer may be early by a millisecond in each direction.
    assert await exchange(streams, b"hello") >= 2 * ROUND_TRIP - 0.01
    assert await exchange(streams, b"hello") >= ROUND_TRIP - 0.01
    assert await link.count() == 1


async def test_everything_arrives_in_order(connect: Connect) -> None:
    streams = await connect()
    data = b"".join(b"%07d" % number for number in range(100_000))
    await exchange(streams, data)
    streams[1].write_eof()
    assert await streams[0].read() == b""


async def test_a_cut_link_refuses_until_it_is_restored(link: Link, connect: Connect) -> None:
    reader, writer = await connect()
    await exchange((reader, writer), b"hello")
    await link.cut(silently=False)
    with pytest.raises(ENDED):
        await reader.readexactly(1)
    with pytest.raises(ConnectionError):
        await connect()
    await link.restore()
    streams = await connect()
    await exchange(streams, b"hello")


async def test_a_silent_link_tells_nobody(link: Link, connect: Connect) -> None:
    old = await connect()
    await exchange(old, b"hello")
    await link.cut(silently=True)
    new = await connect()
    for reader, writer in (old, new):
        writer.write(b"hello")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 3 * ROUND_TRIP)
    await link.restore()
    # What was connected before is over. What asked in the meantime is asked for again.
    old[1].write(b"hello")
    with pytest.raises(ENDED):
        await old[0].readexactly(1)
    assert await new[0].readexactly(5) == b"hello"
