"""
Group commit to Kafka: whatever arrives while one group is in flight becomes the next.

Knows nothing of HTTP or of what a body says. A record handed to `Publisher.publish` is in Kafka (acks=all) once its
awaitable returns; if that raises, it may still get there later, which is harmless: the accept stage deduplicates.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable
from enum import Enum
from functools import lru_cache
from typing import Any, NewType

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerClosed

from pipeline.batch import Batch
from pipeline.bridge.errors import AckTimeoutError, OverloadedError, PublishError, RefusedError
from pipeline.bridge.partition import partitions_of
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

# A body whose sender proved itself. Only the ingress that checked makes one.
Authenticated = NewType("Authenticated", bytes)


class Source(Enum):
    """Where a record came from: the value of its `source` header."""

    HTTP = b"http"
    MNS = b"mns"


class _Ack(asyncio.Future[None]):
    """What all waiters of a group share; one waiter that is cancelled must not cancel it for the others."""

    def cancel(self, msg: Any = None) -> bool:
        return False


# Key, body, source and time of receipt in ms: a plain tuple, as one is made for every request.
_Record = tuple[bytes | None, bytes, bytes, int]


class _Group:
    """Records that are acknowledged, or given up, together."""

    __slots__ = ("acked", "closes_at", "deadline", "records", "timer")

    def __init__(self, publisher: Publisher, loop: asyncio.AbstractEventLoop, ack_timeout_seconds: float) -> None:
        now = loop.time()
        self.records: list[_Record] = []
        self.acked = _Ack(loop=loop)
        self.closes_at = now + min(GROUP_OPEN_SECONDS, ack_timeout_seconds / 2)
        self.deadline = now + ack_timeout_seconds
        self.timer = loop.call_at(self.deadline, publisher.expire, self)


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
    ) -> None:
        """
        Args:
            kafka: Where Kafka is.
            topic: The topic every record goes to.
            metrics: Counts groups, their time, what is in flight, and producers replaced.
            ack_timeout_seconds: From `publish` until the record is given up.
            in_flight_max: How many records may wait for Kafka; more are refused at once.
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
        self._connected = False
        self._failures = 0
        self._turn = 0
        self._discards: set[asyncio.Task[None]] = set()
        metrics.in_flight.set_function(lambda: self._in_flight)

    async def start(self) -> None:
        """Begin to connect; does not wait for Kafka, as callbacks may arrive before it does."""
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self.running = asyncio.create_task(self._run(), name="publisher")

    async def stop(self) -> None:
        """Wait for what is in flight, until its deadline at most, then close the producer."""
        groups = [group.acked for group in (*self._sent, *self._waiting)]
        if groups:
            await asyncio.wait(groups, timeout=self._ack_timeout_seconds)
        self.running.cancel()
        await asyncio.wait([self.running])
        if self._discards:
            await asyncio.wait(self._discards)

    def problems(self) -> list[str]:
        """Say what keeps records from being published; nothing if they are."""
        return [] if self._connected else [f"not connected to Kafka at {self._kafka.bootstrap_servers}"]

    def publish(
        self, key: bytes | None, body: Authenticated, *, source: Source, received_at_ms: int
    ) -> Awaitable[None]:
        """
        Take a record for publication.

        Args:
            key: The record's key; None: any partition.
            body: The record's value, verbatim.
            source: Header: which way the record came.
            received_at_ms: Header: when, in ms since the epoch.

        Returns:
            An awaitable that returns once Kafka has the record (acks=all), or raises AckTimeoutError or RefusedError.

        Raises:
            OverloadedError: the record was not taken.
        """
        if self._in_flight >= self._in_flight_max:
            raise OverloadedError
        group = self._open
        if group is None or self._loop.time() > group.closes_at:
            group = self._open = _Group(self, self._loop, self._ack_timeout_seconds)
            self._waiting.append(group)
            self._wake.set()
        self._in_flight += 1
        group.records.append((key, body, source._value_, received_at_ms))
        return group.acked

    def expire(self, group: _Group) -> None:
        """Give up *group*, whose deadline has passed."""
        self._settle(group, AckTimeoutError())
        while self._waiting and self._waiting[0].acked.done():
            self._waiting.popleft()

    def _settle(self, group: _Group, error: PublishError | None = None) -> None:
        if group.acked.done():
            return
        group.timer.cancel()
        if self._open is group:
            self._open = None
        self._in_flight -= len(group.records)
        group.records = []
        if error is None:
            group.acked.set_result(None)
        else:
            group.acked.set_exception(error)
            group.acked.exception()  # Every waiter may be gone: that is nothing to complain about.

    async def _run(self) -> None:
        while True:
            producer = self._producer()
            try:
                partitions = await self._connect(producer)
                while True:
                    await self._wake.wait()
                    await self._gather()
                    await self._commit(producer, partitions)
                    self._failures = 0
            except (KafkaError, OSError, TimeoutError) as error:
                logger.warning("producer_replaced", error=repr(error), failures=self._failures)
                self._metrics.producer_restarts.inc()
            finally:
                self._connected = False
                discard = asyncio.create_task(_discard(producer))
                self._discards.add(discard)
                discard.add_done_callback(self._discards.discard)
            await asyncio.sleep(self._retry_seconds())

    def _retry_seconds(self) -> float:
        longest = min(RETRY_SECONDS_MIN * (1 << self._failures), RETRY_SECONDS_MAX)
        self._failures = min(self._failures + 1, 10)
        return longest * random.uniform(0.5, 1)  # noqa: S311  # Jitter, not a secret.

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
        self._connected = True
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
        groups = [group for group in self._waiting if not group.acked.done()]
        self._waiting.clear()
        self._open = None
        self._wake.clear()
        if not groups:
            return
        self._sent = groups
        started_at = self._loop.time()
        try:
            # The youngest group's deadline: the older ones expire by themselves.
            async with asyncio.timeout_at(groups[-1].deadline):
                acks = [
                    await producer.send_batch(batch, self._topic, partition=partition)
                    for partition, batch in self._batches(partitions, groups)
                ]
                await asyncio.gather(*acks)
        except TimeoutError:
            for group in groups:
                self._settle(group, AckTimeoutError())
            raise
        except KafkaError as error:
            for group in groups:
                refused = RefusedError(repr(error))
                refused.__cause__ = error
                self._settle(group, refused)
            raise
        finally:
            self._sent = []
        self._metrics.publish_seconds.observe(self._loop.time() - started_at)
        self._metrics.group_records.observe(sum(len(group.records) for group in groups))
        for group in groups:
            self._settle(group)

    def _batches(self, partitions: int, groups: list[_Group]) -> list[tuple[int, Batch]]:
        """Pack the records of *groups* into batches, in order, none larger than a topic takes."""
        records = [record for group in groups for record in group.records]
        keyed = iter(partitions_of([key for key, _, _, _ in records if key is not None], partitions))
        full: list[tuple[int, Batch]] = []
        filling: dict[int, Batch] = {}
        for key, body, source, received_at_ms in records:
            if key is None:
                self._turn = partition = (self._turn + 1) % partitions
            else:
                partition = next(keyed)
            row = (key, body, received_at_ms, _headers(source, received_at_ms))
            batch = filling.get(partition)
            if batch is not None:
                if batch.add(row):
                    continue
                full.append((partition, batch))
            batch = filling[partition] = Batch(BATCH_BYTES_MAX, is_transactional=False)
            batch.add(row)
        return full + list(filling.items())


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
