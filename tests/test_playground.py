"""`python -m tests.local_discord`, as a newcomer uses it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from .program import SCRIPT, STRAY

COMMAND = [sys.executable, "-m", "tests.local_discord"]


def test_piped_lines_are_answered_by_every_bot_on_stdout() -> None:
    done = subprocess.run(COMMAND, cwd=SCRIPT.parent, input="ping\n", capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == ["anna: pong", "ben: pong", "carla: pong"]
    assert not STRAY.search(done.stderr)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_ctrl_c_ends_it_quietly_in_a_terminal() -> None:
    terminal, inside = os.openpty()
    with subprocess.Popen(COMMAND, cwd=SCRIPT.parent, stdin=inside, stdout=inside, stderr=inside) as process:
        os.close(inside)
        output = b""
        while b"you> " not in output:
            output += os.read(terminal, 4096)
        os.write(terminal, b"ping\n")
        while output.count(b"pong") < 3:
            output += os.read(terminal, 4096)
        process.send_signal(signal.SIGINT)
        try:
            while data := os.read(terminal, 4096):
                output += data
        except OSError:  # Linux says so when the other end is closed
            pass
        assert process.wait(30) == 0
    os.close(terminal)
    assert not STRAY.search(output.decode())
