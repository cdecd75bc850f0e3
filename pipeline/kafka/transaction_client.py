"""
The requests of all transactions of a process over one client: it has one metadata, and to each broker a connection as a
leader and one as a coordinator.

Each method makes one attempt. What is worth another one, and what it says of the transaction, is for `transactions`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import (
    ConcurrentTransactions,
    IncompatibleBrokerVersion,
    KafkaError,
    LeaderNotAvailableError,
    for_code,
)
from aiokafka.structs import OffsetAndMetadata

from pipeline.kafka import requests
from pipeline.kafka.clients import UnstableOffsetError, close_client, leader_of, reach
from pipeline.kafka.reader import REQUEST_TIMEOUT_MS, STOP_SECONDS
from pipeline.kafka.requests import CodedAnswer, Committed, ProducerId
from pipeline.kafka.wire import Request

TRANSACTION_TIMEOUT_MS = 15_000  # An open transaction of a paused worker holds back every read_committed reader.
FAILURES_MAX = 20  # In a row: the brokers may have moved.
OVER = ("Empty", "CompleteCommit", "CompleteAbort")
OPERATION_NOT_ATTEMPTED = 55  # As another one of the same request failed.

T = TypeVar("T")


class TransactionClient:
    """Begins to connect with the first request, and connects again by itself."""

    def __init__(self, client_options: Mapping[str, Any], topics: Iterable[str]) -> None:
        """
        Args:
            client_options: Where Kafka is, and how it lets us in.
            topics: All that is written to.
        """
        self._options = client_options
        self._topics = list(topics)
        self._client: AIOKafkaClient | None = None
        self._opening = asyncio.Lock()
        self._failures = 0
        self._coordinators: dict[tuple[int, str], int] = {}

    async def init_producer(self, producer: ProducerId) -> ProducerId:
        """
        Return the next epoch of *producer*'s transactional id; what another one has open there is aborted.

        If *producer* has an epoch, it must be the newest: InvalidProducerEpoch or ProducerFenced otherwise.
        """
        request = requests.init_producer_id(producer, timeout_ms=TRANSACTION_TIMEOUT_MS)
        return await self._ask_coordinator(producer, request)

    async def add_partitions(self, producer: ProducerId, tps: Collection[TopicPartition]) -> None:
        """Let *tps* get the transaction's marker; begins the transaction if there is none."""
        await self._ask_coordinator(producer, requests.add_partitions(producer, tps))

    async def add_group(self, producer: ProducerId, group: str) -> None:
        """Let the offsets of *group* get the transaction's marker; begins the transaction if there is none."""
        await self._ask_coordinator(producer, requests.add_group(producer, group))

    async def produce(
        self, producer: ProducerId, batches: Mapping[TopicPartition, bytes]
    ) -> dict[TopicPartition, int | KafkaError]:
        """Append *batches*; return for each partition the broker's time (ms) of that, or why it is not there."""
        client = await self._connected()
        outcomes: dict[TopicPartition, int | KafkaError] = {}
        shares: dict[int, dict[TopicPartition, bytes]] = {}
        for tp, batch in batches.items():
            try:
                shares.setdefault(_leader(client, tp), {})[tp] = batch
            except KafkaError as error:
                outcomes[tp] = error

        async def append(leader: int, share: dict[TopicPartition, bytes]) -> None:
            request = requests.produce(producer.transactional_id, share, timeout_ms=REQUEST_TIMEOUT_MS)
            try:
                appended = await self._answered(client, client.send(leader, request))
            except KafkaError as error:
                outcomes.update(dict.fromkeys(share, error))
                return
            for tp in share:
                code, timestamp = appended[tp]
                outcomes[tp] = timestamp if code == 0 else for_code(code)(f"Produce to {tp.topic}[{tp.partition}]")

        await asyncio.gather(*(append(leader, share) for leader, share in shares.items()))
        return outcomes

    async def commit_offsets(
        self, producer: ProducerId, group: str, positions: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        """Commit *positions* of *group* with the transaction."""
        await self._asked(CoordinationType.GROUP, group, requests.commit_offsets(producer, group, positions))

    async def committed(self, group: str, tp: TopicPartition, *, is_stable: bool) -> Committed | None:
        """
        Return what *group* committed for *tp*; None: nothing.

        Raises:
            UnstableOffsetError: a stable answer is asked for, and another position is undecided.
        """
        return await self._asked(CoordinationType.GROUP, group, requests.fetch_offset(group, tp, is_stable=is_stable))

    async def transactional_ids(self, producer_id: int, *, is_over: bool) -> list[str]:
        """
        Return the transactional ids that have *producer_id*: one, or none if brokers older than 3.0 do not tell.

        Args:
            is_over: Only one that has no transaction, as far as its coordinator knows.
        """
        client, found = await self._connected(), list[str]()
        request = requests.list_transactions(producer_id, OVER if is_over else ())
        try:
            for broker in client.cluster.brokers():
                answer = await self._answered(client, client.send(broker.nodeId, request))
                _check(answer)
                found += answer.value
        except IncompatibleBrokerVersion:
            return []
        return found

    async def end(self, producer: ProducerId, *, commit: bool) -> None:
        """End the transaction. A repetition is answered like the first one, as long as no other transaction began."""
        await self._ask_coordinator(producer, requests.end(producer, commit=commit))

    async def open_transactions(self, tps: Iterable[TopicPartition]) -> set[tuple[TopicPartition, int]]:
        """Return the partition and the producer id of every transaction that is open in one of *tps*."""
        client = await self._connected()
        shares: dict[int, list[TopicPartition]] = {}
        try:
            for tp in tps:
                shares.setdefault(_leader(client, tp), []).append(tp)
            answers = await asyncio.gather(
                *(
                    self._answered(client, client.send(leader, requests.describe_producers(share)))
                    for leader, share in shares.items()
                )
            )
            for answer in answers:
                _check(answer)
        except KafkaError:
            client.force_metadata_update()
            raise
        return set().union(*(answer.value for answer in answers))

    async def refresh(self) -> None:
        """Learn again which broker leads what."""
        await (await self._connected()).force_metadata_update()

    async def close(self) -> None:
        """Close all connections, within STOP_SECONDS."""
        client, self._client = self._client, None
        if client is not None:
            await close_client(client, seconds=STOP_SECONDS)

    async def _connected(self) -> AIOKafkaClient:
        async with self._opening:
            if self._client is None:
                client = AIOKafkaClient(**self._options, request_timeout_ms=REQUEST_TIMEOUT_MS)
                try:
                    await reach(client, self._topics)
                except BaseException:
                    await close_client(client, seconds=STOP_SECONDS)
                    raise
                self._client = client
        return self._client

    async def _ask_coordinator(self, producer: ProducerId, request: Request[CodedAnswer[T]]) -> T:
        return await self._asked(CoordinationType.TRANSACTION, producer.transactional_id, request)

    async def _asked(self, kind: int, key: str, request: Request[CodedAnswer[T]]) -> T:
        """Ask the coordinator of *key*; after most failures it is looked for anew."""
        client = await self._connected()
        try:
            if (kind, key) not in self._coordinators:
                self._coordinators[kind, key] = await self._answered(client, client.coordinator_lookup(kind, key))
            asked = client.send(self._coordinators[kind, key], request, group=ConnectionGroup.COORDINATION)
            answer: CodedAnswer[T] = await self._answered(client, asked)
            _check(answer)
        except (ConcurrentTransactions, UnstableOffsetError):
            raise
        except KafkaError:
            self._coordinators.pop((kind, key), None)
            raise
        return answer.value

    async def _answered(self, client: AIOKafkaClient, asked: Awaitable[Any]) -> Any:
        """Wait for an answer; after many failures without one, the next request begins at the bootstrap servers."""
        try:
            answer = await asked
        except KafkaError:
            self._failures += 1
            if self._failures >= FAILURES_MAX and client is self._client:
                self._failures = 0
                await self.close()
            raise
        self._failures = 0
        return answer


def _leader(client: AIOKafkaClient, tp: TopicPartition) -> int:
    leader = leader_of(client, tp)
    if leader is None:
        raise LeaderNotAvailableError(f"{tp.topic}[{tp.partition}]")
    return leader


def _check(outcome: CodedAnswer[Any]) -> None:
    """Raise the first error of an answer."""
    for code in outcome.codes:
        if code not in (0, OPERATION_NOT_ATTEMPTED):
            raise for_code(code)()
