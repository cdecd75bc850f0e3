"""
The report transition: cumulative counts of all partitions in, failure-rate rows out.

Pure. Its state follows from its input and its last rows: a reader replaces a count, never adds it, so reading one twice
changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

from pipeline.core.contract import SUCCESS, CountKey, Row, unpack_partial_key
from pipeline.core.rate_rows import FailureRateRow
from pipeline.core.watermarks import NOT_WAITING, WaitingFor, Watermark, Watermarks
from pipeline.core.window_counts import WindowCounts
from pipeline.core.windows import NEVER

ROW_INTERVAL = 100  # ms between two rows of a window: each repeats the total, so a busy window would write for ever.

HELD_BACK_AFTER = 120_000  # ms by which the first partition has passed a window's end when its rows say who has not.
REVIEW_INTERVAL = 60_000  # ms between two looks at what held back windows wait for, as there may be 10,000 of them.


class PartialCount(Protocol):
    """A record of partial-counts: see contract.unpack_partial_key for its keys."""

    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRate:
    """
    What is published of a window: one row per ErrorCode and one for all.

    `late` deletions came after the window was complete, in `revision` corrections. `waiting` is empty until another
    partition is HELD_BACK_AFTER past the window's end, and once it is complete.
    """

    total: int
    failures: dict[str, int]
    complete: bool
    revision: int
    late: int
    waiting: WaitingFor = NOT_WAITING


@dataclass(slots=True)
class ReportState:
    """
    What the report remembers: `counts` of each window that can change; `dirty` windows have to be written.

    Of windows in `reviewed` the rows name other partitions to wait for than they should.

    Windows are many, and few of them change: `by_age` (all that are remembered) and `unended` are heaps, so that the
    oldest is found without looking at the others.
    """

    partitions: int
    width: int
    counts: dict[int, WindowCounts] = field(default_factory=dict)
    watermarks: Watermarks = field(init=False)
    published: dict[int, WindowRate] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)
    written_at: dict[int, int] = field(default_factory=dict)
    by_age: list[int] = field(default_factory=list)
    unended: list[int] = field(default_factory=list)
    latest_complete: int = NEVER
    reviewed: set[int] = field(default_factory=set)
    reviewed_at: int | None = None

    def __post_init__(self) -> None:
        self.watermarks = Watermarks(self.partitions)

    @property
    def last_complete(self) -> tuple[int, WindowRate] | None:
        """The latest window whose published rows are complete, and its rates; None once that is forgotten."""
        rate = self.published.get(self.latest_complete)
        return (self.latest_complete, rate) if rate else None

    @property
    def held_back(self) -> tuple[WaitingFor, int]:
        """What the oldest incomplete window waits for, and by how much (ms) the first partition has passed its end."""
        waiting = self.waiting(self.unended[0]) if self.unended else NOT_WAITING
        return waiting, self.watermarks.highest - self.unended[0] - self.width if waiting.number else 0

    def waiting(self, window: int) -> WaitingFor:
        """Return what *window* waits for; nothing while no partition is far past its end."""
        end = window + self.width
        return self.watermarks.waiting(end) if end + HELD_BACK_AFTER <= self.watermarks.highest else NOT_WAITING

    def is_complete(self, window: int) -> bool:
        """Return whether the rows of *window* say that it is complete."""
        return window in self.published and self.published[window].complete

    def publish(self, window: int, rate: WindowRate) -> None:
        """Take in what the rows of *window* say."""
        self._remember(window)
        self.published[window] = rate
        if rate.complete:
            self.latest_complete = max(self.latest_complete, window)

    def count(self, window: int, partition: int, code: str, number: int) -> None:
        """Replace one count of *window*."""
        self._remember(window)
        if window not in self.counts:
            self.counts[window] = WindowCounts(self.partitions)
            heappush(self.unended, window)
        self.counts[window].replace(partition, code, number)
        self.dirty.add(window)

    def begin_anew(self, partition: int, watermark: Watermark) -> None:
        """Take in what *partition* says of its time; if that was further on, windows end once more."""
        if self.watermarks.begin_anew(partition, watermark):
            self.unended = sorted(self.counts)

    def _remember(self, window: int) -> None:
        if window not in self.counts and window not in self.published:
            heappush(self.by_age, window)


def merge_counts(state: ReportState, records: Iterable[PartialCount]) -> None:
    """Take records of partial-counts into the state; what they change becomes dirty."""
    for record in records:
        key = unpack_partial_key(record.key)
        if isinstance(key, CountKey):
            state.count(key.window, key.partition, key.code, int(record.value))
        else:
            value = json.loads(record.value)
            # Nothing comes before the expiry either, whatever was read: a partition may have had no event so far.
            said = Watermark(max(value["watermark"], value["expiry"]), value["expiry"])
            if value.get("anew"):
                state.begin_anew(key.partition, said)
            else:
                state.watermarks.merge(key.partition, said)
    watermark = state.watermarks.lowest
    while state.unended:
        window = state.unended[0]
        is_open = window in state.counts and not state.is_complete(window)
        if is_open and window + state.width > watermark:
            return
        heappop(state.unended)
        if is_open:
            state.dirty.add(window)


def restore_row(state: ReportState, value: bytes) -> None:
    """Take one row of failure-rates, in the topic's order, back into the state."""
    row = FailureRateRow.decode(value)
    before = state.published.get(row.window_start)
    failures = dict(before.failures) if before else {}
    if row.error_code is not None:
        failures[row.error_code] = row.failures
    rate = WindowRate(
        total=row.total,
        failures=failures,
        complete=row.complete,
        revision=row.revision,
        late=row.late,
        waiting=row.waiting,
    )
    state.publish(row.window_start, rate)


def finish_restore(state: ReportState) -> None:
    """
    End a restore: forget what retention may have taken a part of.

    A window before the expiry had its first row in the transaction that brought its first counts, so one without a row
    has outlived it, and less than what was published is a remainder. A later row can have waited for its interval.
    """
    expiry = state.watermarks.expiry
    for window in [window for window in state.dirty if window < expiry]:
        published = state.published.get(window)
        if published is None or state.counts[window].total < published.total:
            state.dirty.discard(window)
    _drop(state)


class Report(NamedTuple):
    """The rows to write, and how many deletions among them were late."""

    rows: list[Row]
    late: int


def report(state: ReportState, records: Iterable[PartialCount], *, now: int) -> Report:
    """
    Merge a chunk of partial counts.

    Args:
        state: Changed to what it is once the rows are committed.
        records: May be empty: windows that had to wait for their interval are written then.
        now: The clock in ms. It decides when a row is written, never its failures and total.
    """
    merge_counts(state, records)
    _drop(state)
    _review(state, now)
    rows: list[Row] = []
    late = 0
    for window in sorted(state.dirty):
        if 0 <= now - state.written_at.get(window, -ROW_INTERVAL) < ROW_INTERVAL:
            continue
        state.dirty.discard(window)
        rate = _rate(state, window)
        before = state.published.get(window)
        if before and rate.total < before.total:
            # Compaction took a count that its successor, further on in the topic, replaces: wait for that one.
            state.dirty.add(window)
            continue
        state.reviewed.discard(window)
        if rate == before:
            continue
        late += rate.late - (before.late if before else 0)
        state.publish(window, rate)
        state.written_at[window] = now
        rows += rows_of(window, rate, width=state.width)
    return Report(rows, late)


def _review(state: ReportState, now: int) -> None:
    """Find the windows whose rows name other partitions than they wait for: these move while no count does."""
    if state.reviewed_at is None:
        state.reviewed_at = now  # A restart writes nothing that would not have been written without it.
    if 0 <= now - state.reviewed_at < REVIEW_INTERVAL:
        return
    state.reviewed_at = now
    for window in state.unended:
        before = state.published.get(window)
        if window in state.counts and before and not before.complete and state.waiting(window) != before.waiting:
            state.reviewed.add(window)
            state.dirty.add(window)


def _rate(state: ReportState, window: int) -> WindowRate:
    counts, before = state.counts[window], state.published.get(window)
    failures = {code: number for code, number in counts.totals.items() if code != SUCCESS}
    late = counts.total - before.total if before and before.complete else 0
    complete = window + state.width <= state.watermarks.lowest or state.is_complete(window)
    is_unchanged = before is not None and (before.total, before.failures) == (counts.total, failures)
    if complete:
        waiting = NOT_WAITING
    elif before and is_unchanged and window not in state.reviewed:
        waiting = before.waiting
    else:
        waiting = state.waiting(window)
    return WindowRate(
        total=counts.total,
        failures=failures,
        complete=complete,
        revision=(before.revision if before else 0) + (late > 0),
        late=(before.late if before else 0) + late,
        waiting=waiting,
    )


def _drop(state: ReportState) -> None:
    """Forget windows that no partition can change any more; what is dirty is written first."""
    expiry, waiting = state.watermarks.expiry, []
    while state.by_age and state.by_age[0] < expiry:
        window = heappop(state.by_age)
        if window in state.dirty:
            waiting.append(window)
            continue
        state.counts.pop(window, None)
        state.published.pop(window, None)
        state.written_at.pop(window, None)
    for window in waiting:
        heappush(state.by_age, window)


def rows_of(window: int, rate: WindowRate, *, width: int) -> list[Row]:
    """Write a window's rows: one for all codes (error_code null), then one per ErrorCode in order."""

    def row(code: str | None, failures: int) -> Row:
        return FailureRateRow(
            window_start=window,
            window_end=window + width,
            error_code=code,
            failures=failures,
            total=rate.total,
            complete=rate.complete,
            revision=rate.revision,
            late=rate.late,
            waiting=rate.waiting,
        ).encode()

    return [row(None, sum(rate.failures.values())), *(row(code, n) for code, n in sorted(rate.failures.items()))]
