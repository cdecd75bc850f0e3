"""The spool in the event loop: grouped, replayed in order, and never the end of the bridge."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from pipeline.bridge.errors import AckTimeoutError, PublishError, SpoolFailedError
from pipeline.bridge.spool import Spool, SpoolError
from pipeline.bridge.spool_writer import Spooler
from pipeline.service.metrics.bridge import BridgeMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from pipeline.core.contract import RawRecord


def record(number: int) -> RawRecord:
    return b"key", b"%d" % number, b"http", number


class Kafka:
    """Takes what is published, or fails as told."""

    def __init__(self) -> None:
        self.is_up = asyncio.Event()
        self.is_up.set()
        self.published: list[RawRecord] = []
        self.failures = 0
        self.seen = asyncio.Condition()

    async def publish(self, records: Sequence[RawRecord]) -> None:
        if self.failures:
            self.failures -= 1
            raise AckTimeoutError
        async with self.seen:
            self.published += records
            self.seen.notify_all()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10), self.seen:
            await self.seen.wait_for(lambda: len(self.published) >= count)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, bytes_max=1 << 20)


@contextlib.asynccontextmanager
async def running(spool: Spool, kafka: Kafka) -> AsyncIterator[Spooler]:
    spooler = Spooler(spool, BridgeMetrics(CollectorRegistry()))
    tasks = [asyncio.create_task(spooler.write()), asyncio.create_task(spooler.replay(kafka.publish, kafka.is_up))]
    yield spooler
    for task in tasks:
        assert not task.done()  # Nothing a disk or Kafka does may end it.
        task.cancel()
    await asyncio.wait(tasks)
    await spooler.close()


async def put(spooler: Spooler, *records: RawRecord) -> PublishError | None:
    done: asyncio.Future[PublishError | None] = asyncio.get_running_loop().create_future()
    spooler.put(list(records), done.set_result)
    return await asyncio.wait_for(done, 10)


async def test_what_is_put_is_on_disk_and_then_published_in_order(spool: Spool) -> None:
    kafka = Kafka()
    kafka.is_up.clear()
    async with running(spool, kafka) as spooler:
        assert await put(spooler, record(1), record(2)) is None
        assert await put(spooler, record(3)) is None
        assert [found for _, found in spool.oldest(10)] == [record(1), record(2), record(3)]

        kafka.is_up.set()
        await kafka.until(3)

    assert kafka.published == [record(1), record(2), record(3)]


async def test_what_kafka_refused_is_published_again_before_what_came_later(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.bridge.spool_writer.RETRY_SECONDS", 0)
    kafka = Kafka()
    kafka.failures = 3
    async with running(spool, kafka) as spooler:
        for number in range(5):
            assert await put(spooler, record(number)) is None
        await kafka.until(5)

    assert kafka.published == [record(number) for number in range(5)]


async def test_each_record_that_comes_after_the_spool_ran_empty_is_published(spool: Spool) -> None:
    kafka = Kafka()
    async with running(spool, kafka) as spooler:
        for number in range(50):
            assert await put(spooler, record(number)) is None
            await kafka.until(number + 1)

    assert kafka.published == [record(number) for number in range(50)]


async def test_a_disk_that_fails_is_an_answer_and_not_the_end(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own error: the table is not there for a while."""
    monkeypatch.setattr("pipeline.bridge.spool_writer.RETRY_SECONDS", 0.01)
    kafka = Kafka()
    async with running(spool, kafka) as spooler:
        spool._database.execute("ALTER TABLE records RENAME TO away")
        assert isinstance(await put(spooler, record(1)), SpoolFailedError)
        assert not spooler.is_working

        spool._database.execute("ALTER TABLE away RENAME TO records")
        assert await put(spooler, record(2)) is None
        assert spooler.is_working
        await kafka.until(1)

    assert kafka.published == [record(2)]


async def test_what_the_disk_would_not_delete_is_deleted_later(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full spool takes nothing: it must not wait for the next callback to be emptied."""
    kafka, delete, failures = Kafka(), spool.delete, [SpoolError("no room")]
    loop, is_deleted = asyncio.get_running_loop(), asyncio.Event()

    def fail_once(through: int) -> None:
        if failures:
            raise failures.pop()
        delete(through)
        loop.call_soon_threadsafe(is_deleted.set)

    monkeypatch.setattr(spool, "delete", fail_once)
    monkeypatch.setattr("pipeline.bridge.spool_writer.RETRY_SECONDS", 0.01)
    async with running(spool, kafka) as spooler:
        assert await put(spooler, record(1)) is None
        await asyncio.wait_for(is_deleted.wait(), 10)

    assert kafka.published == [record(1)]


async def test_what_was_put_last_is_written_on_close(spool: Spool, tmp_path: Path) -> None:
    spooler = Spooler(spool, BridgeMetrics(CollectorRegistry()))
    answers: list[PublishError | None] = []
    spooler.put([record(1)], answers.append)

    await spooler.close()

    assert answers == [None]
    with contextlib.closing(Spool(tmp_path, bytes_max=1 << 20)) as again:
        assert [found for _, found in again.oldest(10)] == [record(1)]
