"""
Ends what an earlier owner's transaction wrote and Kafka never marked, before a partition's state is folded.

Starting the transactional producer makes Kafka end the predecessor's transaction: a marker, commit or abort, in every
partition it wrote to. Kafka 4.3 forgets the markers of partitions that have no leader at that moment, and takes the
transaction for ended (KRaftMetadataCache.getPartitionLeaderEndpoint answers as if they were deleted). A lone broker
that stood still past its session comes back to just that. What was written then hangs: read_committed readers wait
before it, a fold does not see it, and the producer's next commit would commit it, after its source was read again.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition

from pipeline.stream.log import REQUEST_TIMEOUT_MS, Committed, Log

POLL_SECONDS = 0.01

logger = structlog.get_logger()


class Outputs(Protocol):
    """What a stage says of its outputs."""

    def owned(self, partition: int) -> tuple[TopicPartition, ...]:
        """Return the partitions that nobody but the owner of source *partition* writes to."""
        ...

    def shared(self, partition: int) -> tuple[TopicPartition, ...]:
        """Return the ones that others write to, too."""
        ...

    def source_offset(self, record: Any) -> int | None:
        """Return the source offset that led to an output *record*; None: what is aborted is written anew."""
        ...


async def settle(
    log: Log, producer: AIOKafkaProducer, outputs: Outputs, partition: int, committed: Committed | None
) -> None:
    """
    Commit what hangs if its transaction's offset was committed, and abort it otherwise.

    Args:
        producer: Started, so that no predecessor writes any more. It has their producer id, so its markers end theirs.
        committed: The source offset, read after that.

    Raises:
        KafkaError, TimeoutError: nothing is known; the producer must not be used.
    """
    owned = outputs.owned(partition)
    hanging = [record for tp in owned for record in await log.undecided(tp)]
    if not hanging:
        return
    # All of them are of one transaction: the next one of that producer would have ended it.
    offset = outputs.source_offset(hanging[0])
    is_committed = committed is not None and offset is not None and offset < committed.offset
    logger.warning(
        "hanging_transaction_ended", outputs=[str(tp.topic) for tp in owned], records=len(hanging), commit=is_committed
    )
    tps = {*owned, *outputs.shared(partition)}
    await _end(producer, tps, commit=is_committed)
    async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
        for tp in owned:  # Kafka answers before it writes the markers, and a fold before them would miss what counts.
            while await log.undecided(tp):  # noqa: ASYNC110  # Only Kafka knows.
                await asyncio.sleep(POLL_SECONDS)


async def _end(producer: AIOKafkaProducer, tps: set[TopicPartition], *, commit: bool) -> None:
    """Run a transaction without records over *tps*: its markers end whatever this producer id has open there."""
    transaction = producer._txn_manager
    async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
        await producer.begin_transaction()
        for tp in tps:
            transaction.maybe_add_partition_to_txn(tp)
        while not tps <= transaction.txn_partitions:  # noqa: ASYNC110  # aiokafka 0.14.0 has no event for it.
            await asyncio.sleep(POLL_SECONDS)
        await (producer.commit_transaction() if commit else producer.abort_transaction())
