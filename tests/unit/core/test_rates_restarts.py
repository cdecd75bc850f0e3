"""The report transition's memory: what it forgets, and what a restart knows again."""

from __future__ import annotations

import pytest

from pipeline.core import rates as core
from pipeline.core.rates import WindowRate
from tests.harness.report import MINUTE, NOON, NOW, count, mark, new_state, numbers, report, restarted


@pytest.mark.parametrize(
    ("expiry", "windows"),
    [
        # 12:00 [------)12:01 [------)12:02
        (NOON, [NOON, NOON + MINUTE]),
        (NOON + MINUTE, [NOON + MINUTE]),
        (NOON + 2 * MINUTE, []),
    ],
)
def test_windows_before_every_partitions_expiry_are_forgotten(expiry: int, windows: list[int]) -> None:
    """Memory is bounded by the horizon; the window that starts at the expiry can still change."""
    state = new_state(2)
    counts = [count(1), count(1, window=NOON + MINUTE)]
    report(state, [*counts, mark(NOW, expiry=NOW)], now=NOW)
    assert sorted(state.counts) == [NOON, NOON + MINUTE]

    rows = report(state, [mark(NOW, partition=1, expiry=expiry)], now=NOW + 100)
    assert [row[2] for row in rows] == [NOON, NOON + MINUTE]  # They are complete now, and said to be so first.

    assert report(state, [], now=NOW + 200) == []
    assert sorted(state.counts) == sorted(state.published) == sorted(state.written_at) == windows
    assert state.dirty == set()


def test_a_restart_does_not_resurrect_what_was_forgotten() -> None:
    """
    Retention takes some counts of an old window and not others: the remainder is no news.

    12:00 had 5 in its row and 3 in what is left; of 12:01 the rows are gone; 12:02 can still change.
    """
    rows = report(new_state(), [count(5, window=NOON)], now=NOW)
    left = [count(3, window=NOON), count(2, window=NOON + MINUTE), count(1, window=NOON + 2 * MINUTE)]

    state = restarted(new_state(), rows, [*left, mark(NOW, expiry=NOON + 2 * MINUTE)])

    assert sorted(state.counts) == [NOON + 2 * MINUTE]
    assert state.published == {}
    assert [row[2] for row in report(state, [], now=NOW)] == [NOON + 2 * MINUTE]


def test_a_restart_writes_a_correction_that_waited_for_its_interval() -> None:
    """It was in no row when the worker was killed, and the window expired meanwhile."""
    state = new_state()
    records = [count(1), mark(NOON + MINUTE)]
    rows = report(state, records, now=NOW)
    records += [count(2), mark(NOW, expiry=NOON + MINUTE)]
    assert report(state, records[2:], now=NOW + 50) == []

    restored = restarted(state, rows, records)

    assert numbers(report(restored, [], now=NOW + 60)) == [(None, 0, 2, True, 1, 1)]


def test_a_restart_writes_a_completion_that_waited_for_its_interval() -> None:
    """Catching up after days, a window can begin, end and expire within 100 ms: its last row must say complete."""
    state = new_state()
    records = [count(1)]
    rows = report(state, records, now=NOW)
    records += [mark(NOW, expiry=NOON + MINUTE)]
    assert report(state, records[1:], now=NOW + 50) == []

    restored = restarted(state, rows, records)

    assert numbers(report(restored, [], now=NOW + 60)) == [(None, 0, 1, True, 0, 0)]


def test_a_restart_between_rows_writes_nothing() -> None:
    """What is published is known again, revision and late included."""
    state = new_state()
    records = [count(1), count(1, code="X|é"), mark(NOON + MINUTE)]
    rows = report(state, records, now=NOW)
    records += [count(4, code="X|é")]
    rows += report(state, records[-1:], now=NOW + 100)

    restored = restarted(state, rows, records)

    assert restored.published == state.published
    assert restored.published[NOON] == WindowRate(total=5, failures={"X|é": 4}, complete=True, revision=1, late=3)
    assert report(restored, [], now=NOW + 110) == []


def test_late_deletions_are_counted_once_and_never_taken_back() -> None:
    """The number feeds a counter: a window that is forgotten later takes nothing from it."""
    state = new_state()
    late = [
        core.report(state, records, now=NOW + 1000 * step).late
        for step, records in enumerate(
            (
                [count(1), mark(NOON + MINUTE)],
                [count(4)],
                [count(1, window=NOON + 5 * MINUTE), mark(NOON + 6 * MINUTE, expiry=NOON + MINUTE)],
                [mark(NOON + 7 * MINUTE, expiry=NOON + MINUTE)],
            )
        )
    ]

    assert late == [0, 3, 0, 0]
    assert NOON not in state.published


def test_a_total_never_falls_while_a_compacted_count_has_not_been_read_again() -> None:
    """Compaction removes a count before its successor is read: the row waits for that one instead of being wrong."""
    state = new_state(2)
    report(state, [count(5), count(2, partition=1)], now=NOW)
    state.counts[NOON].replace(0, "", 0)

    waiting = report(state, [count(3, partition=1)], now=NOW + 1000)
    rows = report(state, [count(6)], now=NOW + 2000)

    assert waiting == []
    assert numbers(rows) == [(None, 0, 9, False, 0, 0)]
