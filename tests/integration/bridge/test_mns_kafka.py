"""MNS queues on a real Kafka: a message leaves its queue only once raw has it, and HTTP's copy is the same event."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from pipeline.bridge.server import serve
from pipeline.core.signature import sign
from pipeline.service.settings import BridgeSettings, Settings
from tests.harness.load import deletion
from tests.harness.mns import MnsEmulator
from tests.harness.ports import free_port
from tests.harness.recount import differences, read
from tests.harness.worker import WorkerProcess
from tests.waiting import eventually, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from pipeline.local.kafka import LocalKafka

URL = "https://vod.example.com/callback"
KEY = "Test1Key"


@pytest.fixture
def emulator() -> Iterator[MnsEmulator]:
    """An MNS with one empty queue."""
    with MnsEmulator("vod-events") as running:
        yield running


def with_bridge(settings: Settings, emulator: MnsEmulator, *, callbacks: bool, spool: Path | str = "") -> Settings:
    section = {
        "port": free_port(),
        "metrics_port": free_port(),
        "ack_timeout_seconds": 1,
        "spool_directory": spool,
        "callbacks": [{"url": URL, "auth_keys": [KEY]}] if callbacks else [],
        "mns": [
            {
                "endpoint": emulator.endpoint,
                "queue": "vod-events",
                "access_key_id": "STS.NU",
                "access_key_secret": "s4cret",
                "security_token": "t0ken",
            }
        ],
    }
    return settings.model_copy(update={"bridge": BridgeSettings.model_validate(section)})


@contextlib.asynccontextmanager
async def running_bridge(settings: Settings) -> AsyncIterator[CollectorRegistry]:
    stop, registry = asyncio.Event(), CollectorRegistry()
    serving = asyncio.create_task(serve(settings, stop=stop, reload=lambda: settings, registry=registry))
    try:
        yield registry
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await serving


def messages(registry: CollectorRegistry, step: str) -> float:
    labels = {"queue": "vod-events", "step": step}
    return registry.get_sample_value("vod_pipeline_mns_messages_total", labels) or 0


async def post(settings: Settings, body: bytes) -> int:
    """Deliver as VOD does: up to three attempts."""
    status = 0
    async with aiohttp.ClientSession() as session:
        for _ in range(3):
            timestamp = str(int(time.time()))
            headers = {"X-VOD-TIMESTAMP": timestamp, "X-VOD-SIGNATURE": sign(URL, timestamp, KEY)}
            url = f"http://127.0.0.1:{settings.bridge.port}/callback"
            async with session.post(url, data=body, headers=headers) as answer:
                status = answer.status
            if status == 200:
                break
    return status


async def test_the_same_event_by_http_and_mns_is_accepted_once(
    settings: Settings, emulator: MnsEmulator, tmp_path: Path
) -> None:
    twice, base64ed = (deletion(media_id, datetime.now(UTC)).value for media_id in ("twice", "base64"))
    emulator.put("vod-events", twice.decode(), base64.b64encode(base64ed).decode(), "not json")
    configured = with_bridge(settings, emulator, callbacks=True)
    with WorkerProcess(settings, tmp_path) as worker:
        async with running_bridge(configured):
            await asyncio.to_thread(emulator.until, lambda: not emulator.messages("vod-events"))
            status = await post(configured, twice)
        await asyncio.to_thread(worker.wait_until_working, records=4)
        await asyncio.to_thread(eventually, lambda: differences(settings))
        counts = worker.records()
        accepted = list(chain(*await asyncio.to_thread(read, settings, settings.kafka.topics.accepted)))
        raw = list(chain(*await asyncio.to_thread(read, settings, settings.kafka.topics.raw)))

    assert status == 200
    assert sorted((record.value, dict(record.headers)["source"]) for record in raw) == sorted(
        [(twice, b"mns"), (twice, b"http"), (base64ed, b"mns"), (b"not json", b"mns")]
    )
    assert {name: number for name, number in counts.items() if number} == {"accepted": 2, "duplicate": 1, "rejected": 1}
    assert len(accepted) == 2


async def test_while_kafka_stands_still_messages_stay_in_their_queue(
    settings: Settings, emulator: MnsEmulator, kafka: LocalKafka
) -> None:
    """A bridge that has a queue and no spool: what Kafka did not acknowledge comes again and is published then."""
    body = deletion("a", datetime.now(UTC)).value
    async with running_bridge(with_bridge(settings, emulator, callbacks=False)) as registry:
        count = partial(messages, registry)
        emulator.put("vod-events", body.decode())
        await until(lambda: count("deleted") == 1)
        kafka.pause()
        try:
            emulator.put("vod-events", body.decode())
            await until(lambda: count("not_published") >= 1)
            kept = emulator.messages("vod-events")
        finally:
            kafka.resume()
        emulator.advance(30)
        await until(lambda: count("deleted") == 2)

    assert kept == [body.decode()]
    assert emulator.messages("vod-events") == []


async def test_what_the_spool_takes_is_deleted_and_counted_as_spooled(
    settings: Settings, emulator: MnsEmulator, kafka: LocalKafka, tmp_path: Path
) -> None:
    """It is durable, so its queue need not keep it; Kafka has it once it is back."""
    bodies = [deletion(media_id, datetime.now(UTC)).value for media_id in ("a", "b")]
    steps = ("received", "published", "spooled")
    async with running_bridge(with_bridge(settings, emulator, callbacks=False, spool=tmp_path / "spool")) as registry:
        count = partial(messages, registry)
        emulator.put("vod-events", bodies[0].decode())
        await until(lambda: count("deleted") == 1)
        before = [count(step) for step in steps]
        kafka.pause()
        try:
            emulator.put("vod-events", bodies[1].decode())
            await until(lambda: count("deleted") == 2)
            rise = [count(step) - earlier for step, earlier in zip(steps, before, strict=True)]
        finally:
            kafka.resume()
        await until(lambda: registry.get_sample_value("vod_pipeline_spool_records") == 0)
    raw = list(chain(*await asyncio.to_thread(read, settings, settings.kafka.topics.raw)))

    assert before[0] == before[1] + before[2] == 1  # Spooled, if the bridge was not connected yet.
    assert rise == [1, 0, 1]
    assert {record.value for record in raw} == set(bodies)
