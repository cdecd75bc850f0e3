"""A row of failure-rates, as its readers and its one writer have it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from pipeline.core.contract import Row
from pipeline.core.watermarks import NOT_WAITING, WaitingFor
from pipeline.core.windows import format_time, parse_time

_ms = lru_cache(maxsize=1024)(parse_time)  # The rows of a window repeat its two times.


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRateRow:
    """
    A row of failure-rates: the failures of one ErrorCode in one window, or of all (`error_code` None).

    `window_start` and `window_end` are ms since the epoch, `total` is all deletions of the window, failed or not.
    `complete`, `revision`, `late` and `waiting` are those of WindowRate.
    """

    window_start: int
    window_end: int
    error_code: str | None
    failures: int
    total: int
    complete: bool
    revision: int
    late: int
    waiting: WaitingFor = NOT_WAITING

    @property
    def rate(self) -> float:
        """Failures among all deletions of the window, which has at least one."""
        return self.failures / self.total

    def encode(self) -> Row:
        """Write the record: key ``<window start>|<ErrorCode>``, a JSON object, the window's start as timestamp."""
        key = f"{format_time(self.window_start)}|{self.error_code or ''}"
        return (key.encode(), self.to_json().encode(), self.window_start, [])

    def to_json(self) -> str:
        """Write the value of the record: a JSON object in ASCII, on one line."""
        value: dict[str, object] = {
            "window_start": format_time(self.window_start),
            "window_end": format_time(self.window_end),
            "error_code": self.error_code,
            "failures": self.failures,
            "total": self.total,
            "rate": self.rate,
            "complete": self.complete,
            "revision": self.revision,
            "late": self.late,
        }
        if self.waiting.number:
            value |= {"waiting_for": self.waiting.partitions, "waiting_for_total": self.waiting.number}
        return json.dumps(value)

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
            waiting=WaitingFor(tuple(row.get("waiting_for", ())), row.get("waiting_for_total", 0)),
        )
