"""
Records of a topic, in order: from one offset to another, from a time on, or as they come.

It joins no group, and knows nothing of what records mean: the audit reads with it, too. The cluster is asked for a
topic's bounds first, which says at once where there is no such topic.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from pipeline.kafka.tools.cluster import CONNECT_TIMEOUT_SECONDS, READ_COMMITTED, Cluster, ClusterError, kafka_answers

STALLED_SECONDS_MAX = 60.0  # An open transaction holds a reader back for its timeout, 15 s at most.
POLL_MS = 200
POLL_RECORDS_MAX = 20_000
FETCH_BYTES = 4 << 20


class Reader:
    """
    Reads the topics of a cluster. All of its methods raise ClusterError.

    `records` counts what `read` and `read_since` have yielded.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.records = 0

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[Any]]:
        """
        Yield the committed records with offsets in [start, end), in order, in lists.

        Raises:
            ClusterError: nothing comes for STALLED_SECONDS_MAX, as without a leader, or behind a transaction that does
                not end.
        """
        if start < end:
            with self._consumer() as consumer:
                yield from self._read(consumer, TopicPartition(topic, partition), start, end)

    def read_since(self, topic: str, since_ms: int) -> Iterator[Any]:
        """
        Yield the committed records of *topic*, a partition after the other, each in order.

        What is written after the first one was yielded is left out: a caller that writes on reading never meets what it
        wrote.

        Args:
            since_ms: From the first record on that has this timestamp or a later one, ms since the epoch.
        """
        bounds = self.cluster.bounds(topic, isolation_level=READ_COMMITTED)
        starts = self.cluster.offsets_at(topic, bounds, since_ms)
        with self._consumer() as consumer:
            for partition, start in starts.items():
                for records in self._read(consumer, TopicPartition(topic, partition), start, bounds[partition].end):
                    yield from records

    def follow(self, topic: str, *, since_ms: int) -> Iterator[list[Any]]:
        """Yield the committed records of partition 0 from *since_ms* on, in lists that may be empty, and never end."""
        tp, end = TopicPartition(topic, 0), self.cluster.bounds(topic)[0].end
        with self._consumer() as consumer:
            consumer.assign([tp])
            consumer.seek(tp, self.cluster.offsets_at(topic, [0], since_ms).get(0, end))
            while True:
                yield consumer.poll(timeout_ms=POLL_MS).get(tp, [])

    def _read(self, consumer: KafkaConsumer, tp: TopicPartition, start: int, end: int) -> Iterator[list[Any]]:
        consumer.assign([tp])
        consumer.seek(tp, start)
        position, waits_since = start, time.monotonic()
        while position < end:
            records = consumer.poll(timeout_ms=POLL_MS, max_records=POLL_RECORDS_MAX).get(tp, [])
            found = consumer.position(tp, timeout_ms=POLL_MS)
            if found not in (None, position):
                position, waits_since = found, time.monotonic()
            elif time.monotonic() - waits_since > STALLED_SECONDS_MAX:
                raise ClusterError(f"{tp.topic}[{tp.partition}] cannot be read on from {position}, and ends at {end}")
            if records and records[-1].offset >= end:
                records = [record for record in records if record.offset < end]
            if records:
                self.records += len(records)
                yield records
                waits_since = time.monotonic()

    @contextmanager
    def _consumer(self) -> Iterator[KafkaConsumer]:
        with kafka_answers():
            consumer = KafkaConsumer(
                **self.cluster.kafka.client_options(),
                isolation_level=READ_COMMITTED,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                bootstrap_timeout_ms=CONNECT_TIMEOUT_SECONDS * 1000,
                max_partition_fetch_bytes=FETCH_BYTES,
                fetch_max_bytes=4 * FETCH_BYTES,
            )
            try:
                yield consumer
            finally:
                consumer.close()
