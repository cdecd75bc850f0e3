"""What the commands ask of Kafka, on a real one: every question has an answer or a line that says why not."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer
from kafka.admin import KafkaAdminClient

from pipeline.kafka.tools import cluster as cluster_of_tools
from pipeline.kafka.tools import reader
from pipeline.kafka.tools.cluster import Bounds, ClusterError, UnreachableError, connect
from pipeline.kafka.tools.raw_writer import write_raw
from pipeline.kafka.tools.reader import Reader
from pipeline.service.settings import KafkaSettings, Settings
from tests.conftest import KAFKA_JARS
from tests.harness.cluster import Cluster
from tests.harness.load import Raw, write
from tests.harness.ports import free_port
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.local.kafka import LocalKafka

BODIES = [Raw(b"%d" % number, b"{}") for number in range(40)]  # Some in each partition.


@pytest.fixture(autouse=True)
def stalled_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not go on is given up after a second."""
    monkeypatch.setattr(reader, "STALLED_SECONDS_MAX", 1.0)


def test_a_kafka_that_is_not_there_is_named() -> None:
    """The operator must see which address was tried, not a traceback of sockets."""
    port = free_port()
    kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}")

    with (
        pytest.raises(UnreachableError, match=f"no Kafka answers at 127.0.0.1:{port}"),
        connect(kafka, timeout_seconds=1),
    ):
        pass


def test_what_was_written_is_read_from_one_offset_to_another(settings: Settings) -> None:
    write(settings, BODIES)
    raw = settings.kafka.topics.raw

    with connect(settings.kafka) as cluster:
        found = Reader(cluster)
        ends = {partition: bounds.end for partition, bounds in cluster.bounds(raw).items()}
        parts = {
            partition: [r for rs in found.read(raw, partition, 1, end - 1) for r in rs]
            for partition, end in ends.items()
        }

    assert sum(ends.values()) == 40
    assert {number: [r.offset for r in records] for number, records in parts.items()} == {
        number: [*range(1, end - 1)] for number, end in ends.items()
    }
    assert found.records == 40 - 2 * len(ends)


def test_a_broker_that_stops_in_the_middle_is_one_line(settings: Settings, kafka: LocalKafka) -> None:
    """`rejected list` and `topics migrate` read so: they went on asking for ever."""
    write(settings, BODIES)
    with connect(settings.kafka) as cluster:
        records = Reader(cluster).read_since(settings.kafka.topics.raw, 0)
        next(records)
        kafka.pause()
        try:
            with pytest.raises(ClusterError, match=r"raw\[\d\] cannot be read on from 0, and ends at \d"):
                list(records)
        finally:
            kafka.resume()


async def test_a_transaction_that_does_not_end_is_left_out_or_named(settings: Settings) -> None:
    """Up to the high watermark it has to be waited for; what is complete can be read without."""
    raw = settings.kafka.topics.raw
    write(settings, [Raw(b"a", b"{}")])
    producer = AIOKafkaProducer(**settings.kafka.client_options(), transactional_id=uuid.uuid4().hex)
    await producer.start()
    try:
        await producer.begin_transaction()
        for partition in range(settings.kafka.partitions):
            await producer.send_and_wait(raw, b"{}", partition=partition)

        with connect(settings.kafka) as cluster:
            bounds = cluster.bounds(raw)
            assert len(list(Reader(cluster).read_since(raw, 0))) == 1
            with pytest.raises(ClusterError, match="cannot be read on from"):
                list(Reader(cluster).read(raw, 0, *bounds[0]))
    finally:
        await producer.stop()


def test_a_missing_topic_is_named_and_stays_missing(fresh_settings: Settings, admin: KafkaAdminClient) -> None:
    """A client that asks for a topic by its name can have it created."""
    raw = fresh_settings.kafka.topics.raw
    with connect(fresh_settings.kafka) as cluster:
        for ask in (
            lambda: cluster.bounds(raw),
            lambda: list(Reader(cluster).read_since(raw, 0)),
            lambda: next(Reader(cluster).follow(raw, since_ms=0)),
            lambda: write_raw(fresh_settings.kafka, [(b"{}", [])], lambda: None),
        ):
            with pytest.raises(ClusterError, match=f"there is no topic {raw} on .*: see vod-pipeline topics plan"):
                ask()

    assert raw not in admin.list_topics()


def test_a_partition_without_a_leader_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its only replica is on a broker that is gone."""
    with Cluster(KAFKA_JARS, tmp_path, nodes=3) as brokers:
        kafka = KafkaSettings(bootstrap_servers=brokers.bootstrap_servers(), topic_prefix="alone.")
        with connect(kafka) as cluster:
            cluster.create_topic("alone.raw", partitions=1, replication_factor=1, config={"min.insync.replicas": "1"})
            assert cluster.bounds("alone.raw") == {0: Bounds(0, 0)}
            with KafkaAdminClient(**kafka.client_options()) as admin:
                (topic,) = admin.describe_topics(["alone.raw"])
            brokers.nodes[topic["partitions"][0]["leader_id"] - 1].kill()
            eventually(lambda: [] if cluster.topics(["alone.raw"])["alone.raw"].leaderless else ["led"])
            monkeypatch.setattr(cluster_of_tools, "ANSWER_TIMEOUT_SECONDS", 1.0)

            with pytest.raises(ClusterError, match=r"alone\.raw\[0\] has no leader"):
                cluster.bounds("alone.raw")
