"""The bridge's way into raw on a real Kafka: what is acknowledged is there, and what may pass is tried again."""

from __future__ import annotations

import asyncio
import contextlib
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.structs import OffsetAndMetadata
from kafka.admin import NewTopic
from prometheus_client import CollectorRegistry

from pipeline.admin.topics.apply import reconcile
from pipeline.bridge.batch import StoredIn
from pipeline.bridge.errors import AckTimeoutError, KafkaFailedError, PublishError
from pipeline.bridge.ingress import AdmittedBody
from pipeline.bridge.publisher import Publisher, Source
from pipeline.kafka import batches
from pipeline.kafka.producer import BatchRefusedError, Producer
from pipeline.kafka.reader import LogReader
from pipeline.kafka.transaction_client import TransactionClient
from pipeline.kafka.transactions import TransactionalProducer, output
from pipeline.service.metrics.bridge import BridgeMetrics
from tests.conftest import new_kafka
from tests.harness.admin import admin_of
from tests.harness.recount import read
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from pipeline.core.contract import RawRecord
    from pipeline.local.kafka import LocalKafka
    from pipeline.service.settings import Settings

RESUME_SECONDS_MAX = 60
RESTART_SECONDS_MAX = 60.0  # An acknowledgement's deadline that a broker's restart fits into.


def record(number: int, *, key: bytes | None = None, size: int = 0) -> RawRecord:
    return key, b"%06d" % number + b"x" * size, b"http", 1_700_000_000_000, b""


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Producer]:
    producer = Producer(settings.kafka, settings.kafka.topics.raw, request_timeout_seconds=5)
    try:
        await producer.connect()
        yield producer
    finally:
        await producer.close()


@contextlib.asynccontextmanager
async def publishing(
    settings: Settings, *, ack_timeout_seconds: float
) -> AsyncIterator[tuple[Publisher, CollectorRegistry]]:
    registry = CollectorRegistry()
    publisher = Publisher(
        settings.kafka,
        settings.kafka.topics.raw,
        BridgeMetrics(registry),
        ack_timeout_seconds=ack_timeout_seconds,
        in_flight_max=10_000,
    )
    await publisher.start()
    try:
        yield publisher, registry
    finally:
        await publisher.stop()


async def publish(publisher: Publisher, body: bytes) -> bool:
    """Publish *body*; return whether it was acknowledged by Kafka."""
    with contextlib.suppress(PublishError):
        return (
            await publisher.publish(body, AdmittedBody(body), source=Source.HTTP, entry=b"", received_at_ms=1)
            is StoredIn.KAFKA
        )
    return False


async def until_published(publisher: Publisher) -> None:
    """Publish until something is acknowledged."""
    await until(lambda: publish(publisher, b"probe"), seconds=RESUME_SECONDS_MAX, pause_seconds=0.02)


def bodies_in_raw(settings: Settings) -> list[list[bytes]]:
    """Return the bodies of each partition, in order."""
    return [[found.value for found in records] for records in read(settings, settings.kafka.topics.raw)]


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[LocalKafka]:
    """A broker that may be killed."""
    with new_kafka(tmp_path) as broker:
        yield broker


@pytest.fixture
def own_settings(fresh_settings: Settings, own_kafka: LocalKafka) -> Settings:
    kafka = fresh_settings.kafka.model_copy(update={"bootstrap_servers": own_kafka.bootstrap_servers})
    settings = fresh_settings.model_copy(update={"kafka": kafka})
    reconcile(settings)
    return settings


async def test_records_of_a_partition_keep_their_order_however_many_batches_they_fill(settings: Settings) -> None:
    """Replay relies on it. 40 records of 60 KB are 20 batches."""
    records = [record(number, key=b"foobar", size=60_000) for number in range(40)]

    async with connected(settings) as producer:
        await producer.send(records)

    assert [len(found) for found in bodies_in_raw(settings)] == [0, 0, 40, 0]
    assert [body[:6] for body in bodies_in_raw(settings)[2]] == [b"%06d" % number for number in range(40)]


async def test_a_record_says_which_entry_it_came_by_if_that_is_known(settings: Settings) -> None:
    """What an older version spooled has no entry, and is as valid as before."""
    at = 1_700_000_000_000
    async with connected(settings) as producer:
        await producer.send([(b"key", b"new", b"http", at, b"shanghai"), (b"key", b"old", b"http", at, b"")])

    (found,) = filter(None, read(settings, settings.kafka.topics.raw))
    old = [("source", b"http"), ("received-at", b"1700000000000")]
    assert [(each.value, list(each.headers)) for each in found] == [
        (b"new", [*old, ("entry", b"shanghai")]),
        (b"old", old),
    ]


async def test_what_kafka_does_not_take_for_now_is_sent_again_and_only_that(settings: Settings) -> None:
    """A leader that moved and a topic that is just being made answer with codes of the same kind."""
    raw = settings.kafka.topics.raw
    async with connected(settings) as producer:
        with admin_of(settings) as admin:
            admin.delete_topics([raw])
            # A record that still gets in is acknowledged, and deleted.
            await until(lambda: raw not in admin.list_topics())
            sending = asyncio.create_task(producer.send([record(number) for number in range(8)]))
            done, _ = await asyncio.wait([sending], timeout=1)  # Long enough for some refusals.
            reconcile(settings)
        async with asyncio.timeout(RESUME_SECONDS_MAX):
            await sending

    assert not done
    assert sorted(body for found in bodies_in_raw(settings) for body in found) == [b"%06d" % n for n in range(8)]


async def test_another_version_on_disk_ends_no_session(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade in place: what is installed is gone for a while, and another then; the right code is in memory."""

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("pipeline.kafka.internals.version", version)
    async with publishing(settings, ack_timeout_seconds=60) as (publisher, _):
        await until_published(publisher)

    client = TransactionClient(settings.kafka.client_options(), [settings.kafka.topics.accepted])
    assert await TransactionalProducer.open(client, "upgraded")
    await client.close()
    assert await LogReader(settings.kafka.client_options()).bounds(TopicPartition(settings.kafka.topics.raw, 0))


async def test_a_record_larger_than_the_topic_takes_is_refused_at_once(settings: Settings) -> None:
    async with connected(settings) as producer:
        with pytest.raises(BatchRefusedError, match="MESSAGE_TOO_LARGE"):
            await producer.send([record(1, size=200_000)])
        await producer.send([record(2)])

    assert [body for found in bodies_in_raw(settings) for body in found] == [b"000002"]


async def test_an_invalid_record_is_refused_for_good_to_the_bridge_and_to_the_worker(fresh_settings: Settings) -> None:
    """One without a key where a topic is compacted."""
    raw = fresh_settings.kafka.topics.raw
    with admin_of(fresh_settings) as admin:
        admin.create_topics([NewTopic(raw, 1, 1, topic_configs={"cleanup.policy": "compact"})])

    async with connected(fresh_settings) as producer:
        with pytest.raises(BatchRefusedError, match="INVALID_RECORD"):
            await producer.send([record(1)])

    client, tp = TransactionClient(fresh_settings.kafka.client_options(), [raw]), TopicPartition(raw, 0)
    worker = await TransactionalProducer.open(client, "refused")
    with pytest.raises(batches.RefusedError, match=f"{raw}\\[0\\]: InvalidRecordError"):
        await worker.commit([output(tp, [(None, b"1", 1, [])])], {tp: OffsetAndMetadata(1, "")}, "group")
    await client.close()


async def test_a_missing_topic_is_named(fresh_settings: Settings) -> None:
    with pytest.raises(UnknownTopicOrPartitionError, match=fresh_settings.kafka.topics.raw):
        async with connected(fresh_settings):
            pass


async def test_a_refusal_is_of_the_batch_and_not_of_the_connection(settings: Settings) -> None:
    async with publishing(settings, ack_timeout_seconds=5) as (publisher, registry):
        await until_published(publisher)
        with pytest.raises(KafkaFailedError, match="MESSAGE_TOO_LARGE"):
            await publisher.publish(None, AdmittedBody(b"x" * 200_000), source=Source.MNS, entry=b"", received_at_ms=1)
        await until_published(publisher)

        assert registry.get_sample_value("vod_pipeline_bridge_reconnects_total") == 0


async def test_a_broker_killed_mid_batch_costs_nothing_that_was_acknowledged_and_publishing_resumes(
    own_settings: Settings, own_kafka: LocalKafka
) -> None:
    taken: list[bytes] = []

    async def load(publisher: Publisher, name: int) -> None:
        for number in range(1_000_000):
            body = b"%d-%d" % (name, number)
            if await publish(publisher, body):
                taken.append(body)

    async with publishing(own_settings, ack_timeout_seconds=1) as (publisher, registry):
        await until_published(publisher)
        loads = [asyncio.create_task(load(publisher, name)) for name in range(50)]
        # Under load: some batch is always in flight.
        await until(lambda: len(taken) >= 500, seconds=RESUME_SECONDS_MAX)
        own_kafka.kill()
        for task in loads:
            task.cancel()
        await asyncio.wait(loads)
        with pytest.raises(AckTimeoutError):
            await publisher.publish(None, AdmittedBody(b"away"), source=Source.HTTP, entry=b"", received_at_ms=1)
        await asyncio.to_thread(own_kafka.start)
        await until_published(publisher)

        assert registry.get_sample_value("vod_pipeline_bridge_reconnects_total", {}) >= 1  # type: ignore[operator]
    found = {body for bodies in bodies_in_raw(own_settings) for body in bodies}
    assert set(taken) <= found
    assert b"probe" in found


async def test_a_broker_that_is_back_within_the_deadline_costs_only_time(
    own_settings: Settings, own_kafka: LocalKafka
) -> None:
    """The broken connection is noticed, made anew, and the batch sent again: no one has to come back."""
    async with connected(own_settings) as producer:
        await producer.send([record(1)])
        own_kafka.kill()
        sending = asyncio.create_task(producer.send([record(2)]))
        await asyncio.to_thread(own_kafka.start)
        async with asyncio.timeout(RESTART_SECONDS_MAX):
            await sending

    assert {b"000001", b"000002"} == {body for bodies in bodies_in_raw(own_settings) for body in bodies}
