"""The publisher where the disk hangs, or a client fails at will; tests/integration has the rest on a real Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import structlog
from prometheus_client import CollectorRegistry

from pipeline.bridge.batch import PendingBatch, StoredIn
from pipeline.bridge.errors import AckTimeoutError
from pipeline.bridge.ingress import AdmittedBody
from pipeline.bridge.publisher import Publisher, Source
from pipeline.bridge.spool import Spool
from pipeline.bridge.spool_writer import Spooler
from pipeline.core.contract import RawRecord
from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.settings import KafkaSettings
from tests.harness.ports import free_port
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ACK_SECONDS = 0.1


@contextlib.asynccontextmanager
async def publishing(spooler: Spooler | None, metrics: BridgeMetrics) -> AsyncIterator[Publisher]:
    kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}")  # No one is there.
    publisher = Publisher(kafka, "raw", metrics, ack_timeout_seconds=ACK_SECONDS, in_flight_max=10, spooler=spooler)
    await publisher.start()
    yield publisher
    await publisher.stop()


def publish(publisher: Publisher, number: int) -> asyncio.Future[StoredIn]:
    body = AdmittedBody(b"%d" % number + b"x" * 1000)
    return publisher.publish(b"key", body, source=Source.HTTP, received_at_ms=0)


async def test_a_disk_that_hangs_is_a_failing_one_and_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network volume may stand still for minutes: what was given up must not pile up behind it."""
    append, hangs = Spool.append, threading.Event()

    def append_late(spool: Spool, records: Any) -> None:
        hangs.wait(60)
        append(spool, records)

    monkeypatch.setattr(Spool, "append", append_late)
    spool = Spool(tmp_path, bytes_max=1 << 20)
    registry = CollectorRegistry()
    metrics = BridgeMetrics(registry)
    spooler = Spooler(spool, metrics)
    async with publishing(spooler, metrics) as publisher:
        for number in range(3):
            with pytest.raises(AckTimeoutError):
                await publish(publisher, number)

        assert publisher.problems() == ["Kafka does not take records, and the spool fails"]
        assert [records for records, _ in spooler._pending] == [[], []]
        failures = registry.get_sample_value("vod_pipeline_spool_failures_total", {"reason": "disk"})
        assert failures == 3

        hangs.set()
        assert await publish(publisher, 9) is StoredIn.SPOOL
        assert publisher.problems() == []


async def test_a_request_whose_records_were_all_given_up_is_none(tmp_path: Path) -> None:
    """uvloop runs timers before the new task's first step: that must not end the bridge."""
    metrics = BridgeMetrics(CollectorRegistry())
    async with publishing(None, metrics) as publisher:
        batch = PendingBatch(lambda _: None, asyncio.get_running_loop(), 10)
        publisher._fail(batch, AckTimeoutError(), batch.records)
        assert batch.is_over

        producer: Any = None  # Nothing is to be sent.
        await publisher._sender._send(producer, [batch])


class Holding:
    """Stands in for the producer: it keeps what it was sent, and acknowledges once it is let go."""

    sent: ClassVar[list[list[bytes]]] = []
    let_go: ClassVar[asyncio.Event]

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    async def connect(self) -> int:
        return 1

    async def send(self, records: list[RawRecord], **_: Any) -> list[int]:
        self.sent.append([key or b"" for key, *_ in records])
        await self.let_go.wait()
        return []

    async def close(self) -> None:
        pass


async def test_what_comes_while_a_batch_is_in_flight_joins_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the one that was sent it would be acknowledged without being in Kafka."""
    monkeypatch.setattr("pipeline.bridge.sender.Producer", Holding)
    monkeypatch.setattr(Holding, "sent", [])
    monkeypatch.setattr(Holding, "let_go", asyncio.Event(), raising=False)
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    registry = CollectorRegistry()
    publisher = Publisher(kafka, "raw", BridgeMetrics(registry), ack_timeout_seconds=600, in_flight_max=10)
    await publisher.start()
    body = AdmittedBody(b"")
    acks = [publisher.publish(b"first", body, source=Source.HTTP, received_at_ms=0)]
    async with asyncio.timeout(60):
        while not Holding.sent:  # noqa: ASYNC110  # What is waited for has no event.
            await asyncio.sleep(0)
        assert registry.get_sample_value("vod_pipeline_bridge_kafka_requests") == 1
        acks.append(publisher.publish(b"second", body, source=Source.HTTP, received_at_ms=0))
        Holding.let_go.set()
        await asyncio.wait(acks)
    await publisher.stop()

    assert Holding.sent == [[b"first"], [b"second"]]


class Failing:
    """Stands in for the producer: each step raises what no client of Kafka should."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._fail("create")

    async def connect(self) -> int:
        self._fail("connect")
        return 1

    async def send(self, *_: Any, **__: Any) -> list[int]:
        self._fail("send")
        return []

    async def close(self) -> None:
        self._fail("close")

    left: ClassVar[list[str]] = []

    def _fail(self, step: str) -> None:
        if step in self.left:
            self.left.remove(step)
            raise ZeroDivisionError(step)


async def test_whatever_a_session_with_kafka_raises_another_one_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library's bug, a descriptor too few, a file that an upgrade replaces: the port must stay open."""
    monkeypatch.setattr("pipeline.bridge.sender.Producer", Failing)
    monkeypatch.setattr("pipeline.bridge.sender.RETRY_SECONDS_MIN", 0)
    monkeypatch.setattr(Failing, "left", ["create", "connect", "send", "close"])
    registry = CollectorRegistry()
    metrics = BridgeMetrics(registry)
    with structlog.testing.capture_logs() as logs:
        async with publishing(None, metrics) as publisher:
            with pytest.raises(AckTimeoutError):
                await publish(publisher, 1)
            await until(lambda: taken(publisher))

    assert Failing.left == []
    assert registry.get_sample_value("vod_pipeline_bridge_reconnects_total") == 3
    lost = [entry for entry in logs if entry["event"] == "kafka_lost"]
    assert [(entry["error"], entry["exc_info"]) for entry in lost] == [
        (f"ZeroDivisionError('{step}')", True) for step in ("create", "connect", "send")
    ]


async def taken(publisher: Publisher) -> bool:
    with contextlib.suppress(AckTimeoutError):
        return await publish(publisher, 2) is StoredIn.KAFKA
    return False
