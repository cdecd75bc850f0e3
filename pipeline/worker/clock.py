"""
What time it is for Kafka, as it stamped what was written last.

An idle partition's watermark follows a clock and is never taken back, so it must not be that of one worker's machine.
"""

from __future__ import annotations

import time

from pipeline.core.contract import NO_TIMESTAMP


class KafkaClock:
    """Kafka's clock, once it is known."""

    def __init__(self) -> None:
        self._offset: int | None = None
        """How far it is ahead of this machine's monotonic clock, which no one sets. ms."""

    def now(self) -> int | None:
        """Return the time in ms since the epoch; None: not known yet."""
        return None if self._offset is None else self._offset + monotonic_ms()

    def observe(self, stamp: int) -> None:
        """
        Take in the time that Kafka wrote something at just now.

        NO_TIMESTAMP: its topic has no clock, as topics of an earlier version; this machine's has to do.
        """
        known = time.time_ns() // 1_000_000 if stamp == NO_TIMESTAMP else stamp
        self._offset = known - monotonic_ms()


def monotonic_ms() -> int:
    """Return the time since some instant, in ms; it goes on evenly."""
    return time.monotonic_ns() // 1_000_000
