"""Compare run_bots.py with the usual ways to run several bots, on a local Discord over TLS. It takes about ten minutes.

python -m tests.benchmark
python -m tests.benchmark --bots 1,100 --rounds 5 --peers old/run_bots.py,run_bots

The peers take turns, so that whatever else the machine does meets them all. Progress goes to stderr, the tables, which
are Markdown, to stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trustme

from ..local_discord import signals

ROOT = Path(__file__).parents[2]
RECIPES = ("issue_516", "gather", "one_process")  # those of peers.py
PROCESS_MIB = 28  # what a process with one bot takes at least
STOP_TIMEOUT = 30  # seconds
BOT_RATE = 20  # messages a second to one bot; from 50 on discord.py waits for the rate limit
SERVER_LIMIT = 90  # % of a core; from here on the local Discord may be what limits the figures
ON_LINUX = sys.platform == "linux"

MEASURES = {
    "start": "start, from the first process (s)",
    "connect": "start, from the first request (s)",
    "idle_total": "memory in all, idle (MiB)",
    "idle": "memory a bot, idle (MiB)",
    "used_total": "memory in all, after one reply each (MiB)",
    "used": "memory a bot, after one reply each (MiB)",
    "median": "reply latency, median, steady load (ms)",
    "p99": "reply latency, p99, steady load (ms)",
    "full_p99": "reply latency, p99, full load (ms)",
    "rate": "messages a second, full load",
    "cpu": "CPU a message, full load (ms)",
    "stop": "stop, from Ctrl-C (s)",
    "online": "bots shown as online after the stop",
    "server": "CPU of the local Discord, full load (%)",
}
WITHOUT_RATIO = ("online", "server")
LEGEND = """\
- start: until every bot is ready, at a round trip of {round_trip:g} ms (none under load)
- stop: until all processes have ended
- memory a bot: of each bot after the first, with {members} members in its server; what processes share counts once
- latency: from the message at the gateway to the reply's POST; p99 is the 99th percentile
- steady load: {rate:g} messages a second over all bots, at most {bot_rate} to each
- full load: every bot gets its next message as soon as it has answered
- figures: medians of the rounds ({rounds}); in brackets the ratio to {reference}, the median of the rounds' ratios"""

Figures = dict[str, float]
Key = tuple[int, str]  # the number of bots and the peer


class RunFailed(Exception):
    """One run of a peer has no figures. The argument says why, as a sentence for a person."""


# --- The local Discord and the peers, as processes -------------------------------------------------------------------


def spawn(command: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start a process that a Ctrl-C in the terminal does not reach: we stop it ourselves."""
    options["creationflags"] = getattr(
        subprocess, "CREATE_NEW_PROCESS_GROUP", 0
    )  # the same on Windows
    return subprocess.Popen(
        [sys.executable, *command], text=True, start_new_session=True, **options
    )


class Server:
    """The local Discord."""

    def __init__(self, bots: int, options: argparse.Namespace, folder: Path) -> None:
        settings = (bots, options.members, options.round_trip / 1000, folder / "server.pem")
        command = ["-m", "tests.benchmark.server", *map(str, settings)]
        self.process = spawn(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, command: str, **arguments: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps([command, arguments]), file=self.process.stdin, flush=True)
        answer = json.loads(
            self.process.stdout.readline() or '{"failure": "The local Discord has ended."}'
        )
        if "failure" in answer:
            raise RunFailed(answer["failure"])
        return answer["answer"]


class Peer:
    """The processes of one way to run the bots."""

    def __init__(self, name: str, url: str, tokens: list[str], folder: Path) -> None:
        script = (
            [str(Path(__file__).with_name("peers.py")), name]
            if name in RECIPES
            else [str(script_of(name))]
        )
        # By its path: as a module it would bring the local Discord's own modules into every process.
        redirect = ["-P", str(ROOT / "tests" / "local_discord" / "redirect.py"), *signals.OPTIONS]
        self.command = [*redirect, url, *script, "--env-file"]
        self.environment = {
            name: text for name, text in os.environ.items() if not name.startswith("DISCORD_")
        }
        self.environment["SSL_CERT_FILE"] = str(folder / "ca.pem")
        self.folder = folder
        self.log = folder / "peer.log"
        self.processes: list[subprocess.Popen[str]] = []
        self.env_files = []
        for number, share in enumerate(
            [[token] for token in tokens] if name == "one_process" else [tokens]
        ):
            env_file = folder / f"{number}.env"
            env_file.touch(mode=0o600)
            env_file.write_text(
                "".join(f"DISCORD_BOT_TOKEN{n}={token}\n" for n, token in enumerate(share, 1))
            )
            self.env_files.append(str(env_file))

    def start(self) -> None:
        with self.log.open("w") as log:
            streams = {"stdin": signals.STDIN, "stdout": log, "stderr": log}
            for env_file in self.env_files:
                command = [*self.command, env_file]
                self.processes.append(
                    spawn(command, cwd=self.folder, env=self.environment, **streams)
                )

    def check(self) -> None:
        """Raise `RunFailed` if a process has ended."""
        if any(process.poll() is not None for process in self.processes):
            last_lines = " / ".join(self.log.read_text(errors="replace").splitlines()[-3:])
            raise RunFailed(
                f"A process has ended by itself. Its last words: {last_lines or 'none'}"
            )

    def _read(self, file: str) -> list[str]:
        self.check()
        return [Path(f"/proc/{process.pid}/{file}").read_text() for process in self.processes]

    def mib(self) -> float:
        """The memory of all processes; not a number where it cannot be measured."""
        if not ON_LINUX:
            return math.nan
        return (
            sum(int(text.partition("\nPss:")[2].split()[0]) for text in self._read("smaps_rollup"))
            / 1024
        )

    def cpu(self) -> float:
        """The CPU seconds of all processes so far; not a number where they cannot be measured."""
        if not ON_LINUX:
            return math.nan
        stats = [text.rpartition(")")[2].split() for text in self._read("stat")]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> float:
        """Press Ctrl-C. Returns the seconds until the last process has ended."""
        start = time.perf_counter()
        for process in self.processes:
            signals.send(process, signal.SIGINT)
        timer = threading.Timer(
            STOP_TIMEOUT, kill, [self.processes]
        )  # wait() with a timeout looks only every 50 ms
        timer.daemon = True
        timer.start()
        for process in self.processes:
            process.wait()
        timer.cancel()
        seconds = time.perf_counter() - start
        if seconds > STOP_TIMEOUT:
            raise RunFailed(f"It did not stop within {STOP_TIMEOUT} s.")
        return seconds


def script_of(name: str) -> Path:
    return ROOT / "run_bots.py" if name == "run_bots" else Path(name).resolve()


@contextlib.contextmanager
def killed_after(processes: list[subprocess.Popen[str]]) -> Iterator[None]:
    """Leave none of these processes behind."""
    try:
        yield
    finally:
        kill(processes)
        for process in processes:
            process.communicate()


def kill(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()


# --- Measuring -------------------------------------------------------------------------------------------------------


def measure(name: str, bots: int, options: argparse.Namespace, folder: Path) -> Figures:
    """Run one peer once. Raises `RunFailed`."""
    needed, free = bots * PROCESS_MIB, free_mib()
    if name == "one_process" and needed > free:
        raise RunFailed(f"It needs about {needed:,} MiB of memory, and {free:,.0f} MiB are free.")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    server = Server(bots, options, folder)
    with killed_after([server.process]):
        peer = Peer(name, **server.ask("describe"), folder=folder)
        with killed_after(peer.processes):
            server.ask("starting")
            peer.start()
            deadline = time.monotonic() + options.start_timeout
            while not (ready := server.ask("ready")):
                peer.check()
                if time.monotonic() > deadline:
                    raise RunFailed(f"Its bots were not ready after {options.start_timeout:g} s.")
                time.sleep(0.1)
            time.sleep(options.settle)
            figures: Figures = {**ready, "idle_total": peer.mib()}
            server.ask(
                "full", seconds=0
            )  # one message each: more would fill caches, and those of a fast peer more
            figures["used_total"] = peer.mib()
            server.ask("full", seconds=options.seconds / 5)  # to warm up
            steady = server.ask(
                "steady", rate=min(options.rate, BOT_RATE * bots), seconds=options.seconds
            )
            cpu = peer.cpu()
            full = server.ask("full", seconds=options.seconds)
            figures |= {"median": steady["median"], "p99": steady["p99"], "full_p99": full["p99"]}
            figures |= {"rate": full["rate"], "cpu": (peer.cpu() - cpu) / full["messages"] * 1000}
            figures |= {
                "server": full["server"],
                "stop": peer.stop(),
                "online": float(server.ask("online")),
            }
            return figures


def free_mib() -> float:
    with contextlib.suppress(OSError):
        return (
            int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) / 1024
        )
    return math.inf


def measure_all(options: argparse.Namespace) -> tuple[dict[Key, list[Figures]], dict[Key, str]]:
    """The figures of each round, and why there are none. What fails once is not tried again."""
    results: dict[Key, list[Figures]] = {
        (bots, name): [] for bots in options.bots for name in options.peers
    }
    failures: dict[Key, str] = {}
    for number in range(1, options.rounds + 1):
        for (bots, name), rounds in results.items():
            if (bots, name) in failures:
                continue
            print(
                f"round {number} of {options.rounds}, bots {bots}, {name}: ",
                end="",
                file=sys.stderr,
                flush=True,
            )
            try:
                with tempfile.TemporaryDirectory() as folder:
                    figures = measure(name, bots, options, Path(folder))
            except RunFailed as failure:
                failures[bots, name] = str(failure)
                print(failure, file=sys.stderr)
                continue
            alone = results.get((1, name), [])
            if bots > 1 and len(alone) == number:
                for when in ("idle", "used"):
                    figures[when] = (figures[f"{when}_total"] - alone[-1][f"{when}_total"]) / (
                        bots - 1
                    )
            rounds.append(figures)
            print(
                ", ".join(f"{measure} {text_of(figures[measure])}" for measure in figures),
                file=sys.stderr,
            )
    return results, failures


# --- The tables ------------------------------------------------------------------------------------------------------


def text_of(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 99.95 or value.is_integer() else f"{value:#.3g}"


def cell(measure: str, rounds: list[Figures], reference: list[Figures]) -> str:
    """The median of a figure over the rounds, and of its ratio to the same round of the reference."""
    values = [
        figures[measure] for figures in rounds if not math.isnan(figures.get(measure, math.nan))
    ]
    if not values:
        return "-"
    ratios = [
        mine[measure] / other[measure]
        for mine, other in zip(rounds, reference, strict=False)
        if measure in mine and other.get(measure, 0) > 0
    ]
    if measure in WITHOUT_RATIO or rounds is reference or not ratios:
        return text_of(statistics.median(values))
    return f"{text_of(statistics.median(values))} ({statistics.median(ratios):.2f}x)"


def table(title: str, columns: dict[str, list[Figures]], reference: list[Figures]) -> str:
    """A Markdown table, aligned for a terminal: a line for each measure, a column for each peer or number of bots."""
    rows = [[title, *columns]]
    rows += [
        [text, *(cell(it, rounds, reference) for rounds in columns.values())]
        for it, text in MEASURES.items()
    ]
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    rows.insert(1, ["-" * first, *("-" * (width - 1) + ":" for width in others)])
    lines = ([row[0].ljust(first), *map(str.rjust, row[1:], others)] for row in rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(
    options: argparse.Namespace, results: dict[Key, list[Figures]], failures: dict[Key, str]
) -> str:
    reference = "gather" if "gather" in options.peers else options.peers[0]
    parts = [machine(), LEGEND.format(reference=reference, bot_rate=BOT_RATE, **vars(options))]
    for bots in options.bots:
        columns = {name: results[bots, name] for name in options.peers}
        parts.append(table(f"bots: {bots:,}", columns, columns[reference]))
    if len(options.bots) > 1:
        columns = {f"{bots:,}": results[bots, options.peers[0]] for bots in options.bots}
        parts.append(
            table(
                f"{options.peers[0]}, by the number of bots", columns, next(iter(columns.values()))
            )
        )
    notes = failures | {
        key: "The local Discord was the limit, and not the bots."
        for key, rounds in results.items()
        if any(figures["server"] > SERVER_LIMIT for figures in rounds)
    }
    parts += [f"{name}, bots: {bots:,}: {note}" for (bots, name), note in notes.items()]
    if not ON_LINUX:
        parts.append("Memory and CPU are measured on Linux only.")
    return "\n\n".join(parts)


def machine() -> str:
    """What the figures were measured on."""
    versions = [f"Python {platform.python_version()}"]
    for package in ("discord.py", "aiohttp", "uvloop", "orjson", "aiodns", "Brotli", "zstandard"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return f"{', '.join(versions)}.\n{os.cpu_count()} cores, {platform.platform()}."


# --- The command line ------------------------------------------------------------------------------------------------


def peer_names(text: str) -> list[str]:
    for name in (names := text.split(",")):
        if name not in RECIPES and not script_of(name).is_file():
            known = ", ".join(("run_bots", *RECIPES))
            raise argparse.ArgumentTypeError(f"{name} is neither a script nor one of {known}")
    return names


def at_least_one(text: str) -> int:
    return max(1, int(text))


def bot_counts(text: str) -> list[int]:
    return sorted(set(map(at_least_one, text.split(","))))


def raise_file_limit() -> None:
    """A thousand bots have two connections each, and the usual limit is 1,024 files. All processes inherit ours."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows; a system that says no
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    peers = ",".join(("run_bots", *RECIPES))
    for name, kind, default, text in (
        ("bots", bot_counts, "1,10,100", "how many, with commas"),
        ("peers", peer_names, peers, "with commas; also the path of another run_bots.py"),
        ("rounds", at_least_one, 3, "how often everything is measured"),
        ("seconds", float, 3, "how long each of the two loads takes"),
        ("rate", float, 500, "messages a second of the steady load"),
        ("round-trip", float, 50, "ms to Discord and back"),
        ("members", at_least_one, 100, "of each bot's server"),
        ("settle", float, 2, "seconds that the bots are idle before their memory is measured"),
        ("start-timeout", float, 300, "seconds until a peer is given up whose bots are not ready"),
    ):
        parser.add_argument(
            f"--{name}", type=kind, default=default, metavar="", help=f"{text} (%(default)s)"
        )
    options = parser.parse_args()
    raise_file_limit()
    for name in (
        "SIGINT",
        "SIGTERM",
        "SIGHUP",
        "SIGBREAK",
    ):  # they all end it as Ctrl-C does, and with it its processes
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        print(report(options, *measure_all(options)))
    except KeyboardInterrupt:
        print("\nStopped before the end.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
