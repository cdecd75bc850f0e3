"""Laws of the report transition, for any log: a recount confirms its rows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.rates import ReportState
from pipeline.core.windows import NEVER, format_time
from tests.harness.report import MINUTE, NOON, NOW, Record, count, mark, new_state, report, restarted, values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.core.contract import Row


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

    assert all(window >= state.watermarks.expiry for window in state.counts)
    assert set(state.counts) >= set(state.published) >= set(state.written_at)
