"""How a partition is opened on a real Kafka: in the one order that makes what is read true."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import NoReturn

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata
from prometheus_client import CollectorRegistry

from pipeline.core.offset_metadata import with_owner
from pipeline.kafka.reader import LogReader
from pipeline.kafka.requests import Committed, ProducerId
from pipeline.kafka.takeover import Takeovers
from pipeline.kafka.transaction_client import TransactionClient
from pipeline.kafka.transactions import TransactionalProducer
from pipeline.service.metrics.worker import WorkerMetrics
from pipeline.service.settings import Settings
from pipeline.worker.accept import AcceptStage
from pipeline.worker.chunk import Chunk
from pipeline.worker.clock import KafkaClock
from pipeline.worker.committer import Committer
from pipeline.worker.exits import ExitCode
from pipeline.worker.partition import Partition
from tests.integration.worker.test_traps import transactional_id


def test_an_offset_is_read_only_after_the_predecessor_is_fenced(settings: Settings) -> None:
    """Right after a commit another client may still get the old offset; after InitProducerId it never is."""

    async def read_after_each_commit() -> list[int]:
        group, tp = settings.worker.group, TopicPartition(settings.kafka.topics.raw, 0)
        found, client = [], TransactionClient(settings.kafka.client_options(), [settings.kafka.topics.accepted])
        for offset in range(1, 16):
            producer = await TransactionalProducer.open(client, transactional_id(settings))
            await producer.commit([], {tp: OffsetAndMetadata(offset, "")}, group)
            successor = await TransactionalProducer.open(client, transactional_id(settings))
            position = await successor.position(group, tp)
            found.append(position.offset if position else -1)
        await client.close()
        return found

    found = asyncio.run(read_after_each_commit())

    assert found == list(range(1, 16))


async def no_seek(tp: TopicPartition, offset: int) -> None:
    """There is no consumer to seek."""


def crash(code: ExitCode, message: str) -> NoReturn:
    raise AssertionError(f"{code.name}: {message}")


class Watched(TransactionClient):
    """The real client, which notes in what order a partition is opened."""

    def __init__(self, settings: Settings) -> None:
        topics = settings.kafka.topics
        written = [topics.accepted, topics.rejected, topics.partial_counts]
        super().__init__(settings.kafka.client_options(), written)
        self.calls: list[str] = []

    async def init_producer(self, producer: ProducerId) -> ProducerId:
        opened = await super().init_producer(producer)
        self.calls.append(producer.transactional_id)
        return opened

    async def committed(self, group: str, tp: TopicPartition, *, is_stable: bool) -> Committed | None:
        self.calls.append("read" if is_stable else "looked up")
        return await super().committed(group, tp, is_stable=is_stable)


def test_a_partition_is_opened_by_fencing_first(settings: Settings) -> None:
    """The order makes the read above a true one: who may claim it is fenced, then who is named; then it is read."""

    async def opened() -> list[str]:
        metrics = WorkerMetrics(CollectorRegistry())
        topics, group, tp = settings.kafka.topics, settings.worker.group, TopicPartition(settings.kafka.topics.raw, 0)
        watched, policy = Watched(settings), settings.worker.policy
        before = await TransactionalProducer.open(watched, "the owner")
        await before.commit([], {tp: OffsetAndMetadata(0, with_owner("", "the owner"))}, group)
        await before.position(group, tp)
        watched.calls.clear()

        stage = AcceptStage(topics=topics, group=group, policy=policy, metrics=metrics, clock=KafkaClock())
        reader = LogReader(settings.kafka.client_options())
        partition = Partition(
            stage,
            0,
            reader=reader,
            takeovers=Takeovers(watched, reader, group),
            committer=Committer(group, partial(TransactionalProducer.open, watched, "ours")),
            seek=no_seek,
            crash=crash,
        )
        await partition.handle(Chunk(topics.raw, 0, 0, 0, (), idle=False, now=0, behind=0))
        await partition.close()
        await watched.close()
        return watched.calls

    calls = asyncio.run(opened())

    steps = ["ours", transactional_id(settings), "looked up", "the owner", "read"]
    assert [call for call, before in zip(calls, [None, *calls], strict=False) if call != before][:5] == steps
