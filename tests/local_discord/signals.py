"""Signals for a process that `redirect.py` runs.

On Windows they go through a pipe to its stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys

ON_WINDOWS = sys.platform == "win32"
OPTIONS = ["--stdin-signals"] if ON_WINDOWS else []  # of redirect.py
STDIN = subprocess.PIPE if ON_WINDOWS else subprocess.DEVNULL


def send(
    process: asyncio.subprocess.Process | subprocess.Popen[str], number: int | str = signal.SIGTERM
) -> None:
    """Send a signal by its number, or `"close"`: somebody closes the console window.

    It does not matter if the process has ended.
    """
    with contextlib.suppress(OSError):
        if process.stdin is None:
            process.send_signal(int(number))
        elif isinstance(process, subprocess.Popen):
            print(number, file=process.stdin, flush=True)
        else:
            process.stdin.write(f"{number}\n".encode())
