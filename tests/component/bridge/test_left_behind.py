"""Spools of bridges that run no more: each is emptied where it lies, and what stays is seen."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING

import pytest
import structlog
from prometheus_client import CollectorRegistry

from pipeline.bridge.left_behind import LeftBehind
from pipeline.bridge.spool import Spool
from pipeline.bridge.spool_directory import FILE, left_behind
from pipeline.service.metrics.bridge import BridgeMetrics
from tests.harness.draining import Kafka, record, until_shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MIB = 1 << 20
RECORDS, OLDEST = "vod_pipeline_spool_records", "vod_pipeline_spool_oldest_timestamp_seconds"
STAYING = "vod_pipeline_spools_left_behind"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.bridge.left_behind.LOOK_SECONDS", 0.01)


def spool_with(directory: Path, *numbers: int) -> Spool:
    spool = Spool(directory, bytes_max=MIB)
    spool.append([record(number) for number in numbers])
    return spool


@contextlib.asynccontextmanager
async def looking_after(directory: Path, kafka: Kafka, registry: CollectorRegistry) -> AsyncIterator[BridgeMetrics]:
    """Be the only bridge in *directory*, as far as others' spools under it go."""
    metrics = BridgeMetrics(registry)
    looking = LeftBehind(partial(left_behind, directory, processes=0), kafka.connect, kafka.is_up, metrics)
    task = asyncio.create_task(looking.run())
    yield metrics
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def test_what_others_left_is_shown_and_taken_once_kafka_is_up(
    tmp_path: Path, registry: CollectorRegistry
) -> None:
    spool_with(tmp_path / "2", 2000, 3000).close()
    spool_with(tmp_path / "3", 1000).close()
    kafka = Kafka()
    kafka.is_up.clear()
    async with looking_after(tmp_path, kafka, registry) as metrics:
        metrics.show_spool(tmp_path, records=10, oldest_ms=5000)
        await until_shown(registry, RECORDS, 13)
        await until_shown(registry, OLDEST, 1)
        assert registry.get_sample_value(STAYING) == 0

        kafka.is_up.set()
        await until_shown(registry, RECORDS, 10)
        await until_shown(registry, OLDEST, 5)

    assert kafka.taken == [record(2000), record(3000), record(1000)]
    with contextlib.closing(Spool(tmp_path / "2", bytes_max=MIB)) as spool:
        assert spool.oldest(10) == []


async def test_one_that_is_in_use_is_shown_and_logged_and_taken_when_it_is_free(
    tmp_path: Path, registry: CollectorRegistry
) -> None:
    """Of several that are replaced, one process may end a second later than the others."""
    owned = spool_with(tmp_path / "3", 1)
    spool_with(tmp_path / "4", 2).close()
    kafka = Kafka()
    with structlog.testing.capture_logs() as logs:
        async with looking_after(tmp_path, kafka, registry):
            await until_shown(registry, STAYING, 1)
            await until_shown(registry, RECORDS, 1)
            assert kafka.taken == [record(2)]

            owned.close()
            await kafka.until(2)
            await until_shown(registry, STAYING, 0)

    assert kafka.taken == [record(2), record(1)]
    staying = [entry for entry in logs if entry["event"] == "spool_left_behind"]
    assert {entry["spool"] for entry in staying} == {str(tmp_path / "3")}
    assert "belongs to process" in staying[0]["problem"]
    emptied = [(entry["spool"], entry["records"]) for entry in logs if entry["event"] == "spool_emptied"]
    assert emptied == [(str(tmp_path / "4"), 1), (str(tmp_path / "3"), 1)]


async def test_an_empty_one_in_use_is_nothing_to_worry_about(tmp_path: Path, registry: CollectorRegistry) -> None:
    with contextlib.closing(spool_with(tmp_path / "1")):
        spool_with(tmp_path / "2", 2).close()
        kafka = Kafka()
        async with looking_after(tmp_path, kafka, registry):
            await kafka.until(1)
            await until_shown(registry, RECORDS, 0)

            assert registry.get_sample_value(STAYING) == 0


async def test_a_damaged_one_is_seen_until_it_is_moved_away(tmp_path: Path, registry: CollectorRegistry) -> None:
    spool_with(tmp_path / "1", 1).close()
    (tmp_path / "1" / FILE).write_bytes(b"no database" * 1000)
    spool_with(tmp_path / "2", 2).close()
    kafka = Kafka()
    with structlog.testing.capture_logs() as logs:
        async with looking_after(tmp_path, kafka, registry):
            await kafka.until(1)
            await until_shown(registry, STAYING, 1)

            (tmp_path / "1").rename(tmp_path / "moved-away")
            await until_shown(registry, STAYING, 0)

    assert "cannot be used" in next(entry["problem"] for entry in logs if entry["event"] == "spool_left_behind")


async def test_a_record_that_kafka_refuses_keeps_its_spool_in_sight(
    tmp_path: Path, registry: CollectorRegistry
) -> None:
    spool_with(tmp_path / "1", 1, 2, 3).close()
    kafka = Kafka()
    kafka.never = {record(2)}
    async with looking_after(tmp_path, kafka, registry):
        await until_shown(registry, STAYING, 1)
        await until_shown(registry, RECORDS, 1)
        kafka.never = set()
        await until_shown(registry, STAYING, 0)
        await until_shown(registry, RECORDS, 0)

    assert kafka.taken == [record(1), record(3), record(2)]


async def test_what_is_too_much_at_once_is_sent_in_smaller_batches(tmp_path: Path, registry: CollectorRegistry) -> None:
    spool_with(tmp_path / "1", *range(20)).close()
    kafka = Kafka()
    kafka.at_once = 2
    async with looking_after(tmp_path, kafka, registry):
        await kafka.until(20)

    assert kafka.taken == [record(number) for number in range(20)]


@pytest.mark.parametrize("failure", [TimeoutError(), ZeroDivisionError()])
async def test_whatever_goes_wrong_it_looks_again(
    tmp_path: Path, registry: CollectorRegistry, failure: Exception
) -> None:
    spool_with(tmp_path / "1", 1).close()
    kafka = Kafka()
    kafka.failures = [failure]
    async with looking_after(tmp_path, kafka, registry):
        await kafka.until(1)

    assert kafka.taken == [record(1)]
