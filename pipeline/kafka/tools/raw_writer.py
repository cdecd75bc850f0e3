"""Bodies published to raw by a command, as the bridge would."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from pipeline.core.contract import HEADER_ENTRY, HEADER_RECEIVED_AT, HEADER_SOURCE, Headers
from pipeline.core.event import media_id_of
from pipeline.kafka.tools.cluster import ClusterError, connect
from pipeline.kafka.tools.refusals import cause_of
from pipeline.service.settings import KafkaSettings

SEND_SECONDS_MAX = 30.0
UNACKNOWLEDGED_MAX = 10_000


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
        ClusterError: Kafka did not take them all. To write those that it took again is harmless: they are duplicates.
    """
    with connect(kafka) as cluster:
        cluster.bounds(kafka.topics.raw)  # A producer would wait a minute for a topic that is missing.
    count = 0
    sent = []
    try:
        # Its partitioner is murmur2, as raw needs it (docs/contract.md, "Topics").
        producer = KafkaProducer(**kafka.client_options(), acks="all", linger_ms=5)
        try:
            for body, headers in records:
                # kafka-python writes no header without a value, and no record without key and value.
                kept = [
                    (name, value)
                    for name, value in headers
                    if name in (HEADER_SOURCE, HEADER_RECEIVED_AT, HEADER_ENTRY) and value is not None
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
        raise ClusterError(
            f"Kafka did not take all of them ({cause_of(error)}): do it again, which is harmless"
        ) from error
    return count


def _wait_for_acks(sent: list[Any]) -> None:
    for future in sent:
        future.get(SEND_SECONDS_MAX)
    sent.clear()
