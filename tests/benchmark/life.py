"""The tables of the real life: `link`, `outage` and `silence`.

All peers run at once here, each with a local Discord and a link of its own. So the same moments of
the machine meet them all. They have little to do: a bot answers twice a minute. One start follows
the other, though, because a start takes all the CPU that there is.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .processes import RunFailed, kill
from .stage import Stage
from .tables import Figures, Results, in_one_line, say

LINK = {
    "start": "start, from the first process (s)",
    "connect": "start, from the first request (s)",
    "start_opened": "connections opened for the start",
    "messages": "messages",
    "median": "reply latency, median (ms)",
    "p99": "reply latency, p99 (ms)",
    "cpu": "CPU a message (ms)",
    "opened": "connections opened for the messages",
}
OUTAGE = {
    "half": "until half of the bots answer (s)",
    "all": "until all bots answer (s)",
    "away": "bots that do not answer in time",
    "identifies": "IDENTIFYs",
    "resumes": "RESUMEs",
    "said": "messages of people",
    "missed": "messages missed",
    "log": "log lines",
}
MEASURES = {"link": LINK, "outage": OUTAGE, "silence": OUTAGE}
LEGENDS = {
    "link": """\
- link: a round trip of {round_trip:g} ms, those of TCP's and TLS's handshakes included
- messages: at random moments, one a bot every {every:g} s, for {link_seconds:g} s; CPU a message \
has in it what the bots take that just wait
- before the first one, the bots rest for {pause:g} s: by then no connection is left that only the \
start needed""",
    "outage": """\
- outage: for {outage_seconds:g} s, over the same link; all connections end, and new ones are \
refused
- until bots answer: from the end of the outage on; never: not within {return_limit:g} s
- messages missed: how many of those since the outage began had no answer by then, those to bots \
that are still away too""",
    "silence": """\
- silence: for {outage_seconds:g} s, over the same link; nothing arrives any more, and nobody is \
told; afterwards the old connections are over
- the lines are those of an outage, see there; never: not within {return_limit:g} s""",
}


class Life(Stage):
    """One peer. Its messages and its outages are begun for all peers, and then ended for all."""

    def __init__(self, name: str, options: Namespace, clean_up: ExitStack) -> None:
        bots = max(options.bots)
        super().__init__(name, bots, options, clean_up, has_link=True)
        self.rate = bots / options.every  # messages a second
        self.cpu_before = self.opened_before = 0.0
        self.lines_before = 0

    def start(self) -> Figures:
        figures = super().start()
        figures["start_opened"] = self.link.ask("count")
        return figures

    def begin_messages(self) -> None:
        self.cpu_before = self.peer.cpu()
        self.opened_before = self.link.ask("count")
        seconds = self.options.link_seconds
        self.server.tell("steady", rate=self.rate, seconds=seconds)

    def end_messages(self) -> Figures:
        figures: Figures = self.server.hear()
        cpu = self.peer.cpu() - self.cpu_before
        opened = self.link.ask("count")
        cpu_a_message = cpu / figures["messages"]
        figures["cpu"] = cpu_a_message * 1000
        figures["opened"] = opened - self.opened_before
        return figures

    def begin_outage(self) -> None:
        self._cut(silently=False)

    def begin_silence(self) -> None:
        self._cut(silently=True)

    def _cut(self, *, silently: bool) -> None:
        self.lines_before = len(self.peer.log_lines())
        self.link.ask("cut", silently=silently)
        seconds = self.options.outage_seconds
        self.server.tell("outage", rate=self.rate, seconds=seconds)

    def restore(self) -> None:
        self.server.hear()
        self.link.ask("restore")
        self.server.tell("back", limit=self.options.return_limit)

    def end_outage(self) -> Figures:
        figures: Figures = self.server.hear()
        lines = len(self.peer.log_lines())
        figures["log"] = lines - self.lines_before
        return figures


Action = Callable[[Life], Any]
FiguresByName = dict[str, Figures]
BEGINNINGS: dict[str, Action] = {"outage": Life.begin_outage, "silence": Life.begin_silence}


class Lives:
    """All peers in one round. One that fails leaves the others alone."""

    def __init__(self, options: Namespace, failures: dict[str, str]) -> None:
        self.options = options
        self.failures = failures
        self.by_name: dict[str, Life] = {}

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """If this fails, note why, and end the peer."""
        try:
            yield
        except RunFailed as failure:
            self.failures[name] = str(failure)
            say(f"{name}: {failure}")
            life = self.by_name.pop(name, None)
            if life is not None:
                kill(life.peer.processes)

    def prepare(self, clean_up: ExitStack) -> None:
        for name in self.options.peers:
            if name not in self.failures:
                with self.noting(name):
                    life = Life(name, self.options, clean_up)
                    self.by_name[name] = life

    def each(self, title: str, action: Action) -> FiguresByName:
        """Do this for each peer, one after another. The results by name."""
        results = {}
        for name, life in list(self.by_name.items()):
            with self.noting(name):
                result = action(life)
                results[name] = result
                if result:
                    figures = in_one_line(result)
                    say(f"{title}, {name}: {figures}")
        return results

    def answer(self) -> FiguresByName:
        pause = self.options.pause
        seconds = self.options.link_seconds
        say(f"link: {pause:g} s of rest, then messages for {seconds:g} s")
        time.sleep(pause)
        self.each("link", Life.begin_messages)
        return self.each("link", Life.end_messages)

    def survive(self, kind: str) -> FiguresByName:
        seconds = self.options.outage_seconds
        limit = self.options.return_limit
        say(f"{kind}: for {seconds:g} s, then at most {limit:g} s until all bots answer")
        self.each(kind, BEGINNINGS[kind])
        self.each(kind, Life.restore)
        return self.each(kind, Life.end_outage)


def report(options: Namespace, kinds: list[str]) -> str:
    """The tables of these kinds."""
    failures: dict[str, str] = {}
    results = {}
    for kind in kinds:
        results[kind] = Results(options.peers)
    bots = max(options.bots)
    for number in range(1, options.rounds + 1):
        say(f"real life, round {number} of {options.rounds}, bots {bots}")
        lives = Lives(options, failures)
        live(lives, results)
    parts = []
    for kind, results_of_kind in results.items():
        legend = LEGENDS[kind].format(**vars(options))
        parts.append(legend)
        title = f"{kind}, bots: {bots:,}"
        table = results_of_kind.table(title, MEASURES[kind])
        parts.append(table)
    for name, note in failures.items():
        parts.append(f"{name}, real life: {note}")
    return "\n\n".join(parts)


def live(lives: Lives, results: dict[str, Results]) -> None:
    """One round."""
    with ExitStack() as clean_up:
        lives.prepare(clean_up)
        started = lives.each("start", Life.start)
        if "link" in results:
            answered = lives.answer()
            for name, figures in answered.items():
                all_figures = started[name] | figures
                results["link"].rounds[name].append(all_figures)
        for kind in BEGINNINGS:
            if kind in results:
                survived = lives.survive(kind)
                rounds = results[kind].rounds
                for name, figures in survived.items():
                    rounds[name].append(figures)
