"""
A Faust transport that hands an agent whole chunks: all records one fetch brought for one partition.

Why: stock Faust spends some 80 us an event before any work is done, a chunk costs less than 1 us an event. Offsets are
committed in the stage's transactions, so the agents' topics are declared with `acks=False` and Faust commits nothing.

The private names used here are Faust's and aiokafka's; both versions are pinned, and asserted at start.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import CorruptRecordException, KafkaConnectionError
from aiokafka.record.default_records import DefaultRecord, DefaultRecordBatch
from faust.transport.conductor import Conductor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from pipeline.worker.chunk import Batch, Chunk

FETCH_WAIT_MS = 500  # Faust's own 1,500 would delay records of a partition that was busy when the fetch was sent.
POLL_SECONDS = 0.1
IDLE_SECONDS = 1.0
METADATA_SECONDS = 10.0  # A topic that was deleted is no longer ours; that it is there again is noticed after this.
FRESH_SECONDS = 3 * FETCH_WAIT_MS / 1000


class _Batches:
    """Stands in for aiokafka's records: its position is the fetch's before it is iterated, and the next one after."""

    def __init__(self, batches: list[Batch], *, begin: int, end: int) -> None:
        self.next_fetch_offset = begin
        self._batches = batches
        self._end = end

    def __iter__(self) -> Iterator[Batch]:
        self.next_fetch_offset = self._end
        return iter(self._batches)


def keep_batches(result: FetchResult) -> None:
    """
    Have *result* hand out its batches of committed records instead of the records.

    It does what aiokafka's PartitionRecords._unpack_records does, in the same order and with its own helpers, but
    without a generator step, three calls and a ConsumerRecord for each record: those cost more than the decoding.
    """
    fetched = result._partition_records
    if isinstance(fetched, _Batches):
        return
    batches: list[Batch] = []
    offset = begin = fetched.next_fetch_offset
    while fetched._records.has_next():
        batch = fetched._records.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {fetched._tp}")
        if batch.producer_id is not None:
            fetched._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and fetched._contains_abort_marker(batch):
                fetched._aborted_producers.discard(batch.producer_id)
        is_aborted = batch.is_transactional and batch.producer_id in fetched._aborted_producers
        if not is_aborted and not batch.is_control_batch:
            records = batch if batch.base_offset >= offset else _from_offset(batch, offset)
            batches.append(Batch(records, batch.next_offset - max(batch.base_offset, offset), batch.next_offset))
        offset = batch.next_offset
    result._partition_records = _Batches(batches, begin=begin, end=offset)


def _from_offset(batch: DefaultRecordBatch, offset: int) -> Iterator[DefaultRecord]:
    """Leave out what lies before *offset*: a fetch in the middle of a batch brings all of it."""
    return (record for record in batch if record.offset >= offset)


class ChunkThread(driver.AIOKafkaConsumerThread):
    """Fetches chunks, and makes an empty one for a partition that has been idle for a while."""

    logger = driver.logger
    transport: ChunkTransport

    def __post_init__(self) -> None:
        super().__post_init__()
        self._quiet_since: dict[TP, float] = {}

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        conf = self.app.conf
        self._assignor = RoundRobinPartitionAssignor
        return AIOKafkaConsumer(
            **transport.client_options,
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            metadata_max_age_ms=int(METADATA_SECONDS * 1000),
            check_crcs=True,
        )

    async def on_start(self) -> None:
        await super().on_start()
        if self.app.conf.consumer_group_instance_id:
            self._watch_membership(self._ensure_consumer())

    @property
    def is_member(self) -> bool:
        """Whether the group has assigned us partitions, or none."""
        subscription = self._consumer._subscription.subscription if self._consumer is not None else None
        return subscription is not None and subscription.assignment is not None

    def _watch_membership(self, consumer: AIOKafkaConsumer) -> None:
        """
        Report the loss of a static membership before aiokafka rejoins.

        aiokafka does not know FENCED_INSTANCE_ID: two live processes under one instance id would throw each other out
        for ever. The one whose member id is not recognised any more has lost, and must not ask again.
        """
        coordinator = consumer._coordinator
        reset_generation = coordinator.reset_generation

        def lost() -> None:
            if not consumer._closed and coordinator.member_id:
                self.transport.on_membership_lost()
            reset_generation()

        coordinator.reset_generation = lost

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109  # Faust's signature.
        max_records: int | None = None,
    ) -> dict[TP, list[Chunk]]:
        self._require_life(consumer)
        chunks = await self._drain(consumer, active)
        if not chunks:
            waiter = consumer._fetcher._create_fetch_waiter()
            await asyncio.wait([waiter], timeout=POLL_SECONDS)
            if not waiter.cancel() and not waiter.cancelled():
                waiter.result()  # aiokafka reports a lost authorisation here.
            chunks = await self._drain(consumer, active)
        return {tp: [chunk] for tp, chunk in chunks.items()}

    @staticmethod
    def _require_life(consumer: AIOKafkaConsumer) -> None:
        """
        Raise what ended one of the consumer's own tasks.

        Only a poll that happens to wait would raise it, and a busy worker would go on under an old assignment.
        """
        consumer._coordinator.check_errors()
        fetching = consumer._fetcher._fetch_task
        if fetching.done() and not fetching.cancelled() and fetching.exception() is not None:
            raise KafkaConnectionError(f"the fetcher ended: {fetching.exception()!r}")

    async def _drain(self, consumer: AIOKafkaConsumer, active: set[TP]) -> dict[TP, Chunk]:
        """
        Take what has been fetched, together with the positions before and after.

        With a timeout of 0 nothing else runs on this loop in between, so no reset, rebalance or seek (which runs here,
        too) can move a position unseen.
        """
        if consumer._fetcher._subscriptions.reassignment_in_progress:
            return {}
        before = self._positions(consumer)
        for result in consumer._fetcher._records.values():
            if isinstance(result, FetchResult) and result.has_more():
                keep_batches(result)
        fetched = await super()._fetch_records(consumer, active, 0, None)
        after = self._positions(consumer)
        now = self.transport.now()
        chunks = {}
        for tp in active & before.keys() & after.keys():
            begin, end, log_end = before[tp], after[tp], consumer.highwater(tp)
            idle = end == log_end and begin == end and self._is_fresh(consumer, tp) and self._has_been_quiet(tp)
            if begin != end:
                self._quiet_since[tp] = time.monotonic()
            if begin != end or idle:
                behind = max(0, (log_end or end) - end)
                chunks[tp] = Chunk(tp.topic, tp.partition, begin, end, fetched.get(tp, ()), idle, now, behind)
        return chunks

    def _positions(self, consumer: AIOKafkaConsumer) -> dict[TP, int]:
        subscription = consumer._subscription.subscription
        if subscription is None or subscription.assignment is None:
            return {}
        states = {tp: subscription.assignment.state_value(tp) for tp in subscription.assignment.tps}
        return {TP(tp.topic, tp.partition): state.position for tp, state in states.items() if state.has_valid_position}

    async def seek_here(self, tp: TP, offset: int) -> None:
        """Seek on the consumer's own loop: aiokafka's fetcher is not made for a second thread."""
        self.seek(tp, offset)

    def _is_fresh(self, consumer: AIOKafkaConsumer, tp: TP) -> bool:
        """Whether a broker said lately where the log ends; a partition without leader only looks idle."""
        state = consumer._subscription.subscription.assignment.state_value(tp)
        return state.timestamp is not None and time.time() - state.timestamp / 1000 < FRESH_SECONDS

    def _has_been_quiet(self, tp: TP) -> bool:
        # A partition that was never seen is due at once, so that an idle one is opened, too, when it is assigned.
        now = time.monotonic()
        if now - self._quiet_since.get(tp, -math.inf) < self.transport.idle_seconds(tp.topic):
            return False
        self._quiet_since[tp] = now
        return True


class ChunkConsumer(driver.Consumer):
    """Turns a chunk into the one message Faust carries to the agent."""

    logger = driver.logger

    def _new_consumer_thread(self) -> ChunkThread:
        return ChunkThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def is_member(self) -> bool:
        """See ChunkThread.is_member."""
        return cast("ChunkThread", self._thread).is_member

    async def perform_seek(self) -> None:
        """
        Leave the positions alone after a rebalance.

        aiokafka begins at the committed offset, and a partition has what it misses fetched again. Faust's would ask for
        all offsets once more; where that takes longer than a request may, it gives up in silence, and fetches nothing.
        """

    async def _seek(self, partition: TP, offset: int) -> None:
        thread = cast("ChunkThread", self._thread)
        try:
            await thread.call_thread(thread.seek_here, partition, offset)
        except RuntimeError as error:
            if not thread.thread_loop.is_closed():
                raise
            # Faust ended it, as aiokafka's consumer failed (an assertion of its coordinator's, after a broker was away
            # for long): no bug of who seeks. The worker ends for that within a second.
            raise KafkaConnectionError("the consumer has ended") from error

    def _to_message(self, tp: TP, chunk: Chunk) -> ConsumerMessage:
        # Faust would drop what lies below the offset it read last, such as everything after a log was recreated.
        # Whether a chunk continues the state is for the stage to judge, so Faust remembers no such offset.
        self._read_offset.pop(tp, None)
        return ConsumerMessage(
            topic=chunk.topic,
            partition=chunk.partition,
            offset=chunk.begin,
            timestamp=(chunk.now or 0) / 1000,
            timestamp_type=0,
            headers=[],
            key=None,
            value=cast("Any", chunk),
            checksum=None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )


class FixedConductor(Conductor):
    """
    Routes what was fetched to the agents' channels, and keeps to the topics that it subscribed to at the start.

    Faust's subscribes anew 45 s after an actor ended, to the topics of the channels that are read just then. Where the
    only actor of a topic ended, that topic is read by no member of the group; where all did, the process crashes.
    """

    def _flag_changes(self) -> None:
        """Leave the subscription alone: the agents never change."""


class ChunkTransport(driver.Transport):
    """Faust's aiokafka transport with chunks; `build_app` fills in what it needs to know."""

    Conductor = FixedConductor
    Consumer = ChunkConsumer

    client_options: dict[str, Any]
    now: Callable[[], int | None]
    idle_seconds: Callable[[str], float]
    on_membership_lost: Callable[[], None]
