"""
The newest windows of failure-rates, as the page shows them.

Pure: it knows the rows of failure-rates (core.rate_rows.FailureRateRow), not how they arrive.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import NamedTuple

from pipeline.core.rate_rows import FailureRateRow

CODES_MAX = 20  # Named one by one; the failures of all others are added up. ErrorCode is an open set.
CODES_KEPT_MAX = 1000  # Of a window: what a sender makes up beyond adds to the others, and costs no memory.


class WindowRow(NamedTuple):
    """The row for all codes of a window; times are ms since the epoch; `waiting_for` as in docs/contract.md."""

    start: int
    end: int
    total: int
    failures: int
    rate: float
    complete: bool
    revision: int
    late: int
    waiting_for: tuple[int, ...]
    waiting_for_total: int


class Share(NamedTuple):
    """The failures of one ErrorCode in one window, and their part of all its deletions."""

    failures: int
    rate: float


class Window(NamedTuple):
    """A window as it is shown: `shares` are in the order of Rates.codes, `others` is of all codes but these."""

    row: WindowRow
    shares: tuple[Share, ...]
    others: Share


class Rates(NamedTuple):
    """
    What is shown: `codes` with the most failures in `windows` first; windows oldest first.

    A window without deletions has no rows, so there may be gaps. `code_count` counts the unnamed codes, too.
    """

    codes: tuple[str, ...]
    code_count: int
    windows: tuple[Window, ...]

    def to_json(self) -> bytes:
        """Write it as a server-sent event needs it: one line of ASCII."""
        windows = [{**row._asdict(), "shares": shares, "others": others} for row, shares, others in self.windows]
        shown = {"codes": self.codes, "code_count": self.code_count, "windows": windows}
        return json.dumps(shown, separators=(",", ":")).encode()


class Windows:
    """The newest row of each key, for the windows that lie at most `windows_max` windows back from the newest."""

    def __init__(self, *, windows_max: int) -> None:
        self._windows_max = windows_max
        self._newest = 0
        self._rows: dict[int, WindowRow] = {}
        self._shares: dict[int, dict[str, Share]] = {}

    def add(self, value: bytes) -> None:
        """Take a row in the topic's order: it replaces an earlier one with the same key."""
        row = FailureRateRow.decode(value)
        start, end, code = row.window_start, row.window_end, row.error_code
        if start > self._newest:
            self._newest = start
            self._forget(before=start - (self._windows_max - 1) * (end - start))
        elif start <= self._newest - self._windows_max * (end - start):
            return
        if code is None:
            self._rows[start] = WindowRow(
                start, end, row.total, row.failures, row.rate, row.complete, row.revision, row.late, *row.waiting
            )
            return
        shares = self._shares.setdefault(start, {})
        if code in shares or len(shares) < CODES_KEPT_MAX:
            shares[code] = Share(row.failures, row.rate)

    def _forget(self, *, before: int) -> None:
        self._rows = {start: row for start, row in self._rows.items() if start >= before}
        self._shares = {start: shares for start, shares in self._shares.items() if start >= before}

    def shown(self) -> Rates:
        """Return what the page shows now."""
        failures: Counter[str] = Counter()
        for start in self._rows:
            failures.update({code: share.failures for code, share in self._shares.get(start, {}).items()})
        codes = tuple(sorted(failures, key=lambda code: (-failures[code], code))[:CODES_MAX])
        windows = tuple(self._window(self._rows[start], codes) for start in sorted(self._rows))
        return Rates(codes, len(failures), windows)

    def _window(self, row: WindowRow, codes: tuple[str, ...]) -> Window:
        by_code = self._shares.get(row.start, {})
        shares = tuple(by_code.get(code, Share(0, 0.0)) for code in codes)
        others = max(0, row.failures - sum(share.failures for share in shares))
        return Window(row, shares, Share(others, others / row.total if row.total else 0.0))
