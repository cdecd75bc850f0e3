"""
Faust's consumer thread, which takes whole chunks to the agents: all records that a fetch brought for a partition.

The private names used here are Faust's and aiokafka's; kafka/internals.py lists them, their versions are asserted at
start.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaConnectionError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from pipeline.worker.chunk import Batch, Chunk
from pipeline.worker.feed import Feed
from pipeline.worker.fetched import keep_batches

FETCH_WAIT_MS = 500  # Faust's own 1,500 would delay records of a partition that was busy when the fetch was sent.
ASSIGNMENT_SECONDS = 0.1  # Until a new assignment is noticed.
OFFER_SECONDS = 1.0
FIGHT_SESSIONS = 2.0  # So soon another process throws us out again; heartbeats are more frequent.
METADATA_SECONDS = 10.0  # A topic that was deleted is no longer ours; that it is there again is noticed after this.
FRESH_SECONDS = 3 * FETCH_WAIT_MS / 1000


class ChunkThread(driver.AIOKafkaConsumerThread):
    """
    Takes what was fetched to the feeds of its partitions at once, and an empty chunk where nothing came for a while.

    Faust asks it for messages, and gets each feed once: it starts the agents, and stops them where partitions move.
    """

    logger = driver.logger
    transport: Any  # A ChunkTransport.

    def __post_init__(self) -> None:
        super().__post_init__()
        self._quiet_since: dict[TP, float] = {}
        self._feeds: dict[TP, Feed] = {}
        self._offered_at: dict[Feed, float] = {}
        self._pumping: asyncio.Task[None] | None = None

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
        consumer = self._ensure_consumer()
        if self.app.conf.consumer_group_instance_id:
            self._watch_membership(consumer)
        self._pumping = asyncio.create_task(self._pump(consumer))

    async def on_thread_stop(self) -> None:
        if self._pumping is not None:
            self._pumping.cancel()
        await super().on_thread_stop()

    @property
    def is_member(self) -> bool:
        """Whether the group has assigned us partitions, or none."""
        subscription = self._consumer._subscription.subscription if self._consumer is not None else None
        return subscription is not None and subscription.assignment is not None

    def _watch_membership(self, consumer: AIOKafkaConsumer) -> None:
        """
        Report that a static membership is lost again and again, before aiokafka rejoins.

        aiokafka does not know FENCED_INSTANCE_ID: two live processes under one instance id would throw each other out
        for ever, each at the other's next heartbeat. Once may be a session that ran out, as where a broker stood still.
        The older process is the first that is thrown out twice.
        """
        coordinator = consumer._coordinator
        reset_generation = coordinator.reset_generation
        lost_at = -math.inf

        def lost() -> None:
            nonlocal lost_at
            if not consumer._closed and coordinator.member_id:
                before, lost_at = lost_at, time.monotonic()
                if lost_at - before < FIGHT_SESSIONS * self.app.conf.broker_session_timeout:
                    self.transport.on_membership_lost()
                self.log.warning("the group does not know this member any more: joining again")
            reset_generation()

        coordinator.reset_generation = lost

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109  # Faust's signature.
        max_records: int | None = None,
    ) -> dict[TP, list[Feed]]:
        self._require_life(consumer)
        pumping = cast("asyncio.Task[None]", self._pumping)
        offers = self._offers(consumer, active)
        if not offers:
            await asyncio.wait([pumping], timeout=ASSIGNMENT_SECONDS)
            offers = self._offers(consumer, active)
        if pumping.done():
            pumping.result()
        return {feed.tp: [feed] for feed in offers}

    def _offers(self, consumer: AIOKafkaConsumer, active: set[TP]) -> list[Feed]:
        """Return the feeds that no agent has so far; Faust may lose one while partitions move."""
        assignment = self._assignment(consumer)
        if assignment is None or not self.consumer.flow_active:
            return []
        for tp, feed in list(self._feeds.items()):
            if feed.assignment is not assignment:
                del self._feeds[tp]
                self._main.call_soon_threadsafe(feed.close)
        for tp in active & self._positions(consumer).keys() - self._feeds.keys():
            self._feeds[tp] = Feed(tp, assignment, self._pause)
        now = time.monotonic()
        self._offered_at = {feed: at for feed, at in self._offered_at.items() if now - at < OFFER_SECONDS}
        offers = [feed for feed in self._feeds.values() if not feed.is_taken and feed not in self._offered_at]
        self._offered_at |= dict.fromkeys(offers, now)
        return offers

    @staticmethod
    def _assignment(consumer: AIOKafkaConsumer) -> Any:
        """Return what the group has assigned; None while that changes."""
        subscription = consumer._subscription.subscription
        if subscription is None or consumer._fetcher._subscriptions.reassignment_in_progress:
            return None
        return subscription.assignment

    async def _pump(self, consumer: AIOKafkaConsumer) -> None:
        """Take what has been fetched to the feeds, until cancelled; raises what ended the fetching."""
        while True:
            self._require_life(consumer)
            if not await self._hand_over(consumer):
                waiter = consumer._fetcher._create_fetch_waiter()
                ticks = [feed.tick_seconds for feed in self._feeds.values()]
                await asyncio.wait([waiter], timeout=min(ticks, default=ASSIGNMENT_SECONDS))
                if not waiter.cancel() and not waiter.cancelled():
                    waiter.result()  # aiokafka reports a lost authorisation here.

    async def _hand_over(self, consumer: AIOKafkaConsumer) -> bool:
        """
        Take what has been fetched, together with the positions before and after; returns whether there was anything.

        With a timeout of 0 nothing else runs on this loop in between, so no reset, rebalance or seek (which runs here,
        too) can move a position unseen.
        """
        assignment = self._assignment(consumer)
        feeds = {tp: feed for tp, feed in self._feeds.items() if feed.assignment is assignment}
        if not feeds:
            return False
        before, sizes = self._positions(consumer), {}
        for tp, result in consumer._fetcher._records.items():
            if isinstance(result, FetchResult) and result.has_more():
                sizes[tp] = keep_batches(result)
        fetched = await super()._fetch_records(consumer, set(feeds), 0, None)
        after = self._positions(consumer)
        chunks = [
            (feed, chunk, sizes.get(tp, 0))
            for tp, feed in feeds.items()
            if tp in before and tp in after
            if (chunk := self._chunk(consumer, feed, before[tp], after[tp], fetched.get(tp, ()))) is not None
        ]
        if chunks:
            self._main.call_soon_threadsafe(_put_all, chunks)
        return bool(chunks)

    def _chunk(
        self, consumer: AIOKafkaConsumer, feed: Feed, begin: int, end: int, batches: Sequence[Batch]
    ) -> Chunk | None:
        """Return what lies between the positions; None: nothing, and it has not been quiet for long."""
        tp, log_end = feed.tp, consumer.highwater(feed.tp)
        idle = end == log_end and begin == end and self._is_fresh(consumer, tp) and self._has_been_quiet(feed)
        if begin != end:
            self._quiet_since[tp] = time.monotonic()
        if begin == end and not idle:
            return None
        return Chunk(
            tp.topic, tp.partition, begin, end, batches, idle, self.transport.now(), max(0, (log_end or end) - end)
        )

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

    def _positions(self, consumer: AIOKafkaConsumer) -> dict[TP, int]:
        subscription = consumer._subscription.subscription
        if subscription is None or subscription.assignment is None:
            return {}
        states = {tp: subscription.assignment.state_value(tp) for tp in subscription.assignment.tps}
        return {TP(tp.topic, tp.partition): state.position for tp, state in states.items() if state.has_valid_position}

    async def seek_here(self, tp: TP, offset: int) -> None:
        """Seek on the consumer's own loop: aiokafka's fetcher is not made for a second thread."""
        self.seek(tp, offset)
        if tp in self._feeds:
            self._main.call_soon_threadsafe(self._feeds[tp].clear)

    def _pause(self, feed: Feed, is_paused: bool) -> None:
        with suppress(RuntimeError):  # The loop of a consumer that has ended is closed.
            self.thread_loop.call_soon_threadsafe(self._pause_here, feed, is_paused)

    def _pause_here(self, feed: Feed, is_paused: bool) -> None:
        consumer = self._ensure_consumer()
        if self._feeds.get(feed.tp) is feed:
            with suppress(IllegalStateError):  # It is not assigned to us any more.
                (consumer.pause if is_paused else consumer.resume)(TopicPartition(*feed.tp))

    @property
    def _main(self) -> asyncio.AbstractEventLoop:
        """The loop of the agents."""
        return self.consumer.loop

    def _is_fresh(self, consumer: AIOKafkaConsumer, tp: TP) -> bool:
        """Whether a broker said lately where the log ends; a partition without leader only looks idle."""
        state = consumer._subscription.subscription.assignment.state_value(tp)
        return state.timestamp is not None and time.time() - state.timestamp / 1000 < FRESH_SECONDS

    def _has_been_quiet(self, feed: Feed) -> bool:
        # A partition that was never seen is due at once, so that an idle one is opened, too, when it is assigned.
        now = time.monotonic()
        if now - self._quiet_since.get(feed.tp, -math.inf) < feed.tick_seconds:
            return False
        self._quiet_since[feed.tp] = now
        return True


def _put_all(chunks: list[tuple[Feed, Chunk, int]]) -> None:
    for feed, chunk, size in chunks:
        feed.put(chunk, size)
