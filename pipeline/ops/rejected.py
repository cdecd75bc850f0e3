"""
The rejected records, for an operator: which there are and why, one in full, and back to raw to be decided on again.

To replay is safe at any time, and as often as one likes: what was accepted meanwhile is a duplicate, and what is still
wrong is rejected once more, under the key of its new raw record.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from pipeline import access
from pipeline.core.event import media_id_of
from pipeline.core.outcome import Reason
from pipeline.core.records import (
    HEADER_DETAIL,
    HEADER_REASON,
    HEADER_RECEIVED_AT,
    HEADER_SOURCE,
    header,
)
from pipeline.settings import KafkaSettings

POLL_MILLISECONDS = 500
SEND_SECONDS_MAX = 30.0

_ID = re.compile(r"(\d{1,9}):(\d{1,19})")


class RejectedError(Exception):
    """The rejected records can't be read or replayed; the message is one line for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRecord:
    """One rejected record. `id` is the raw record's ``partition:offset``; times are ms since the epoch."""

    id: str
    rejected_from_ms: int
    """When raw took it, by the broker's clock."""
    received_at_ms: int | None
    """When the bridge took it; None if another program wrote it."""
    source: str
    reason: str
    detail: str
    body: bytes | None


def read(kafka: KafkaSettings, *, since_ms: int, reason: Reason | None = None) -> Iterator[RejectedRecord]:
    """
    Yield what was rejected, a partition after the other, each in raw's order.

    What is rejected after the first one was yielded is left out, so that a replay never meets what it caused.

    Args:
        kafka: Where Kafka is.
        since_ms: The earliest time that raw took them, ms since the epoch.
        reason: Only these; None: all.

    Raises:
        RejectedError: Kafka can't be read.
    """
    with _consumer(kafka) as consumer:
        tps = [TopicPartition(kafka.topics.rejected, partition) for partition in range(kafka.partitions)]
        consumer.assign(tps)
        ends = consumer.end_offsets(tps)
        starts = consumer.offsets_for_times(dict.fromkeys(tps, since_ms))
        for tp, start in starts.items():
            for record in _records(consumer, tp, start.offset, ends[tp]) if start else ():
                found = _rejected(record)
                if reason is None or found.reason == reason:
                    yield found


def newest(records: Iterator[RejectedRecord], count: int) -> list[RejectedRecord]:
    """Return the last *count* that raw took, the newest first."""
    return heapq.nlargest(count, records, key=lambda record: (record.rejected_from_ms, record.id))


def find(kafka: KafkaSettings, ids: list[str]) -> list[RejectedRecord]:
    """
    Return the records with these ids (``partition:offset`` of their raw records), in this order.

    Raises:
        RejectedError: an id is none, or no such record was rejected; or Kafka can't be read.
    """
    for wanted in ids:
        match = _ID.fullmatch(wanted)
        if match is None or int(match[1]) >= kafka.partitions:
            raise RejectedError(f"{wanted}: not an id such as 2:1234, which `vod-pipeline rejected list` shows")
    left = set(ids)
    found = {record.id: record for record in read(kafka, since_ms=0) if record.id in left}
    missing = [wanted for wanted in ids if wanted not in found]
    if missing:
        raise RejectedError(f"{', '.join(missing)}: no such record is in {kafka.topics.rejected}")
    return [found[wanted] for wanted in ids]


def replay(kafka: KafkaSettings, records: Iterator[RejectedRecord], progress: Callable[[], None]) -> int:
    """
    Publish *records* to raw again, with the headers they came with; returns how many, all acknowledged (acks=all).

    Args:
        kafka: Where Kafka is.
        records: What to replay.
        progress: Called after each.

    Raises:
        RejectedError: Kafka did not take them all; what it took is decided on, and replaying it again is harmless.
    """
    count = 0
    try:
        # Its partitioner is murmur2, as raw needs it (README, "Topics").
        producer = KafkaProducer(**kafka.client_options(), acks="all", linger_ms=5)
        try:
            sent = []
            for record in records:
                key = media_id_of(record.body or b"")
                sent.append(producer.send(kafka.topics.raw, value=record.body, key=key, headers=_headers(record)))
                count += 1
                progress()
            producer.flush(SEND_SECONDS_MAX)
            for future in sent:
                future.get(SEND_SECONDS_MAX)
        finally:
            producer.close(SEND_SECONDS_MAX)
    except KafkaError as error:
        raise RejectedError(f"Kafka did not take all of them ({error}): replay them again") from error
    return count


@contextmanager
def _consumer(kafka: KafkaSettings) -> Iterator[KafkaConsumer]:
    access.require_now(kafka)
    try:
        consumer = KafkaConsumer(
            **kafka.client_options(), isolation_level="read_committed", enable_auto_commit=False, group_id=None
        )
        try:
            yield consumer
        finally:
            consumer.close()
    except KafkaError as error:
        raise RejectedError(f"cannot read {kafka.topics.rejected}: {error}") from error


def _records(consumer: KafkaConsumer, tp: TopicPartition, start: int, end: int) -> Iterator[Any]:
    consumer.assign([tp])
    consumer.seek(tp, start)
    while consumer.position(tp) < end:
        for record in consumer.poll(timeout_ms=POLL_MILLISECONDS).get(tp, ()):
            if record.offset < end:
                yield record


def _rejected(record: Any) -> RejectedRecord:
    received_at = header(record.headers, HEADER_RECEIVED_AT)
    return RejectedRecord(
        id=record.key.decode(),
        rejected_from_ms=record.timestamp,
        received_at_ms=int(received_at) if received_at is not None and received_at.isdigit() else None,
        source=(header(record.headers, HEADER_SOURCE) or b"").decode(errors="replace"),
        reason=(header(record.headers, HEADER_REASON) or b"").decode(errors="replace"),
        detail=(header(record.headers, HEADER_DETAIL) or b"").decode(errors="replace"),
        body=record.value,
    )


def _headers(record: RejectedRecord) -> list[tuple[str, bytes]]:
    headers = [(HEADER_SOURCE, record.source.encode())] if record.source else []
    if record.received_at_ms is not None:
        headers.append((HEADER_RECEIVED_AT, b"%d" % record.received_at_ms))
    return headers
