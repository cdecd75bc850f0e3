"""
What time it is by the timestamps of a partition's raw records, of which one may be a wrong clock's.

A broker stamps all records of a batch alike, so it is a stamp that is doubted and not a record.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.core.windows import CLOCK_SKEW, NEVER


@dataclass(slots=True)
class LogClock:
    """
    The stream time S, and what is known beside it.

    Attributes:
        stream_time: S. It never falls, and jumps by more than CLOCK_SKEW only to what two stamps in succession say.
        refused: The highest stamp above S that was not believed, or not yet.
        unconfirmed: The last stamp, where it lies above S + CLOCK_SKEW and waits for the next one; else NEVER.
        jumps: How many stamps were not confirmed, until someone takes them over.
    """

    stream_time: int = NEVER
    refused: int = NEVER
    unconfirmed: int = NEVER
    jumps: int = 0

    @property
    def newest(self) -> int:
        """The highest stamp so far, believed or not; NEVER before the first."""
        return max(self.stream_time, self.refused)

    def take(self, timestamp: int) -> int:
        """
        Take in the next raw record's timestamp; the same one again changes nothing.

        Returns:
            The time by which that record is judged: the later of S and its own stamp.
        """
        if self.unconfirmed not in (NEVER, timestamp):
            self._resolve(timestamp)
        stream_time = self.stream_time
        if timestamp <= stream_time:
            return stream_time
        if stream_time == NEVER or timestamp <= stream_time + CLOCK_SKEW:
            self.stream_time = timestamp
        else:
            self.unconfirmed = timestamp
            self.refused = max(self.refused, timestamp)
        return timestamp

    def _resolve(self, timestamp: int) -> None:
        """Believe the unconfirmed stamp as far as its successor does, or count it."""
        if timestamp > self.stream_time + CLOCK_SKEW:
            self.stream_time = min(timestamp, self.unconfirmed)
        if self.unconfirmed > self.stream_time + CLOCK_SKEW:
            self.jumps += 1
        else:
            self.stream_time = max(self.stream_time, self.unconfirmed)
        self.unconfirmed = NEVER
