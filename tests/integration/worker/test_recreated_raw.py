"""A raw topic that was deleted and made anew while no worker ran, and has grown past the committed offset since."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from pipeline.admin.topics.apply import reconcile
from pipeline.kafka.tools.cluster import ClusterError
from pipeline.service.settings import KafkaSettings, Settings
from pipeline.worker.exits import ExitCode
from tests.harness.load import Raw, deletion, write
from tests.harness.recount import differences, eventually, read
from tests.harness.worker import WorkerProcess


@pytest.fixture
def fresh_settings(fresh_settings: Settings) -> Settings:
    """One partition, so that a test knows its offsets."""
    kafka = KafkaSettings(**{**fresh_settings.kafka.model_dump(), "partitions": 1})
    return fresh_settings.model_copy(update={"kafka": kafka})


def deletions(number: int) -> list[Raw]:
    return [deletion(uuid.uuid4().hex, datetime.now(UTC)) for _ in range(number)]


def creation_problems(settings: Settings) -> list[str]:
    """Create what is missing; a topic that is still being deleted is in the way."""
    try:
        reconcile(settings)
    except ClusterError as error:
        return [str(error)]
    return []


@pytest.mark.parametrize("keeps_offset", [False, True])
def test_it_stops_the_worker_though_the_offset_lies_below_its_end(
    settings: Settings, admin: KafkaAdminClient, tmp_path: Path, *, keeps_offset: bool
) -> None:
    """
    Going on behind what was read of the old log would lose 20 records of the new one.

    Kafka deletes the group's offset with the topic: then the output tells which log was read. An offset that is there
    all the same (the log lost data, or someone set it) tells it by the time that is committed with it.
    """
    tp = TopicPartition(settings.kafka.topics.raw, 0)
    write(settings, deletions(20))
    with WorkerProcess(settings, tmp_path) as worker:
        worker.wait_until_working(records=20, seconds=90)
        eventually(lambda: differences(settings))
        worker.terminate()
        offset = admin.list_group_offsets({settings.worker.group: [tp]})[settings.worker.group][tp]
        admin.delete_topics([settings.kafka.topics.raw])
        eventually(lambda: creation_problems(settings))
        write(settings, deletions(50))
        if keeps_offset:
            admin.alter_group_offsets(settings.worker.group, {tp: offset})

        worker.start()
        eventually(lambda: ["it runs on"] if worker.is_running() else [])
        code = worker.wait()

    assert code == ExitCode.OFFSET_AHEAD_OF_LOG
    assert ("later than all that was read" if keeps_offset else "another record at 19") in worker.tail()
    assert len(read(settings, settings.kafka.topics.accepted)[0]) == 20


def test_it_stops_a_worker_that_runs_meanwhile(settings: Settings, admin: KafkaAdminClient, tmp_path: Path) -> None:
    """The new log is longer than the old one at once, so the consumer's position lies well inside it."""
    write(settings, deletions(20))
    with WorkerProcess(settings, tmp_path) as worker:
        worker.wait_until_working(records=20, seconds=90)
        eventually(lambda: differences(settings))
        admin.delete_topics([settings.kafka.topics.raw])
        eventually(lambda: creation_problems(settings))
        write(settings, deletions(50))

        eventually(lambda: ["it runs on"] if worker.is_running() else [])
        code = worker.wait()

    assert code == ExitCode.OFFSET_AHEAD_OF_LOG
    assert len(read(settings, settings.kafka.topics.accepted)[0]) == 20
