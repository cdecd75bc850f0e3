"""
How a source partition comes from one worker to the next, so that at any time one live producer commits it.

The metadata of its committed offset names its owner: the transactional id of the worker that commits it. Who takes
it over first opens the partition's own transactional id, under which a claim is written: from then on no one who came
before can claim it. Then it fences the owner that is named, and only then reads how far that came. Once it has what it
needs, it claims the partition, and commits it under its own name from then on. The consumer group decides who tries,
and nothing rests on what it says.
"""

from __future__ import annotations

import asyncio

import structlog
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from pipeline.core.offset_metadata import is_owned, owner_of, with_owner
from pipeline.kafka.reader import REQUEST_TIMEOUT_MS, LogReader
from pipeline.kafka.requests import Committed
from pipeline.kafka.transaction_client import TransactionClient
from pipeline.kafka.transactions import Outputs, TransactionalProducer

POLL_SECONDS = 0.1

logger: structlog.stdlib.BoundLogger = structlog.get_logger()


class Claim:
    """The right to claim a partition: the last one that was taken has it."""

    def __init__(self, producer: TransactionalProducer, group: str) -> None:
        """See `Takeovers.begin`."""
        self._producer = producer
        self._group = group

    async def make(self, tp: TopicPartition, position: OffsetAndMetadata, owner: str) -> OffsetAndMetadata:
        """
        Commit *position*, whose metadata names *owner* then, and return it as it is committed.

        Raises:
            KafkaError, TimeoutError: another worker took the partition over, or nothing is known.
        """
        claimed = OffsetAndMetadata(position.offset, with_owner(position.metadata, owner))
        await self._producer.commit([], {tp: claimed}, self._group)
        await self._producer.position(self._group, tp)
        return claimed


class Takeovers:
    """Takes partitions over from their last owners, for *group*."""

    def __init__(self, client: TransactionClient, reader: LogReader, group: str) -> None:
        self._client = client
        self._reader = reader
        self._group = group
        self._fencing = asyncio.Lock()

    async def begin(
        self, tp: TopicPartition, transactional_id: str, outputs: Outputs, *, owner: str
    ) -> tuple[Claim, Committed | None]:
        """
        Fence who commits *tp*, end what it left undecided, and return what is committed then.

        Args:
            tp: The source partition.
            transactional_id: The partition's own.
            outputs: Where its stage writes.
            owner: The name of this worker's producer, which is left alone.

        Raises:
            KafkaError, TimeoutError: try again.
        """
        lock = await self._fence(transactional_id)
        fenced = {owner}
        # Not what is stable at first: that may be known only once its owner is fenced.
        committed = await lock.position(self._group, tp, is_stable=False)
        while (name := owner_of(committed.metadata if committed else "")) and name not in fenced:
            fenced.add(name)
            async with self._fencing:  # Of what one worker had, each partition would fence the one before it.
                predecessor = await self._fence(name)
                committed = await lock.position(self._group, tp)
                await self.resolve(predecessor, lock, tp, outputs, committed)
        committed = await lock.position(self._group, tp)
        await self.resolve(lock, lock, tp, outputs, committed)
        await self._resolve_unknown(lock, tp, outputs, committed)
        return Claim(lock, self._group), committed

    async def _fence(self, name: str) -> TransactionalProducer:
        """Open *name* in place of its owner; what that sent late of offsets would else stay undecided for ever."""
        producer = await TransactionalProducer.open(self._client, name)
        await producer.renew(self._group)
        return producer

    async def resolve(
        self,
        writer: TransactionalProducer,
        lock: TransactionalProducer,
        tp: TopicPartition,
        outputs: Outputs,
        committed: Committed | None,
    ) -> None:
        """
        Commit what *writer* left hanging if its transaction was committed, and abort it otherwise.

        Where no record says it, all that hangs are cumulative counts: they are committed, as repeating them does no
        harm. If it is committed, the offset goes back before it first, and forward together with it: interrupted at any
        moment, it is aborted and made again.
        """
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            outputs_of = (*outputs.exclusive_outputs(tp.partition), *outputs.shared_outputs(tp.partition))
            hanging = await writer.unmarked(outputs_of)
        # What others wrote is for those to decide who know how far they came.
        own = {
            each: [record for record in await self._reader.undecided(each) if outputs.is_own(record, tp.partition)]
            for each in outputs_of
            if each in hanging
        }
        tps = [each for each, records in own.items() if records]
        if not tps:
            return
        known = committed or await self._reached(tp, outputs)
        # All of it is of one transaction: the next one would not have begun.
        records = [record for each in tps for record in own[each]]
        verdicts = [outputs.is_committed(record, tp.partition, known) for record in records]
        commit = next((verdict for verdict in verdicts if verdict is not None), True)
        logger.warning("hanging_transaction_ended", outputs=sorted(each.topic for each in tps), commit=commit)
        if not commit:
            await writer.abort_hanging(tps)
        elif committed is None:
            await writer.commit_hanging(tps, {}, self._group)
        else:
            sources = [offset for record in records if (offset := outputs.source_offset(record)) is not None]
            before = min(*sources, committed.offset) if sources else committed.offset
            name = owner_of(committed.metadata)
            await lock.commit([], {tp: OffsetAndMetadata(before, with_owner("", name))}, self._group)
            await lock.position(self._group, tp)  # Until it is marked the other one could overtake it.
            await writer.commit_hanging(tps, {tp: OffsetAndMetadata(*committed)}, self._group)
        await writer.until_marked(tps)

    async def _reached(self, tp: TopicPartition, outputs: Outputs) -> Committed:
        """
        Return where the group must have been that was forgotten.

        That is no reason to take back what the other outputs show to be committed, nor what cannot be read again.
        """
        start, _ = await self._reader.bounds(tp)
        found = await outputs.reached(self._reader, tp.partition)
        return max(found, Committed(start, "")) if found else Committed(start, "")

    async def _resolve_unknown(
        self, lock: TransactionalProducer, tp: TopicPartition, outputs: Outputs, committed: Committed | None
    ) -> None:
        """
        Resolve what hangs though no offset names the one that wrote it, as the group was forgotten.

        Where others write, too, it hangs if its transaction is over for its coordinator.

        A restore ends before what is undecided. If nothing is open, followers have not got its marker yet; or brokers
        older than 3.0 do not tell whose it is, and an operator has to look at it.
        """
        exclusive, shared = outputs.exclusive_outputs(tp.partition), outputs.shared_outputs(tp.partition)
        tps = exclusive if is_owned(committed.metadata if committed else "") else (*exclusive, *shared)
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            unknown = await self._client.open_transactions(tps)
        for written, producer_id in unknown:
            for name in await self._client.transactional_ids(producer_id, is_over=written in shared):
                async with self._fencing:
                    await self.resolve(await self._fence(name), lock, tp, outputs, committed)
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            for written in exclusive:
                while await self._reader.undecided(written):  # noqa: ASYNC110  # Only Kafka knows.
                    await asyncio.sleep(POLL_SECONDS)
