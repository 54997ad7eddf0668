"""When a bot may try again, on a clock that the test turns: whole days of failures in no time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from run_bots import IDENTIFY_RESERVE, Pace

DAY = 86_400.0
Rule = Callable[["Days"], None]


class Days:
    """A bot's connections, its process, and Discord's count of its IDENTIFYs, hour after hour."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 0.0
        self.pace = Pace()
        self.has_session = False
        self.identifies: list[float] = []  # of this process
        self.worst_day = 0  # the most of them in any 24 hours of one process
        self.used = 0  # by Discord's count
        self.counted_from = 0.0
        self.least_left = 1000
        self.start_process()

    def start_process(self) -> None:
        self.pace = Pace()
        self.identifies = []
        self.has_session = False
        self.wait_for_starts()

    def wait_for_starts(self) -> None:
        """What the program does before each client's first connection."""
        self.count_anew()
        if 1000 - self.used < IDENTIFY_RESERVE:
            self.now = self.counted_from + DAY
            self.count_anew()

    def count_anew(self) -> None:
        while self.now >= self.counted_from + DAY:
            self.counted_from += DAY
            self.used = 0

    def connect(self, *, resumes: bool = True) -> None:
        """Wait as the pace says, and connect.

        It is a RESUME if there is a session that Discord still knows.
        """
        self.pace.has_session = self.has_session
        self.wait()
        self.pace.note_reached()
        if self.has_session and resumes:
            return
        self.pace.has_session = False  # the RESUME was refused
        self.wait()
        self.pace.take_identify(self.now)
        self.identifies.append(self.now)
        self.identifies = [at for at in self.identifies if at > self.now - DAY]
        self.worst_day = max(self.worst_day, len(self.identifies))
        self.count_anew()
        self.used += 1
        self.least_left = min(self.least_left, 1000 - self.used)
        self.has_session = True

    def wait(self) -> None:
        self.now += max(0, self.pace.delay(self.now)) + 0.1

    def live(self, seconds: float) -> None:
        self.now += seconds

    def lose(self, *, session: bool = True) -> None:
        """The connection ends, and the session with it or not."""
        self.pace.note_loss(self.now)
        self.has_session = self.has_session and session


def no_network(days: Days) -> None:
    for _ in range(days.chance.randint(1, 30)):
        days.pace.note_unreached(days.now)
        days.wait()


def refused_identify(days: Days) -> None:
    days.has_session = False
    days.connect()
    days.lose(session=False)


def refused_resume(days: Days) -> None:
    days.connect(resumes=False)
    days.lose()


def closed_resume(days: Days) -> None:
    days.connect()
    days.lose()


def lives_a_moment(days: Days) -> None:
    days.connect()
    days.live(days.chance.uniform(0, 5))
    days.lose(session=False)


def lives_a_minute(days: Days) -> None:
    days.connect()
    days.live(60)
    days.lose(session=False)


def lives_a_while(days: Days) -> None:
    days.connect()
    days.live(days.chance.expovariate(1 / 400))
    days.lose(session=days.chance.random() < 0.5)


def lives_for_hours(days: Days) -> None:
    days.connect()
    days.live(days.chance.uniform(3_600, 40_000))
    days.lose(session=False)


def saved(days: Days) -> None:
    """The bot's settings were changed: a new client, which asks Discord's count."""
    days.live(days.chance.uniform(1, 60))
    days.has_session = False
    days.wait_for_starts()
    days.connect()


def sighup(days: Days) -> None:
    days.pace.network_until = 0


def told_to_wait(days: Days) -> None:
    days.pace.note_told(days.now, days.chance.uniform(1, 600))


def dies_and_starts_again(days: Days) -> None:
    days.connect()
    days.live(2)
    days.now += 10
    days.start_process()


RULES: list[Rule] = [
    no_network,
    refused_identify,
    refused_resume,
    closed_resume,
    lives_a_moment,
    lives_a_minute,
    lives_a_while,
    lives_for_hours,
    saved,
    sighup,
    told_to_wait,
    dies_and_starts_again,
]


def assert_kept(days: Days) -> None:
    assert days.worst_day < 300
    assert days.least_left >= 200


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_limits_are_kept_for_days_of_nothing_but(rule: Rule) -> None:
    days = Days(1)
    for _ in range(30_000):
        if days.now > 4 * DAY:
            break
        rule(days)
        days.now += 0.5
    assert_kept(days)


@pytest.mark.parametrize("seed", range(150))
def test_the_limits_are_kept_whatever_comes_after_what(seed: int) -> None:
    days = Days(seed)
    rules = days.chance.sample(RULES, days.chance.randint(2, len(RULES)))
    while days.now < 3 * DAY:
        rule = days.chance.choice(rules)
        for _ in range(days.chance.choice([1, 1, 3, 40])):
            rule(days)
        days.now += 0.5
    assert_kept(days)


def test_a_process_that_begins_with_what_others_have_left_does_not_use_it_up() -> None:
    days = Days(3)
    days.used = 1000 - IDENTIFY_RESERVE
    days.start_process()
    while days.now < DAY:
        refused_identify(days)
    assert_kept(days)


def test_what_reached_nothing_is_tried_again_within_half_a_minute_however_long_it_lasts() -> None:
    pace = Pace()
    now = 0.0
    waits = []
    for _ in range(2000):
        pace.note_unreached(now)
        waits.append(pace.delay(now))
        now += waits[-1]
    assert max(waits) <= 30
    assert min(waits[10:]) >= 12
    assert waits[0] <= 1


def test_an_outage_leaves_no_trace_in_the_waits_after_it() -> None:
    pace = Pace()
    for _ in range(100):
        pace.note_unreached(0)
    pace.note_reached()
    assert pace.delay(0) <= 0
    pace.note_loss(0)
    assert pace.delay(0) <= 1
    pace.note_unreached(100)
    assert pace.delay(100) <= 1


def test_losses_are_waited_for_longer_and_longer_and_forgotten_with_time() -> None:
    longest = []
    for number in range(1, 14):
        waits = []
        for _ in range(200):
            pace = Pace()
            for _ in range(number):
                pace.note_loss(0)
            waits.append(pace.delay(0))
        longest.append(max(waits))
    assert longest == sorted(longest) or longest[-1] <= 900
    assert 400 < longest[-1] <= 900
    pace = Pace()
    for _ in range(50):
        pace.note_loss(0)
    pace.note_loss(DAY)
    assert pace.delay(DAY) <= 1


def test_the_longest_word_of_discord_counts() -> None:
    pace = Pace()
    pace.note_told(0, 50)
    pace.note_told(10, 5)
    assert pace.delay(10) == 40


def test_a_resume_does_not_wait_for_the_next_identify() -> None:
    pace = Pace()
    for _ in range(100):
        pace.take_identify(0)
    assert pace.delay(0) > 300
    pace.has_session = True
    assert pace.delay(0) <= 0


def test_a_session_that_is_lost_every_minute_still_comes_back_some_hundred_times_a_day() -> None:
    days = Days(2)
    while days.now < DAY:
        lives_a_minute(days)
    assert 120 < len(days.identifies) < 300
