"""A worker's first seconds on a real Kafka: what it refuses to start with, and that it can be stopped meanwhile."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.admin.topics.apply import reconcile
from pipeline.local.kafka import LocalKafka
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from pipeline.worker.exits import ExitCode
from tests.conftest import KAFKA_JARS
from tests.harness.admin import admin_of
from tests.harness.ports import free_port
from tests.harness.recount import eventually
from tests.harness.worker import WorkerProcess

SETTINGS_CODE = 2
STARTS_SECONDS = 60


@pytest.fixture(scope="module")
def odd_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A lone broker with defaults of Kafka's: groups want three replicas, and asking for a topic creates it."""
    with LocalKafka(
        jars=KAFKA_JARS,
        directory=tmp_path_factory.mktemp("odd-kafka"),
        port=free_port(),
        controller_port=free_port(),
        extra={"offsets.topic.replication.factor": "3", "auto.create.topics.enable": "true"},
    ) as broker:
        yield broker


def settings_at(bootstrap_servers: str, *, partitions: int = 4) -> Settings:
    name = f"test-{uuid.uuid4().hex[:12]}"
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=bootstrap_servers, topic_prefix=f"{name}.", partitions=partitions),
        worker=WorkerSettings(group=name, session_timeout_seconds=6),
    )


def apply(settings: Settings) -> None:
    reconcile(settings)


def ends(worker: WorkerProcess) -> int:
    eventually(lambda: ["it runs on"] if worker.is_running() else [], seconds=STARTS_SECONDS)
    return worker.wait()


def test_a_worker_without_a_group_coordinator_can_be_stopped(odd_kafka: LocalKafka, tmp_path: Path) -> None:
    """It never joins, so its start never ends."""
    settings = settings_at(odd_kafka.bootstrap_servers)
    apply(settings)
    with WorkerProcess(settings, tmp_path) as worker:
        eventually(
            lambda: [] if "Group Coordinator Request failed" in worker.log.read_text() else [worker.tail()],
            seconds=STARTS_SECONDS,
        )
        assert worker.readiness() == "no partitions assigned (yet)"

        assert worker.terminate() == 0


def test_a_worker_creates_no_topic_by_asking(odd_kafka: LocalKafka, tmp_path: Path) -> None:
    """It would have one partition and the wrong clock, and `topics apply` could not fix that."""
    settings = settings_at(odd_kafka.bootstrap_servers)
    with WorkerProcess(settings, tmp_path) as worker:
        code = ends(worker)

    with contextlib.closing(admin_of(settings)) as admin:
        names = {topic["name"] for topic in admin.describe_topics()}
    assert code == SETTINGS_CODE
    assert f"Kafka does not show us {settings.kafka.topics.raw}, " in worker.tail()
    assert "vod-pipeline topics apply" in worker.tail()
    assert not {name for name in names if name.startswith(settings.kafka.topic_prefix)}


@pytest.mark.parametrize("partitions", [2, 8])
def test_a_number_of_partitions_that_is_not_the_topics_is_refused(
    settings: Settings, tmp_path: Path, partitions: int
) -> None:
    wrong = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"partitions": partitions})})
    with WorkerProcess(wrong, tmp_path) as worker:
        code = ends(worker)

    assert code == SETTINGS_CODE
    assert f"{settings.kafka.topics.raw} has 4 partitions, not {partitions}: see kafka.partitions" in worker.tail()


def test_a_worker_without_kafka_ends_and_says_so(tmp_path: Path) -> None:
    settings = settings_at(f"127.0.0.1:{free_port()}")
    with WorkerProcess(settings, tmp_path) as worker:
        code = ends(worker)

    assert code == ExitCode.KAFKA_UNUSABLE
    assert f"Kafka at {settings.kafka.bootstrap_servers} does not answer" in worker.tail()
    assert "Traceback" not in worker.log.read_text()


def test_a_worker_that_gets_no_partition_is_ready(kafka: LocalKafka, tmp_path: Path) -> None:
    """Two partitions in all (raw's and the report's): a rolling update waits for the third worker."""
    settings = settings_at(kafka.bootstrap_servers, partitions=1)
    apply(settings)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(WorkerProcess(settings, tmp_path, name=f"worker-{n}")) for n in range(3)]
        eventually(
            lambda: [worker.readiness() for worker in workers if worker.readiness() != "ready"],
            seconds=STARTS_SECONDS,
        )
