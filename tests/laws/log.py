"""The model's logs: records, gaps, a last stable offset, retention and compaction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Record:
    """
    A record as a reader gets it; a control record is a mere offset.

    `producer` is the transactional id it was written under, if any: the next marker of that id decides on it.
    """

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    topic: str = ""
    producer: str | None = None
    is_open: bool = False
    is_aborted: bool = False
    is_control: bool = False
    was_committed: bool = False
    """Though its marker was forgotten."""

    @property
    def is_visible(self) -> bool:
        return not (self.is_control or self.is_open or self.is_aborted)


@dataclass(slots=True)
class PartitionLog:
    """The records of a partition; `start` rises with retention, offsets in between may be missing."""

    records: list[Record] = field(default_factory=list)
    start: int = 0
    end: int = 0

    @property
    def stable_end(self) -> int:
        """The last stable offset: up to here read_committed readers get."""
        return next((record.offset for record in self.records if record.is_open), self.end)

    def append(self, timestamp: int, key: bytes | None, value: bytes | None, *more: Any, **changed: Any) -> None:
        self.records.append(Record(self.end, timestamp, key, value, *(more or ([],)), **changed))
        self.end += 1

    def committed(self, since: int = 0, until: int | None = None) -> list[Record]:
        """Return what a read_committed reader gets of [since, until)."""
        end = self.stable_end if until is None else min(until, self.stable_end)
        return [record for record in self.records if since <= record.offset < end and record.is_visible]

    def undecided(self) -> list[Record]:
        """Return the records of open transactions."""
        return [record for record in self.records if record.is_open]

    def mark(self, producer: str, now: int, *, commit: bool) -> None:
        """Decide on all that *producer* has open here."""
        for record in self.records:
            if record.is_open and record.producer == producer:
                record.is_open, record.is_aborted = False, not commit
        self.append(now, None, None, is_control=True)

    def offset_for_time(self, timestamp: int) -> int:
        """Return the first offset with at least this timestamp, or the end."""
        return next((r.offset for r in self.records if not r.is_control and r.timestamp >= timestamp), self.end)

    def drop_before(self, offset: int) -> None:
        """Do what retention does."""
        self.start = max(self.start, offset)
        self.records = [record for record in self.records if record.offset >= offset]

    def compact(self) -> None:
        """Remove what a later record of its key replaces, as far as all is decided; the offsets stay missing."""
        end = self.stable_end
        last = {record.key: record.offset for record in self.committed()}
        self.records = [
            record
            for record in self.records
            if record.offset >= end or (record.is_visible and last[record.key] == record.offset)
        ]
