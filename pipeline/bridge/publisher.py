"""
Group commit to Kafka: whatever arrives while one batch is in flight becomes the next.

Knows nothing of HTTP or of what a body says. A record handed to `Publisher.publish` is in Kafka (acks=all) once its
awaitable returns; if that raises, it may still get there later, which is harmless: the accept stage deduplicates.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NoReturn

import structlog

from pipeline.bridge.batch import Batch
from pipeline.bridge.drain import Drain, connected
from pipeline.bridge.errors import AckTimeoutError, OverloadedError, PublishError, RefusedError
from pipeline.bridge.ingress import Authenticated
from pipeline.bridge.left_behind import LeftBehind
from pipeline.bridge.spool_writer import Spooler
from pipeline.kafka import KafkaError, access
from pipeline.kafka.producer import BatchRefusedError, Producer
from pipeline.service.backoff import Backoff
from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.settings import KafkaSettings

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Several are in flight, so that Kafka's latency does not bound what passes; a further one only with so many records, as
# a request costs as much as 60 of them.
REQUESTS_MAX = 4
REQUEST_RECORDS_MIN = 32
RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 2.0
REFUSED_SECONDS = 15.0  # An operator has to change a password or a certificate; asking more often may lock the account.


class Source(Enum):
    """Where a record came from: the value of its `source` header."""

    HTTP = b"http"
    MNS = b"mns"


class Publisher:
    """Publishes to one topic, and keeps connected to Kafka: after any failure it connects anew."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        metrics: BridgeMetrics,
        *,
        ack_timeout_seconds: float,
        in_flight_max: int,
        spooler: Spooler | None = None,
        find_left_behind: Callable[[], list[Path]] | None = None,
    ) -> None:
        """
        Args:
            kafka: Where Kafka is.
            topic: The topic every record goes to.
            metrics: Counts batches, their time, what is in flight, and lost connections.
            ack_timeout_seconds: From `publish` until the record is spooled, and then until it is given up.
            in_flight_max: How many records may wait for Kafka; more are refused at once.
            spooler: Takes what Kafka does not; None: that is given up.
            find_left_behind: Returns the directories of spools without a bridge, which are emptied, too.
        """
        self._kafka = kafka
        self._topic = topic
        self._metrics = metrics
        self._ack_timeout_seconds = ack_timeout_seconds
        self._in_flight_max = in_flight_max
        self._in_flight = 0
        self._open: Batch | None = None
        self._waiting: deque[Batch] = deque()
        self._sending: dict[asyncio.Task[None], list[Batch]] = {}
        self._failure: BaseException | None = None
        self._spooler = spooler
        self._find_left_behind = find_left_behind
        self._connected = asyncio.Event()
        self._refusal: str | None = None
        self._backoff = Backoff(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX)
        self._closing: set[asyncio.Task[None]] = set()
        metrics.in_flight.set_function(lambda: self._in_flight)

    async def start(self) -> None:
        """Begin to connect; does not wait for Kafka, as callbacks may arrive before it does."""
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self.tasks = [asyncio.create_task(self._run(), name="publisher")]
        connect = partial(connected, self._kafka, self._topic, self._connected)
        if self._find_left_behind is not None:
            left = LeftBehind(self._find_left_behind, connect, self._connected, self._metrics)
            self.tasks.append(asyncio.create_task(left.run(), name="left behind"))
        if self._spooler is not None:
            drain = Drain(self._spooler.thread, connect, self._metrics)
            self.tasks += [
                asyncio.create_task(self._spooler.write(), name="spooler"),
                asyncio.create_task(drain.run(self._spooler.filled), name="drain"),
            ]

    async def stop(self) -> None:
        """Wait for what is in flight, until its deadline at most, then close connections and spool."""
        acks = [batch.acked for batch in chain(*self._sending.values(), self._waiting)]
        if acks:
            await asyncio.wait(acks, timeout=self._ack_timeout_seconds)
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        if self._spooler is not None:
            await self._spooler.close()
        if self._closing:
            await asyncio.wait(self._closing)

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
        batch = self._open
        if batch is None or self._loop.time() > batch.closes_at:
            batch = self._open = Batch(self._expire, self._loop, self._ack_timeout_seconds)
            if self._spooler is None or self._connected.is_set():
                self._waiting.append(batch)
                self._wake.set()
            else:  # Kafka is known to be down: with all that arrives in this pass of the loop, straight to disk.
                self._loop.call_soon(self._fail, batch, AckTimeoutError())
        self._in_flight += 1
        batch.records.append((key, body, source._value_, received_at_ms))
        if len(batch.records) == REQUEST_RECORDS_MIN:
            self._wake.set()
        return batch.acked

    def _expire(self, batch: Batch) -> None:
        """Stop waiting for Kafka to take *batch*, whose deadline has passed."""
        self._fail(batch, AckTimeoutError())
        while self._waiting and self._waiting[0].is_over:
            self._waiting.popleft()

    def _fail(self, batch: Batch, error: PublishError) -> None:
        """Spool what Kafka did not take, or give it up because of *error*."""
        if batch.is_over:
            return
        if self._spooler is None:
            self._complete(batch, error)
            return
        batch.is_spooling = True
        batch.timer.cancel()
        batch.timer = self._loop.call_later(self._ack_timeout_seconds, self._give_up, batch, self._spooler)
        if self._open is batch:
            self._open = None
        self._spooler.put(batch.records, lambda error: self._complete(batch, error, is_spooled=True))

    def _give_up(self, batch: Batch, spooler: Spooler) -> None:
        spooler.note_stall()
        self._complete(batch, AckTimeoutError())

    def _complete(self, batch: Batch, error: PublishError | None = None, *, is_spooled: bool = False) -> None:
        if batch.acked.done():
            return
        batch.timer.cancel()
        if self._open is batch:
            self._open = None
        self._in_flight -= len(batch.records)
        batch.records.clear()  # The spooler may have the list still, behind a disk that hangs.
        if error is None:
            batch.acked.set_result(is_spooled)
        else:
            batch.acked.set_exception(error)
            batch.acked.exception()  # Every waiter may be gone: that is nothing to complain about.

    async def _run(self) -> None:
        """Begin another session with Kafka whenever one has ended, whatever ended it: the callbacks still come."""
        while True:
            try:
                self._refusal = await access.refusal(self._kafka)
                if self._refusal is None:
                    await self._session()
            except Exception as error:  # The spool has what it could not send.
                is_known = isinstance(error, (KafkaError, OSError))
                failures = self._backoff.failures
                logger.warning("kafka_lost", error=repr(error), failures=failures, exc_info=not is_known)
                self._metrics.reconnects.inc()
                await asyncio.sleep(self._backoff.fail())
            else:
                self._metrics.kafka_refusals.inc()
                logger.error("kafka_refused", problem=self._refusal, retry_seconds=REFUSED_SECONDS)
                await asyncio.sleep(REFUSED_SECONDS)

    async def _session(self) -> NoReturn:
        """Connect, and send what arrives until something fails; raises what that was."""
        # A request that outlives its waiters only keeps a dead connection alive.
        producer = Producer(self._kafka, self._topic, request_timeout_seconds=max(1.0, self._ack_timeout_seconds))
        try:
            partitions = await producer.connect()
            self._connected.set()
            logger.info("kafka_connected", topic=self._topic, partitions=partitions)
            await self._send_all(producer)
        finally:
            self._connected.clear()
            if self._spooler is not None:
                for batch in tuple(self._waiting):
                    self._fail(batch, AckTimeoutError())
            for task in self._sending:
                task.cancel()
            closing = asyncio.create_task(producer.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _send_all(self, producer: Producer) -> NoReturn:
        """Send what arrives, until a request fails; raise why once the others in flight have ended, too."""
        self._failure = None
        while self._failure is None:
            if self._has_request():
                await self._gather()
                self._start(producer)
            self._wake.clear()
            await self._wake.wait()
        self._connected.clear()
        if self._sending:
            await asyncio.wait(self._sending)
        raise self._failure

    async def _gather(self) -> None:
        """Let requests that already wait in the sockets join: without it every second batch holds one record."""
        before = -1
        while before != self._in_flight:
            before = self._in_flight
            await asyncio.sleep(0)

    def _has_request(self) -> bool:
        """Return whether it is time for another request."""
        if not self._sending:
            return bool(self._waiting)
        waiting = sum(len(batch.records) for batch in self._waiting)
        return waiting >= REQUEST_RECORDS_MIN and len(self._sending) < REQUESTS_MAX

    def _start(self, producer: Producer) -> None:
        """Begin to send everything that waits."""
        batches = [batch for batch in self._waiting if not batch.is_over]
        self._waiting.clear()
        self._open = None
        if batches:
            task = asyncio.create_task(self._commit(producer, batches))
            self._sending[task] = batches
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        """Make room for the next request, or note why there shall be none."""
        del self._sending[task]
        failure = None if task.cancelled() else task.exception()
        self._failure = self._failure or failure
        self._wake.set()

    async def _commit(self, producer: Producer, batches: list[Batch]) -> None:
        """Send *batches*, and complete them."""
        records = [record for batch in batches for record in batch.records]
        if not records:
            return  # All were given up since this task was made.
        started_at = self._loop.time()
        try:
            # The youngest batch's deadline: the older ones expire by themselves.
            async with asyncio.timeout_at(max(batch.deadline for batch in batches)):
                await producer.send(records)
        except KafkaError as error:
            for batch in batches:
                refused = RefusedError(repr(error))
                refused.__cause__ = error
                self._fail(batch, refused)
            if not isinstance(error, BatchRefusedError):
                raise
            logger.warning("batch_refused", error=repr(error), records=len(records))
        except Exception:
            for batch in batches:
                self._fail(batch, AckTimeoutError())
            raise
        else:
            self._backoff.succeed()
            self._metrics.publish_seconds.observe(self._loop.time() - started_at)
            self._metrics.batch_records.observe(len(records))
            for batch in batches:
                self._complete(batch)
