"""A worker's place in its consumer group, with `worker.instance_id`."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from pipeline.worker.exits import ExitCode
from tests.harness.load import Raw, deletion, write
from tests.harness.recount import differences, eventually
from tests.harness.worker import WorkerProcess

NOW = datetime.now(UTC)


@pytest.fixture
def fresh_settings(fresh_settings: Settings) -> Settings:
    """One partition, so that a test knows where its records are, and the shortest session."""
    kafka = KafkaSettings(**{**fresh_settings.kafka.model_dump(), "partitions": 1})
    worker = WorkerSettings(group=fresh_settings.worker.group, session_timeout_seconds=6)
    return fresh_settings.model_copy(update={"kafka": kafka, "worker": worker})


def deletions(number: int) -> list[Raw]:
    return [deletion(uuid.uuid4().hex, NOW, code="Forbidden" if index % 5 == 0 else None) for index in range(number)]


def agrees(settings: Settings) -> None:
    eventually(lambda: differences(settings))


def test_of_two_workers_under_one_instance_id_the_older_leaves(settings: Settings, tmp_path: Path) -> None:
    """They would throw each other out of the group for ever."""
    write(settings, deletions(10))
    with WorkerProcess(settings, tmp_path, name="older", instance_id="same") as older:
        older.wait_until_working(records=10)
        with WorkerProcess(settings, tmp_path, name="newer", instance_id="same") as newer:
            code = older.wait()
            write(settings, deletions(10))

            agrees(settings)
            assert code == ExitCode.MEMBERSHIP_LOST
            assert "each worker needs an id of its own" in older.tail()
            assert newer.is_running()


def test_a_static_member_goes_on_before_its_session_ends(settings: Settings, tmp_path: Path) -> None:
    """Killed and started again under its id, it is working within a session of 240 s: no rebalance was waited for."""
    long_session = settings.model_copy(
        update={"worker": WorkerSettings(group=settings.worker.group, session_timeout_seconds=240)}
    )
    with WorkerProcess(long_session, tmp_path, instance_id="one") as worker:
        write(settings, deletions(10))
        worker.wait_until_working(records=10)
        worker.kill()
        write(settings, deletions(10))
        worker.start()

        worker.wait_until_working(records=20)
        agrees(settings)
