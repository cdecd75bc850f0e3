"""What a real Kafka refuses for good pauses the partition it is of; the worker and its other partitions go on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.admin import offsets
from pipeline.admin.topics.apply import plan, reconcile
from pipeline.kafka.murmur2 import partitions_of
from pipeline.kafka.tools.cluster import connect
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from tests.harness.load import Raw, deletion, write
from tests.harness.recount import differences, eventually
from tests.harness.worker import WorkerProcess


@pytest.fixture
def fresh_settings(fresh_settings: Settings) -> Settings:
    """Two partitions, one to be paused, and a short session."""
    kafka = KafkaSettings(**{**fresh_settings.kafka.model_dump(), "partitions": 2})
    worker = WorkerSettings(group=fresh_settings.worker.group, session_timeout_seconds=6)
    return fresh_settings.model_copy(update={"kafka": kafka, "worker": worker})


def deletions(partition: int, at: datetime, *, number: int, size: int = 0) -> list[Raw]:
    """Return deletions whose MediaId belongs to *partition*."""
    names = (f"m{at.timestamp()}{index}" for index in range(1000))
    own = [name for name in names if partitions_of([name.encode()], 2)[0] == partition]
    return [deletion(name, at, ErrorMessage="x" * size) for name in own[:number]]


@pytest.mark.parametrize(
    ("topic", "config", "refusal"),
    [
        ("accepted", {"message.timestamp.after.max.ms": "60000"}, "InvalidTimestampError"),
        ("accepted", {"max.message.bytes": "4000"}, "MessageSizeTooLargeError"),
        ("partial_counts", {"max.message.bytes": "100"}, "MessageSizeTooLargeError"),
    ],
)
def test_a_refusal_pauses_its_partition_and_no_other(
    settings: Settings, tmp_path: Path, *, topic: str, config: dict[str, str], refusal: str
) -> None:
    """A setting is not the contract's: the worker says where, stays alive, and goes on once that is as it should be."""
    name, now = getattr(settings.kafka.topics, topic), datetime.now(UTC)
    with WorkerProcess(settings, tmp_path) as worker:
        write(settings, [*deletions(0, now, number=5), *deletions(1, now, number=5)])
        worker.wait_until_working(records=10)
        with connect(settings.kafka) as cluster:
            cluster.set_topic_config(name, config)
            eventually(lambda: [] if plan(cluster, settings) else ["not in force yet"])
        write(settings, deletions(0, now + timedelta(minutes=5), number=5, size=2000))

        eventually(lambda: [] if "raw[0] is paused" in worker.readiness() else [worker.tail()])
        why = worker.readiness()
        assert name in why
        assert refusal in why
        assert "topics plan" in why
        assert 'vod_pipeline_partition_paused{cause="refused",partition="0",stage="accept"} 1.0' in worker.metrics()
        if topic == "accepted":
            write(settings, deletions(1, now - timedelta(seconds=1), number=5))
            eventually(lambda: [] if committed(settings)[1] == 10 else [worker.tail()])
        assert worker.is_running()
        assert committed(settings)[0] == 5
        reconcile(settings)
        assert worker.terminate() == 0

    with worker:
        eventually(lambda: differences(settings))
        eventually(lambda: [] if worker.readiness() == "ready" else [worker.readiness()])


def committed(settings: Settings) -> list[int | None]:
    return [position.committed for position in offsets.positions(settings)]
