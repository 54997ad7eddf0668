"""`python -m tests.benchmark`: that it shows every figure, and leaves nothing behind.

How good they are is no test.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .program import SCRIPT, needs_posix_signals

SHORT = ["--rounds=1", "--seconds=0.1", "--settle=0", "--round-trip=0", "--members=1"]
COMMAND = [sys.executable, "-m", "tests.benchmark", *SHORT]
MEASURES = 14


def run(*options: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *options], cwd=SCRIPT.parent, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    return done


def tables(*options: str) -> list[list[list[str]]]:
    """The cells of every row of every table."""
    blocks = [
        block.splitlines() for block in run(*options).stdout.split("\n\n") if block.startswith("|")
    ]
    for lines in blocks:
        assert len({len(line) for line in lines}) == 1, "the columns are not aligned"
        assert re.fullmatch(r"\| -+ (\| -+: )+\|", lines[1]), "this is not Markdown"
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        for lines in blocks
    ]


def assert_figures(rows: list[list[str]], *missing: str) -> None:
    """Each cell has a figure, but for the measures whose text has one of these words in it."""
    assert len(rows) == MEASURES
    for measure, *cells in rows:
        absent = any(words in measure for words in missing)
        if sys.platform != "linux":
            absent = absent or "memory" in measure or "CPU a message" in measure
        form = "-" if absent else r"-?[\d.,e-]+( \(-?[\d.]+x\))?"
        assert all(re.fullmatch(form, cell) for cell in cells), (measure, cells)


def test_every_peer_has_every_figure() -> None:
    ((head, _, *rows),) = tables("--bots=2")
    assert head == ["bots: 2", "run_bots", "issue_516", "gather", "one_process"]
    assert_figures(rows, "memory a bot")  # nothing to compare with
    assert rows[-2][1] == "0", "run_bots.py leaves bots online"


def test_the_last_table_shows_how_figures_grow() -> None:
    one, two, (head, _, *rows) = tables("--bots=1,2", "--peers=run_bots")
    assert [one[0], two[0]] == [["bots: 1", "run_bots"], ["bots: 2", "run_bots"]]
    assert head == ["run_bots, by the number of bots", "1", "2"]
    assert_figures(two[2:])
    assert [row[1] for row in rows] == [row[1] for row in one[2:]]
    assert [row[2].split()[0] for row in rows] == [row[1] for row in two[2:]]


def test_a_peer_that_fails_leaves_the_others_their_figures(tmp_path: Path) -> None:
    peer = tmp_path / "peer.py"
    peer.write_text("exit('no bots today')")
    done = run("--bots=1", f"--peers=gather,{peer}")
    assert re.search(r"from Ctrl-C \(s\) +\| +[\d.]+ \| +- \|", done.stdout)
    assert re.search(
        r"A process has ended by itself\. Its last words: no bots today$", done.stdout, re.MULTILINE
    )


@needs_posix_signals
def test_ctrl_c_ends_it_and_all_its_processes(tmp_path: Path) -> None:
    peer, started = tmp_path / "peer.py", tmp_path / "pid"
    peer.write_text(
        f"import os, time; open({str(started)!r}, 'x').write(str(os.getpid())); time.sleep(60)"
    )
    command = [*COMMAND, f"--peers={peer}"]
    with subprocess.Popen(
        command, cwd=SCRIPT.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while not (started.exists() and started.read_text()):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        # This waits also until the local Discord, which has our stderr, has ended.
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (130, b"")
    assert b"Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
