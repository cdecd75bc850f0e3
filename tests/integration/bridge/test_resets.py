"""Resets (RST) of the bridge's connections to a real Kafka under load, on the loop that the product runs on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from pipeline.admin import topics
from pipeline.bridge.errors import PublishError
from pipeline.bridge.publisher import Authenticated, Publisher, Source
from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.settings import KafkaSettings, Settings
from tests.conftest import KAFKA_JARS
from tests.harness.cluster import Cluster
from tests.harness.proxy import Proxy
from tests.harness.recount import read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

RESETS = 200  # One of about 60 comes just before something is written, which is what this is about.
SENDERS = 20


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(KAFKA_JARS, tmp_path) as cluster:
        yield cluster


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[Proxy]:
    node = cluster.kafka
    async with Proxy(node.proxies["BRIDGE"], node.listeners["BRIDGE"]) as proxy:
        yield proxy


async def test_resets_under_load_end_nothing_and_lose_no_acknowledged_record(cluster: Cluster, proxy: Proxy) -> None:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=cluster.bootstrap_servers()))
    with topics.connect(settings) as admin:
        topics.apply(admin, topics.plan(admin, settings))
    publisher = Publisher(
        KafkaSettings(bootstrap_servers=cluster.bootstrap_servers("BRIDGE")),
        settings.kafka.topics.raw,
        BridgeMetrics(CollectorRegistry()),
        ack_timeout_seconds=1,
        in_flight_max=10_000,
    )
    taken: set[bytes] = set()

    async def load(name: int) -> None:
        for number in range(1_000_000):
            body = b"%d-%d" % (name, number)
            with contextlib.suppress(PublishError):
                await publisher.publish(body, Authenticated(body), source=Source.HTTP, received_at_ms=1)
                taken.add(body)

    await publisher.start()
    loads = [asyncio.create_task(load(name)) for name in range(SENDERS)]
    try:
        for _ in range(RESETS):
            accepted, answered = proxy.accepted, len(taken)
            proxy.reset()
            async with asyncio.timeout(30):
                while proxy.accepted == accepted or len(taken) == answered:
                    assert not any(task.done() for task in publisher.tasks), publisher.tasks
                    await asyncio.sleep(0)
    finally:
        for task in loads:
            task.cancel()
        await publisher.stop()

    assert taken <= {record.value for records in read(settings, settings.kafka.topics.raw) for record in records}
