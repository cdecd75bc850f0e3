"""
Group commit to Kafka: whatever arrives while one group is in flight becomes the next.

Knows nothing of HTTP or of what a body says. A record handed to `Publisher.publish` is in Kafka (acks=all) once its
awaitable returns; if that raises, it may still get there later, which is harmless: the accept stage deduplicates.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, NewType

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerClosed

from pipeline import access
from pipeline.batch import Batches, send
from pipeline.bridge.backoff import Backoff
from pipeline.bridge.errors import AckTimeoutError, OverloadedError, PublishError, RefusedError
from pipeline.bridge.partition import partitions_of
from pipeline.bridge.spool import Record
from pipeline.bridge.spooler import Spooler
from pipeline.core.records import HEADER_RECEIVED_AT, HEADER_SOURCE
from pipeline.metrics import BridgeMetrics
from pipeline.settings import KafkaSettings

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

BATCH_BYTES_MAX = 128 * 1024  # raw's max.message.bytes, which counts the whole batch (README, "Topics").
# A group that waits (for the one in flight, or for Kafka) is closed to newcomers after this long, as its records share
# one deadline: this is how much too early the last of them may be given up.
GROUP_OPEN_SECONDS = 0.1
CONNECT_SECONDS_MAX = 10.0  # A producer waits without limit for its id; what it can time out, it does earlier.
DISCARD_SECONDS_MAX = 2.0  # stop() waits without limit for batches that cannot be sent.
RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 2.0
REFUSED_SECONDS = 15.0  # Somebody has to change a password or a certificate; asking more often may lock the account.

# A body whose sender proved itself. Only the ingress that checked makes one.
Authenticated = NewType("Authenticated", bytes)


class Source(Enum):
    """Where a record came from: the value of its `source` header."""

    HTTP = b"http"
    MNS = b"mns"


class _Ack(asyncio.Future[bool]):
    """What all waiters of a group share; one waiter that is cancelled must not cancel it for the others."""

    def cancel(self, msg: Any = None) -> bool:
        return False


class _Group:
    """Records that are acknowledged, spooled or given up together. A replayed one is in the spool already."""

    __slots__ = ("acked", "closes_at", "deadline", "is_replay", "is_spooling", "records", "timer")

    def __init__(
        self,
        publisher: Publisher,
        loop: asyncio.AbstractEventLoop,
        ack_timeout_seconds: float,
        *,
        is_replay: bool = False,
    ) -> None:
        self.is_replay = is_replay
        self.is_spooling = False
        now = loop.time()
        self.records: list[Record] = []
        self.acked = _Ack(loop=loop)
        self.closes_at = now + min(GROUP_OPEN_SECONDS, ack_timeout_seconds / 2)
        self.deadline = now + ack_timeout_seconds
        self.timer = loop.call_at(self.deadline, publisher.expire, self)

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for Kafka to take it any more."""
        return self.is_spooling or self.acked.done()


class Publisher:
    """
    Publishes to one topic, and keeps a working producer for it.

    An aiokafka producer that lost a batch has a broken sequence, so it is replaced after any failure.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        metrics: BridgeMetrics,
        *,
        ack_timeout_seconds: float,
        in_flight_max: int,
        spooler: Spooler | None = None,
    ) -> None:
        """
        Args:
            kafka: Where Kafka is.
            topic: The topic every record goes to.
            metrics: Counts groups, their time, what is in flight, and producers replaced.
            ack_timeout_seconds: From `publish` until the record is spooled, and then until it is given up.
            in_flight_max: How many records may wait for Kafka; more are refused at once.
            spooler: Takes what Kafka does not; None: that is given up.
        """
        self._kafka = kafka
        self._topic = topic
        self._metrics = metrics
        self._ack_timeout_seconds = ack_timeout_seconds
        self._in_flight_max = in_flight_max
        self._in_flight = 0
        self._open: _Group | None = None
        self._waiting: deque[_Group] = deque()
        self._sent: list[_Group] = []
        self._spooler = spooler
        self._connected = asyncio.Event()
        self._refusal: str | None = None
        self._backoff = Backoff(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX)
        self._turn = 0
        self._discards: set[asyncio.Task[None]] = set()
        metrics.in_flight.set_function(lambda: self._in_flight)

    async def start(self) -> None:
        """Begin to connect; does not wait for Kafka, as callbacks may arrive before it does."""
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self.tasks = [asyncio.create_task(self._run(), name="publisher")]
        if self._spooler is not None:
            replay = self._spooler.replay(self._replay, self._connected)
            self.tasks += [asyncio.create_task(self._spooler.write()), asyncio.create_task(replay)]

    async def stop(self) -> None:
        """Wait for what is in flight, until its deadline at most, then close the producer and the spool."""
        groups = [group.acked for group in (*self._sent, *self._waiting) if not group.is_replay]
        if groups:
            await asyncio.wait(groups, timeout=self._ack_timeout_seconds)
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        if self._spooler is not None:
            await self._spooler.close()
        if self._discards:
            await asyncio.wait(self._discards)

    def problems(self) -> list[str]:
        """Say what keeps records from being published or spooled; nothing if they are."""
        if self._spooler is not None:
            return [] if self._spooler.is_working else ["Kafka does not take records, and the spool fails"]
        if self._connected.is_set():
            return []
        return [self._refusal or f"not connected to Kafka at {self._kafka.bootstrap_servers}"]

    def publish(
        self, key: bytes | None, body: Authenticated, *, source: Source, received_at_ms: int
    ) -> asyncio.Future[bool]:
        """
        Take a record for publication.

        Args:
            key: The record's key; None: any partition.
            body: The record's value, verbatim.
            source: Header: which way the record came.
            received_at_ms: Header: when, in ms since the epoch.

        Returns:
            A future, done once the record is durable: False if Kafka has it (acks=all), True if the spool
            has. It fails with AckTimeoutError, RefusedError or SpoolFailedError.

        Raises:
            OverloadedError: the record was not taken.
        """
        if self._in_flight >= self._in_flight_max:
            raise OverloadedError
        group = self._open
        if group is None or self._loop.time() > group.closes_at:
            group = self._open = _Group(self, self._loop, self._ack_timeout_seconds)
            if self._spooler is None or self._connected.is_set():
                self._waiting.append(group)
                self._wake.set()
            else:  # Kafka is known to be down: with all that arrives in this pass of the loop, straight to disk.
                self._loop.call_soon(self._fail, group, AckTimeoutError())
        self._in_flight += 1
        group.records.append((key, body, source._value_, received_at_ms))
        return group.acked

    async def _replay(self, records: Sequence[Record]) -> None:
        group = _Group(self, self._loop, self._ack_timeout_seconds, is_replay=True)
        group.records = list(records)
        self._waiting.append(group)
        self._wake.set()
        await group.acked

    def expire(self, group: _Group) -> None:
        """Stop waiting for Kafka to take *group*, whose deadline has passed."""
        self._fail(group, AckTimeoutError())
        while self._waiting and self._waiting[0].is_over:
            self._waiting.popleft()

    def _fail(self, group: _Group, error: PublishError) -> None:
        """Spool what Kafka did not take, or give it up because of *error*."""
        if group.is_over:
            return
        if self._spooler is None or group.is_replay:
            self._settle(group, error)
            return
        group.is_spooling = True
        group.timer.cancel()
        group.timer = self._loop.call_later(self._ack_timeout_seconds, self._settle, group, AckTimeoutError())
        if self._open is group:
            self._open = None
        self._spooler.put(group.records, lambda error: self._settle(group, error, is_spooled=True))

    def _settle(self, group: _Group, error: PublishError | None = None, *, is_spooled: bool = False) -> None:
        if group.acked.done():
            return
        group.timer.cancel()
        if self._open is group:
            self._open = None
        if not group.is_replay:
            self._in_flight -= len(group.records)
        group.records = []
        if error is None:
            group.acked.set_result(is_spooled)
        else:
            group.acked.set_exception(error)
            group.acked.exception()  # Every waiter may be gone: that is nothing to complain about.

    async def _run(self) -> None:
        while True:
            self._refusal = await access.refusal(self._kafka)
            if self._refusal is not None:
                logger.error("kafka_refused", problem=self._refusal, retry_seconds=REFUSED_SECONDS)
                await asyncio.sleep(REFUSED_SECONDS)
                continue
            producer = self._producer()
            try:
                partitions = await self._connect(producer)
                while True:
                    await self._wake.wait()
                    await self._gather()
                    await self._commit(producer, partitions)
                    self._backoff.succeed()
            except (KafkaError, OSError, TimeoutError) as error:
                logger.warning("producer_replaced", error=repr(error), failures=self._backoff.failures)
                self._metrics.producer_restarts.inc()
            finally:
                self._connected.clear()
                for group in tuple(self._waiting):
                    if self._spooler is not None or group.is_replay:
                        self._fail(group, AckTimeoutError())
                discard = asyncio.create_task(_discard(producer))
                self._discards.add(discard)
                discard.add_done_callback(self._discards.discard)
            await asyncio.sleep(self._backoff.fail())

    def _producer(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **self._kafka.client_options(),
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=BATCH_BYTES_MAX,
            # A request that outlives its waiters only keeps a dead producer alive.
            request_timeout_ms=max(1000, round(self._ack_timeout_seconds * 1000)),
        )

    async def _connect(self, producer: AIOKafkaProducer) -> int:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            await producer.start()
            partitions = len(await producer.partitions_for(self._topic))
        self._connected.set()
        logger.info("producer_connected", topic=self._topic, partitions=partitions)
        return partitions

    async def _gather(self) -> None:
        """Let requests that already wait in the sockets join: without it every second group holds one record."""
        before = -1
        while before != self._in_flight:
            before = self._in_flight
            await asyncio.sleep(0)

    async def _commit(self, producer: AIOKafkaProducer, partitions: int) -> None:
        """Send everything that waits, and settle it."""
        groups = [group for group in self._waiting if not group.is_over]
        self._waiting.clear()
        self._open = None
        self._wake.clear()
        if not groups:
            return
        self._sent = groups
        started_at = self._loop.time()
        try:
            # The youngest group's deadline: the older ones expire by themselves.
            async with asyncio.timeout_at(max(group.deadline for group in groups)):
                await send(producer, self._batches(partitions, groups))
        except TimeoutError:
            for group in groups:
                self._fail(group, AckTimeoutError())
            raise
        except KafkaError as error:
            for group in groups:
                refused = RefusedError(repr(error))
                refused.__cause__ = error
                self._fail(group, refused)
            raise
        finally:
            self._sent = []
        self._metrics.publish_seconds.observe(self._loop.time() - started_at)
        self._metrics.group_records.observe(sum(len(group.records) for group in groups))
        for group in groups:
            self._settle(group)

    def _batches(self, partitions: int, groups: list[_Group]) -> Iterable[Batches]:
        """Pack the records of *groups* into batches, in order, none larger than a topic takes."""
        records = [record for group in groups for record in group.records]
        keyed = iter(partitions_of([key for key, _, _, _ in records if key is not None], partitions))
        filling: dict[int, Batches] = {}
        for key, body, source, received_at_ms in records:
            if key is None:
                self._turn = partition = (self._turn + 1) % partitions
            else:
                partition = next(keyed)
            if partition not in filling:
                tp = TopicPartition(self._topic, partition)
                filling[partition] = Batches(tp, bytes_max=BATCH_BYTES_MAX, is_transactional=False)
            filling[partition].append((key, body, received_at_ms, _headers(source, received_at_ms)))
        return filling.values()


@lru_cache(maxsize=16)  # What arrives within a millisecond shares them.
def _headers(source: bytes, received_at_ms: int) -> list[tuple[str, bytes]]:
    return [(HEADER_SOURCE, source), (HEADER_RECEIVED_AT, b"%d" % received_at_ms)]


async def _discard(producer: AIOKafkaProducer) -> None:
    """
    Close *producer* within bounds, whatever state it is in; nobody waits for its batches any more.

    aiokafka 0.14.0: stop() flushes first, without limit, so the batches are failed before. An attempt that fails for
    its own reasons after that is of no interest.
    """
    producer._message_accumulator.fail_all(ProducerClosed())
    for step in (producer.stop(), producer.client.close()):
        task = asyncio.ensure_future(step)
        await asyncio.wait([task], timeout=DISCARD_SECONDS_MAX)
        if not task.cancel() and not task.cancelled() and task.exception() is not None:
            logger.debug("producer_discard_failed", error=repr(task.exception()))
        await asyncio.wait([task], timeout=DISCARD_SECONDS_MAX)
