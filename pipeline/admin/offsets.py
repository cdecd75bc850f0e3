"""The consumer group's offsets: what the operator's `offsets` commands do when the log and the group disagree."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pipeline.core.offset_metadata import owner_of, with_owner
from pipeline.kafka.tools.cluster import Cluster, CommittedOffset, connect
from pipeline.service.errors import OperatorError
from pipeline.service.settings import Settings


class OffsetsError(OperatorError):
    """There is no such partition."""


class Position(NamedTuple):
    """One raw partition: what its log holds, and where the group goes on (None: nothing committed)."""

    partition: int
    start: int
    end: int
    committed: int | None


def positions(settings: Settings) -> tuple[Position, ...]:
    """Return the position of every raw partition; raises ClusterError, and AccessError if Kafka refuses us."""
    with connect(settings.kafka) as cluster:
        return _look_up(cluster, settings)[0]


def _look_up(cluster: Cluster, settings: Settings) -> tuple[tuple[Position, ...], dict[int, CommittedOffset]]:
    """Return the position of every raw partition, and what is committed, by partition."""
    raw, group = settings.kafka.topics.raw, settings.worker.group
    bounds = cluster.bounds(raw)
    committed = cluster.committed(group, raw, len(bounds))
    positions = tuple(
        Position(number, at.start, at.end, committed[number].offset if number in committed else None)
        for number, at in bounds.items()
    )
    return positions, committed


def reset(settings: Settings, partition: int, to: Literal["earliest", "latest", "committed"]) -> Position:
    """
    Set where the accept stage goes on in one raw partition, and drop the state committed with the old offset.

    The state is then restored from all of `accepted`, so what was accepted once is not accepted again. Who committed
    last is still named, and fenced by who goes on: it may be a worker that only stands still.

    Raises:
        OffsetsError: no such partition.
        ClusterError: workers are still running, or Kafka refuses for another reason.
    """
    with connect(settings.kafka) as cluster:
        looked_up, committed = _look_up(cluster, settings)
        found = {position.partition: position for position in looked_up}
        if partition not in found:
            raise OffsetsError(f"there is no partition {partition}; there are 0 to {len(found) - 1}")
        position = found[partition]
        known = position.start if position.committed is None else position.committed
        offset = {"earliest": position.start, "latest": position.end, "committed": known}[to]
        metadata = with_owner("", owner_of(committed[partition].metadata) if partition in committed else "")
        at = CommittedOffset(offset, metadata)
        cluster.set_committed(settings.worker.group, settings.kafka.topics.raw, partition, at)
    return position._replace(committed=offset)
