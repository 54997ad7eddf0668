"""Start `run_bots.py` in a fork of a process that has imported discord.py already.

Most of what a start costs are imports, and the tests start the program some 700 times. A fork is a
process as any other: it has its own folder, environment and output, gets real signals, and ends as
Python does. Only Linux has all that this needs: elsewhere, and for other Pythons, options or
certificates, the tests start Python itself.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .local_discord import redirect

IS_HERE = sys.platform == "linux"
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
# Python and aiohttp read these as they start, before a fork has an environment of its own.
READ_EARLY = ("PYTHON", "SSL_", "LC_", "LANG", "TZ")
LARGEST_REQUEST = 2**20
# What run_bots.py and most of the bots import.
PRELOADED = (
    "argparse",
    "difflib",
    "discord",
    "discord.ext.commands",
    "discord.ext.tasks",
    "dotenv",
    "urllib.request",
    "yarl",
)


def early(environment: Mapping[str, str]) -> dict[str, str]:
    """What a fork cannot have otherwise than the server has it."""
    return {name: text for name, text in environment.items() if name.startswith(READ_EARLY)}


class Forked:
    """A process that the server has forked, with what the tests use of `asyncio`'s own class."""

    stdin = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None  # until it has ended
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self._loop = asyncio.get_running_loop()
        self._code: asyncio.Future[int] = self._loop.create_future()
        self._handle = os.pidfd_open(pid)
        self._loop.add_reader(self._handle, self._reap)

    async def read_from(self, stdout: int, stderr: int) -> None:
        for reader, end in ((self.stdout, stdout), (self.stderr, stderr)):
            protocol = functools.partial(asyncio.StreamReaderProtocol, reader)
            await self._loop.connect_read_pipe(protocol, os.fdopen(end, "rb"))

    def _reap(self) -> None:
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        self._code.set_result(self.returncode)

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def start_server() -> socket.socket:
    """Start the process that forks, once for each process of the tests. It ends with that."""
    from .program import clean_environment

    # A fork is not our child, because the one that has made it ends: so it is given to us.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.forks", str(theirs.fileno())]
    process = subprocess.Popen(
        command,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


async def fork(arguments: list[str], folder: Path, environment: Mapping[str, str]) -> Forked:
    """Start what `redirect.py` gets with these arguments, in this folder."""
    server = start_server()
    request = {"argv": arguments, "folder": str(folder), "environment": dict(environment)}
    stdout, stdout_there = os.pipe()
    stderr, stderr_there = os.pipe()
    socket.send_fds(server, [json.dumps(request).encode()], [stdout_there, stderr_there])
    os.close(stdout_there)
    os.close(stderr_there)
    process = Forked(int(server.recv(100)))
    await process.read_from(stdout, stderr)
    return process


def serve(server: socket.socket) -> dict[str, Any]:
    """Fork at each request. Only a fork returns, with its request: it is a grandchild."""
    while True:
        data, outputs, _, _ = socket.recv_fds(server, LARGEST_REQUEST, 2)
        if not data:  # the tests have ended
            os._exit(0)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            grandchild = os.fork()
            if grandchild:
                os.write(write, str(grandchild).encode())
                os._exit(0)
            for number, output in enumerate(outputs, 1):
                os.dup2(output, number)
            for descriptor in (*outputs, read, write, server.fileno()):
                os.close(descriptor)
            server.detach()
            request: dict[str, Any] = json.loads(data)
            return request
        os.waitpid(child, 0)  # from here on the grandchild is a child of the tests
        server.send(os.read(read, 100))
        for descriptor in (*outputs, read, write):
            os.close(descriptor)


def main() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0] = request["folder"]
    sys.argv = [redirect.__file__, *request["argv"]]
    redirect.main()


if __name__ == "__main__":
    main()
