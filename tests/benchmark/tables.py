"""The benchmark's figures, and the Markdown tables of them."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable

from .processes import RunFailed

Figures = dict[str, float]  # of one run, by the measure
Rounds = list[Figures]  # of one peer
Measures = dict[str, str]  # by the same, what a line of a table is called

# What others have may be 0 here, or a ratio says nothing.
WITHOUT_RATIO = ("online", "server", "messages", "said", "missed", "away")


class Results:
    """The figures of the peers, round by round, and why there are none."""

    def __init__(self, peers: list[str]) -> None:
        self.rounds: dict[str, Rounds] = {}
        for name in peers:
            self.rounds[name] = []
        self.failures: dict[str, str] = {}

    @property
    def reference(self) -> str:
        """The peer that the others are compared with."""
        if "gather" in self.rounds:
            return "gather"
        return next(iter(self.rounds))

    def measure(self, name: str, title: str, action: Callable[[], Figures]) -> None:
        """Take one round of a peer. What has failed once is not tried again."""
        if name in self.failures:
            return
        say(f"{title}, {name}: ", end="")
        try:
            figures = action()
        except RunFailed as failure:
            self.failures[name] = str(failure)
            say(str(failure))
        else:
            self.rounds[name].append(figures)
            say(in_one_line(figures))

    def table(self, title: str, measures: Measures) -> str:
        return table(title, measures, self.rounds, self.reference)

    def notes(self, title: str) -> list[str]:
        notes = []
        for name, note in self.failures.items():
            notes.append(f"{name}, {title}: {note}")
        return notes


def say(text: str, end: str = "\n") -> None:
    """Show progress."""
    print(text, end=end, file=sys.stderr, flush=True)


def text_of(value: float) -> str:
    if value == math.inf:
        return "never"
    if abs(value) >= 99.95 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def in_one_line(figures: Figures) -> str:
    parts = []
    for measure, value in figures.items():
        text = text_of(value)
        parts.append(f"{measure} {text}")
    return ", ".join(parts)


def values_of(measure: str, rounds: Rounds) -> list[float]:
    """A figure in each round, or NaN."""
    return [figures.get(measure, math.nan) for figures in rounds]


def median_of(values: list[float]) -> float:
    """The median of those that are known; NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def ratio(value: float, divisor: float) -> float:
    if divisor <= 0 or not math.isfinite(divisor):
        return math.nan
    quotient = value / divisor
    return quotient if math.isfinite(quotient) else math.nan


def cell(measure: str, rounds: Rounds, reference: Rounds) -> str:
    """The median of a figure over the rounds, and of its ratio to the reference."""
    mine = values_of(measure, rounds)
    median = median_of(mine)
    if math.isnan(median):
        return "-"
    text = text_of(median)
    if measure in WITHOUT_RATIO or rounds is reference:
        return text
    others = values_of(measure, reference)
    ratios = list(map(ratio, mine, others))
    median_ratio = median_of(ratios)
    if math.isnan(median_ratio):
        return text
    return f"{text} ({median_ratio:.2f}x)"


def table(title: str, measures: Measures, columns: dict[str, Rounds], reference: str) -> str:
    """A table: a line for each measure, a column for each peer."""
    rows = [[title, *columns]]
    compared = columns[reference]
    for measure, text in measures.items():
        row = [text]
        for rounds in columns.values():
            row.append(cell(measure, rounds, compared))
        rows.append(row)
    return aligned(rows)


def aligned(rows: list[list[str]]) -> str:
    """Markdown that is aligned for a terminal too."""
    widths = []
    for column in zip(*rows, strict=True):
        widths.append(max(map(len, column)))
    first, *others = widths
    rule = ["-" * first]
    for width in others:
        rule.append("-" * (width - 1) + ":")
    rows.insert(1, rule)
    text = ""
    for name, *cells in rows:
        line = [name.ljust(first)]
        line += map(str.rjust, cells, others)
        text += f"| {' | '.join(line)} |\n"
    return text.rstrip()
