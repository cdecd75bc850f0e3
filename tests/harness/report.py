"""The report transition, as tests call it: counts and watermarks in, rows with names out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.core import rates as core
from pipeline.core.contract import pack_count_key, pack_watermark_key
from pipeline.core.rates import ReportState, finish_restore, merge_counts, restore_row
from pipeline.core.windows import NEVER

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
