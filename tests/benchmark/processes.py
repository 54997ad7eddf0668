"""The processes of the benchmark: the local Discord, the link to it, and the peers."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..local_discord import signals

ROOT = Path(__file__).parents[2]
RECIPES = ("issue_516", "gather", "one_process")  # those of peers.py
# By its path: as a module it would bring the local Discord's own modules into every process.
REDIRECT = ("-P", str(ROOT / "tests" / "local_discord" / "redirect.py"), *signals.OPTIONS)
PROCESS_MIB = 28  # what a process with one bot takes at least
STOP_TIMEOUT = 30  # seconds
ON_LINUX = sys.platform == "linux"


class RunFailed(Exception):
    """One run of a peer has no figures. The argument says why, as a sentence for a person."""


def spawn(command: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start a process that a Ctrl-C in the terminal does not reach: we stop it ourselves."""
    # The same on Windows.
    options["creationflags"] = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    full_command = [sys.executable, *command]
    return subprocess.Popen(full_command, text=True, start_new_session=True, **options)


def kill(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()


@contextlib.contextmanager
def killed_after(processes: list[subprocess.Popen[str]]) -> Iterator[None]:
    """Leave none of these processes behind."""
    try:
        yield
    finally:
        kill(processes)
        for process in processes:
            process.communicate()


class Helper:
    """A process of the benchmark's own that obeys commands, see `commands.py`."""

    def __init__(self, module: str, *settings: object) -> None:
        command = ["-m", f"tests.benchmark.{module}", *map(str, settings)]
        pipe = subprocess.PIPE
        self.process = spawn(command, cwd=ROOT, stdin=pipe, stdout=pipe)

    def tell(self, command: str, **arguments: Any) -> None:
        line = json.dumps([command, arguments])
        with contextlib.suppress(OSError):  # it has ended: `hear` says so
            print(line, file=self.process.stdin, flush=True)

    def hear(self) -> Any:
        """The answer to the oldest command that has none yet."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RunFailed("The local Discord, or the link to it, has ended.")
        answer = json.loads(line)
        if "failure" in answer:
            raise RunFailed(answer["failure"])
        return answer["answer"]

    def ask(self, command: str, **arguments: Any) -> Any:
        self.tell(command, **arguments)
        return self.hear()


class Peer:
    """The processes of one way to run the bots."""

    def __init__(self, name: str, url: str, tokens: list[str], folder: Path, *how: str) -> None:
        """`how` is options of redirect.py."""
        if name in RECIPES:
            script = [str(Path(__file__).with_name("peers.py")), name]
        else:
            script = [str(script_of(name))]
        self.name = name
        self.command = [*REDIRECT, *how, url, *script, "--env-file"]
        self.folder = folder
        self.log = folder / "peer.log"
        self.processes: list[subprocess.Popen[str]] = []
        shares = [[token] for token in tokens] if name == "one_process" else [tokens]
        self.env_files = [self._env_file(number, share) for number, share in enumerate(shares)]

    def _env_file(self, number: int, tokens: list[str]) -> str:
        env_file = self.folder / f"{number}.env"
        env_file.touch(mode=0o600)
        lines = [f"DISCORD_BOT_TOKEN{n}={token}\n" for n, token in enumerate(tokens, 1)]
        env_file.write_text("".join(lines))
        return str(env_file)

    def start(self) -> None:
        environment = dict(os.environ)
        for name in os.environ:
            if name.startswith("DISCORD_"):
                del environment[name]
        environment["SSL_CERT_FILE"] = str(self.folder / "ca.pem")
        with self.log.open("w") as log:
            streams = {"stdin": signals.STDIN, "stdout": log, "stderr": log}
            for env_file in self.env_files:
                command = [*self.command, env_file]
                process = spawn(command, cwd=self.folder, env=environment, **streams)
                self.processes.append(process)

    def log_lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def check(self) -> None:
        """Raise `RunFailed` if a process has ended."""
        if any(process.poll() is not None for process in self.processes):
            words = " / ".join(self.log_lines()[-3:]) or "none"
            raise RunFailed(f"A process has ended by itself. Its last words: {words}")

    def mib(self) -> float:
        """The memory of all processes; not a number where it cannot be measured."""
        if not ON_LINUX:
            return math.nan
        self.check()
        kib = 0
        for process in self.processes:
            sizes = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            kib += int(sizes.partition("\nPss:")[2].split()[0])
        return kib / 1024

    def cpu(self) -> float:
        """The CPU seconds of all processes so far; not a number where they cannot be measured."""
        if not ON_LINUX:
            return math.nan
        self.check()
        # The number of another process's clock, as clock_getcpuclockid(3) makes it. /proc/PID/stat
        # counts in steps of 10 ms, which is much where a hundred processes do next to nothing.
        clocks = [~process.pid << 3 | 2 for process in self.processes]
        return sum(map(time.clock_gettime, clocks))

    def stop(self) -> float:
        """Press Ctrl-C. Returns the seconds until the last process has ended."""
        began = time.perf_counter()
        for process in self.processes:
            signals.send(process, signal.SIGINT)
        # wait() with a timeout looks only every 50 ms.
        timer = threading.Timer(STOP_TIMEOUT, kill, [self.processes])
        timer.daemon = True
        timer.start()
        for process in self.processes:
            process.wait()
        timer.cancel()
        seconds = time.perf_counter() - began
        if seconds > STOP_TIMEOUT:
            raise RunFailed(f"It did not stop within {STOP_TIMEOUT} s.")
        return seconds


def script_of(name: str) -> Path:
    return ROOT / "run_bots.py" if name == "run_bots" else Path(name).resolve()


def check_memory(name: str, bots: int) -> None:
    """Raise `RunFailed` where there is not enough of it."""
    if name != "one_process":
        return
    needed, free = bots * PROCESS_MIB, free_mib()
    if needed > free:
        raise RunFailed(f"It needs about {needed:,} MiB of memory, and {free:,.0f} MiB are free.")


def free_mib() -> float:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return math.inf
    return int(text.partition("MemAvailable:")[2].split()[0]) / 1024
