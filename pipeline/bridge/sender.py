"""
The bridge's sessions with Kafka: batches that wait are sent, several requests at a time, over one producer.

Knows neither who waits for a batch nor what becomes of one that failed. Whatever ends a session, another one begins.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NoReturn

import structlog

from pipeline.bridge.batch import PendingBatch
from pipeline.bridge.errors import AckTimeoutError, KafkaFailedError, PublishError
from pipeline.core.contract import RawRecord
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


class Sender:
    """Sends batches to one topic, and keeps connected to Kafka: after any failure it connects anew."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        metrics: BridgeMetrics,
        *,
        request_timeout_seconds: float,
        keeps_waiting: bool,
        complete: Callable[[PendingBatch], None],
        fail: Callable[[PendingBatch, PublishError, list[RawRecord]], None],
    ) -> None:
        """
        Args:
            kafka: Where Kafka is.
            topic: The topic every record goes to.
            metrics: Counts requests, their time, and lost connections.
            request_timeout_seconds: How long an answer may take; its connection is closed then.
            keeps_waiting: Whether batches wait for the next session when one ends; otherwise they fail at once.
            complete: Called with each batch that Kafka has (acks=all).
            fail: Called with each one that it has not, why, and which records of it.
        """
        self.connected = asyncio.Event()
        """Whether there is a session, in which what is put is sent."""
        self.refusal: str | None = None
        """Why Kafka does not let us in, or we do not trust it; None if that is not so."""
        self.wake = asyncio.Event()
        """Set it where there may be enough for another request."""
        self._kafka = kafka
        self._topic = topic
        self._metrics = metrics
        self._request_timeout_seconds = request_timeout_seconds
        self._keeps_waiting = keeps_waiting
        self._complete = complete
        self._fail = fail
        self._waiting: deque[PendingBatch] = deque()
        self._sending: dict[asyncio.Task[None], list[PendingBatch]] = {}
        self._failure: BaseException | None = None
        self._backoff = Backoff(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX)
        self._closing: set[asyncio.Task[None]] = set()
        metrics.kafka_requests.set_function(lambda: len(self._sending))

    def put(self, batch: PendingBatch) -> None:
        """Send *batch* as soon as it is its turn; until then it may grow."""
        self._waiting.append(batch)
        self.wake.set()

    def batches(self) -> Iterator[PendingBatch]:
        """Yield what is in flight, and what waits."""
        return chain(*self._sending.values(), self._waiting)

    def drop_expired(self) -> None:
        """Forget the oldest batches that no caller waits for any more."""
        while self._waiting and self._waiting[0].is_over:
            self._waiting.popleft()

    async def run(self) -> None:
        """Begin another session with Kafka whenever one has ended, whatever ended it: the callbacks still come."""
        while True:
            try:
                self.refusal = await access.refusal(self._kafka)
                if self.refusal is None:
                    await self._session()
            except Exception as error:  # The spool has what it could not send.
                is_known = isinstance(error, (KafkaError, OSError))
                failures = self._backoff.failures
                logger.warning("kafka_lost", error=repr(error), failures=failures, exc_info=not is_known)
                self._metrics.reconnects.inc()
                await asyncio.sleep(self._backoff.fail())
            else:
                self._metrics.kafka_refusals.inc()
                logger.error("kafka_refused", problem=self.refusal, retry_seconds=REFUSED_SECONDS)
                await asyncio.sleep(REFUSED_SECONDS)

    async def close(self) -> None:
        """Return once the connections of all sessions are closed; `run` was cancelled before."""
        if self._closing:
            await asyncio.wait(self._closing)

    async def _session(self) -> NoReturn:
        """Connect, and send what arrives until something fails; raises what that was."""
        producer = Producer(self._kafka, self._topic, request_timeout_seconds=self._request_timeout_seconds)
        try:
            partitions = await producer.connect()
            self.connected.set()
            logger.info("kafka_connected", topic=self._topic, partitions=partitions)
            await self._send_all(producer)
        finally:
            self.connected.clear()
            if not self._keeps_waiting:
                for batch in tuple(self._waiting):
                    self._fail(batch, AckTimeoutError(), batch.records)
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
            self.wake.clear()
            await self.wake.wait()
        self.connected.clear()
        if self._sending:
            await asyncio.wait(self._sending)
        raise self._failure

    def _has_request(self) -> bool:
        """Return whether it is time for another request."""
        if not self._sending:
            return bool(self._waiting)
        return self._records_waiting() >= REQUEST_RECORDS_MIN and len(self._sending) < REQUESTS_MAX

    async def _gather(self) -> None:
        """Let requests that already wait in the sockets join: without it every second batch holds one record."""
        before = -1
        while before != (waiting := self._records_waiting()):
            before = waiting
            await asyncio.sleep(0)

    def _records_waiting(self) -> int:
        return sum(len(batch.records) for batch in self._waiting)

    def _start(self, producer: Producer) -> None:
        """Begin to send everything that waits."""
        batches = [batch for batch in self._waiting if not batch.is_over]
        self._waiting.clear()
        for batch in batches:
            batch.close()
        if batches:
            task = asyncio.create_task(self._send(producer, batches))
            self._sending[task] = batches
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        """Make room for the next request, or note why there shall be none."""
        del self._sending[task]
        failure = None if task.cancelled() else task.exception()
        self._failure = self._failure or failure
        self.wake.set()

    async def _send(self, producer: Producer, batches: list[PendingBatch]) -> None:
        """Send *batches*, and have them completed or failed."""
        records = [record for batch in batches for record in batch.records]
        if not records:
            return  # All were given up since this task was made.
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        try:
            # The youngest batch's deadline: the older ones expire by themselves.
            async with asyncio.timeout_at(max(batch.deadline for batch in batches)):
                left = await producer.send(records, waits_for_leaders=self._keeps_waiting)
        except KafkaError as error:
            for batch in batches:
                refused = KafkaFailedError(repr(error))
                refused.__cause__ = error
                self._fail(batch, refused, batch.records)
            if not isinstance(error, BatchRefusedError):
                raise
            logger.warning("batch_refused", error=repr(error), records=len(records))
        except Exception:
            for batch in batches:
                self._fail(batch, AckTimeoutError(), batch.records)
            raise
        else:
            self._backoff.succeed()
            self._metrics.publish_seconds.observe(loop.time() - started_at)
            self._metrics.batch_records.observe(len(records) - len(left))
            waiting = {id(records[place]) for place in left}
            for batch in batches:
                if waiting and (rest := [record for record in batch.records if id(record) in waiting]):
                    self._fail(batch, AckTimeoutError(), rest)
                else:
                    self._complete(batch)
