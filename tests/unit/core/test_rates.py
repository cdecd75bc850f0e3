"""The report transition: the partitions' counts become rows, when they are due and complete."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.rate_rows import FailureRateRow
from pipeline.core.rates import WindowRate, merge_counts
from pipeline.core.watermarks import NOT_WAITING, WaitingFor
from pipeline.core.windows import NEVER
from tests.harness.report import AT_NOON, MINUTE, NOON, NOW, Record, count, mark, new_state, numbers, report, values

# --- Rows.


@given(
    st.builds(
        FailureRateRow,
        window_start=st.integers(0, 10**6).map(lambda n: n * MINUTE),
        window_end=st.integers(1, 10**6).map(lambda n: n * MINUTE),
        error_code=st.none() | st.text(min_size=1),
        failures=st.integers(0, 100),
        total=st.integers(1, 10**9),
        complete=st.booleans(),
        revision=st.integers(0, 99),
        late=st.integers(0, 99),
    )
)
def test_a_row_is_read_back_as_it_was_written(row: FailureRateRow) -> None:
    """A field that a later version adds does not stop an older reader."""
    value = json.loads(row.encode()[1] or b"") | {"added_later": 1}

    assert FailureRateRow.decode(json.dumps(value).encode()) == row


def test_a_window_has_a_row_for_all_and_one_per_code_in_order() -> None:
    """3 + 2 + 1 deletions, 3 failures; codes sorted, the separator and any character kept; a success has no row."""
    counts = [count(3), count(2, code="é|b"), count(1, code="B")]

    rows = report(new_state(), counts, now=NOW)

    assert [row[0] for row in rows] == [
        b"2024-01-01T12:00:00Z|",
        b"2024-01-01T12:00:00Z|B",
        "2024-01-01T12:00:00Z|é|b".encode(),
    ]
    assert [(row[2], row[3]) for row in rows] == [(NOON, [])] * 3
    assert values(rows)[2] == {
        "window_start": AT_NOON,
        "window_end": "2024-01-01T12:01:00Z",
        "error_code": "é|b",
        "failures": 2,
        "total": 6,
        "rate": 1 / 3,
        "complete": False,
        "revision": 0,
        "late": 0,
    }
    assert [(value["error_code"], value["failures"], value["rate"]) for value in values(rows)] == [
        (None, 3, 0.5),
        ("B", 1, 1 / 6),
        ("é|b", 2, 1 / 3),
    ]


def test_partitions_add_up_and_a_count_replaces_the_one_before() -> None:
    """Counts are cumulative per partition, window and code: 5 + 2, not 3 + 5 + 2."""
    counts = [count(3), count(2, partition=1), count(5), count(1, code="X", partition=1)]

    assert numbers(report(new_state(2), counts, now=NOW)) == [(None, 1, 8, False, 0, 0), ("X", 1, 8, False, 0, 0)]


class Unwalked(dict[int, Any]):
    """Windows that are looked up, and never walked through."""

    def __iter__(self) -> Any:
        raise AssertionError("all windows are walked through")

    keys = values = items = __iter__


def test_what_is_remembered_costs_nothing() -> None:
    """Ten times a second, and with windows of a second there are 700,000 of them."""
    state = new_state()
    report(state, [*(count(1, window=NOON + n * MINUTE) for n in range(4)), mark(NOON + MINUTE)], now=NOW)
    state.counts, state.published = Unwalked(state.counts), Unwalked(state.published)

    idle = report(state, [], now=NOW + 1000)
    moved = report(
        state, [count(2, window=NOON + 9 * MINUTE), mark(NOON + 2 * MINUTE, expiry=NOON + MINUTE)], now=NOW + 2000
    )

    assert idle == []
    assert [value["window_start"] for value in values(moved)] == ["2024-01-01T12:01:00Z", "2024-01-01T12:09:00Z"]
    assert state.last_complete is not None
    assert state.last_complete[0] == NOON + MINUTE
    assert NOON not in state.counts
    assert NOON + MINUTE in state.counts


def test_windows_are_written_apart_and_in_order() -> None:
    """12:01 came first, 12:00 is first."""
    rows = report(new_state(), [count(2, window=NOON + MINUTE), count(1)], now=NOW)

    assert [(row[0], value["total"]) for row, value in zip(rows, values(rows), strict=True)] == [
        (b"2024-01-01T12:00:00Z|", 1),
        (b"2024-01-01T12:01:00Z|", 2),
    ]


def test_a_window_without_a_new_number_is_not_written_again() -> None:
    """A count read twice replaces itself."""
    state = new_state()
    report(state, [count(3)], now=NOW)

    assert report(state, [count(3)], now=NOW + 1000) == []


# --- Completeness.


@pytest.mark.parametrize(
    ("marks", "is_complete"),
    [
        #      12:00          12:01
        #        [--------------)
        # p0                    x      p1 has none
        ([mark(NOON + MINUTE)], False),
        # p0                    x
        # p1                   x
        ([mark(NOON + MINUTE), mark(NOON + MINUTE - 1, partition=1)], False),
        # p0                    x
        # p1                    x
        ([mark(NOON + MINUTE), mark(NOON + MINUTE, partition=1)], True),
        # p0                                 x
        # p1    x
        ([mark(NOON + 10 * MINUTE), mark(NOON, partition=1)], False),
        # p0                                 x
        # p1                     x
        ([mark(NOON + 10 * MINUTE), mark(NOON + MINUTE + 1, partition=1)], True),
        # p0                    x      p1 has none, and a partition of before is none of 0 .. N-1
        ([mark(NOON + MINUTE), mark(NOON + MINUTE, partition=2)], False),
    ],
)
def test_a_window_is_complete_when_all_partitions_passed_its_end(marks: list[Record], is_complete: bool) -> None:
    """One partition without an owner may hold anything: its windows stay incomplete, and an alert says so."""
    rows = report(new_state(2), [count(1), *marks], now=NOW)

    assert numbers(rows) == [(None, 0, 1, is_complete, 0, 0)]


def test_a_watermark_alone_completes_what_is_known() -> None:
    """The count was written long before; the row has to say that it is final now, and only once."""
    state = new_state()
    report(state, [count(1)], now=NOW)

    rows = report(state, [mark(NOON + MINUTE)], now=NOW + 100)

    assert numbers(rows) == [(None, 0, 1, True, 0, 0)]
    assert report(state, [mark(NOON + 2 * MINUTE)], now=NOW + 200) == []


def test_what_was_complete_stays_complete() -> None:
    """A lost commit metadata lets an accept partition begin with a lower watermark: a promise is not taken back."""
    state = new_state()
    report(state, [count(1), mark(NOON + MINUTE)], now=NOW)

    rows = report(state, [mark(NOON), count(2)], now=NOW + 100)

    assert numbers(rows) == [(None, 0, 2, True, 1, 1)]


def test_the_report_has_no_watermark_while_a_partition_has_none() -> None:
    """The lowest of all is the whole's; the same for the expiry."""
    state = new_state(2)
    merge_counts(state, [mark(NOON, expiry=5)])
    assert (state.watermarks.lowest, state.watermarks.expiry) == (NEVER, NEVER)

    merge_counts(state, [mark(NOON - 1, partition=1, expiry=7)])
    assert (state.watermarks.lowest, state.watermarks.expiry) == (NOON - 1, 5)


def test_the_last_complete_window_is_the_latest() -> None:
    """It is what the dashboard shows: 12:01, as 12:02 is not complete yet."""
    state = new_state()
    assert state.last_complete is None

    counts = [count(n, window=NOON + n * MINUTE) for n in (1, 2)]
    report(state, [*counts, mark(NOON + 2 * MINUTE)], now=NOW)

    expected = WindowRate(total=1, failures={}, complete=True, revision=0, late=0)
    assert state.last_complete == (NOON + MINUTE, expected)


# --- Held back.


def test_a_row_names_the_partitions_that_hold_its_window_back() -> None:
    """Two minutes after the first one has passed its end, when it is looked at next; nothing once it is complete."""
    state = new_state(3)
    end = NOON + MINUTE
    report(state, [count(1), mark(end), mark(end + 119_999, partition=2)], now=NOW)
    early = report(state, [], now=NOW + 60_000)

    held = report(state, [mark(end + 120_000, partition=2)], now=NOW + 120_000)
    again = report(state, [], now=NOW + 180_000)
    done = report(state, [mark(end, partition=1)], now=NOW + 180_100)

    assert early == again == []
    assert [(value["waiting_for"], value["waiting_for_total"]) for value in values(held)] == [([1], 1)]
    assert [(value["complete"], "waiting_for" in value) for value in values(done)] == [(True, False)]


def test_what_holds_the_oldest_window_back_is_known_with_each_record() -> None:
    """And by how much the first partition has passed its end: 2 minutes and 1 ms; what is complete waits for none."""
    state = new_state(3)
    end = NOON + MINUTE
    report(state, [count(1), count(1, window=end), mark(end), mark(end + 119_999, partition=2)], now=NOW)
    early = state.held_back
    report(state, [mark(end + 120_001, partition=2)], now=NOW + 1)
    held = state.held_back
    report(state, [mark(end, partition=1)], now=NOW + 2)

    assert early == state.held_back == (NOT_WAITING, 0)
    assert held == (WaitingFor((1,), 1), 120_001)


# --- Late deletions.


def test_a_late_deletion_corrects_the_row() -> None:
    """
    No event is dropped: each correction is a revision, and `late` counts the deletions it brought.

    total:     1        1 complete   3 (2 late)   6 (3 late)
    revision:  0        0            1            2
    """
    state = new_state()
    report(state, [count(1)], now=NOW)
    report(state, [mark(NOON + MINUTE)], now=NOW + 100)

    first = report(state, [count(3)], now=NOW + 200)
    second = report(state, [count(3, code="X")], now=NOW + 300)

    assert numbers(first) == [(None, 0, 3, True, 1, 2)]
    assert numbers(second) == [(None, 3, 6, True, 2, 5), ("X", 3, 6, True, 2, 5)]


def test_a_deletion_that_comes_with_the_end_of_its_window_is_not_late() -> None:
    """What completes a window and what is in it may share a chunk."""
    state = new_state()
    report(state, [count(1)], now=NOW)

    assert numbers(report(state, [count(2), mark(NOON + MINUTE)], now=NOW + 100)) == [(None, 0, 2, True, 0, 0)]


# --- The interval.


def test_rows_of_a_window_are_100_ms_apart() -> None:
    """Each row repeats the total, so a busy window would write for ever; what waits is written without new input."""
    state = new_state()
    assert len(report(state, [count(1)], now=NOW)) == 1

    assert report(state, [count(2)], now=NOW + 50) == []
    assert report(state, [count(3)], now=NOW + 99) == []
    assert numbers(report(state, [], now=NOW + 100)) == [(None, 0, 3, False, 0, 0)]
    assert report(state, [], now=NOW + 300) == []


def test_a_window_does_not_wait_for_another() -> None:
    """The interval is a window's own."""
    state = new_state()
    report(state, [count(1)], now=NOW)

    rows = report(state, [count(2), count(1, window=NOON + MINUTE)], now=NOW + 50)

    assert [row[0] for row in rows] == [b"2024-01-01T12:01:00Z|"]


def test_a_clock_that_is_set_back_holds_no_row_back() -> None:
    """NTP may step it by an hour: the rows must not stand still until it has caught up."""
    state = new_state()
    report(state, [count(1)], now=NOW)

    rows = report(state, [count(2)], now=NOW - 3_600_000)

    assert numbers(rows) == [(None, 0, 2, False, 0, 0)]
