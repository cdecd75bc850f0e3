"""The rows of `failure-rates`: each judged by itself, and the newest of a window beside a recount of its deletions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pipeline.audit.findings import Finding, FindingKind, Findings

SUCCESS = ""
_INSTANT = "%Y-%m-%dT%H:%M:%SZ"
_ROW_FIELDS = {
    "window_start", "window_end", "error_code", "failures", "total", "rate", "complete", "revision", "late"
}  # fmt: skip
_WAITING_FIELDS = {"waiting_for", "waiting_for_total"}  # Of a window that is held back; other rows have neither.
_WAITING_FOR_MAX = 20


class FoundRow(NamedTuple):
    """What of a row its successors and the recount are compared with."""

    failures: int
    total: int
    complete: bool
    revision: int
    late: int
    waiting_for: tuple[int, ...]
    offset: int


class RateProblem(NamedTuple):
    """What is wrong with a row, and the offset of that row if there is one."""

    offset: int | None
    what: str


@dataclass(slots=True)
class FoundRows:
    """The newest row of each window and ErrorCode (None: all codes); windows from `since_ms` on are kept."""

    topic: str
    width_ms: int
    since_ms: int
    findings: Findings
    newest: dict[int, dict[str | None, FoundRow]] = field(default_factory=dict)

    def take(self, record: Any) -> None:
        """Take in the next record of the topic, and report what no worker could have written."""
        try:
            value = json.loads(record.value)
            window = _parse(value["window_start"])
            if window < self.since_ms:
                return
            problems = self._problems(record, value, window)
            row = FoundRow(
                value["failures"],
                value["total"],
                value["complete"],
                value["revision"],
                value["late"],
                (*value.get("waiting_for", ()), -1, value.get("waiting_for_total", 0)),
                record.offset,
            )
            code = value["error_code"]
            rows = self.newest.setdefault(window, {})
            before = rows.get(code)
            if before is not None and before[:6] == row[:6]:
                self._find(record.offset, f"{_text(record.key)}: says what the row before it says", FindingKind.DOUBLED)
            elif before is not None and any(new < old for new, old in zip(row[1:5], before[1:5], strict=True)):
                problems.append(f"goes back behind the row at offset {before.offset}")
            rows[code] = row
        except (ValueError, KeyError, TypeError) as error:
            problems = [f"not a row ({error!r})"]
        for problem in problems:
            self._find(record.offset, f"{_text(record.key)}: {problem}", FindingKind.CHANGED)

    def _problems(self, record: Any, value: dict[str, Any], window: int) -> list[str]:
        found = []
        code, total, failures = value["error_code"], value["total"], value["failures"]
        key = f"{value['window_start']}|{code or ''}"
        if record.key != key.encode():
            found.append(f"the value belongs under the key {key}")
        if value.keys() not in (_ROW_FIELDS, _ROW_FIELDS | _WAITING_FIELDS):
            found.append(f"its fields are {sorted(value)}")
        if window % self.width_ms or value["window_end"] != _show(window + self.width_ms):
            found.append(f"{value['window_start']} to {value['window_end']} is no window")
        if record.timestamp != window:
            found.append(f"timestamp {record.timestamp} instead of {window}")
        if not 0 <= failures <= total or total < 1 or (code is not None and failures == 0):
            found.append(f"{failures} failures of {total}")
        elif not math.isclose(value["rate"], failures / total):
            found.append(f"rate {value['rate']} instead of {failures / total}")
        late, revision, complete = value["late"], value["revision"], value["complete"]
        if not isinstance(complete, bool) or not 0 <= revision <= late < total or (late > 0) != (revision > 0):
            found.append(f"complete {complete}, revision {revision}, late {late}")
        elif late and not complete:
            found.append(f"{late} late, and the window is not complete")
        if "waiting_for" in value:
            waiting, number = value["waiting_for"], value["waiting_for_total"]
            if (
                complete
                or waiting != sorted({*waiting})
                or len(waiting) != min(number, _WAITING_FOR_MAX)
                or not waiting
            ):
                found.append(f"complete {complete}, waiting for {waiting} of {number}")
        return found

    def compare(self, window: int, counts: Mapping[str, int], watermark: int) -> list[RateProblem]:
        """
        Return what is wrong with the newest rows of *window*, given its deletions by ErrorCode.

        Args:
            watermark: Windows that end before it or at it must be complete (ms).
        """
        rows = self.newest.get(window, {})
        total = sum(counts.values())
        wanted: dict[str | None, int] = {code: number for code, number in counts.items() if code != SUCCESS and number}
        if total:
            wanted[None] = total - counts.get(SUCCESS, 0)
        found = []
        for code in sorted(wanted.keys() | rows.keys(), key=lambda code: (code is not None, code)):
            key = f"{_show(window)}|{code or ''}"
            row = rows.get(code)
            if row is None:
                found.append(RateProblem(None, f"{key}: no row, a recount gives {wanted[code]} failures of {total}"))
            elif code not in wanted:
                found.append(RateProblem(row.offset, f"{key}: should not exist, a recount gives no such deletion"))
            elif (row.failures, row.total) != (wanted[code], total):
                has, wants = f"{row.failures} failures of {row.total}", f"{wanted[code]} of {total}"
                found.append(RateProblem(row.offset, f"{key}: {has}, a recount gives {wants}"))
        return found + self._state_problems(window, rows, watermark)

    def _state_problems(self, window: int, rows: Mapping[str | None, FoundRow], watermark: int) -> list[RateProblem]:
        """All rows of a window are written together, so they say the same of it."""
        states = {row[2:6] for row in rows.values()}
        newest = max((row.offset for row in rows.values()), default=None)
        if len(states) > 1:
            differ = f"{_show(window)}: its rows differ in complete, revision, late or waiting_for"
            return [RateProblem(newest, differ)]
        if states and window + self.width_ms <= watermark and not next(iter(states))[0]:
            return [
                RateProblem(newest, f"{_show(window)}: not complete, but event time passed its end in all partitions")
            ]
        return []

    def _find(self, offset: int, what: str, kind: FindingKind) -> None:
        self.findings.add(Finding(kind=kind, topic=self.topic, partition=0, offset=offset, what=what))


def _parse(text: str) -> int:
    return int(datetime.strptime(text, _INSTANT).replace(tzinfo=UTC).timestamp()) * 1000


def _show(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime(_INSTANT)


def _text(key: bytes | None) -> str:
    return "null" if key is None else key.decode(errors="replace")
