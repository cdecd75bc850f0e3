"""The spool in the event loop: written in batches, emptied in order, and never the end of the bridge."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.errors import KafkaConnectionError
from prometheus_client import CollectorRegistry

from pipeline.bridge.drain import Drain
from pipeline.bridge.errors import PublishError, SpoolFailedError
from pipeline.bridge.spool import Spool
from pipeline.bridge.spool_directory import SpoolError
from pipeline.bridge.spool_writer import Spooler
from pipeline.kafka.producer import BatchRefusedError
from pipeline.service.metrics.bridge import BridgeMetrics
from tests.harness.draining import Kafka, record, until_shown
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pipeline.core.contract import RawRecord


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.bridge.drain.RETRY_SECONDS", 0)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, bytes_max=1 << 20)


@contextlib.asynccontextmanager
async def running(spool: Spool, kafka: Kafka, registry: CollectorRegistry | None = None) -> AsyncIterator[Spooler]:
    metrics = BridgeMetrics(registry or CollectorRegistry())
    spooler = Spooler(spool, metrics)
    drain = Drain(spooler.thread, kafka.connect, metrics)
    tasks = [asyncio.create_task(spooler.write()), asyncio.create_task(drain.run(spooler.filled))]
    yield spooler
    for task in tasks:
        assert not task.done()  # Nothing a disk or Kafka does may end it.
        task.cancel()
    await asyncio.wait(tasks)
    await spooler.close()


async def put(spooler: Spooler, *records: RawRecord) -> PublishError | None:
    done: asyncio.Future[PublishError | None] = asyncio.get_running_loop().create_future()
    spooler.put(list(records), done.set_result)
    return await asyncio.wait_for(done, 60)


async def test_what_is_put_is_on_disk_and_then_taken_in_order(spool: Spool) -> None:
    kafka = Kafka()
    kafka.is_up.clear()
    async with running(spool, kafka) as spooler:
        assert await put(spooler, record(1), record(2)) is None
        assert await put(spooler, record(3)) is None
        assert [found for _, found in spool.oldest(10)] == [record(1), record(2), record(3)]

        kafka.is_up.set()
        await kafka.until(3)

    assert kafka.taken == [record(1), record(2), record(3)]


@pytest.mark.parametrize("failure", [KafkaConnectionError(), TimeoutError(), ZeroDivisionError()])
async def test_what_kafka_failed_is_sent_again_before_what_came_later(spool: Spool, failure: Exception) -> None:
    kafka = Kafka()
    kafka.failures = [failure] * 3
    async with running(spool, kafka) as spooler:
        for number in range(5):
            assert await put(spooler, record(number)) is None
        await kafka.until(5)

    assert kafka.taken == [record(number) for number in range(5)]


async def test_each_record_that_comes_after_the_spool_ran_empty_is_taken(spool: Spool) -> None:
    kafka = Kafka()
    async with running(spool, kafka) as spooler:
        for number in range(50):
            assert await put(spooler, record(number)) is None
            await kafka.until(number + 1)

    assert kafka.taken == [record(number) for number in range(50)]


@pytest.mark.parametrize("too_many", [TimeoutError(), BatchRefusedError()])
async def test_what_is_too_much_at_once_is_sent_in_smaller_batches(spool: Spool, too_many: Exception) -> None:
    """Kafka may be too slow for a large batch, or an operator may have lowered what the topic takes."""
    spool.append([record(number) for number in range(64)])
    kafka = Kafka()
    kafka.at_once, kafka.too_many = 7, too_many
    async with running(spool, kafka):
        await kafka.until(64)

    assert kafka.taken == [record(number) for number in range(64)]
    first_taken = next(n for n, size in enumerate(kafka.sizes) if size <= 7)
    assert kafka.sizes[first_taken] == 4  # 1024 at most, halved eight times.


async def test_a_record_kafka_refuses_for_good_stays_and_holds_up_nothing(
    spool: Spool, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.append([record(number) for number in range(20)])
    kafka = Kafka()
    kafka.never = {record(3), record(11)}
    async with running(spool, kafka, registry) as spooler:
        await until_shown(registry, "vod_pipeline_spool_refused_records", 2)
        assert kafka.taken == [record(number) for number in range(20) if number not in (3, 11)]
        assert await put(spooler, record(20)) is None
        await kafka.until(19)
        await until_shown(registry, "vod_pipeline_spool_records", 2)
        assert [found for _, found in spool.oldest(10)] == [record(3), record(11)]
        assert registry.get_sample_value("vod_pipeline_bridge_reconnects_total") == 0

        kafka.never = set()
        monkeypatch.setattr("pipeline.bridge.drain.REFUSED_SECONDS", 0)
        assert await put(spooler, record(21)) is None
        await kafka.until(22)
        await until_shown(registry, "vod_pipeline_spool_refused_records", 0)

    assert sorted(kafka.taken[19:]) == sorted([record(3), record(11), record(21)])


async def test_what_was_refused_is_offered_again_though_nothing_else_comes(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.bridge.drain.REFUSED_SECONDS", 0.01)
    kafka = Kafka()
    kafka.never = {record(1)}
    async with running(spool, kafka) as spooler:
        assert await put(spooler, record(1)) is None
        await until(lambda: len(kafka.sizes) >= 3)  # Offered, again and again.
        kafka.never = set()
        await kafka.until(1)


async def test_a_partition_without_a_leader_holds_up_no_other_and_keeps_its_order(
    spool: Spool, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.bridge.drain.RECORDS_MAX", 4)
    kafka = Kafka()
    kafka.leaderless = {1}
    spool.append([record(number) for number in range(10)])
    async with running(spool, kafka, registry) as spooler:
        await kafka.until(5)
        kafka.leaderless = set()  # What comes now must not overtake what waits.
        assert await put(spooler, record(10), record(11)) is None
        await kafka.until(6)
        await until_shown(registry, "vod_pipeline_spool_records", 6)
        await until_shown(registry, "vod_pipeline_spool_waiting_records", 6)
        assert kafka.taken == [record(number) for number in range(0, 11, 2)]
        assert [found for _, found in spool.oldest(10)] == [record(number) for number in range(1, 12, 2)]

        monkeypatch.setattr("pipeline.bridge.drain.WAITING_SECONDS", 0)
        spooler.filled.set()
        await until_shown(registry, "vod_pipeline_spool_records", 0)
        await until_shown(registry, "vod_pipeline_spool_waiting_records", 0)

    assert kafka.taken[6:] == [record(number) for number in range(1, 12, 2)]


async def test_what_waits_for_a_leader_is_offered_again_though_nothing_else_comes(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.bridge.drain.WAITING_SECONDS", 0.01)
    kafka = Kafka()
    kafka.leaderless = {1}
    async with running(spool, kafka) as spooler:
        assert await put(spooler, record(1), record(2), record(3)) is None
        await kafka.until(1)
        async with asyncio.timeout(60):
            while len(kafka.sizes) < 3:  # noqa: ASYNC110  # Offered, again and again.
                await asyncio.sleep(0.001)
        kafka.leaderless = set()
        await kafka.until(3)

    assert kafka.taken == [record(2), record(1), record(3)]


async def test_a_disk_that_fails_is_an_answer_and_not_the_end(spool: Spool) -> None:
    """SQLite's own error: the table is not there for a while."""
    kafka = Kafka()
    async with running(spool, kafka) as spooler:
        spool._database.execute("ALTER TABLE records RENAME TO away")
        assert isinstance(await put(spooler, record(1)), SpoolFailedError)
        assert not spooler.is_working

        spool._database.execute("ALTER TABLE away RENAME TO records")
        assert await put(spooler, record(2)) is None
        assert spooler.is_working
        await kafka.until(1)

    assert kafka.taken == [record(2)]


async def test_what_the_disk_would_not_delete_is_deleted_later_and_the_rest_is_taken(
    spool: Spool, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full spool takes nothing: it must not wait for the next callback to be emptied."""
    kafka, delete, is_full = Kafka(), Spool.delete, True

    def refuse(spool: Spool, **which: Any) -> None:
        if is_full:
            raise SpoolError("no room")
        delete(spool, **which)

    monkeypatch.setattr(Spool, "delete", refuse)
    async with running(spool, kafka, registry) as spooler:
        for number in range(3):
            assert await put(spooler, record(number)) is None
            await kafka.until(number + 1)
        is_full = False
        await until_shown(registry, "vod_pipeline_spool_records", 0)

    assert kafka.taken == [record(number) for number in range(3)]


async def test_what_was_put_last_is_written_on_close(spool: Spool, tmp_path: Path) -> None:
    spooler = Spooler(spool, BridgeMetrics(CollectorRegistry()))
    answers: list[PublishError | None] = []
    spooler.put([record(1)], answers.append)

    await spooler.close()

    assert answers == [None]
    with contextlib.closing(Spool(tmp_path, bytes_max=1 << 20)) as again:
        assert [found for _, found in again.oldest(10)] == [record(1)]
