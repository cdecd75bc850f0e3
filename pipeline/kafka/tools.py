"""
Reading a topic to its end, and writing records to raw: what the operator's tools share.

kafka-python, as nothing here is hot: it reads 150,000 records a second, and writes 20,000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from pipeline.core.contract import HEADER_RECEIVED_AT, HEADER_SOURCE, Headers
from pipeline.core.event import media_id_of
from pipeline.kafka import access
from pipeline.service.errors import OperatorError
from pipeline.service.settings import KafkaSettings

POLL_MILLISECONDS = 500
SEND_SECONDS_MAX = 30.0
UNACKNOWLEDGED_MAX = 10_000


class LogError(OperatorError):
    """A topic can't be read or written."""


def read(kafka: KafkaSettings, topic: str, *, since_ms: int) -> Iterator[Any]:
    """
    Yield the records of *topic*, read_committed, a partition after the other, each in order.

    What is written after the first one was yielded is left out: whoever writes on reading never meets what they wrote.

    Args:
        kafka: Where Kafka is.
        topic: Its name.
        since_ms: From the first record on that has this timestamp or a later one, ms since the epoch.

    Raises:
        LogError: there is no such topic, or it can't be read.
    """
    with _consumer(kafka, topic) as consumer:
        partitions = consumer.partitions_for_topic(topic)
        if not partitions:
            raise LogError(f"there is no topic {topic} on {kafka.bootstrap_servers}")
        tps = [TopicPartition(topic, partition) for partition in sorted(partitions)]
        ends = consumer.end_offsets(tps)
        starts = consumer.offsets_for_times(dict.fromkeys(tps, since_ms))
        for tp, start in starts.items():
            if start is None:
                continue
            consumer.assign([tp])
            consumer.seek(tp, start.offset)
            while consumer.position(tp) < ends[tp]:
                for record in consumer.poll(timeout_ms=POLL_MILLISECONDS).get(tp, ()):
                    if record.offset < ends[tp]:
                        yield record


def write_raw(
    kafka: KafkaSettings, records: Iterable[tuple[bytes | None, Headers]], progress: Callable[[], None]
) -> int:
    """
    Publish bodies to raw, on the partition that their MediaId belongs to.

    Args:
        kafka: Where Kafka is.
        records: Body and headers; of the headers, those that raw has are kept.
        progress: Called after each.

    Returns:
        How many, all acknowledged (acks=all).

    Raises:
        LogError: Kafka did not take them all. To write those that it took again is harmless: they are duplicates.
    """
    count = 0
    sent = []
    try:
        # Its partitioner is murmur2, as raw needs it (README, "Topics").
        producer = KafkaProducer(**kafka.client_options(), acks="all", linger_ms=5)
        try:
            for body, headers in records:
                # kafka-python writes no header without a value, and no record without key and value.
                kept = [
                    (name, value)
                    for name, value in headers
                    if name in (HEADER_SOURCE, HEADER_RECEIVED_AT) and value is not None
                ]
                body = body or b""  # noqa: PLW2901  # As good as none.
                sent.append(producer.send(kafka.topics.raw, value=body, key=media_id_of(body), headers=kept))
                if len(sent) >= UNACKNOWLEDGED_MAX:
                    _wait_for_acks(sent)
                count += 1
                progress()
            producer.flush(SEND_SECONDS_MAX)
            _wait_for_acks(sent)
        finally:
            producer.close(SEND_SECONDS_MAX)
    except KafkaError as error:
        raise LogError(f"Kafka did not take all of them ({error}): do it again, which is harmless") from error
    return count


def _wait_for_acks(sent: list[Any]) -> None:
    for future in sent:
        future.get(SEND_SECONDS_MAX)
    sent.clear()


@contextmanager
def _consumer(kafka: KafkaSettings, topic: str) -> Iterator[KafkaConsumer]:
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
        raise LogError(f"cannot read {topic}: {error}") from error
