"""
The windows and their rows: rows follow the deletions within a moment, so both are read on until they agree.

A row that differs is wrong only if there was nothing left for the report agent to do about it.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from pipeline.audit import join
from pipeline.audit.findings import AuditReport, Finding, FindingKind
from pipeline.audit.partition import Result
from pipeline.audit.rates import FoundRows, RateProblem
from pipeline.kafka.tools.cluster import Bounds
from pipeline.kafka.tools.reader import Reader
from pipeline.service.settings import Settings

POLL_SECONDS = 0.2
KEPT_MS = 30 * 86_400_000  # What is older retention may have taken a part of. Source: docs/contract.md, "Topics".
HOUR_MS = 3_600_000


@dataclass(slots=True)
class Waiting:
    """What the report agent has still to take in: counts of these windows, and watermarks that complete others."""

    windows: set[int]
    is_watermark: bool


@dataclass(slots=True)
class RecountedWindows:
    """
    All deletions of all partitions by window, up to where `accepted` was read, and the rows that should show them.

    Args:
        judged: The windows to compare; None: all that accepted or failure-rates name.
        watermark: Windows up to it must be complete; -1 if that is not known.
    """

    settings: Settings
    reader: Reader
    judged: set[int] | None
    watermark: int
    rates: FoundRows
    counts: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    read_until: dict[int, int] = field(default_factory=dict)
    rates_read_until: int | None = None
    changing: set[int] = field(default_factory=set)

    @classmethod
    def of(
        cls, settings: Settings, reader: Reader, results: list[Result], report: AuditReport, *, is_to_the_end: bool
    ) -> RecountedWindows:
        """Begin with what the passes over the partitions counted."""
        since_ms = int(time.time() * 1000) - KEPT_MS + HOUR_MS
        judged = None
        if any(result.scope.since_ms is not None for result in results) or not is_to_the_end:
            judged = {window for result in results for window in result.judged if window >= since_ms}
            since_ms = min(judged, default=since_ms)
        topic, width_ms = settings.kafka.topics.failure_rates, settings.worker.window_seconds * 1000
        watermark = min((result.watermark for result in results), default=-1) if is_to_the_end else -1
        rates = FoundRows(topic, width_ms, since_ms, report.findings)
        windows = cls(settings, reader, judged, watermark, rates)
        for result in results:
            windows.read_until[result.scope.partition] = result.scope.accepted.end
            for (window, code), number in result.counts.items():
                windows.counts[window][code] += number
        return windows

    def wait_until_settled(self, report: AuditReport, timeout_seconds: float) -> None:
        """Compare until all rows agree or *timeout_seconds* are over, and write the outcome into *report*."""
        deadline = time.monotonic() + timeout_seconds
        ahead = self.reader.cluster.bounds(self.settings.kafka.topics.partial_counts)[0]
        self._read_rates()
        judged = self._judged()
        open_windows = {window: problems for window in judged if (problems := self._problems(window))}
        while open_windows and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            self._read_accepted()
            self._read_rates()
            open_windows = {window: problems for window in open_windows if (problems := self._problems(window))}
        waiting = self._waiting(ahead) if open_windows else Waiting(set(), is_watermark=False)
        for window in sorted(open_windows):
            problems = self._problems(window, watermark=-1 if waiting.is_watermark else self.watermark)
            if window in self.changing or window in waiting.windows or not problems:
                report.windows_pending += 1
                continue
            for problem in problems:
                report.findings.add(
                    Finding(
                        kind=FindingKind.COUNT,
                        topic=self.rates.topic,
                        partition=0,
                        offset=problem.offset,
                        what=problem.what,
                    )
                )
        report.windows = len(judged)

    def _judged(self) -> list[int]:
        judged = self.judged
        if judged is None:
            judged = {
                window for window in self.counts.keys() | self.rates.newest.keys() if window >= self.rates.since_ms
            }
        return sorted(judged)

    def _problems(self, window: int, watermark: int | None = None) -> list[RateProblem]:
        known = self.watermark if watermark is None else watermark
        return self.rates.compare(window, self.counts.get(window, {}), known)

    def _read_rates(self) -> None:
        bounds = self.reader.cluster.bounds(self.rates.topic)[0]
        start = bounds.start if self.rates_read_until is None else self.rates_read_until
        for records in self.reader.read(self.rates.topic, 0, start, bounds.end):
            for record in records:
                self.rates.take(record)
        self.rates_read_until = bounds.end

    def _read_accepted(self) -> None:
        """Count what came since: its windows are changing."""
        topic = self.settings.kafka.topics.accepted
        for partition, bounds in self.reader.cluster.bounds(topic).items():
            for records in self.reader.read(topic, partition, self.read_until[partition], bounds.end):
                for record in records:
                    window = record.timestamp - record.timestamp % self.rates.width_ms
                    self.counts[window][join.fingerprint_and_code(record)[1]] += 1
                    self.changing.add(window)
            self.read_until[partition] = bounds.end

    def _waiting(self, ahead: Bounds) -> Waiting:
        """Return what of *ahead*, what partial-counts held when the comparison began, the report agent has not read."""
        topic, waiting = self.settings.kafka.topics.partial_counts, Waiting(set(), is_watermark=False)
        committed = self.reader.cluster.committed(self.settings.worker.group, topic, 1).get(0)
        start = ahead.start if committed is None else max(committed.offset, ahead.start)
        for records in self.reader.read(topic, 0, start, ahead.end):
            for record in records:
                first, _, rest = record.key.decode().partition("|")
                if first == "watermark":
                    waiting.is_watermark = True
                else:
                    waiting.windows.add(int(rest.partition("|")[0]))
        return waiting
