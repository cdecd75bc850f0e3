"""The publisher and a real Kafka, with a network in between that resets connections or holds acknowledgements back."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from kafka.admin import ConfigResource, ConfigResourceType
from prometheus_client import CollectorRegistry

from pipeline.admin.topics.apply import reconcile
from pipeline.bridge.batch import StoredIn
from pipeline.bridge.errors import PublishError
from pipeline.bridge.ingress import AdmittedBody
from pipeline.bridge.publisher import Publisher, Source
from pipeline.bridge.spool import Spool
from pipeline.bridge.spool_writer import Spooler
from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.settings import Settings
from tests.builders import own_settings
from tests.conftest import KAFKA_JARS
from tests.harness.admin import admin_of
from tests.harness.cluster import Cluster
from tests.harness.proxy import Fault, Proxy
from tests.harness.recount import read
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from pipeline.core.contract import RawRecord

RESETS = 200  # One of about 60 comes just before something is written, which is what this is about.
SENDERS = 20
WAIT_SECONDS_MAX = 60
SLOW_ACK_SECONDS = 1.2  # Longer than any callback here may wait.


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(KAFKA_JARS, tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@dataclass(frozen=True, slots=True)
class Bridge:
    """A publisher that reaches Kafka through a proxy, and topics of its own."""

    publisher: Publisher
    proxy: Proxy
    settings: Settings
    registry: CollectorRegistry

    async def publish(self, body: bytes) -> StoredIn | None:
        """Publish *body*; returns where it is, None if it was given up."""
        with contextlib.suppress(PublishError):
            return await self.publisher.publish(body, AdmittedBody(body), source=Source.HTTP, received_at_ms=1)
        return None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let others run until *condition* holds; fails at once if anything has ended the publisher."""

        def holds() -> bool:
            assert not any(task.done() for task in self.publisher.tasks), self.publisher.tasks
            return condition()

        await until(holds, seconds=WAIT_SECONDS_MAX)

    def metric(self, name: str) -> float:
        value = self.registry.get_sample_value(name)
        assert value is not None
        return value

    def in_raw(self) -> list[bytes]:
        records = read(self.settings, self.settings.kafka.topics.raw)
        return [record.value for partition in records for record in partition]


@contextlib.asynccontextmanager
async def running(cluster: Cluster, spool: Spool | None = None, *, ack_timeout_seconds: float) -> AsyncIterator[Bridge]:
    settings = own_settings(cluster.bootstrap_servers())
    reconcile(settings)
    proxied = settings.kafka.model_copy(update={"bootstrap_servers": cluster.bootstrap_servers("BRIDGE")})
    registry = CollectorRegistry()
    metrics = BridgeMetrics(registry)
    publisher = Publisher(
        proxied,
        settings.kafka.topics.raw,
        metrics,
        ack_timeout_seconds=ack_timeout_seconds,
        in_flight_max=10_000,
        spooler=Spooler(spool, metrics) if spool else None,
    )
    node = cluster.kafka
    async with Proxy(node.proxies["BRIDGE"], node.listeners["BRIDGE"]) as proxy:
        bridge = Bridge(publisher, proxy, settings, registry)
        await publisher.start()
        try:
            yield bridge
        finally:
            await publisher.stop()


async def test_resets_under_load_end_nothing_and_lose_no_acknowledged_record(cluster: Cluster) -> None:
    taken: set[bytes] = set()

    async def load(bridge: Bridge, name: int) -> None:
        for number in range(1_000_000):
            body = b"%d-%d" % (name, number)
            if await bridge.publish(body) is StoredIn.KAFKA:
                taken.add(body)

    async with running(cluster, ack_timeout_seconds=1) as bridge:
        proxy = bridge.proxy
        loads = [asyncio.create_task(load(bridge, name)) for name in range(SENDERS)]
        for _ in range(RESETS):
            accepted, answered = proxy.accepted, len(taken)
            proxy.reset()
            await bridge.until(lambda: proxy.accepted > accepted and len(taken) > answered)  # noqa: B023  # At once.
        for task in loads:
            task.cancel()
        await asyncio.wait(loads)

    assert taken <= set(bridge.in_raw())


def record(number: int) -> RawRecord:
    body = b"spooled-%d" % number
    return body, body, b"http", 1_700_000_000_000


async def test_a_kafka_slower_than_a_callback_waits_empties_the_spool_once(cluster: Cluster, tmp_path: Path) -> None:
    """What the callbacks of that time wait for must not close the connection under what the disk holds."""
    spool = Spool(tmp_path, bytes_max=1 << 20)
    spool.append([record(number) for number in range(200)])
    async with running(cluster, spool, ack_timeout_seconds=0.5) as bridge:
        bridge.proxy.fault, bridge.proxy.delay_seconds = Fault.DELAY_ACK, SLOW_ACK_SECONDS
        spooled = [await bridge.publish(b"live-%d" % number) for number in range(5)]
        await bridge.until(lambda: bridge.metric("vod_pipeline_spool_drained_records_total") >= 205)
        bodies = bridge.in_raw()

    assert spooled == [StoredIn.SPOOL] * 5
    assert sorted(body for body in bodies if body.startswith(b"spooled")) == sorted(record(n)[1] for n in range(200))
    assert {body for body in bodies if body.startswith(b"live")} == {b"live-%d" % number for number in range(5)}


def take_at_most(settings: Settings, size: int) -> None:
    """Do what an operator may: change how large a batch raw takes."""
    config = {"max.message.bytes": str(size)}
    with contextlib.closing(admin_of(settings)) as admin:
        admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, settings.kafka.topics.raw, dict[str, Any](config))]
        )


async def test_what_kafka_refuses_for_good_holds_up_nothing_and_costs_no_connection(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.bridge.drain.REFUSED_SECONDS", 0.1)
    spool = Spool(tmp_path, bytes_max=1 << 20)
    async with running(cluster, spool, ack_timeout_seconds=20) as bridge:
        await bridge.until(bridge.publisher._sender.connected.is_set)
        take_at_most(bridge.settings, 2000)
        while await bridge.publish(b"probe" + b"x" * 5000) is StoredIn.KAFKA:
            pass  # Until the change is in force.
        bodies = [b"%d" % number + b"x" * (5000 if number in (3, 7) else 0) for number in range(20)]
        spooled = await asyncio.gather(*(bridge.publish(body) for body in bodies))  # One batch, refused as a whole.
        await bridge.until(lambda: bridge.metric("vod_pipeline_spool_refused_records") == 3)
        alone = await bridge.publish(b"alone")
        taken = {body for body in bridge.in_raw() if not body.startswith(b"probe")}

        take_at_most(bridge.settings, 128 * 1024)
        await bridge.until(lambda: bridge.metric("vod_pipeline_spool_records") == 0)
        reconnects = bridge.metric("vod_pipeline_bridge_reconnects_total")

    assert spooled == [StoredIn.SPOOL] * 20
    assert alone is StoredIn.KAFKA
    assert taken == {body for body in bodies if len(body) < 2000} | {b"alone"}
    assert {*bodies, b"alone"} <= set(bridge.in_raw())
    assert reconnects == 0
