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
from collections.abc import Iterable
from typing import Any, Protocol, Self

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from pipeline.core.contract import OUTPUT_BATCH_BYTES_MAX, Row
from pipeline.kafka.batches import Batches, send
from pipeline.kafka.clients import close_client
from pipeline.kafka.describe_producers import open_transactions
from pipeline.kafka.reader import REQUEST_TIMEOUT_MS, STOP_SECONDS, Committed, LogReader
from pipeline.service.lifecycle import close

TRANSACTION_TIMEOUT_MS = 15_000  # An open transaction of a paused worker holds back every read_committed reader.
MARKED_SECONDS = 10.0  # Usually milliseconds; longer than the 9 s after which Kafka knows that a leader is gone.
POLL_SECONDS = 0.001
POLL_SECONDS_MAX = 0.1
ADDED_POLL_SECONDS = 0.01

logger: structlog.stdlib.BoundLogger = structlog.get_logger()
_closing: set[asyncio.Task[None]] = set()  # An event loop itself holds its tasks weakly.


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
    """The producer of one transactional id. Once anything raised, close it and open another: it is broken for good."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        """Wrap a *producer* that is started; see `open`."""
        self._producer = producer

    @classmethod
    async def open(cls, client_options: dict[str, Any], transactional_id: str) -> Self:
        """Start a producer: it ends and fences whatever its predecessor had open."""
        producer = AIOKafkaProducer(
            **client_options,
            transactional_id=transactional_id,
            acks="all",
            linger_ms=0,
            max_batch_size=OUTPUT_BATCH_BYTES_MAX,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        opened = cls(producer)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
                await producer.start()
        except BaseException:
            await opened.close()
            raise
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
            Kafka's time of what was written: see `batches.send`.

        Raises:
            KafkaError, AssertionError, TimeoutError: nothing is known of the outcome.
        """
        producer = self._producer
        async with asyncio.timeout(TRANSACTION_TIMEOUT_MS / 1000):
            await producer.begin_transaction()
            written_at = await send(producer, outputs)
            await producer.send_offsets_to_transaction({source: position}, group)
            await producer.commit_transaction()
        return written_at

    async def until_marked(self, tps: Iterable[TopicPartition]) -> None:
        """
        Wait until this producer has nothing undecided in *tps*.

        It costs a request, and saves the 20 ms that aiokafka waits where a transaction begins before that.

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

    async def unmarked(self, tps: Iterable[TopicPartition]) -> set[TopicPartition]:
        """
        Return which of *tps* hold records of this producer's id that are neither committed nor aborted.

        Raises:
            KafkaError: a leader cannot be asked now; nothing is known.
        """
        wanted = set(tps)
        for topic in {tp.topic for tp in wanted}:
            await self._producer.partitions_for(topic)  # A fresh producer knows no topics.
        producer_id = self._producer._txn_manager.producer_id
        found = await open_transactions(self._producer.client, wanted)
        return {tp for tp, open_id in found if open_id == producer_id}

    async def mark(self, tps: set[TopicPartition], *, commit: bool) -> None:
        """Run a transaction without records over *tps*: its markers end whatever this producer's id has open there."""
        transaction = self._producer._txn_manager
        await self._producer.begin_transaction()
        for tp in tps:
            transaction.maybe_add_partition_to_txn(tp)
        while not tps <= transaction.txn_partitions:  # noqa: ASYNC110  # aiokafka 0.14.0 has no event for it.
            await asyncio.sleep(ADDED_POLL_SECONDS)
        await (self._producer.commit_transaction() if commit else self._producer.abort_transaction())

    async def close(self) -> None:
        """Stop within twice STOP_SECONDS, whatever state it is in; a cancellation does not stop that."""
        closing = asyncio.create_task(_close(self._producer))
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)
        await asyncio.shield(closing)

    async def _unmarked(self, tps: Iterable[TopicPartition]) -> set[TopicPartition]:
        """Ask until all leaders have answered: that one moves is no reason to restore the state."""
        while True:
            try:
                return await self.unmarked(tps)
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(POLL_SECONDS_MAX)


async def _close(producer: AIOKafkaProducer) -> None:
    if await close(producer.stop(), seconds=STOP_SECONDS):
        return
    logger.info("producer_abandoned", transactional_id=producer._txn_manager.transactional_id)
    sender, client = producer._sender, producer.client
    if sender is not None and sender.sender_task is not None:
        sender.sender_task.cancel()
    await close_client(client, seconds=STOP_SECONDS)
