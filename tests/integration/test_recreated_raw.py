"""A raw topic that was deleted and made anew while no worker ran, and has grown past the committed offset since."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from pipeline.ops import topics as ops_topics
from pipeline.settings import KafkaSettings, Settings
from pipeline.stream.partition import ExitCode
from tests.harness.load import Raw, deletion, write
from tests.harness.recount import differences, eventually, read
from tests.harness.worker import WorkerProcess

pytestmark = pytest.mark.timeout(300)


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
        with ops_topics.connect(settings) as admin:
            ops_topics.apply(admin, ops_topics.plan(admin, settings))
    except ops_topics.TopicsError as error:
        return [str(error)]
    return []


def test_it_stops_the_worker_though_the_offset_lies_below_its_end(
    settings: Settings, admin: KafkaAdminClient, tmp_path: Path
) -> None:
    """What lies before the offset was written after all that was read: going on there would lose 20 records."""
    write(settings, deletions(20))
    with WorkerProcess(settings, tmp_path) as worker:
        worker.wait_until_working(records=20, seconds=90)
        eventually(lambda: differences(settings), seconds=60)
        worker.terminate()
        admin.delete_topics([settings.kafka.topics.raw])
        eventually(lambda: creation_problems(settings), seconds=20)
        write(settings, deletions(50))

        worker.start()
        eventually(lambda: ["it runs on"] if worker.is_running() else [], seconds=60)
        code = worker.wait()

    assert code == ExitCode.OFFSET_AHEAD_OF_LOG
    assert "written later than all that was read" in worker.tail()
    assert len(read(settings, settings.kafka.topics.accepted)[0]) == 20
