"""The bound for repeated log lines: so many of a kind in a window, then one report of the rest. Time is a value."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.service.logging.rate_limit import LineKind, RateLimit

FULL = LineKind("spool_failed", "error")
REPLACED = LineKind("kafka_lost", "warning")


class Ticker:
    """A clock that stands still until it is set, with the calls that are due at some time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def call_later(self, seconds: float, then: Callable[[], None]) -> None:
        self.due.append((self.now + seconds, then))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due, self.due = self.due, []
        for at, then in due:
            if at <= self.now:
                then()
            else:
                self.due.append((at, then))


class Limited:
    """A limit of 3 lines in 60 s that holds 2 kinds, and what it reported."""

    def __init__(self) -> None:
        self.clock = Ticker()
        self.reported: list[tuple[str, int]] = []
        self.limit = RateLimit(
            lambda kind, suppressed: self.reported.append((kind.event, suppressed)),
            call_later=self.clock.call_later,
            clock=self.clock,
            lines_max=3,
            interval_seconds=60,
            kinds_max=2,
        )

    def admitted(self, kind: LineKind, lines: int) -> int:
        """Return how many of so many lines may be written."""
        return sum(self.limit.admit(kind) for _ in range(lines))


@pytest.fixture
def limited() -> Limited:
    return Limited()


def test_up_to_the_bound_every_line_is_written_and_nothing_reported(limited: Limited) -> None:
    assert limited.admitted(FULL, 3) == 3
    limited.clock.advance(61)
    assert (limited.reported, limited.clock.due) == ([], [])


def test_what_is_over_the_bound_is_suppressed_and_reported_when_the_window_ends(limited: Limited) -> None:
    """Also if no further line comes: a storm that ends must not end unsaid."""
    assert limited.admitted(FULL, 10) == 3

    limited.clock.advance(59.9)
    assert limited.reported == []
    limited.clock.advance(0.1)
    assert limited.reported == [("spool_failed", 7)]


def test_a_new_window_admits_lines_again(limited: Limited) -> None:
    limited.admitted(FULL, 10)
    limited.clock.advance(60)

    assert limited.admitted(FULL, 10) == 3
    limited.clock.advance(60)
    assert limited.reported == [("spool_failed", 7), ("spool_failed", 7)]


def test_a_line_after_the_window_reports_before_it_begins_a_new_one(limited: Limited) -> None:
    limited.admitted(FULL, 4)
    limited.clock.now += 60  # The timer is late.

    assert limited.limit.admit(FULL)
    assert limited.reported == [("spool_failed", 1)]
    limited.clock.advance(60)
    assert limited.reported == [("spool_failed", 1)]


def test_kinds_and_levels_are_counted_by_themselves(limited: Limited) -> None:
    limited.admitted(FULL, 5)

    assert limited.admitted(FULL._replace(level="warning"), 5) == 3


def test_each_window_is_reported_at_its_own_end(limited: Limited) -> None:
    """
    FULL      [0-----------60)
    REPLACED        [30-----------90)
    """
    limited.admitted(FULL, 4)
    limited.clock.advance(30)
    limited.admitted(REPLACED, 5)

    limited.clock.advance(30)
    assert limited.reported == [("spool_failed", 1)]
    limited.clock.advance(29)
    assert limited.reported == [("spool_failed", 1)]
    limited.clock.advance(1)
    assert limited.reported == [("spool_failed", 1), ("kafka_lost", 2)]


def test_memory_is_bounded_and_what_makes_room_is_reported(limited: Limited) -> None:
    limited.admitted(FULL, 4)

    assert sum(limited.limit.admit(LineKind(f"kind {number}", "error")) for number in range(1000)) == 1000

    assert limited.reported == [("spool_failed", 1)]
    assert len(limited.limit._windows) == 2


def test_the_end_of_the_process_reports_what_is_open(limited: Limited) -> None:
    limited.admitted(FULL, 5)
    limited.limit.flush()
    limited.limit.flush()

    assert limited.reported == [("spool_failed", 2)]
