"""
Exactly once, as Kafka does it: outputs and source offset in one transaction of a producer that fences its predecessors.

And what Kafka leaves undone. Kafka 4.3 forgets the markers of partitions that have no leader at that moment, and takes
the transaction for ended (KRaftMetadataCache.getPartitionLeaderEndpoint answers as if they were deleted). A lone broker
that stood still past its session comes back to just that. What was written then hangs: read_committed readers wait
before it, a restore does not see it, and the next markers of that producer id decide on it, too. So no transaction
begins before the one before it is marked, and opening a partition ends what hangs there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from typing import Any, Protocol, Self, TypeVar

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import ConcurrentTransactions, KafkaConnectionError, KafkaError, RequestTimedOutError
from aiokafka.structs import OffsetAndMetadata

from pipeline.core.contract import OUTPUT_BATCH_BYTES_MAX, Row
from pipeline.kafka.batches import REFUSALS, Batches, RefusedError
from pipeline.kafka.reader import REQUEST_TIMEOUT_MS, Committed, LogReader
from pipeline.kafka.requests import ProducerId
from pipeline.kafka.transaction_client import TRANSACTION_TIMEOUT_MS, TransactionClient

SEQUENCE_MAX = 2**31 - 1
MARKED_SECONDS = 10.0  # Usually milliseconds; longer than the 9 s after which Kafka knows that a leader is gone.
POLL_SECONDS = 0.001
POLL_SECONDS_MAX = 0.1
RETRY_SECONDS = 0.05  # An election takes about as long.
MARKING_SECONDS = 0.002  # So long the transaction before is marked, after it was answered.

# A request that may reach its broker later, or did.
UNANSWERED = (KafkaConnectionError, RequestTimedOutError)

T = TypeVar("T")

logger: structlog.stdlib.BoundLogger = structlog.get_logger()


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

    def is_committed(self, record: Any, partition: int, committed: Committed | None) -> bool | None:
        """
        Return whether the transaction of an output *record* was committed: None if the record does not say.

        A record of another source partition's owner does not. False, too, where what is aborted is written again.
        """
        ...


def output(tp: TopicPartition, rows: Iterable[Row] = (), *, bytes_max: int = OUTPUT_BATCH_BYTES_MAX) -> Batches:
    """Begin what a transaction writes to *tp*."""
    return Batches(tp, rows, bytes_max=bytes_max, is_transactional=True)


class TransactionalProducer:
    """
    The producer of one transactional id.

    What Kafka does not do, or does not answer, is asked again for as long as the transaction may last, with the same
    sequence numbers. Once anything was raised, open another producer: what became of the transaction is not known.
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
            await opened._renew()
        return opened

    async def commit(
        self, outputs: Iterable[Batches], source: TopicPartition, position: OffsetAndMetadata, group: str
    ) -> dict[TopicPartition, int]:
        """
        Write *outputs* and the source offset in one transaction.

        Args:
            outputs: What to write; none of it is read before all of it is.
            source: The partition that they were made from.
            position: Where *group* goes on in *source* after this transaction.
            group: The consumer group.

        Returns:
            For each partition that was written to Kafka's time (ms) when it was; NO_TIMESTAMP where the topic has no
            clock.

        Raises:
            RefusedError: Kafka will never take one of the batches.
            KafkaError, TimeoutError: nothing is known of the outcome.
        """
        written = [output for output in outputs if output.batches]
        async with asyncio.timeout(TRANSACTION_TIMEOUT_MS / 1000):
            if self._is_unanswered:
                # What is still on its way would else be taken for this transaction's, where protocol 1 is spoken.
                await self._renew()
            if written:
                await self._ask(self._client.add_partitions, [output.tp for output in written])
            await self._ask(self._client.add_group, group)
            written_at = await self._produce(written)
            await self._ask(self._client.commit_offsets, group, {source: position})
            await self._ask(partial(self._client.end, commit=True))
        return written_at

    async def until_marked(self, tps: Iterable[TopicPartition]) -> None:
        """
        Wait until this producer has nothing undecided in *tps*.

        Raises:
            TimeoutError: something hangs there, or no leader could be asked; no other transaction may begin.
            KafkaError: likewise, for good.
        """
        wanted, pause = set(tps), POLL_SECONDS
        async with asyncio.timeout(MARKED_SECONDS):
            while wanted := await self._unmarked(wanted):
                await asyncio.sleep(pause)
                pause = min(2 * pause, POLL_SECONDS_MAX)

    async def resolve(self, reader: LogReader, outputs: Outputs, partition: int, committed: Committed | None) -> None:
        """
        Commit what hangs if its transaction was committed, and abort it otherwise.

        It has the predecessors' producer id, so its markers end theirs. Where no record says it, all that hangs are
        cumulative counts: they are committed, as repeating them does no harm.

        Args:
            reader: Reads what is undecided.
            outputs: Where the stage writes.
            partition: The source partition.
            committed: Its source offset, read after this producer was opened.

        Raises:
            KafkaError, TimeoutError: nothing is known.
        """
        exclusive = outputs.exclusive_outputs(partition)
        tps = (*exclusive, *outputs.shared_outputs(partition))
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            hanging = await self._unmarked(tps)
        if hanging:
            # A group that was forgotten is no reason to take back what the other outputs show to be committed.
            committed = committed or await outputs.reached(reader, partition)
            # All of it is of one transaction: the next one would not have begun.
            known = [
                is_committed
                for tp in tps
                if tp in hanging
                for record in await reader.undecided(tp)
                if (is_committed := outputs.is_committed(record, partition, committed)) is not None
            ]
            commit = known[0] if known else True
            logger.warning("hanging_transaction_ended", outputs=sorted(tp.topic for tp in hanging), commit=commit)
            async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
                await self.mark(set(tps), commit=commit)
            await self.until_marked(tps)
        # A restore ends before what is undecided: followers have not got its marker yet. Or it hangs under another
        # producer id (the transactional.id expired, or the group was renamed), and an operator has to look at it.
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            for tp in exclusive:
                while await reader.undecided(tp):  # noqa: ASYNC110  # Only Kafka knows.
                    await asyncio.sleep(POLL_SECONDS_MAX)

    async def mark(self, tps: Collection[TopicPartition], *, commit: bool) -> None:
        """Run a transaction without records over *tps*: its markers end whatever this producer's id has open there."""
        await self._ask(self._client.add_partitions, tps)
        await self._ask(partial(self._client.end, commit=commit))

    async def _unmarked(self, tps: Iterable[TopicPartition]) -> set[TopicPartition]:
        """Return which of *tps* hold records of this producer's id that are neither committed nor aborted."""
        found = await self._ask(lambda _: self._client.open_transactions(tps))
        return {tp for tp, producer_id in found if producer_id == self._producer.id}

    async def _renew(self) -> None:
        """Begin the next epoch, in which nothing that an earlier one sent is taken any more."""
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
                        raise RefusedError(f"{tp.topic}[{tp.partition}]: {outcome!r}") from outcome
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
                pause = MARKING_SECONDS if isinstance(error, ConcurrentTransactions) else RETRY_SECONDS
            await asyncio.sleep(pause)

    def _require_passing(self, error: KafkaError) -> None:
        """Raise *error* unless it may pass; note it if what was sent may be on its way still."""
        if not (error.retriable or isinstance(error, ConcurrentTransactions)):
            raise error
        self._is_unanswered |= isinstance(error, UNANSWERED)
