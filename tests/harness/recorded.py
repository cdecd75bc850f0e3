"""
The records that a good run of the pipeline left, which a test damages and writes again into fresh topics.

Kafka cannot change a record.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kafka import KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from pipeline.audit.findings import AuditReport
from pipeline.service.settings import Settings
from tests.builders import own_settings
from tests.harness.admin import admin_of

if TYPE_CHECKING:
    from pipeline.local.kafka import LocalKafka

RECORDS = 1000
RAW, ACCEPTED, REJECTED, RATES = "raw", "accepted", "rejected", "failure-rates"


@dataclass(frozen=True)
class Record:
    """A record to be written again."""

    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: tuple[tuple[str, bytes], ...]

    def with_header(self, name: str, value: bytes | None) -> Record:
        """Return it with another value of a header, or without it."""
        headers = [(key, value if key == name else old) for key, old in self.headers]
        return replace(self, headers=tuple((key, new) for key, new in headers if new is not None))

    def with_row(self, **fields: Any) -> Record:
        """Return a failure-rate row with other fields."""
        return replace(self, value=json.dumps({**json.loads(self.value or b""), **fields}).encode())

    @property
    def raw_offset(self) -> int:
        headers = dict(self.headers)
        return int.from_bytes(headers["decision"][:8]) if "decision" in headers else int(headers["raw-offset"])


Logs = dict[str, list[list[Record]]]


@dataclass(frozen=True)
class Run:
    """What a good run left: every topic's records by partition, and the worker's offsets."""

    logs: Logs
    committed: dict[int, Any]


def settings_of(kafka: LocalKafka) -> Settings:
    return own_settings(kafka.bootstrap_servers, partitions=2, session_timeout_seconds=6)


def disagreements(report: AuditReport) -> list[str]:
    found = [str(finding) for finding in report.findings.kept] + report.notes
    return found + [f"{report.balance.in_flight} in flight"] * bool(report.balance.in_flight + report.windows_pending)


def copy(settings: Settings, logs: Logs, run: Run) -> None:
    prefix, options = settings.kafka.topic_prefix, settings.kafka.client_options()
    with admin_of(settings) as client:
        names = {f"{prefix}{name}": len(partitions) for name, partitions in logs.items()} | {
            f"{prefix}partial-counts": 1
        }
        client.create_topics(
            {name: {"num_partitions": number, "replication_factor": 1} for name, number in names.items()}
        )
        client.wait_for_topics(list(names))
        producer = KafkaProducer(**options, acks="all", enable_idempotence=True)
        for name, partitions in logs.items():
            for number, records in enumerate(partitions):
                for record in records:
                    producer.send(
                        f"{prefix}{name}", key=record.key, value=record.value, timestamp_ms=record.timestamp,
                        headers=list(record.headers), partition=number,
                    )  # fmt: skip
        producer.close()
        offsets = {
            TopicPartition(f"{prefix}raw", number): OffsetAndMetadata(found.offset, found.metadata, -1)
            for number, found in run.committed.items()
        }
        client.alter_group_offsets(settings.worker.group, offsets)


Found = tuple[str, str, int, int | None, int | None]


def found_in(report: AuditReport) -> set[Found]:
    """Return what was found: kind, topic without its prefix, partition, offset, raw offset."""
    return {
        (each.kind.value, each.topic.partition(".")[2], each.partition, each.offset, each.raw_offset)
        for each in report.findings.kept
    }


def with_value(old: bytes, new: bytes) -> Callable[[Record], Record]:
    return lambda record: replace(record, value=(record.value or b"").replace(old, new))


def unique(logs: Logs) -> tuple[int, int]:
    """Return a record of accepted[0] whose event came once: its offset there and in raw."""
    keys = [record.key for record in logs[RAW][0]]
    at = next(at for at, record in enumerate(logs[ACCEPTED][0]) if at > 20 and keys.count(record.key) == 1)
    return at, logs[ACCEPTED][0][at].raw_offset
