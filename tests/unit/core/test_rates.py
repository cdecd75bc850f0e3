"""The report transition: the partitions' counts become rows that a recount confirms."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import rates as core
from pipeline.core.contract import pack_count_key, pack_watermark_key
from pipeline.core.rate_rows import FailureRateRow
from pipeline.core.rates import ReportState, WindowRate, finish_restore, merge_counts, restore_row
from pipeline.core.windows import NEVER, format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.core.contract import Row

MINUTE = 60_000
NOON = 1_704_110_400_000  # 2024-01-01T12:00:00Z, a window start.
AT_NOON = "2024-01-01T12:00:00Z"
NOW = NOON + 3_600_000


@dataclass
class Record:
    """A record of partial-counts."""

    key: bytes
    value: bytes


def report(state: ReportState, records: Sequence[Any], *, now: int) -> list[Row]:
    """Return the rows alone."""
    return core.report(state, records, now=now).rows


def count(number: int, *, code: str = "", partition: int = 0, window: int = NOON) -> Record:
    return Record(pack_count_key(partition, window, code), b"%d" % number)


def mark(at: int, *, partition: int = 0, expiry: int = NEVER) -> Record:
    return Record(pack_watermark_key(partition), json.dumps({"watermark": at, "expiry": expiry}).encode())


def new_state(partitions: int = 1) -> ReportState:
    return ReportState(partitions, MINUTE)


def values(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [json.loads(row[1] or b"") for row in rows]


def numbers(rows: Sequence[Row]) -> list[tuple[object, ...]]:
    """Code, failures, total, complete, revision, late of each row."""
    names = ("error_code", "failures", "total", "complete", "revision", "late")
    return [tuple(value[name] for name in names) for value in values(rows)]


def restarted(state: ReportState, rows: Sequence[Row], records: Sequence[Record]) -> ReportState:
    """What the stage does when it opens: restore the rows, then the counts, then finish_restore."""
    restored = ReportState(state.partitions, state.width)
    for row in rows:
        restore_row(restored, row[1] or b"")
    merge_counts(restored, records)
    finish_restore(restored)
    return restored


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
    assert (state.watermark, state.expiry) == (NEVER, NEVER)

    merge_counts(state, [mark(NOON - 1, partition=1, expiry=7)])
    assert (state.watermark, state.expiry) == (NOON - 1, 5)


def test_the_last_complete_window_is_the_latest() -> None:
    """It is what the dashboard shows: 12:01, as 12:02 is not complete yet."""
    state = new_state()
    assert state.last_complete is None

    counts = [count(n, window=NOON + n * MINUTE) for n in (1, 2)]
    report(state, [*counts, mark(NOON + 2 * MINUTE)], now=NOW)

    expected = WindowRate(total=1, failures={}, complete=True, revision=0, late=0)
    assert state.last_complete == (NOON + MINUTE, expected)


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


# --- Forgetting.


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


# --- Restarts.


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


# --- Laws, for any log.


class Step(NamedTuple):
    """A transaction of the accept stage: deletions of one partition, then perhaps a watermark."""

    partition: int
    deletions: list[tuple[int, str]]
    advance: int
    clock: int


PARTITIONS = 3
steps = st.lists(
    st.builds(
        Step,
        partition=st.integers(0, PARTITIONS - 1),
        deletions=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["", "", "A", "B|é", "unknown"])), max_size=4),
        advance=st.sampled_from([0, 0, 30_000, 60_000, 120_000, 600_000]),
        clock=st.sampled_from([0, 1, 50, 100, 1000]),
    ),
    max_size=15,
)


class World:
    """The accept stages of all partitions, kept the plain way: a list of deletions, and how far each has come."""

    def __init__(self, *, horizon: int | None) -> None:
        self.horizon = horizon
        self.deletions: list[tuple[int, int, str]] = []
        self.marks = dict.fromkeys(range(PARTITIONS), NEVER)

    def play(self, step: Step) -> list[Record]:
        """Return what the transaction writes; deletions before the partition's own expiry are refused, as is law."""
        partition, final = step.partition, self._final_before(step.partition)
        written = {}
        for index, code in step.deletions:
            window = NOON + index * MINUTE
            if window >= final:
                self.deletions.append((partition, window, code))
                written[window, code] = self.deletions.count((partition, window, code))
        records = [count(n, code=code, partition=partition, window=window) for (window, code), n in written.items()]
        if step.advance:
            self.marks[partition] = max(self.marks[partition], NOON - 30_000) + step.advance
            records.append(mark(self.marks[partition], partition=partition, expiry=self._final_before(partition)))
        return records

    def _final_before(self, partition: int) -> int:
        at = self.marks[partition]
        return NEVER if self.horizon is None or at == NEVER else (at - self.horizon) // MINUTE * MINUTE

    def recount(self) -> dict[bytes, tuple[int, int, bool]]:
        """Failures, total, complete of every row there should be."""
        totals = Counter(window for _, window, _ in self.deletions)
        failures = Counter((window, code) for _, window, code in self.deletions if code)
        lowest = min(self.marks.values())
        rows = {(window, ""): failed for window, failed in dict.fromkeys(totals, 0).items()} | failures
        for (window, _), failed in failures.items():
            rows[window, ""] += failed
        return {
            f"{format_time(window)}|{code}".encode(): (failed, totals[window], window + MINUTE <= lowest)
            for (window, code), failed in rows.items()
        }


def last(rows: Sequence[Row], *names: str) -> dict[bytes, tuple[object, ...]]:
    """What a reader of failure-rates ends with: the last value of each key."""
    return {row[0] or b"": tuple(value[name] for name in names) for row, value in zip(rows, values(rows), strict=True)}


NUMBERS = ("failures", "total", "complete")
EVERYTHING = (*NUMBERS, "revision", "late", "rate")


def drain(state: ReportState, now: int) -> list[Row]:
    """Let all that waits for its interval be written."""
    return report(state, [], now=now + 10_000) + report(state, [], now=now + 20_000)


@settings(max_examples=100, deadline=None)
@given(steps, st.lists(st.integers(0, 15), max_size=4))
def test_the_last_rows_equal_a_recount_however_the_input_is_chunked(plan: list[Step], cuts: list[int]) -> None:
    """Promise 3: any interleaving of the partitions, any chunks, any clock."""
    world, state = World(horizon=None), new_state(PARTITIONS)
    rows: list[Row] = []
    waiting: list[Record] = []
    now = NOW
    for index, step in enumerate(plan):
        waiting += world.play(step)
        now += step.clock
        if index not in cuts:
            rows += report(state, waiting, now=now)
            waiting = []
    rows += report(state, waiting, now=now)

    rows += drain(state, now)

    assert last(rows, *NUMBERS) == world.recount()
    for value in values(rows):
        assert value["rate"] == value["failures"] / value["total"]
        assert 0 <= value["revision"] <= value["late"] <= value["total"]
        assert (value["revision"] == 0) is (value["late"] == 0)


@settings(max_examples=50, deadline=None)
@given(steps, st.integers(0, 200))
def test_reading_counts_again_changes_nothing(plan: list[Step], begin: int) -> None:
    """A count replaces the one before: a second reading, from anywhere to the end, leads to no row."""
    world, state = World(horizon=None), new_state(PARTITIONS)
    records = [record for step in plan for record in world.play(step)]
    report(state, records, now=NOW)
    before = dict(state.published)

    assert report(state, records[begin:], now=NOW + 1000) == []
    assert state.published == before


@settings(max_examples=100, deadline=None)
@given(steps, st.integers(0, 15), st.sampled_from([None, 0, 60_000, 180_000]))
def test_a_restart_anywhere_ends_in_the_same_rows(plan: list[Step], at: int, horizon: int | None) -> None:
    """Its state is restored from both topics: killed after any commit, however much waited, no number is lost."""
    world, state = World(horizon=horizon), new_state(PARTITIONS)
    rows: list[Row] = []
    records: list[Record] = []
    now = NOW
    for index, step in enumerate(plan):
        if index == at:
            state = restarted(state, rows, records)
        chunk = world.play(step)
        records += chunk
        now += step.clock
        rows += report(state, chunk, now=now)
    if at >= len(plan):
        state = restarted(state, rows, records)
    rows += drain(state, now)

    assert last(rows, *NUMBERS) == world.recount()


@settings(max_examples=50, deadline=None)
@given(steps, st.integers(0, 15))
def test_a_restart_is_invisible_while_nothing_waits(plan: list[Step], at: int) -> None:
    """With chunks over 100 ms apart every row is the same, revision and late too."""
    world, steady, state = World(horizon=None), new_state(PARTITIONS), new_state(PARTITIONS)
    expected: list[Row] = []
    rows: list[Row] = []
    records: list[Record] = []
    for index, step in enumerate(plan):
        if index == at:
            state = restarted(state, rows, records)
        chunk = world.play(step)
        records += chunk
        expected += report(steady, chunk, now=NOW + index * 100)
        rows += report(state, chunk, now=NOW + index * 100)

    assert last(rows, *EVERYTHING) == last(expected, *EVERYTHING)
    assert rows == expected


@settings(max_examples=50, deadline=None)
@given(steps)
def test_memory_ends_at_the_expiry(plan: list[Step]) -> None:
    """A worker that runs for years remembers the horizon and no more."""
    world, state = World(horizon=60_000), new_state(PARTITIONS)
    for index, step in enumerate(plan):
        report(state, world.play(step), now=NOW + index * 100)

    drain(state, NOW + 10_000)

    assert all(window >= state.expiry for window in state.counts)
    assert set(state.counts) >= set(state.published) >= set(state.written_at)


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
    del state.counts[NOON][0, ""]

    waiting = report(state, [count(3, partition=1)], now=NOW + 1000)
    rows = report(state, [count(6)], now=NOW + 2000)

    assert waiting == []
    assert numbers(rows) == [(None, 0, 9, False, 0, 0)]
