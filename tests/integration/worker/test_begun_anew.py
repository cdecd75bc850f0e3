"""By the commands of docs/operating.md, on a real Kafka: the rows are again what accepted adds up to."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from pipeline.service.settings import KafkaSettings, Settings
from tests.harness.load import deletion
from tests.harness.recount import eventually, rate_differences, rates, read
from tests.harness.worker import WorkerProcess

NOW = datetime.now(UTC)
PAST = NOW - timedelta(minutes=30)
"""In a window that ends with the first watermark."""
PARTITIONS = ("0", "1")


@pytest.fixture
def fresh_settings(fresh_settings: Settings) -> Settings:
    """Two partitions, as a window is of all of them."""
    kafka = KafkaSettings(**{**fresh_settings.kafka.model_dump(), "partitions": len(PARTITIONS)})
    return fresh_settings.model_copy(update={"kafka": kafka})


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> WorkerProcess:
    return WorkerProcess(settings, tmp_path)


def deliver(settings: Settings, partition: str, *, number: int, at: datetime = PAST, stamp: datetime = NOW) -> None:
    """Write *number* deletions to a partition of raw, one after the other, where the writer's clock counts."""
    with closing(KafkaProducer(**settings.kafka.client_options(), acks="all")) as producer:
        for each in range(number):
            key, value = deletion(uuid.uuid4().hex, at, code=None if each % 3 else "Forbidden")
            time = _ms(stamp) + each
            sent = producer.send(
                settings.kafka.topics.raw, key=key, value=value, partition=int(partition), timestamp_ms=time
            )
            sent.get(timeout=60)


def agree(settings: Settings, *, accepted: int) -> None:
    """See the rows equal a recount of what is accepted, the window of PAST complete."""

    def problems() -> list[str]:
        records = [
            (each.key, each.value, each.timestamp)
            for partition in read(settings, settings.kafka.topics.accepted)
            for each in partition
        ]
        past = f"{PAST:%Y-%m-%dT%H:%M}:00Z"
        incomplete = [row for row in rates(settings) if row["window_start"] == past and not row["complete"]]
        found = [] if len(records) == accepted else [f"{len(records)} are accepted, not {accepted}"]
        return [*found, *map(str, incomplete), *rate_differences(settings, records)]

    eventually(problems)


def command(worker: WorkerProcess, *arguments: str) -> None:
    """Run `vod-pipeline` *arguments*; a worker that has just ended is a member for a moment."""
    line = [sys.executable, "-m", "pipeline", *arguments]

    def problems() -> list[str]:
        done = subprocess.run(line, env={**os.environ, **worker.environ}, capture_output=True, text=True, check=False)
        return [done.stderr] if done.returncode else []

    eventually(problems)


def test_a_late_event_corrects_a_window_whose_partial_counts_were_made_anew(
    settings: Settings, admin: KafkaAdminClient, worker: WorkerProcess
) -> None:
    """It is of one partition, and the row of both."""
    for partition in PARTITIONS:
        deliver(settings, partition, number=15)
    with worker:
        agree(settings, accepted=30)
        assert worker.terminate() == 0
    topic = settings.kafka.topics.partial_counts
    admin.delete_topics([topic])
    eventually(lambda: [topic] if topic in admin.list_topics() else [])
    command(worker, "topics", "apply")
    begin_anew(worker)

    deliver(settings, "0", number=4)
    with worker:
        agree(settings, accepted=34)


def test_rows_are_right_after_a_clock_was_a_month_ahead(
    settings: Settings, admin: KafkaAdminClient, worker: WorkerProcess
) -> None:
    """Two stamps in succession say it, which is believed: all has expired, until the offsets are reset."""
    config = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": str(2**63 - 1)}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.kafka.topics.raw, config)])
    eventually(lambda: is_taken(settings, NOW))
    for partition in PARTITIONS:
        deliver(settings, partition, number=5)
        deliver(settings, partition, number=3, stamp=NOW + timedelta(days=30))
    with worker:
        agree(settings, accepted=11)
        assert worker.records()["rejected"] == 6
        assert worker.terminate() == 0
    begin_anew(worker)

    for partition, accepted in zip(PARTITIONS, (15, 19), strict=True):
        deliver(settings, partition, number=4)
        with worker:
            agree(settings, accepted=accepted)
            assert worker.terminate() == 0


def is_taken(settings: Settings, stamp: datetime) -> list[str]:
    """Write records until one has *stamp*: brokers take a while to learn of a topic's new settings."""
    deliver(settings, "0", number=1, stamp=stamp)
    (*_, last) = read(settings, settings.kafka.topics.raw)[0]
    return [] if last.timestamp == _ms(stamp) else ["raw still has the broker's clock"]


def begin_anew(worker: WorkerProcess) -> None:
    for partition in PARTITIONS:
        command(worker, "offsets", "reset", "--partition", partition, "--to", "committed")


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
