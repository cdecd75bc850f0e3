"""
Transactions that Kafka decided on, and never wrote the markers of.

Found by the fault suite: Kafka 4.3 forgets the markers of partitions that have no leader at that moment, and takes the
transaction for ended (KRaftMetadataCache.getPartitionLeaderEndpoint answers as if they were deleted). A lone broker
that stood still past its session comes back to just that. What was written then hangs: read_committed readers wait
before it, a fold does not see it, and the next markers of that producer id decide on it, too. So no transaction begins
before the one before it is marked, and whoever opens a partition ends what hangs there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.kafka.log import REQUEST_TIMEOUT_MS, Committed, Log

MARKED_SECONDS = 10.0  # Usually milliseconds; longer than the 9 s after which Kafka knows that a leader is gone.
POLL_SECONDS = 0.001
POLL_SECONDS_MAX = 0.1

logger = structlog.get_logger()


class Outputs(Protocol):
    """What a stage says of its outputs."""

    def exclusive_outputs(self, partition: int) -> tuple[TopicPartition, ...]:
        """Return the partitions that nobody but the owner of source *partition* writes to."""
        ...

    def shared_outputs(self, partition: int) -> tuple[TopicPartition, ...]:
        """Return the ones that others write to, too."""
        ...

    def is_committed(self, record: Any, partition: int, committed: Committed | None) -> bool | None:
        """
        Return whether the transaction of an output *record* was committed: None if it does not tell.

        What another than the owner of source *partition* wrote does not. False, too, where what is aborted is repeated.
        """
        ...


async def until_marked(log: Log, producer: AIOKafkaProducer, tps: Iterable[TopicPartition]) -> None:
    """
    Wait until *producer* has nothing undecided in *tps*.

    It costs a request, and saves the 20 ms that aiokafka waits where a transaction begins before that.

    Raises:
        TimeoutError: something hangs there, or nobody could be asked; the producer must not begin another transaction.
        KafkaError: likewise, for good.
    """
    wanted, pause = set(tps), POLL_SECONDS
    async with asyncio.timeout(MARKED_SECONDS):
        while wanted := await _unmarked(log, producer, wanted):
            await asyncio.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS_MAX)


async def _unmarked(log: Log, producer: AIOKafkaProducer, tps: Iterable[TopicPartition]) -> set[TopicPartition]:
    """Ask until all leaders have answered: that one moves is no reason to fold the state anew."""
    while True:
        try:
            return await log.unmarked(producer, tps)
        except KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(POLL_SECONDS_MAX)


async def resolve(
    log: Log, producer: AIOKafkaProducer, outputs: Outputs, partition: int, committed: Committed | None
) -> None:
    """
    Commit what hangs if its transaction was committed, and abort it otherwise.

    What nothing is known of are cumulative counts: they are committed, as repeating them does no harm.

    Args:
        producer: Started, so that no predecessor writes any more. It has their producer id, so its markers end theirs.
        committed: The source offset, read after that.

    Raises:
        KafkaError, TimeoutError: nothing is known; the producer must not be used.
    """
    owned = outputs.exclusive_outputs(partition)
    tps = (*owned, *outputs.shared_outputs(partition))
    async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
        hanging = await _unmarked(log, producer, tps)
    if hanging:
        # All of it is of one transaction: the next one would not have begun.
        told = [
            verdict
            for tp in tps
            if tp in hanging
            for record in await log.undecided(tp)
            if (verdict := outputs.is_committed(record, partition, committed)) is not None
        ]
        is_committed = told[0] if told else True
        logger.warning("hanging_transaction_ended", outputs=sorted(tp.topic for tp in hanging), commit=is_committed)
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            await log.mark(producer, set(tps), commit=is_committed)
        await until_marked(log, producer, tps)
    # A fold ends before what is undecided: followers have not got its marker yet. Or it hangs under another producer id
    # (the transactional.id expired, or the group was renamed), and somebody has to look at it.
    async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
        for tp in owned:
            while await log.undecided(tp):  # noqa: ASYNC110  # Only Kafka knows.
                await asyncio.sleep(POLL_SECONDS_MAX)
