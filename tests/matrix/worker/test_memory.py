"""
A real worker's memory, over more failures than a year has: each drops its memory of a partition and restores it.

`make test-long` runs it, as a broker that stands still is given up after 10 s or more.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.local.kafka import LocalKafka
from pipeline.service.settings import KafkaSettings, Settings
from tests.harness.load import Load, Raw, deletion, write
from tests.harness.worker import WorkerProcess
from tests.integration.worker.test_traps import rival
from tests.waiting import eventually

KEYS = 60_000
KEY_BYTES = 135  # Source: docs/performance.md.
FENCINGS, PAUSES = 50, 20

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def fresh_settings(fresh_settings: Settings) -> Settings:
    """One partition, so that each round hits what has all keys."""
    kafka = KafkaSettings(**{**fresh_settings.kafka.model_dump(), "partitions": 1})
    return fresh_settings.model_copy(update={"kafka": kafka})


@pytest.fixture
def known() -> list[Raw]:
    now = datetime.now(UTC)
    return [deletion(uuid.uuid4().hex, now) for _ in range(KEYS)]


@pytest.fixture
def worker(settings: Settings, known: list[Raw], tmp_path: Path) -> Iterator[WorkerProcess]:
    """One that remembers KEYS events."""
    write(settings, known)
    with WorkerProcess(settings, tmp_path) as worker:
        worker.wait_until_working(records=KEYS)
        yield worker


def fails(worker: WorkerProcess, before: int) -> None:
    eventually(lambda: [] if worker.failed_transactions() > before else [worker.tail()])


def goes_on(worker: WorkerProcess) -> None:
    before = sum(worker.records().values())
    eventually(lambda: [] if sum(worker.records().values()) > before else [worker.tail()], seconds=120)


def is_flat(sizes: list[int]) -> bool:
    """Whether half of the rounds added less than a quarter of what they would if nothing were given back."""
    rounds = len(sizes) // 2
    return sizes[-1] - sizes[rounds] < rounds * KEYS * KEY_BYTES / 4


def test_a_worker_that_is_fenced_again_and_again_is_no_larger(
    settings: Settings, worker: WorkerProcess, known: list[Raw]
) -> None:
    sizes = []
    with Load(settings, known[:1] * 100_000, per_second=100):
        for _ in range(FENCINGS):
            before = worker.failed_transactions()
            asyncio.run(rival(settings, None))
            fails(worker, before)
            goes_on(worker)
            sizes.append(worker.resident_bytes())

    assert is_flat(sizes), sizes


def test_a_worker_whose_broker_stands_still_again_and_again_is_no_larger(
    settings: Settings, worker: WorkerProcess, known: list[Raw], kafka: LocalKafka
) -> None:
    sizes, before = [], worker.failed_transactions()
    with Load(settings, known[:1] * 1_000_000, per_second=500):
        for _ in range(PAUSES):
            stand_still(kafka, worker)
            goes_on(worker)
            sizes.append(worker.resident_bytes())

    assert is_flat(sizes), sizes
    assert worker.failed_transactions() - before > PAUSES / 4


def stand_still(kafka: LocalKafka, worker: WorkerProcess) -> None:
    before = gives_up(worker)
    kafka.pause()
    try:
        eventually(lambda: [] if gives_up(worker) > before else [worker.tail()])
    finally:
        kafka.resume()


def gives_up(worker: WorkerProcess) -> int:
    """Return how often a request was given up, of a transaction or, where none was on its way, for more records."""
    log = worker.log.read_text()
    return log.count("transaction_failed") + log.count("Failed fetch messages")
