"""The table `memory`: what bots take after some hundred messages, by how the gateway compresses."""

from __future__ import annotations

import importlib
import time
from argparse import Namespace
from contextlib import ExitStack
from functools import partial

from .stage import Stage
from .tables import Figures, Measures, Results

# By the compression, the options of redirect.py with which discord.py asks for it.
COMPRESSIONS = {"zlib": ("--zlib",), "zstd": ()}
NO_ZSTD = "zstd is not measured: it needs Python 3.14, or the package zstandard."
LEGEND = """\
- memory: of all processes together, with {members} members in each bot's server; what processes \
share counts once
- zlib, zstd: what the gateway compresses with; discord.py takes zstd where it can
- what a bot has added: by its {messages} messages and replies, from the idle bots on
- messages kept: none by the bot that run_bots.py brings; 1,000 by the others, as discord.py does \
unless it is told otherwise"""


def has_zstd() -> bool:
    """Whether discord.py can ask for zstd here."""
    for module in ("compression.zstd", "zstandard"):
        try:
            importlib.import_module(module)
        except ImportError:
            continue
        return True
    return False


def report(options: Namespace) -> str:
    compressions = ["zlib", "zstd"] if has_zstd() else ["zlib"]
    bots = min(options.memory_bots, max(options.bots))
    results = Results(options.peers)
    for number in range(1, options.rounds + 1):
        title = f"memory, round {number} of {options.rounds}, bots {bots}"
        for name in options.peers:
            action = partial(measure_all, name, bots, compressions, options)
            results.measure(name, title, action)
    parts = [LEGEND.format(**vars(options))]
    parts.append(results.table(f"memory, bots: {bots:,}", measures_of(compressions)))
    if not has_zstd():
        parts.append(NO_ZSTD)
    parts += results.notes("memory")
    return "\n\n".join(parts)


def measures_of(compressions: list[str]) -> Measures:
    measures = {}
    for kind in compressions:
        measures[f"{kind}_idle"] = f"{kind}: memory in all, idle (MiB)"
        measures[f"{kind}_used"] = f"{kind}: memory in all, after the messages (MiB)"
        measures[f"{kind}_more"] = f"{kind}: what a bot has added (MiB)"
    return measures


def measure_all(name: str, bots: int, compressions: list[str], options: Namespace) -> Figures:
    figures: Figures = {}
    for kind in compressions:
        idle, used = measure(name, bots, COMPRESSIONS[kind], options)
        figures[f"{kind}_idle"] = idle
        figures[f"{kind}_used"] = used
        figures[f"{kind}_more"] = (used - idle) / bots
    return figures


def measure(name: str, bots: int, how: tuple[str, ...], options: Namespace) -> tuple[float, float]:
    """The memory before and after the messages."""
    with ExitStack() as clean_up:
        stage = Stage(name, bots, options, clean_up, how=how)
        stage.start()
        time.sleep(options.settle)
        idle = stage.peer.mib()
        stage.server.ask("full", seconds=0, at_least=options.messages)
        return idle, stage.peer.mib()
