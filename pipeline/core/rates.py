"""
The report transition: cumulative counts of all partitions in, failure-rate rows out.

Pure. Its state follows from its input and its last rows: a reader replaces a count, never adds it, so reading one twice
changes nothing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Protocol

from pipeline.core.contract import SUCCESS, CountKey, Row, WatermarkKey, unpack_partial_key
from pipeline.core.windows import NEVER, format_time, parse_time

ROW_INTERVAL = 100  # ms between two rows of a window: each repeats the total, so a busy window would write for ever.


_ms = lru_cache(maxsize=1024)(parse_time)  # The rows of a window repeat its two times.


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRateRow:
    """
    A row of failure-rates: the failures of one ErrorCode in one window, or of all (`error_code` None).

    `window_start` and `window_end` are ms since the epoch, `total` is all deletions of the window, failed or not.
    `complete`, `revision` and `late` are those of WindowRate.
    """

    window_start: int
    window_end: int
    error_code: str | None
    failures: int
    total: int
    complete: bool
    revision: int
    late: int

    @property
    def rate(self) -> float:
        """Failures among all deletions of the window, which has at least one."""
        return self.failures / self.total

    def encode(self) -> Row:
        """Write the record: key ``<window start>|<ErrorCode>``, a JSON object, the window's start as timestamp."""
        start = format_time(self.window_start)
        value = {
            "window_start": start,
            "window_end": format_time(self.window_end),
            "error_code": self.error_code,
            "failures": self.failures,
            "total": self.total,
            "rate": self.rate,
            "complete": self.complete,
            "revision": self.revision,
            "late": self.late,
        }
        return (f"{start}|{self.error_code or ''}".encode(), json.dumps(value).encode(), self.window_start, [])

    @classmethod
    def decode(cls, value: bytes) -> FailureRateRow:
        """Read the value of a record; fields that this version does not know are left out."""
        row = json.loads(value)
        return cls(
            window_start=_ms(row["window_start"]),
            window_end=_ms(row["window_end"]),
            error_code=row["error_code"],
            failures=row["failures"],
            total=row["total"],
            complete=row["complete"],
            revision=row["revision"],
            late=row["late"],
        )


class PartialCount(Protocol):
    """A record of partial-counts: see records.unpack_partial_key for its keys."""

    key: bytes
    value: bytes


class Watermark(NamedTuple):
    """How far a partition has come: `at` as in TimePolicy.watermark, `expiry` as in TimePolicy.final_before. ms."""

    at: int
    expiry: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRate:
    """
    What is published of a window: one row per ErrorCode and one for all.

    `late` deletions came after the window was complete, in `revision` corrections.
    """

    total: int
    failures: dict[str, int]
    complete: bool
    revision: int
    late: int


@dataclass(slots=True)
class ReportState:
    """What the report remembers: `counts` by window, then (partition, code); `due` is when a dirty window may write."""

    partitions: int
    width: int
    counts: dict[int, dict[tuple[int, str], int]] = field(default_factory=dict)
    watermarks: dict[int, Watermark] = field(default_factory=dict)
    published: dict[int, WindowRate] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)
    written_at: dict[int, int] = field(default_factory=dict)

    @property
    def watermark(self) -> int:
        """The watermark of the whole: the lowest of all partitions', NEVER while one has none."""
        return self._lowest(0)

    @property
    def expiry(self) -> int:
        """Before when no partition can change a count any more; NEVER while one has no watermark."""
        return self._lowest(1)

    def _lowest(self, part: int) -> int:
        if any(partition not in self.watermarks for partition in range(self.partitions)):
            return NEVER
        return min(self.watermarks[partition][part] for partition in range(self.partitions))

    @property
    def last_complete(self) -> tuple[int, WindowRate] | None:
        """The latest window whose published rows are complete, and its rates."""
        complete = [window for window, rate in self.published.items() if rate.complete]
        return (max(complete), self.published[max(complete)]) if complete else None


def merge_counts(state: ReportState, records: Iterable[PartialCount]) -> None:
    """Take records of partial-counts into the state; what they change becomes dirty."""
    before = state.watermark
    for record in records:
        key = unpack_partial_key(record.key)
        if isinstance(key, CountKey):
            state.counts.setdefault(key.window, {})[key.partition, key.code] = int(record.value)
            state.dirty.add(key.window)
        else:
            _merge_watermark(state, key, json.loads(record.value))
    after = state.watermark
    if after > before:
        state.dirty.update(
            window
            for window in state.counts
            if window + state.width <= after and not _is_complete(state.published.get(window))
        )


def _is_complete(rate: WindowRate | None) -> bool:
    return rate is not None and rate.complete


def _merge_watermark(state: ReportState, key: WatermarkKey, value: dict[str, int]) -> None:
    # The highest ever said: after a lost offset commit a partition may start over with a lower one.
    known = state.watermarks.get(key.partition, Watermark(NEVER, NEVER))
    state.watermarks[key.partition] = Watermark(max(known.at, value["watermark"]), max(known.expiry, value["expiry"]))


def restore_row(state: ReportState, value: bytes) -> None:
    """Take one row of failure-rates, in the topic's order, back into the state."""
    row = FailureRateRow.decode(value)
    before = state.published.get(row.window_start)
    failures = dict(before.failures) if before else {}
    if row.error_code is not None:
        failures[row.error_code] = row.failures
    state.published[row.window_start] = WindowRate(
        total=row.total, failures=failures, complete=row.complete, revision=row.revision, late=row.late
    )


def finish_restore(state: ReportState) -> None:
    """
    End a restore: forget what retention may have taken a part of.

    A window before the expiry had its first row in the transaction that brought its first counts, so one without a row
    has outlived it, and less than what was published is a remainder. A later row can have waited for its interval.
    """
    expiry = state.expiry
    for window in [window for window in state.dirty if window < expiry]:
        published = state.published.get(window)
        if published is None or sum(state.counts[window].values()) < published.total:
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
        if rate == before:
            continue
        late += rate.late - (before.late if before else 0)
        state.published[window] = rate
        state.written_at[window] = now
        rows += rows_of(window, rate, width=state.width)
    return Report(rows, late)


def _rate(state: ReportState, window: int) -> WindowRate:
    by_code: dict[str, int] = defaultdict(int)
    for (_, code), number in state.counts[window].items():
        by_code[code] += number
    total = sum(by_code.values())
    by_code.pop(SUCCESS, None)
    before = state.published.get(window)
    late = total - before.total if before and before.complete else 0
    return WindowRate(
        total=total,
        failures=dict(by_code),
        complete=window + state.width <= state.watermark or _is_complete(before),
        revision=(before.revision if before else 0) + (late > 0),
        late=(before.late if before else 0) + late,
    )


def _drop(state: ReportState) -> None:
    """Forget windows that no partition can change any more; what is dirty is written first."""
    expiry = state.expiry
    for window in [window for window in state.counts.keys() | state.published.keys() if window < expiry]:
        if window not in state.dirty:
            state.counts.pop(window, None)
            state.published.pop(window, None)
            state.written_at.pop(window, None)


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
        ).encode()

    return [row(None, sum(rate.failures.values())), *(row(code, n) for code, n in sorted(rate.failures.items()))]
