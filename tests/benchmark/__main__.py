"""Compare run_bots.py with the usual ways to run several bots, on a local Discord over TLS.

python -m tests.benchmark
python -m tests.benchmark --tables outage
python -m tests.benchmark --tables load --bots 1,100 --rounds 5 --peers old/run_bots.py,run_bots

Without --tables it is all of these but `silence`, in less than ten minutes:
  load     start, memory, replies as fast as they can come, stop
  link     a link with a round trip, and bots that answer twice a minute
  outage   the return after an outage of that link
  silence  the same after an outage that nobody is told of
  memory   after some hundred messages, with zlib and with zstd

Whatever else the machine does meets all peers: they take turns, or run at once where they have
little to do. Progress goes to stderr, the tables, which are Markdown, to stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import signal
import sys
from collections.abc import Iterator

from . import life, load, memory
from .processes import ON_LINUX, RECIPES, script_of

TABLES = ("load", "link", "outage", "silence", "memory")
PACKAGES = ("discord.py", "aiohttp", "uvloop", "orjson", "aiodns", "Brotli", "zstandard")


def reports(options: argparse.Namespace) -> Iterator[str]:
    """The tables that are wanted, as soon as there are some."""
    if "load" in options.tables:
        yield load.report(options)
    kinds = []
    for kind in life.MEASURES:
        if kind in options.tables:
            kinds.append(kind)
    if kinds:
        yield life.report(options, kinds)
    if "memory" in options.tables:
        yield memory.report(options)


def machine() -> str:
    """What the figures were measured on."""
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
        else:
            versions.append(f"{package} {version}")
    software = ", ".join(versions)
    text = f"{software}.\n{os.cpu_count()} cores, {platform.platform()}."
    if not ON_LINUX:
        text += "\nMemory and CPU are measured on Linux only."
    return text


# --- The command line -----------------------------------------------------------------------------


def peer_names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in RECIPES and not script_of(name).is_file():
            known = ", ".join(("run_bots", *RECIPES))
            raise argparse.ArgumentTypeError(f"{name} is neither a script nor one of {known}")
    return names


def table_names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in TABLES:
            raise argparse.ArgumentTypeError(f"{name} is not one of {', '.join(TABLES)}")
    return names


def at_least_one(text: str) -> int:
    return max(1, int(text))


def bot_counts(text: str) -> list[int]:
    numbers = [at_least_one(part) for part in text.split(",")]
    return sorted(set(numbers))


OPTIONS = (
    ("tables", table_names, "load,link,outage,memory", "with commas"),
    ("bots", bot_counts, "1,100", "how many, with commas; the real life has the most of these"),
    ("peers", peer_names, ",".join(("run_bots", *RECIPES)), "with commas; also another script"),
    ("rounds", at_least_one, 1, "how often everything is measured"),
    ("round-trip", float, 50, "ms to Discord and back"),
    ("members", at_least_one, 100, "of each bot's server"),
    ("settle", float, 2, "seconds that the bots are idle before their memory is measured"),
    ("start-timeout", float, 300, "seconds until a peer is given up whose bots are not ready"),
    ("seconds", float, 3, "load: how long each of the two loads takes"),
    ("rate", float, 500, "load: messages a second of the steady load"),
    ("every", float, 30, "real life: seconds between two messages to one bot"),
    ("pause", float, 16, "link: seconds of rest before the messages"),
    ("link-seconds", float, 60, "link: how long the messages come"),
    ("outage-seconds", float, 60, "outage, silence: how long it lasts"),
    ("return-limit", float, 120, "outage, silence: seconds until we wait no longer"),
    ("messages", at_least_one, 300, "memory: to each bot"),
    ("memory-bots", at_least_one, 20, "memory: how many at most"),
)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, kind, default, text in OPTIONS:
        text = f"{text} (%(default)s)"
        parser.add_argument(f"--{name}", type=kind, default=default, metavar="", help=text)
    return parser.parse_args()


def raise_file_limit() -> None:
    """A thousand bots have two connections each, and the usual limit is 1,024 files.

    All processes inherit ours.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows; a system that says no
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    options = read_options()
    raise_file_limit()
    # They all end it as Ctrl-C does, and with it its processes.
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        before = f"{machine()}\n"
        for text in reports(options):
            print(f"{before}\n{text}", flush=True)
            before = ""
    except KeyboardInterrupt:
        print("\nStopped before the end.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
