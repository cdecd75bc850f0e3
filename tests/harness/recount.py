"""What the topics hold, and whether the audit, which recomputes all of it from `raw`, finds nothing to say."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from pipeline.ops import audit
from pipeline.settings import Settings


def read(settings: Settings, topic: str, *, committed: bool = True) -> list[list[Any]]:
    """Return all records of *topic*, a list a partition."""
    consumer = KafkaConsumer(
        **settings.kafka.client_options(),
        isolation_level="read_committed" if committed else "read_uncommitted",
        enable_auto_commit=False,
    )
    try:
        partitions = sorted(consumer.partitions_for_topic(topic))
        tps = [TopicPartition(topic, partition) for partition in partitions]
        consumer.assign(tps)
        consumer.seek_to_beginning(*tps)
        ends = consumer.end_offsets(tps)
        found: dict[int, list[Any]] = {partition: [] for partition in partitions}
        while any(consumer.position(tp) < ends[tp] for tp in tps):
            for tp, records in consumer.poll(timeout_ms=200).items():
                found[tp.partition] += [record for record in records if record.offset < ends[tp]]
        return [found[partition] for partition in partitions]
    finally:
        consumer.close()


def differences(settings: Settings) -> list[str]:
    """Return what the audit finds, and what it could not judge yet: an empty list is the promise kept."""
    report = audit.run(settings, patience_seconds=0)
    found = [str(finding) for finding in report.findings.kept]
    if report.balance.in_flight:
        found.append(f"{report.balance.in_flight} raw records are not committed yet")
    if report.windows_pending:
        found.append(f"{report.windows_pending} windows are not reported yet")
    return found if found or report.agrees else ["the balance does not come out even"]


def eventually(problems: Callable[[], list[str]], *, seconds: float) -> None:
    """Ask *problems* until it has none; fails with the last ones after *seconds*."""
    deadline = time.monotonic() + seconds
    while found := problems():
        assert time.monotonic() < deadline, found
        time.sleep(0.1)  # Between two looks, not instead of one.
