"""
A limit on rejections: above it a partition pauses, so that a bad deploy does not move the whole of raw to rejected.

Pure: its minute is one of raw's timestamps, so a backlog is judged as it would have been when it arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from pipeline.core.windows import CLOCK_SKEW, NEVER, format_time

MINUTE_MS = 60_000


class Stamped(Protocol):
    """A record with the broker's timestamp in ms."""

    timestamp: int


S = TypeVar("S", bound=Stamped)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionLimitPolicy:
    """
    When to pause.

    Args:
        share_max: The share of a minute's records that may be rejected, over 0 .. 1; 1 is no limit.
        records_min: How many records a minute must have had before its share counts: of two, one is half.
    """

    share_max: float = 1.0
    records_min: int = 1000

    @property
    def is_on(self) -> bool:
        return self.share_max < 1


NO_REJECTION_LIMIT = RejectionLimitPolicy()


class Trip(NamedTuple):
    """The minute (its start, in ms) in which the rejection limit was tripped, and what it had seen up to there."""

    minute: int
    received: int
    rejected: int

    def __str__(self) -> str:
        share = self.rejected / self.received
        return f"{self.rejected} of {self.received} records ({share:.0%}) of the minute {format_time(self.minute)}"


@dataclass(slots=True)
class RejectionLimit:
    """
    Counts one partition's records by minute; `tripped` once a share was too high.

    Its counts are not kept: a partition that is opened again, after a fix or with another limit, begins at none.
    """

    policy: RejectionLimitPolicy
    tripped: Trip | None = None
    _minute: int = field(default=NEVER, init=False)
    _received: int = field(default=0, init=False)
    _rejected: int = field(default=0, init=False)

    def watch(self, records: Iterable[S]) -> Iterable[S]:
        """
        Count *records* while they are iterated; a minute begins with the first timestamp in it.

        It does not end by a timestamp that is a little before it, as clocks differ; one far before it shows that it was
        a wrong clock's.
        """
        return self._counted(records) if self.policy.is_on else records

    def _counted(self, records: Iterable[S]) -> Iterator[S]:
        for record in records:
            if not -CLOCK_SKEW <= record.timestamp - self._minute < MINUTE_MS:
                self._minute, self._received, self._rejected = record.timestamp - record.timestamp % MINUTE_MS, 0, 0
            self._received += 1
            yield record

    def reject(self) -> None:
        """Count the record that `watch` yielded last as rejected; only this can raise the share."""
        self._rejected += 1
        is_over = self._received >= self.policy.records_min and self._rejected > self.policy.share_max * self._received
        if is_over and self.tripped is None:
            self.tripped = Trip(self._minute, self._received, self._rejected)
