"""A worker's first seconds on a real Kafka."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

import pytest

from pipeline.admin import topics as ops_topics
from pipeline.local.kafka import LocalKafka
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from tests.harness.recount import eventually
from tests.harness.worker import WorkerProcess

pytestmark = pytest.mark.timeout(180)

STARTS_SECONDS = 60


def settings_at(bootstrap_servers: str, *, partitions: int = 4) -> Settings:
    name = f"test-{uuid.uuid4().hex[:12]}"
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=bootstrap_servers, topic_prefix=f"{name}.", partitions=partitions),
        worker=WorkerSettings(group=name, session_timeout_seconds=6),
    )


def apply(settings: Settings) -> None:
    with ops_topics.connect(settings) as admin:
        ops_topics.apply(admin, ops_topics.plan(admin, settings))


def test_a_worker_that_gets_no_partition_is_ready(kafka: LocalKafka, tmp_path: Path) -> None:
    """Two partitions in all (raw's and the report's): a rolling update waits for the third worker."""
    settings = settings_at(kafka.bootstrap_servers, partitions=1)
    apply(settings)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(WorkerProcess(settings, tmp_path, name=f"worker-{n}")) for n in range(3)]
        eventually(
            lambda: [worker.readiness() for worker in workers if worker.readiness() != "ready\n"],
            seconds=STARTS_SECONDS,
        )
