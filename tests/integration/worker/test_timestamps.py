"""Whatever a clock says, and whatever a cluster's defaults are: what the stages write can be written, and read."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from pipeline import audit
from pipeline.admin.topics.apply import plan
from pipeline.kafka.tools.cluster import connect
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from tests.conftest import KAFKA_JARS
from tests.harness.clock import BridgeClock
from tests.harness.load import Raw, deletion, write
from tests.harness.recount import differences, eventually, read
from tests.harness.wire import Wire, pack, write_batches
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from pipeline.local.kafka import LocalKafka


HOURS_8 = timedelta(hours=8)
MINUTE_MS, FOR_EVER_MS = "60000", str(2**63 - 1)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A cluster whose defaults refuse an event that the contract allows, and compress so that we cannot read it."""
    from pipeline.local.kafka import LocalKafka
    from tests.harness.ports import free_port

    with LocalKafka(
        jars=KAFKA_JARS,
        directory=tmp_path_factory.mktemp("strict-kafka"),
        port=free_port(),
        controller_port=free_port(),
        extra={"log.message.timestamp.after.max.ms": MINUTE_MS, "compression.type": "zstd"},
    ) as broker:
        yield broker


@pytest.fixture
def fresh_settings(kafka: LocalKafka) -> Settings:
    """One partition, so that the records stay in order, and a short session."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=f"{name}.", partitions=1),
        worker=WorkerSettings(group=name, session_timeout_seconds=6),
    )


def decides(settings: Settings, worker: WorkerProcess, records: int) -> None:
    """See *records* decided on as the recount decides."""
    worker.wait_until_working(records=records, seconds=90)
    eventually(lambda: differences(settings))


def test_an_event_as_far_ahead_as_the_contract_allows_is_accepted(settings: Settings, tmp_path: Path) -> None:
    """Its time is the record's, whatever limit the cluster has by default."""
    now = datetime.now(UTC)
    write(settings, [deletion("early", now + timedelta(minutes=9)), deletion("punctual", now)])

    with WorkerProcess(settings, tmp_path) as worker:
        decides(settings, worker, 2)
        worker.terminate()
    write(settings, [deletion("next", now)])
    with worker:
        decides(settings, worker, 3)

    assert [record.key for record in read(settings, settings.kafka.topics.accepted)[0]] == [
        b"early",
        b"punctual",
        b"next",
    ]


def test_records_that_a_wrong_broker_clock_stamped_are_decided_on(
    settings: Settings, admin: KafkaAdminClient, tmp_path: Path
) -> None:
    """A clock was 8 h ahead for some records, as one in local time is until it is set: none may stop a partition."""
    now = datetime.now(UTC)
    ahead = _ms(now + HOURS_8)
    records = [
        deletion("before", now),
        deletion("while it was ahead", now),
        deletion("broken", now, Status="perhaps"),
        deletion("as the clock had it", now + HOURS_8),
        deletion("after", now),
    ]
    _write_stamped(settings, admin, records, [_ms(now), ahead, ahead + 1, ahead + 2, _ms(now)])

    with WorkerProcess(settings, tmp_path) as worker:
        decides(settings, worker, len(records))
        report = audit.run(settings, rows_timeout_seconds=0)

    (rejected,) = read(settings, settings.kafka.topics.rejected)[0]
    assert (rejected.key, rejected.timestamp) == (b"0:2", ahead + 1)
    assert report.agrees


def test_one_record_that_a_wrong_clock_stamped_changes_nothing_for_the_others(
    settings: Settings, admin: KafkaAdminClient, tmp_path: Path
) -> None:
    """A month ahead once: the worker opens the partition again, and goes on accepting what comes now."""
    now = datetime.now(UTC)
    records = [deletion("before", now), deletion("as it jumped", now), deletion("after", now)]
    _write_stamped(settings, admin, records, [_ms(now), _ms(now + timedelta(days=30)), _ms(now) + 1])

    with WorkerProcess(settings, tmp_path) as worker:
        decides(settings, worker, 3)
        worker.terminate()
    asyncio.run(write_batches(settings, pack([Wire(*deletion("later", now))], timestamp=_ms(now) + 2)))
    with worker:
        decides(settings, worker, 4)
        report = audit.run(settings, rows_timeout_seconds=0)

    accepted, rejected = (
        [record.key for record in read(settings, topic)[0]]
        for topic in (settings.kafka.topics.accepted, settings.kafka.topics.rejected)
    )
    assert (accepted, rejected) == ([b"before", b"after", b"later"], [b"0:1"])
    assert report.agrees


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _write_stamped(settings: Settings, admin: KafkaAdminClient, records: list[Raw], stamps: list[int]) -> None:
    """Fill raw as a broker with such a clock left it: it takes the writer's timestamps for this test."""
    config = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": FOR_EVER_MS}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.kafka.topics.raw, config)])
    batches = [pack([Wire(*record)], timestamp=at) for record, at in zip(records, stamps, strict=True)]
    eventually(lambda: _stamped(settings, batches[0], stamps[0]), seconds=30)
    asyncio.run(write_batches(settings, *batches[1:]))


def _stamped(settings: Settings, batch: bytes, at: int) -> list[str]:
    """Write the first record; brokers take a while to learn of a topic's new settings."""
    records = read(settings, settings.kafka.topics.raw)[0]
    if not records:
        asyncio.run(write_batches(settings, batch))
        records = read(settings, settings.kafka.topics.raw)[0]
    return [] if records[0].timestamp == at else ["raw still has the broker's clock"]


@pytest.mark.parametrize("is_applied", [True, False])
def test_a_worker_whose_clock_is_an_hour_ahead_commits(
    settings: Settings, admin: KafkaAdminClient, tmp_path: Path, *, is_applied: bool
) -> None:
    """Its clock is in nothing that a broker judges, also where the topics are still as the version before made them."""
    if not is_applied:
        config = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": MINUTE_MS}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.kafka.topics.partial_counts, config)])
        with connect(settings.kafka) as cluster:
            eventually(lambda: [] if plan(cluster, settings) else ["not yet"])
    clock = BridgeClock(tmp_path / "clock")
    clock.set(61 * 60)
    worker = WorkerProcess(settings, tmp_path)
    worker.environ |= clock.environ
    write(settings, [deletion(uuid.uuid4().hex, datetime.now(UTC), code="Forbidden") for _ in range(20)])

    with worker:
        decides(settings, worker, 20)


def test_a_window_does_not_end_by_the_clock_of_a_worker(settings: Settings, tmp_path: Path) -> None:
    """An idle partition's watermark follows a clock, and is never taken back: it is Kafka's."""
    clock = BridgeClock(tmp_path / "clock")
    clock.set(30 * 86_400)
    worker = WorkerProcess(settings, tmp_path)
    worker.environ |= clock.environ
    began = time.time()

    with worker:
        eventually(lambda: [] if watermark(settings) > 1000 * (began - 30) else [worker.tail()])
        write(settings, [deletion("m", datetime.now(UTC))])
        decides(settings, worker, 1)
        eventually(lambda: [] if watermark(settings) > 1000 * (began - 25) else [worker.tail()])

    assert watermark(settings) < 1000 * (time.time() - 29)


def watermark(settings: Settings) -> int:
    """Return the highest watermark that is written; -1 if there is none."""
    records = read(settings, settings.kafka.topics.partial_counts)[0]
    return max(
        (json.loads(record.value)["watermark"] for record in records if record.key == b"watermark|0"), default=-1
    )
