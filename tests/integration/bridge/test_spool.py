"""The spool between a bridge and a real Kafka: while that is away callbacks get a 200, and later they are in raw."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from pipeline.bridge.server import serve
from pipeline.bridge.spool import Spool
from pipeline.bridge.spool_directory import SpoolError
from tests.harness.bridge import BridgeProcess, Sent, send
from tests.harness.recount import in_raw
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pipeline.local.kafka import LocalKafka
    from pipeline.service.settings import Settings


async def until_in_raw(settings: Settings, bodies: list[bytes]) -> None:
    """Wait until raw holds all of *bodies*."""

    async def holds_all() -> bool:
        return set(bodies) <= await asyncio.to_thread(in_raw, settings)

    await until(holds_all, pause_seconds=0.05)


def bodies(count: int, *, name: str = "m") -> list[bytes]:
    return [b'{"MediaId":"%s%d"}' % (name.encode(), number) for number in range(count)]


@contextlib.asynccontextmanager
async def bridge_process(settings: Settings, directory: Path, **options: Any) -> AsyncIterator[BridgeProcess]:
    bridge = BridgeProcess(settings, directory, **options)
    await bridge.start()
    try:
        yield bridge
    finally:
        bridge.kill()


async def test_while_kafka_stands_still_callbacks_are_taken_and_reach_raw_later(
    settings: Settings, kafka: LocalKafka, tmp_path: Path
) -> None:
    sent = Sent()
    async with bridge_process(settings, tmp_path) as bridge:
        await send(bridge.port, bodies(1), sent)
        await until_in_raw(settings, bodies(1))
        kafka.pause()
        try:
            await asyncio.gather(*(send(bridge.port, bodies(20, name=f"c{number}-"), sent) for number in range(5)))
            assert await bridge.metric("vod_pipeline_spool_records") >= 100
        finally:
            kafka.resume()
        await until_in_raw(settings, sent.taken)

        async def is_empty() -> bool:
            return await bridge.metric("vod_pipeline_spool_records") == 0

        await until(is_empty)

    assert sent.refused == []
    assert len(sent.taken) == 101
    assert sent.seconds_max < 3


async def test_a_spool_left_by_a_killed_bridge_is_published_by_the_next_one(
    settings: Settings, kafka: LocalKafka, tmp_path: Path
) -> None:
    sent = Sent()
    kafka.pause()
    try:
        async with bridge_process(settings, tmp_path) as bridge:
            await send(bridge.port, bodies(10), sent)
    finally:
        kafka.resume()
    assert len(sent.taken) == 10
    assert in_raw(settings) == set()

    async with bridge_process(settings, tmp_path):
        await until_in_raw(settings, sent.taken)


async def test_a_full_spool_means_503_until_there_is_room(
    settings: Settings, kafka: LocalKafka, tmp_path: Path
) -> None:
    sent = Sent()
    large = [b'{"MediaId":"m%d","Extra":"%s"}' % (number, b"x" * 60_000) for number in range(25)]
    kafka.pause()
    try:
        async with bridge_process(settings, tmp_path, spool_bytes_max=1 << 20) as bridge:
            await send(bridge.port, large, sent)
            assert set(sent.refused) == {503}
            taken = len(sent.taken)
            kafka.resume()
            await until_in_raw(settings, sent.taken)
            await send(bridge.port, large, sent)
    finally:
        kafka.resume()

    assert 10 < taken < 18
    assert len(sent.taken) == taken + 25


async def test_two_bridges_do_not_share_a_spool(settings: Settings, tmp_path: Path) -> None:
    with contextlib.closing(Spool(tmp_path, bytes_max=1 << 20)):
        section = settings.bridge.model_validate(
            {"callbacks": [{"url": "https://x.example/a"}], "spool_directory": tmp_path}
        )
        with pytest.raises(SpoolError, match="belongs to process"):
            await serve(
                settings.model_copy(update={"bridge": section}),
                stop=asyncio.Event(),
                reload=lambda: settings,
                registry=CollectorRegistry(),
            )
