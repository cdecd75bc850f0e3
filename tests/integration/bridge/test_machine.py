"""A bridge whose machine lacks something for a while, which keeps it from Kafka and no longer than that."""

from __future__ import annotations

import contextlib
import os
import resource
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from pipeline.bridge.batch import StoredIn
from pipeline.bridge.ingress import AdmittedBody
from pipeline.bridge.publisher import Publisher, Source
from pipeline.service.metrics.bridge import BridgeMetrics
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.service.settings import Settings


@contextlib.contextmanager
def no_descriptor() -> Iterator[None]:
    """Let this process open no file and no socket meanwhile, as where a crowd of clients has all there are."""
    _, most = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def upgraded_in_place() -> Iterator[None]:
    """Have another version of aiokafka on disk than in memory, or none, as while pip replaces it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.kafka.internals.version", lambda _: "0.0.0")
        yield


@pytest.mark.parametrize("missing", [no_descriptor, upgraded_in_place])
async def test_what_the_machine_lacks_for_a_while_keeps_the_bridge_from_kafka_and_no_longer(
    missing: Callable[[], contextlib.AbstractContextManager[None]],
    settings: Settings,
    registry: CollectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.bridge.sender.RETRY_SECONDS_MIN", 0)
    publisher = Publisher(
        settings.kafka, settings.kafka.topics.raw, BridgeMetrics(registry), ack_timeout_seconds=10, in_flight_max=10
    )
    failed = "vod_pipeline_bridge_reconnects_total"
    with missing():
        await publisher.start()
        (task,) = publisher.tasks
        await until(
            lambda: bool(registry.get_sample_value(failed)) or publisher._sender.connected.is_set() or task.done()
        )

    assert not task.done()
    body = AdmittedBody(b"body")
    assert await publisher.publish(b"key", body, source=Source.HTTP, received_at_ms=0) is StoredIn.KAFKA
    await publisher.stop()
