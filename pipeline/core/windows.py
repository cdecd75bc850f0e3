"""
Event time: how instants are written, which tumbling window holds them, and how far a watermark has come.

Every time is an int of milliseconds since the Unix epoch, UTC: Kafka's own unit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CLOCK_SKEW = 3_600_000  # The most by which two clocks of a deployment differ while rows stay right.
NEVER = -1  # A time before any other: no record seen, nothing passed.

_EVENT_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePolicy:
    """
    The rules of time of a deployment, in milliseconds. Changing one mid-stream changes decisions: see docs/contract.md.

    Args:
        window: Width of the tumbling windows, aligned to the epoch.
        horizon: How far behind the stream time an event is still accepted and remembered.
        future: How far ahead of the stream time an event may be.
        delay: How long a window waits for late events once event time has passed its end.
    """

    window: int = 60_000
    horizon: int = 8 * 86_400_000
    future: int = 600_000
    delay: int = 30_000

    def window_of(self, at: int) -> int:
        """Return the start of the half-open window [start, start + width) that contains *at*."""
        return at - at % self.window

    def expiry(self, stream_time: int) -> int:
        """Return E: events before it are expired. A window start, so that no window is ever half remembered."""
        return self.window_of(stream_time - self.horizon)

    def latest(self, stream_time: int) -> int:
        """Return the last instant an event may carry: later ones lie in the future."""
        return stream_time + self.future

    def final_before(self, stream_time: int, watermark: int) -> int:
        """
        Return before when no count of this partition can change any more.

        An idle partition's stream time stands still while its watermark follows the clock, so the later of the two
        counts. CLOCK_SKEW keeps a clock that runs ahead of the broker's from ending a window too early.
        """
        return self.expiry(max(stream_time, watermark + self.delay) - CLOCK_SKEW)

    def watermark(self, highest: int, stream_time: int) -> int:
        """Return up to where event time is believed complete, given the highest EventTime and the stream time."""
        return min(highest, stream_time) - self.delay


def parse_time(text: str) -> int:
    """
    Read an EventTime.

    Args:
        text: Exactly ``yyyy-MM-ddTHH:mm:ssZ``.

    Returns:
        Milliseconds since the epoch.

    Raises:
        ValueError: Any other form, or no such day or hour.

    Source: VOD event notification, "EventTime: UTC, yyyy-MM-ddTHH:mm:ssZ".
    """
    if not _EVENT_TIME.fullmatch(text):
        raise ValueError("not of the form yyyy-MM-ddTHH:mm:ssZ")
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


def format_time(at: int) -> str:
    """Write *at*, a whole number of seconds in ms, as ``yyyy-MM-ddTHH:mm:ssZ``: the inverse of parse_time."""
    return (EPOCH + timedelta(milliseconds=at)).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
