"""
The numbers of the page that are no rows: outcome totals, lag, watermark and spool.

Pure. Totals and watermarks are what the worker committed together with the records
(core.offset_metadata.to_metadata), so they equal the topics whichever workers run; the spool is what the bridge says of
itself.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from pipeline.core.offset_metadata import from_metadata
from pipeline.core.outcome import Outcome, OutcomeKey, Reason
from pipeline.core.windows import NEVER, TimePolicy

SPOOL_METRICS = "vod_pipeline_spool_"
_RECORDS, _BYTES, _OLDEST = (f"{SPOOL_METRICS}{name}" for name in ("records", "bytes", "oldest_timestamp_seconds"))


class Raw(NamedTuple):
    """A partition of raw: its log, and what the accept stage committed for it (None, "": nothing)."""

    partition: int
    start: int
    end: int
    committed: int | None
    metadata: str


class PartitionProgress(NamedTuple):
    """How far a partition of raw has been decided on."""

    partition: int
    end: int
    committed: int | None
    lag: int


class Spooled(NamedTuple):
    """What waits on the bridge's disk; `oldest` is when the oldest was received, ms since the epoch."""

    records: int
    bytes: int
    oldest: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """
    Args:
        totals: Records by outcome, since the first one ever.
        watermark: Up to when event time is complete in every partition, ms; None while one has not begun.
        spooled: None if the bridge does not answer, or has no spool.
    """

    totals: dict[OutcomeKey, int]
    positions: tuple[PartitionProgress, ...]
    watermark: int | None
    spooled: Spooled | None

    def to_json(self) -> bytes:
        """Write them as a server-sent event needs it: one line of ASCII. What can be 0 is 0."""
        outcomes: Counter[str] = Counter({outcome.value: 0 for outcome in Outcome})
        reasons: Counter[str] = Counter({reason.value: 0 for reason in Reason})
        event_types: Counter[str] = Counter()
        for (outcome, reason), number in sorted(self.totals.items()):
            outcomes[outcome] += number
            if reason:
                (reasons if outcome is Outcome.REJECTED else event_types)[reason] += number
        shown = {
            "received": outcomes.total(),
            "outcomes": outcomes,
            "reasons": reasons,
            "event_types": event_types,
            "lag": sum(position.lag for position in self.positions),
            "positions": [position._asdict() for position in self.positions],
            "watermark": self.watermark,
            "spooled": self.spooled and self.spooled._asdict(),
        }
        return json.dumps(shown, separators=(",", ":")).encode()


def stats_of(raws: Iterable[Raw], spooled: Spooled | None, policy: TimePolicy) -> Stats:
    """Add up what was committed for all partitions."""
    totals: Counter[OutcomeKey] = Counter()
    positions: list[PartitionProgress] = []
    watermarks: list[int] = []
    for raw in raws:
        state = from_metadata(raw.partition, policy, raw.metadata)
        totals.update(state.totals)
        watermarks.append(state.watermark)
        lag = raw.end - (raw.start if raw.committed is None else max(raw.start, raw.committed))
        positions.append(PartitionProgress(raw.partition, raw.end, raw.committed, max(0, lag)))
    lowest = min(watermarks, default=NEVER)
    return Stats(
        totals=dict(totals),
        positions=tuple(positions),
        watermark=None if lowest == NEVER else lowest,
        spooled=spooled,
    )


def read_spooled(metrics: str) -> Spooled | None:
    """Read the spool's state out of the text of the bridge's /metrics; None if it says nothing of one."""
    lines = "\n".join(line for line in metrics.splitlines() if line.startswith(SPOOL_METRICS))
    values: Counter[str] = Counter()
    for family in text_string_to_metric_families(f"{lines}\n"):
        for sample in family.samples:
            values[sample.name] += sample.value  # type: ignore[assignment]  # A Counter adds floats as well.
    if _RECORDS not in values:
        return None
    oldest = values[_OLDEST]
    return Spooled(int(values[_RECORDS]), int(values[_BYTES]), int(oldest * 1000) or None)
