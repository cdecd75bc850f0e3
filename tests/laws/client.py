"""The model's Kafka clients, as pipeline/kafka offers them to a stage: each request can fail in every way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from enum import Enum
from types import SimpleNamespace
from typing import Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import IllegalOperation, KafkaTimeoutError, NotLeaderForPartitionError, RequestTimedOutError
from aiokafka.record.memory_records import MemoryRecords

from pipeline.kafka.batches import Batch
from pipeline.kafka.reader import Committed, LogReader
from pipeline.kafka.transactions import TransactionalProducer
from tests.laws.kafka import Broker, Record, Transaction

T = TypeVar("T")


class Fault(Enum):
    """What becomes of a request."""

    REFUSED = "the broker refuses it"
    ANSWER_LOST = "it takes effect, and its answer is an error"
    NEVER_SENT = "it never arrives, and no one answers"
    NEVER_ANSWERED = "it takes effect, and no one answers"
    LATE = "no one answers, and it arrives later"


class Network:
    """One process's way to the broker: *faults* by the number of the request, counted from when they were set."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.faults: dict[int, Fault] = {}
        self.requests = 0
        self.is_cut = False

    async def request(self, effect: Callable[[], T], *, is_bounded: bool = False) -> T:
        """Make a request. Bounded: the client itself gives up waiting for its answer."""
        fault = self.faults.get(self.requests)
        self.requests += 1
        await self._travel()
        if fault is Fault.REFUSED:
            await self._fail(NotLeaderForPartitionError())
        if fault is Fault.LATE:
            self.broker.late.append(effect)
        if fault in (Fault.NEVER_SENT, Fault.LATE):
            await self._silence(is_bounded=is_bounded)
        result = effect()
        await self._travel()
        if fault is Fault.ANSWER_LOST:
            await self._fail(RequestTimedOutError())
        if fault is Fault.NEVER_ANSWERED:
            await self._silence(is_bounded=is_bounded)
        return result

    async def _travel(self) -> None:
        await asyncio.sleep(0)
        if self.is_cut:
            raise ConnectionError("this process is dead")

    async def _silence(self, *, is_bounded: bool) -> None:
        await asyncio.sleep(10 if is_bounded else 1_000_000)
        await self._fail(KafkaTimeoutError())

    @staticmethod
    async def _fail(error: Exception) -> None:
        # As in the real clients the error comes out of a future that a frame on its way holds: a cycle.
        answer = asyncio.get_running_loop().create_future()
        answer.set_exception(error)
        await answer


class _Client:
    _sync_task = None

    @staticmethod
    async def close() -> None:
        """There is nothing to close."""


class ModelProducer:
    """AIOKafkaProducer, as far as a stage uses it. Like the real one it is of no use once a request failed."""

    _sender = None
    _txn_manager = SimpleNamespace(transactional_id="")
    client = _Client()

    def __init__(self, network: Network, transactional_id: str, epoch: int) -> None:
        self.network = network
        self.who = (transactional_id, epoch)
        self._transaction: Transaction | None = None
        self._is_broken = False

    async def begin_transaction(self) -> None:
        self._transaction = await self._request(lambda: self.network.broker.begin(*self.who))

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[Any]:
        begun, tp = self._begun(), TopicPartition(topic, partition)
        records = list(MemoryRecords(bytes(batch._builder.build())).next_batch())
        await asyncio.sleep(0)

        def produce() -> Any:
            self.network.broker.produce(*self.who, begun, tp, records)
            return SimpleNamespace(timestamp=self.network.broker.now)

        return asyncio.create_task(self._request(produce))

    async def send_offsets_to_transaction(self, offsets: dict[TopicPartition, Any], group: str) -> None:
        begun = self._begun()
        positions = {(group, tp): (position.offset, position.metadata) for tp, position in offsets.items()}
        await self._request(lambda: self.network.broker.add_offsets(*self.who, begun, positions))

    async def commit_transaction(self) -> None:
        begun, self._transaction = self._begun(), None
        await self._request(lambda: self.network.broker.commit(*self.who, begun))

    async def stop(self) -> None:
        await asyncio.sleep(0)

    def _begun(self) -> Transaction:
        if self._transaction is None:
            raise IllegalOperation("no transaction")
        return self._transaction

    async def _request(self, effect: Callable[[], T]) -> T:
        if self._is_broken:
            raise IllegalOperation("a request of this producer failed before")
        try:
            return await self.network.request(effect)
        except BaseException:
            self._is_broken = True
            raise


class ModelTransactionalProducer(TransactionalProducer):
    """The real one, on the model: what it asks of aiokafka's insides is a request here."""

    def __init__(self, producer: ModelProducer) -> None:
        super().__init__(producer)
        self._network = producer.network
        self._who = producer.who

    async def unmarked(self, tps: Iterable[TopicPartition]) -> set[TopicPartition]:
        name, _ = self._who
        return await self._network.request(lambda: self._network.broker.unmarked(name, tps), is_bounded=True)

    async def mark(self, tps: set[TopicPartition], *, commit: bool) -> None:
        name, epoch = self._who
        await self._network.request(lambda: self._network.broker.mark(name, epoch, tps, commit=commit))


async def open_producer(network: Network, transactional_id: str) -> TransactionalProducer:
    """Fence the predecessors of *transactional_id*, and return its producer."""
    epoch = await network.request(lambda: network.broker.init_producer(transactional_id), is_bounded=True)
    return ModelTransactionalProducer(ModelProducer(network, transactional_id, epoch))


class ModelReader(LogReader):
    """The cluster, read."""

    def __init__(self, network: Network) -> None:
        super().__init__({})
        self._network = network
        self._broker = network.broker

    async def committed(self, group: str, tp: TopicPartition) -> Committed | None:
        found = await self._network.request(lambda: self._broker.offsets.get((group, tp)), is_bounded=True)
        return None if found is None else Committed(*found)

    async def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        log = self._broker.log(tp)
        return await self._network.request(lambda: (log.start, log.end), is_bounded=True)

    async def undecided(self, tp: TopicPartition) -> list[Record]:
        return await self._network.request(lambda: self._broker.log(tp).undecided(), is_bounded=True)

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
        shown = await self._network.request(lambda: self._broker.shown_end(tp), is_bounded=True)
        end = shown if until is None else min(shown, until)
        if start is not None:
            position = max(start, log.start)
        else:
            position = log.start if since is None else log.offset_for_time(since)
        if log.stable_end < end:  # Others' transactions: they end in time.
            await self._network.request(self._broker.settle, is_bounded=True)
            if log.stable_end < end:
                self._broker.time_out()
                raise KafkaTimeoutError
        while position < end:
            records = await self._network.request(
                lambda position=position: log.committed(position, end)[:2],  # type: ignore[misc]
                is_bounded=True,
            )
            if not records:
                break
            position = records[-1].offset + 1
            yield records
