"""The rule of docs/contract.md, "Time", for timestamps that a wrong clock made, as a recount has it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HOUR = 3_600_000


def judged_at(stamps: Iterable[int]) -> Iterator[int]:
    """Yield the time by which each raw record is judged, given their timestamps in order."""
    stream_time = before = -1
    for stamp, records in groupby(stamps):
        reach = stream_time + HOUR
        if stream_time == -1 or stamp <= reach:
            stream_time = max(stream_time, stamp)
        elif before > reach:
            lower, higher = sorted((before, stamp))
            stream_time = higher if higher - lower <= HOUR else lower
        before = stamp
        for _ in records:
            yield max(stream_time, stamp)
