"""The table `load`: how bots start, answer as fast as they can, and stop."""

from __future__ import annotations

import time
from argparse import Namespace
from contextlib import ExitStack
from functools import partial

from .stage import Stage
from .tables import Figures, Results, table

BOT_RATE = 20  # messages a second to one bot; from 50 on discord.py waits for the rate limit
SERVER_LIMIT = 90  # % of a core; from here on the local Discord may be what limits the figures
LIMITED = "The local Discord was the limit, and not the bots."

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
LEGEND = """\
- start: until every bot is ready, at a round trip of {round_trip:g} ms (none under load)
- stop: until all processes have ended
- memory a bot: of each bot after the first, with {members} members in its server; what processes \
share counts once
- latency: from the message at the gateway to the reply's POST; p99 is the 99th percentile
- steady load: {rate:g} messages a second over all bots, at most {bot_rate} to each
- full load: every bot gets its next message as soon as it has answered
- figures: medians of the rounds ({rounds}); in brackets the ratio to {reference}, the median of \
the rounds' ratios"""


def report(options: Namespace) -> str:
    by_number = {}
    for bots in options.bots:
        by_number[bots] = Results(options.peers)
    rounds = options.rounds
    for number in range(1, rounds + 1):
        for bots, results in by_number.items():
            title = f"load, round {number} of {rounds}, bots {bots}"
            for name in options.peers:
                action = partial(measure, name, bots, options)
                results.measure(name, title, action)
    add_memory_a_bot(by_number)
    some_results = next(iter(by_number.values()))
    reference = some_results.reference
    legend = LEGEND.format(reference=reference, bot_rate=BOT_RATE, **vars(options))
    tables, notes = [], []
    for bots, results in by_number.items():
        title = f"bots: {bots:,}"
        tables.append(results.table(title, MEASURES))
        note_limits(results)
        notes += results.notes(title)
    if len(by_number) > 1:
        first_peer = options.peers[0]
        tables.append(table_by_number(first_peer, by_number))
    return "\n\n".join([legend, *tables, *notes])


def table_by_number(name: str, by_number: dict[int, Results]) -> str:
    columns = {}
    for bots, results in by_number.items():
        title = f"{bots:,}"
        columns[title] = results.rounds[name]
    fewest = next(iter(columns))
    title = f"{name}, by the number of bots"
    return table(title, MEASURES, columns, fewest)


def add_memory_a_bot(by_number: dict[int, Results]) -> None:
    """What each bot takes that is not the first."""
    alone = by_number.get(1)
    if alone is None:
        return
    for bots, results in by_number.items():
        more_bots = bots - 1
        if not more_bots:
            continue
        for name, rounds in results.rounds.items():
            pairs = zip(rounds, alone.rounds[name], strict=False)
            for figures, of_one in pairs:
                for kind in ("idle", "used"):
                    total = f"{kind}_total"
                    more_mib = figures[total] - of_one[total]
                    figures[kind] = more_mib / more_bots


def note_limits(results: Results) -> None:
    for name, rounds in results.rounds.items():
        for figures in rounds:
            if figures["server"] > SERVER_LIMIT:
                results.failures[name] = LIMITED


def measure(name: str, bots: int, options: Namespace) -> Figures:
    """Run one peer once. Raises `RunFailed`."""
    with ExitStack() as clean_up:
        stage = Stage(name, bots, options, clean_up, round_trip=options.round_trip)
        figures = stage.start()
        time.sleep(options.settle)
        figures["idle_total"] = stage.peer.mib()
        # One message each: more would fill caches, and those of a fast peer more.
        stage.server.ask("full", seconds=0)
        figures["used_total"] = stage.peer.mib()
        rate = min(options.rate, BOT_RATE * bots)
        figures |= measure_speed(stage, rate)
        figures["stop"] = stage.peer.stop()
        online: int = stage.server.ask("online")
        figures["online"] = online
        return figures


def measure_speed(stage: Stage, rate: float) -> Figures:
    seconds = stage.options.seconds
    warm_up_seconds = seconds / 5
    stage.server.ask("full", seconds=warm_up_seconds)
    steady = stage.server.ask("steady", rate=rate, seconds=seconds)
    cpu_before = stage.peer.cpu()
    full = stage.server.ask("full", seconds=seconds)
    cpu = stage.peer.cpu() - cpu_before
    cpu_a_message = cpu / full["messages"]
    figures: Figures = {}
    figures["median"] = steady["median"]
    figures["p99"] = steady["p99"]
    figures["full_p99"] = full["p99"]
    figures["rate"] = full["rate"]
    figures["cpu"] = cpu_a_message * 1000
    figures["server"] = full["server"]
    return figures
