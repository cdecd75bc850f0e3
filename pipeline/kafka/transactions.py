"""
Exactly once, as Kafka does it: outputs and source offsets in one transaction of a producer that others can fence.

And what Kafka leaves undone. Kafka 4.3 forgets the markers of partitions that have no leader at that moment, and takes
the transaction for ended (KRaftMetadataCache.getPartitionLeaderEndpoint answers as if they were deleted). A lone broker
that stood still past its session comes back to just that. What was written then hangs: read_committed readers wait
before it, a restore does not see it, and the next markers of that producer id decide on it, too. So no transaction
begins before the one before it is marked, and opening a partition ends what hangs there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Protocol, Self, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import ConcurrentTransactions, KafkaConnectionError, KafkaError, RequestTimedOutError
from aiokafka.structs import OffsetAndMetadata

from pipeline.core.contract import OUTPUT_BATCH_BYTES_MAX, Row
from pipeline.kafka.batches import REFUSALS, Batches, RefusedError
from pipeline.kafka.clients import UnstableOffsetError
from pipeline.kafka.reader import REQUEST_TIMEOUT_MS, LogReader
from pipeline.kafka.requests import Committed, ProducerId
from pipeline.kafka.transaction_client import TransactionClient

SEQUENCE_MAX = 2**31 - 1
COMMIT_SECONDS = 10.0  # Before the coordinator ends the transaction itself, and fences us.
MARKED_SECONDS = 10.0  # Usually milliseconds; longer than the 9 s after which Kafka knows that a leader is gone.
POLL_SECONDS = 0.001
POLL_SECONDS_MAX = 0.1
RETRY_SECONDS = 0.05  # An election takes about as long.
MARKING_SECONDS = 0.002  # So long the transaction before is marked, after it was answered.

# What is so while a transaction before has no markers yet.
MARKING = (ConcurrentTransactions, UnstableOffsetError)
# A request that may reach its broker later, or did.
UNANSWERED = (KafkaConnectionError, RequestTimedOutError)

T = TypeVar("T")


class Outputs(Protocol):
    """What a stage says of its outputs."""

    def exclusive_outputs(self, partition: int) -> tuple[TopicPartition, ...]:
        """Return the partitions that only the owner of source *partition* writes to."""
        ...

    def shared_outputs(self, partition: int) -> tuple[TopicPartition, ...]:
        """Return the ones that others write to, too."""
        ...

    async def reached(self, reader: LogReader, partition: int) -> Committed | None:
        """Return the source offset up to which the outputs that can be read were made; None: they do not say."""
        ...

    def is_own(self, record: Any, partition: int) -> bool:
        """Return whether an output *record* was written for source *partition*."""
        ...

    def source_offset(self, record: Any) -> int | None:
        """Return the source offset that an output *record* was made from; None if it does not say."""
        ...

    def is_committed(self, record: Any, partition: int, committed: Committed | None) -> bool | None:
        """
        Return whether the transaction of an output *record* was committed: None if the record does not say.

        False, too, where what is aborted is written again.
        """
        ...


def output(tp: TopicPartition, rows: Iterable[Row] = (), *, bytes_max: int = OUTPUT_BATCH_BYTES_MAX) -> Batches:
    """Begin what a transaction writes to *tp*."""
    return Batches(tp, rows, bytes_max=bytes_max, is_transactional=True)


class TransactionalProducer:
    """
    The producer of one transactional id, as long as no other process opens it.

    What Kafka does not do, or does not answer, is asked again for COMMIT_SECONDS, with the same sequence numbers.
    """

    def __init__(self, client: TransactionClient, producer: ProducerId) -> None:
        """See `open`."""
        self._client = client
        self._producer = producer
        self._sequences: dict[TopicPartition, int] = {}
        self._is_unanswered = False

    @classmethod
    async def open(cls, client: TransactionClient, transactional_id: str) -> Self:
        """Begin an epoch of *transactional_id*: it ends and fences whatever its predecessor had open."""
        opened = cls(client, ProducerId(transactional_id))
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            await opened._begin_epoch()
        return opened

    @property
    def transactional_id(self) -> str:
        """Under which name it writes, and can be fenced."""
        return self._producer.transactional_id

    @property
    def id(self) -> int:
        """The number that Kafka gave it: its records have it."""
        return self._producer.id

    async def renew(self, group: str) -> None:
        """
        Begin the next epoch, in which nothing that an earlier one sent is taken any more; what is open is aborted.

        So is what came late, or may come, of the offsets of *group*: nothing else would ever decide on it.

        Raises:
            ProducerFenced, InvalidProducerEpoch: another process opened its transactional id.
            KafkaError, TimeoutError: it may be tried again.
        """
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            await self._renew(group)

    async def commit(
        self, outputs: Iterable[Batches], positions: Mapping[TopicPartition, OffsetAndMetadata], group: str
    ) -> dict[TopicPartition, int]:
        """
        Write *outputs* and the source offsets in one transaction.

        Args:
            outputs: What to write, at most one to each partition; none of it is read before all of it is.
            positions: Where *group* goes on after this transaction, by source partition.
            group: The consumer group.

        Returns:
            For each partition that was written to Kafka's time (ms) when it was; NO_TIMESTAMP where the topic has no
            clock.

        Raises:
            RefusedError: Kafka will never take one of the batches.
            TimeoutError: Kafka did not do it, or did not answer.
            KafkaError: it refused.
            After any of them `renew`, and see `position`, before anything else is committed.
        """
        written = [output for output in outputs if output.batches]
        async with asyncio.timeout(COMMIT_SECONDS):
            if written:
                await self._ask(self._client.add_partitions, [output.tp for output in written])
            await self._ask(self._client.add_group, group)
            written_at = await self._produce(written)
            await self._ask(self._client.commit_offsets, group, positions)
            await self._ask(partial(self._client.end, commit=True))
            while self._is_unanswered:
                # What is still on its way would else be taken for the next one's, where protocol 1 is spoken.
                await self._renew(group)
        return written_at

    async def position(self, group: str, tp: TopicPartition, *, is_stable: bool = True) -> Committed | None:
        """
        Return what *group* committed for *tp*.

        Args:
            is_stable: Wait until no transaction holds another position that is not decided.

        Raises:
            KafkaError, TimeoutError: that is not known.
        """
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            return await self._ask(lambda _: self._client.committed(group, tp, is_stable=is_stable))

    async def until_marked(self, tps: Iterable[TopicPartition]) -> None:
        """
        Wait until this producer has nothing undecided in *tps*.

        Raises:
            TimeoutError: something hangs there, or no leader could be asked; no other transaction may begin.
            KafkaError: likewise, for good.
        """
        wanted, pause = set(tps), POLL_SECONDS
        async with asyncio.timeout(MARKED_SECONDS):
            while wanted := await self.unmarked(wanted):
                await asyncio.sleep(pause)
                pause = min(2 * pause, POLL_SECONDS_MAX)

    async def abort_hanging(self, tps: Collection[TopicPartition]) -> None:
        """Abort whatever this producer's id has open in *tps*: a transaction without records has it decided, too."""
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            await self._ask(self._client.add_partitions, tps)
            await self._ask(partial(self._client.end, commit=False))

    async def commit_hanging(
        self, tps: Collection[TopicPartition], positions: Mapping[TopicPartition, OffsetAndMetadata], group: str
    ) -> None:
        """Commit it, together with *positions* of *group*. Should that be interrupted, it will be aborted, and they."""
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            await self._ask(self._client.add_partitions, tps)
            await self._ask(self._client.add_group, group)
            await self._ask(self._client.commit_offsets, group, positions)
            await self._ask(partial(self._client.end, commit=True))

    async def unmarked(self, tps: Iterable[TopicPartition]) -> set[TopicPartition]:
        """
        Return which of *tps* hold records of this producer's id that are neither committed nor aborted.

        Raises:
            KafkaError: no leader can be asked. It is tried without an end.
        """
        found = await self._ask(lambda _: self._client.open_transactions(tps))
        return {tp for tp, producer_id in found if producer_id == self._producer.id}

    async def _renew(self, group: str) -> None:
        await self._begin_epoch()
        await self._ask(self._client.add_group, group)
        await self._ask(partial(self._client.end, commit=False))

    async def _begin_epoch(self) -> None:
        self._producer = await self._ask(self._client.init_producer)
        self._sequences.clear()
        self._is_unanswered = False

    async def _produce(self, outputs: Collection[Batches]) -> dict[TopicPartition, int]:
        """Append all batches; a request takes one of each partition."""
        written_at: dict[TopicPartition, int] = {}
        for number in range(max((len(output.batches) for output in outputs), default=0)):
            left = {output.tp: self._numbered(output, number) for output in outputs if number < len(output.batches)}
            while left:
                outcomes = await self._client.produce(self._producer, left)
                for tp, outcome in outcomes.items():
                    if isinstance(outcome, int):
                        del left[tp]
                        written_at[tp] = outcome
                    elif isinstance(outcome, REFUSALS):
                        raise RefusedError(tp, outcome) from outcome
                for error in (outcome for outcome in outcomes.values() if isinstance(outcome, KafkaError)):
                    self._require_passing(error)
                if left:
                    await asyncio.sleep(RETRY_SECONDS)
                    await self._client.refresh()
        return written_at

    def _numbered(self, output: Batches, number: int) -> bytes:
        """Build a batch of *output*, with the sequence number of its first record."""
        batch, sequence = output.batches[number], self._sequences.get(output.tp, 0)
        batch.number(self._producer.id, self._producer.epoch, sequence)
        self._sequences[output.tp] = sequence + batch.record_count() & SEQUENCE_MAX
        return batch.build()

    async def _ask(self, request: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Make *request* of this producer until it is answered, or refused for good."""
        while True:
            try:
                return await request(self._producer, *arguments)
            except KafkaError as error:
                self._require_passing(error)
                pause = MARKING_SECONDS if isinstance(error, MARKING) else RETRY_SECONDS
            await asyncio.sleep(pause)

    def _require_passing(self, error: KafkaError) -> None:
        """Raise *error* unless it may pass; note it if what was sent may be on its way still."""
        if not (error.retriable or isinstance(error, MARKING)):
            raise error
        self._is_unanswered |= isinstance(error, UNANSWERED)
