"""The consumer group's offsets: what the operator's `offsets` commands do when the log and the group disagree."""

from __future__ import annotations

from typing import Literal, NamedTuple

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import KafkaError, NoError
from kafka.structs import OffsetAndMetadata

from pipeline.kafka import access
from pipeline.service.errors import OperatorError
from pipeline.service.settings import Settings


class OffsetsError(OperatorError):
    """The offsets can't be read or set."""


class Position(NamedTuple):
    """One raw partition: what its log holds, and where the group goes on (None: nothing committed)."""

    partition: int
    start: int
    end: int
    committed: int | None


def positions(settings: Settings) -> tuple[Position, ...]:
    """Return the position of every raw partition; raises OffsetsError, and AccessError if Kafka refuses us."""
    access.require_now(settings.kafka)
    tps = [TopicPartition(settings.kafka.topics.raw, number) for number in range(settings.kafka.partitions)]
    try:
        admin = KafkaAdminClient(**settings.kafka.client_options())
        try:
            starts = admin.list_partition_offsets(dict.fromkeys(tps, OffsetSpec.EARLIEST))
            ends = admin.list_partition_offsets(dict.fromkeys(tps, OffsetSpec.LATEST))
            group = admin.list_group_offsets({settings.worker.group: tps})[settings.worker.group]
        finally:
            admin.close()
    except KafkaError as error:
        raise OffsetsError(f"cannot read offsets from {settings.kafka.bootstrap_servers}: {error}") from error
    committed = {tp: found.offset for tp, found in group.items() if found.offset >= 0}
    return tuple(Position(tp.partition, starts[tp].offset, ends[tp].offset, committed.get(tp)) for tp in tps)


def reset(settings: Settings, partition: int, to: Literal["earliest", "latest"]) -> Position:
    """
    Set where the accept stage goes on in one raw partition, and drop the state committed with the old offset.

    The state is then folded from all of `accepted`, so what was accepted once is not accepted again.

    Raises:
        OffsetsError: no such partition, or workers are still running.
    """
    found = {position.partition: position for position in positions(settings)}
    if partition not in found:
        raise OffsetsError(f"there is no partition {partition}; there are 0 to {settings.kafka.partitions - 1}")
    offset = found[partition].start if to == "earliest" else found[partition].end
    tp = TopicPartition(settings.kafka.topics.raw, partition)
    try:
        admin = KafkaAdminClient(**settings.kafka.client_options())
        try:
            answer = admin.alter_group_offsets(settings.worker.group, {tp: OffsetAndMetadata(offset, "", -1)})[tp]
        finally:
            admin.close()
    except KafkaError as error:
        raise OffsetsError(f"cannot set the offset: {error}") from error
    if answer is not NoError:
        raise OffsetsError(f"Kafka refused ({answer.__name__}): stop every worker of {settings.worker.group} first")
    return found[partition]._replace(committed=offset)
