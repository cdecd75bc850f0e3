"""An `accepted` that lost what was in it: a worker that went on would accept all of that again, or forget it."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from pipeline.admin.topics.apply import TopicContractError, reconcile
from pipeline.kafka.tools.cluster import ClusterError
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from tests.harness.load import deletion, write
from tests.harness.recount import differences, eventually
from tests.harness.worker import WorkerProcess


@pytest.fixture
def fresh_settings(fresh_settings: Settings) -> Settings:
    """One partition, and a short session."""
    kafka = KafkaSettings(**{**fresh_settings.kafka.model_dump(), "partitions": 1})
    worker = WorkerSettings(group=fresh_settings.worker.group, session_timeout_seconds=6)
    return fresh_settings.model_copy(update={"kafka": kafka, "worker": worker})


def test_the_partition_is_paused_until_it_is_accepted_again(
    settings: Settings, admin: KafkaAdminClient, tmp_path: Path
) -> None:
    """Raw still has the records, and the worker says with which command they are accepted once more."""
    known = [deletion(uuid.uuid4().hex, datetime.now(UTC)) for _ in range(20)]
    write(settings, known)
    with WorkerProcess(settings, tmp_path) as worker:
        worker.wait_until_working(records=20)
        eventually(lambda: differences(settings))
        worker.terminate()
        admin.delete_topics([settings.kafka.topics.accepted])
        eventually(lambda: _creation_problems(settings))
        write(settings, known)

        worker.start()
        eventually(lambda: [] if "raw[0] is paused" in worker.readiness() else [worker.tail()], seconds=120)
        assert "raw offset 19 was accepted" in worker.readiness()
        assert 'vod_pipeline_partition_paused{cause="incomplete",partition="0",stage="accept"} 1.0' in worker.metrics()
        assert worker.terminate() == 0
        command = "vod-pipeline offsets reset --partition 0 --to earliest"
        assert command in worker.log.read_text()
        arguments = [sys.executable, "-m", "pipeline", *command.split()[1:]]
        subprocess.run(arguments, env={**os.environ, **worker.environ}, check=True, capture_output=True)

        worker.start()
        eventually(lambda: differences(settings))
        assert worker.records()["duplicate"] == 20


def _creation_problems(settings: Settings) -> list[str]:
    """Create what is missing; a topic that is still being deleted is in the way."""
    try:
        reconcile(settings)
    except (TopicContractError, ClusterError) as error:
        return [str(error)]
    return []
