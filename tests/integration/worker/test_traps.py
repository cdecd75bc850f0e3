"""
The traps of exactly once, each sprung on a real worker and a real Kafka.

Every test here fails when the remedy it names is taken out of pipeline/worker.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata
from kafka import TopicPartition as KafkaTopicPartition
from kafka.admin import KafkaAdminClient
from kafka.structs import OffsetAndMetadata as KafkaOffset

from pipeline.admin import offsets
from pipeline.core.contract import transactional_prefix
from pipeline.core.offset_metadata import owner_of
from pipeline.kafka.tools.cluster import connect
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from pipeline.worker.exits import ExitCode
from tests.harness.load import Raw, deletion, mixture, write
from tests.harness.recount import differences, eventually, read
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


def transactional_id(settings: Settings) -> str:
    return f"{transactional_prefix(settings.kafka.topics.raw, settings.worker.group, 'accept')}0"


def owner(settings: Settings) -> str:
    """Return under which name the partition is committed; none: ""."""
    with connect(settings.kafka) as cluster:
        found = cluster.committed(settings.worker.group, settings.kafka.topics.raw, 1)
    return owner_of(found[0].metadata) if found else ""


async def rival(settings: Settings, offset: int | None) -> None:
    """Do what a successor does: fence the owner's producer, and commit *offset* in its place."""
    names = [transactional_id(settings), await asyncio.to_thread(owner, settings)]
    for name in filter(None, names):
        producer = AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers, transactional_id=name)
        await producer.start()
        if offset is not None and name == names[-1]:
            await producer.begin_transaction()
            position = {TopicPartition(settings.kafka.topics.raw, 0): OffsetAndMetadata(offset, "")}
            await producer.send_offsets_to_transaction(position, settings.worker.group)
            await producer.commit_transaction()
        await producer.stop()


def set_offset(admin: KafkaAdminClient, settings: Settings, offset: int, metadata: str) -> None:
    tp = KafkaTopicPartition(settings.kafka.topics.raw, 0)
    admin.alter_group_offsets(settings.worker.group, {tp: KafkaOffset(offset, metadata, -1)})


def committed(settings: Settings) -> int | None:
    return offsets.positions(settings)[0].committed


def test_gaps_inside_a_chunk_are_not_losses(settings: Settings, tmp_path: Path) -> None:
    """Committed and aborted transactions in raw leave offsets that no record has."""

    async def write_in_transactions() -> None:
        async with AIOKafkaProducer(
            bootstrap_servers=settings.kafka.bootstrap_servers, transactional_id=uuid.uuid4().hex
        ) as producer:
            for number in range(12):
                await producer.begin_transaction()
                for key, value in deletions(3):
                    await producer.send(settings.kafka.topics.raw, key=key, value=value, partition=0)
                await (producer.abort_transaction() if number % 3 == 2 else producer.commit_transaction())

    asyncio.run(write_in_transactions())
    with WorkerProcess(settings, tmp_path) as worker:
        worker.wait_until_working(records=24)
        asyncio.run(write_in_transactions())
        worker.wait_until_working(records=48)

        agrees(settings)
        assert len(read(settings, settings.kafka.topics.accepted)[0]) == 48
        assert worker.by_partition() == {"0": (48, 48)}  # What was aborted was not received.
        assert " seek " not in worker.log.read_text()


def test_a_fenced_sole_owner_comes_back_with_a_new_producer(settings: Settings, tmp_path: Path) -> None:
    """A coordinator that timed its transaction out fences it too; the old producer fails for ever."""
    with WorkerProcess(settings, tmp_path) as worker:
        write(settings, deletions(50))
        worker.wait_until_working(records=50)
        asyncio.run(rival(settings, None))
        write(settings, deletions(50))

        agrees(settings)
        assert worker.is_running()


def test_a_worker_goes_back_to_an_earlier_offset_and_doubles_nothing(settings: Settings, tmp_path: Path) -> None:
    """Everything is read again, though Faust drops messages below its last offset unless configured otherwise."""
    with WorkerProcess(settings, tmp_path) as worker:
        write(settings, deletions(80))
        worker.wait_until_working(records=80)
        asyncio.run(rival(settings, 0))
        write(settings, deletions(20))
        eventually(lambda: [] if committed(settings) == 100 else [f"at {committed(settings)}"])
        everything_again = worker.records()

        agrees(settings)
        # The totals were lost with the metadata, so they show what was read since: all 100, 80 of them known.
        assert everything_again == {"accepted": 20, "duplicate": 80, "ignored": 0, "rejected": 0}


def test_a_worker_goes_on_at_a_later_offset(settings: Settings, tmp_path: Path) -> None:
    """A successor that came further is believed: its output is restored, and what it took in is not taken in again."""
    with WorkerProcess(settings, tmp_path) as worker:
        write(settings, deletions(10))
        worker.wait_until_working(records=10)
        worker.pause()
        write(settings, deletions(10))
        asyncio.run(rival(settings, 15))
        worker.resume()
        eventually(lambda: [] if committed(settings) == 20 else [f"at {committed(settings)}"])

        assert len(read(settings, settings.kafka.topics.accepted)[0]) == 15
        assert worker.by_partition() == {"0": (5, 5)}  # The totals were lost with the metadata.


def test_an_offset_above_the_log_end_stops_the_worker_with_the_command_to_run(
    settings: Settings, admin: KafkaAdminClient, tmp_path: Path
) -> None:
    """The client alone would reset to 0 without a word; a recreated topic is the operator's to decide."""
    set_offset(admin, settings, 1000, "")
    write(settings, deletions(5))

    with WorkerProcess(settings, tmp_path) as worker:
        code = worker.wait()

    assert code == ExitCode.OFFSET_AHEAD_OF_LOG
    assert "vod-pipeline offsets reset --partition 0 --to earliest" in worker.tail()
    command = [sys.executable, "-m", "pipeline", "offsets", "reset", "--partition", "0", "--to", "earliest"]
    environ = {**os.environ, **worker.environ}
    # The dead worker is a member until its session ends: the command says so until then.
    eventually(
        lambda: (
            [] if subprocess.run(command, env=environ, capture_output=True, check=False).returncode == 0 else ["no"]
        ),
    )
    with worker:
        agrees(settings)


def test_a_lost_offset_is_found_again_in_the_output(
    settings: Settings, admin: KafkaAdminClient, tmp_path: Path
) -> None:
    """Groups expire. What accepted and rejected hold says how far raw was read."""
    write(settings, [*mixture(200, seed=6), *deletions(1)])
    with WorkerProcess(settings, tmp_path) as worker:
        worker.wait_until_working(records=201)
        agrees(settings)
        worker.terminate()
    admin.delete_group_offsets(settings.worker.group, [KafkaTopicPartition(settings.kafka.topics.raw, 0)])
    write(settings, deletions(20))

    with worker:
        worker.wait_until_working(records=20)

        agrees(settings)
        assert worker.records()["accepted"] == 20


def test_a_commit_without_metadata_forgets_no_event(
    settings: Settings, admin: KafkaAdminClient, tmp_path: Path
) -> None:
    """An operator's tool commits no metadata: the restore then takes in all of accepted."""
    known = deletions(100)
    write(settings, known)
    with WorkerProcess(settings, tmp_path) as worker:
        worker.wait_until_working(records=100)
        agrees(settings)
        worker.terminate()
    set_offset(admin, settings, 100, "")
    write(settings, known)

    with worker:
        worker.wait_until_working(records=100)

        agrees(settings)
        assert worker.records()["duplicate"] == 100
