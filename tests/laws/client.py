"""The model's Kafka clients, as pipeline/kafka offers them to a stage: each request can fail in every way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from enum import Enum
from math import inf
from typing import TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import (
    InvalidTxnState,
    KafkaError,
    KafkaTimeoutError,
    NotLeaderForPartitionError,
    RequestTimedOutError,
)
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import OffsetAndMetadata

from pipeline.kafka.reader import LogReader
from pipeline.kafka.requests import Committed, ProducerId
from pipeline.kafka.transaction_client import TransactionClient
from pipeline.kafka.transactions import TransactionalProducer
from tests.laws.kafka import Broker
from tests.laws.log import Record

T = TypeVar("T")


class Fault(Enum):
    """What becomes of a request."""

    REFUSED = "the broker refuses it, for the moment"
    REFUSED_FOR_GOOD = "the broker refuses it, and would again"
    ANSWER_LOST = "it takes effect, and its answer is an error"
    NEVER_SENT = "it never arrives, and no one answers"
    NEVER_ANSWERED = "it takes effect, and no one answers"
    LATE = "no one answers, and it arrives later"


class Network:
    """One process's way to the broker: *faults* by the number of the request, counted from when they were set."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.faults: dict[int, Fault] = {}
        self.late_by = inf
        """After how many further requests a late one arrives."""
        self._late_at = inf
        self.requests = 0
        self.is_cut = False

    async def request(self, effect: Callable[[], T]) -> T:
        """Make a request; the client itself gives up waiting for its answer."""
        fault = self.faults.get(self.requests)
        self.requests += 1
        if self.requests > self._late_at:
            self._late_at = inf
            self.broker.deliver_late()
            self.broker.settle()
        await self._travel()
        if fault is Fault.REFUSED:
            await self._fail(NotLeaderForPartitionError())
        if fault is Fault.REFUSED_FOR_GOOD:
            await self._fail(InvalidTxnState())
        if fault is Fault.LATE:
            self.broker.late.append(effect)
            self._late_at = self.requests + self.late_by
        if fault in (Fault.NEVER_SENT, Fault.LATE):
            await self._silence()
        result = effect()
        await self._travel()
        if fault is Fault.ANSWER_LOST:
            await self._fail(RequestTimedOutError())
        if fault is Fault.NEVER_ANSWERED:
            await self._silence()
        return result

    async def _travel(self) -> None:
        await asyncio.sleep(0)
        if self.is_cut:
            raise ConnectionError("this process is dead")

    async def _silence(self) -> None:
        await asyncio.sleep(10)
        await self._fail(RequestTimedOutError())

    @staticmethod
    async def _fail(error: Exception) -> None:
        # As in the real clients the error comes out of a future that a frame on its way holds: a cycle.
        answer = asyncio.get_running_loop().create_future()
        answer.set_exception(error)
        await answer


class ModelClient(TransactionClient):
    """The requests of transactions: whether one is made again is the real producer's affair."""

    def __init__(self, network: Network) -> None:
        super().__init__({}, ())
        self._network = network
        self._broker = network.broker

    async def init_producer(self, producer: ProducerId) -> ProducerId:
        name, known = producer.transactional_id, None if producer.epoch == -1 else producer.epoch
        epoch = await self._request(lambda: self._broker.init_producer(name, known))
        return ProducerId(name, self._broker.id_of(name), epoch)

    async def add_partitions(self, producer: ProducerId, tps: Collection[TopicPartition]) -> None:
        await self._request(lambda: self._broker.add_partitions(who(producer), tps))

    async def add_group(self, producer: ProducerId, group: str) -> None:
        await self._request(lambda: self._broker.add_group(who(producer)))

    async def produce(
        self, producer: ProducerId, batches: Mapping[TopicPartition, bytes]
    ) -> dict[TopicPartition, int | KafkaError]:
        """Send a request for each batch, as if each had another leader."""

        async def append(tp: TopicPartition, data: bytes) -> tuple[TopicPartition, int | KafkaError]:
            batch = MemoryRecords(bytes(data)).next_batch()
            records, sequence = list(batch), batch.base_sequence
            try:
                await self._request(lambda: self._broker.produce(who(producer), tp, records, sequence))
            except KafkaError as error:
                return tp, error
            return tp, self._broker.now

        return dict(await asyncio.gather(*(append(*item) for item in batches.items())))

    async def commit_offsets(
        self, producer: ProducerId, group: str, positions: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        found = {(group, tp): (position.offset, position.metadata) for tp, position in positions.items()}
        await self._request(lambda: self._broker.commit_offsets(who(producer), found))

    async def end(self, producer: ProducerId, *, commit: bool) -> None:
        await self._request(lambda: self._broker.end(who(producer), commit=commit))

    async def open_transactions(self, tps: Iterable[TopicPartition]) -> set[tuple[TopicPartition, int]]:
        return await self._request(lambda: self._broker.open_transactions(tps))

    async def transactional_ids(self, producer_id: int, *, is_over: bool) -> list[str]:
        return await self._request(lambda: self._broker.transactional_ids(producer_id, is_over=is_over))

    async def committed(self, group: str, tp: TopicPartition, *, is_stable: bool) -> Committed | None:
        found = await self._request(lambda: self._broker.committed((group, tp), is_stable=is_stable))
        return None if found is None else Committed(*found)

    async def refresh(self) -> None:
        await asyncio.sleep(0)

    def new_number(self) -> int:
        """Return one that no other worker gets."""
        self._broker.names += 1
        return self._broker.names

    async def _request(self, effect: Callable[[], T]) -> T:
        return await self._network.request(effect)


def who(producer: ProducerId) -> tuple[str, int]:
    return producer.transactional_id, producer.epoch


async def open_producer(client: ModelClient) -> TransactionalProducer:
    """Open a producer under a name that no other has had."""
    return await TransactionalProducer.open(client, f"worker-{client.new_number()}")


class ModelReader(LogReader):
    """The cluster, read."""

    def __init__(self, network: Network) -> None:
        super().__init__({})
        self._network = network
        self._broker = network.broker

    async def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        log = self._broker.log(tp)
        return await self._network.request(lambda: (log.start, log.end))

    async def undecided(self, tp: TopicPartition) -> list[Record]:
        return await self._network.request(lambda: self._broker.log(tp).undecided())

    async def read(
        self,
        tp: TopicPartition,
        *,
        since: int | None = None,
        start: int | None = None,
        until: int | None = None,
        isolation_level: str = "read_committed",
    ) -> AsyncIterator[list[Record]]:
        """Read on until the end that was asked for is stable, as the real one waits for that."""
        assert isolation_level == "read_committed"
        log = self._broker.log(tp)
        shown = await self._network.request(lambda: self._broker.shown_end(tp))
        end = shown if until is None else min(shown, until)
        position = max(start or 0, log.start if since is None else log.offset_for_time(since))
        if log.stable_end < end:  # Others' transactions: they end in time.
            await self._network.request(self._broker.settle)
            if log.stable_end < end:
                self._broker.time_out()
                raise KafkaTimeoutError
        while position < end:
            records = await self._network.request(
                lambda position=position: log.committed(position, end)[:2],  # type: ignore[misc]
            )
            if not records:
                break
            position = records[-1].offset + 1
            yield records
