"""Kafka as the audit reads it, with kafka-python: where logs begin and end, what is committed, and records in order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from pipeline.service.errors import OperatorError
from pipeline.service.settings import Settings

STALL_SECONDS_MAX = 60.0  # An open transaction holds a reader back for its timeout, 15 s at most.
POLL_MS = 200
FETCH_BYTES = 4 << 20
POLL_RECORDS_MAX = 20_000


class AuditError(OperatorError):
    """The audit can't be made."""


class Committed(NamedTuple):
    """What the worker's group committed for a partition: the next offset, and the metadata beside it."""

    offset: int
    metadata: str


class Bounds(NamedTuple):
    """The first offset of a partition's log, and the one behind its last record, committed or not."""

    start: int
    end: int


class Reader:
    """Reads the topics of one deployment."""

    def __init__(self, settings: Settings) -> None:
        self._options = settings.kafka.client_options()
        self._group = settings.worker.group
        self.records = 0

    def committed(self, topic: str, partitions: int) -> dict[int, Committed]:
        """Return what the worker's group committed, by partition; those without an offset are left out."""
        tps = [TopicPartition(topic, partition) for partition in range(partitions)]
        with _kafka_answers():
            admin = KafkaAdminClient(**self._options)
            try:
                found = admin.list_group_offsets({self._group: tps})[self._group]
            finally:
                admin.close()
        return {tp.partition: Committed(at.offset, at.metadata or "") for tp, at in found.items() if at.offset >= 0}

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """
        Return where the log of each partition begins and ends now.

        The end is the high watermark, and not the last stable offset: a transaction whose offset commit is visible
        already may still wait for its marker in the outputs.
        """
        with _kafka_answers(), self._consumer("read_uncommitted") as consumer:
            found = consumer.partitions_for_topic(topic)
            if not found:
                raise AuditError(f"there is no topic {topic}: see vod-pipeline topics plan")
            tps = [TopicPartition(topic, partition) for partition in sorted(found)]
            starts, ends = consumer.beginning_offsets(tps), consumer.end_offsets(tps)
            return {tp.partition: Bounds(starts[tp], ends[tp]) for tp in tps}

    def offset_at(self, topic: str, partition: int, at: int) -> int | None:
        """Return the first offset whose record has the timestamp *at* (ms) or a later one; None if none has."""
        tp = TopicPartition(topic, partition)
        with _kafka_answers(), self._consumer("read_uncommitted") as consumer:
            found = consumer.offsets_for_times({tp: max(at, 0)})[tp]
        return None if found is None else int(found.offset)

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[Any]]:
        """
        Yield the committed records with offsets in [start, end), in order, in lists.

        Raises:
            AuditError: nothing comes for STALL_SECONDS_MAX, such as behind a transaction that nobody ends.
        """
        if start >= end:
            return
        tp = TopicPartition(topic, partition)
        with _kafka_answers(), self._consumer("read_committed") as consumer:
            consumer.assign([tp])
            consumer.seek(tp, start)
            position, moved_at = start, time.monotonic()
            while position < end:
                records = consumer.poll(timeout_ms=POLL_MS, max_records=POLL_RECORDS_MAX).get(tp, [])
                before, position = position, consumer.position(tp)
                if position != before:
                    moved_at = time.monotonic()
                elif time.monotonic() - moved_at > STALL_SECONDS_MAX:
                    raise AuditError(f"{topic}[{partition}] cannot be read on from {position}, and ends at {end}")
                if records and records[-1].offset >= end:
                    records = [record for record in records if record.offset < end]
                if records:
                    self.records += len(records)
                    yield records

    def last(self, topic: str, partition: int, bounds: Bounds) -> list[Any]:
        """Return some records from the end of a log, none only if it has none: markers and aborted ones are skipped."""
        found: list[Any] = []
        start, step = bounds.end, 100
        while not found and start > bounds.start:
            start, end, step = max(bounds.start, start - step), start, step * 10
            found = [record for records in self.read(topic, partition, start, end) for record in records]
        return found

    @contextmanager
    def _consumer(self, isolation_level: str) -> Iterator[KafkaConsumer]:
        consumer = KafkaConsumer(
            **self._options,
            isolation_level=isolation_level,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_bytes=4 * FETCH_BYTES,
        )
        try:
            yield consumer
        finally:
            consumer.close()


@contextmanager
def _kafka_answers() -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise AuditError(f"Kafka refuses or does not answer: {error}") from error
