"""
Records become durable together: whatever arrives while one batch is in flight becomes the next, in Kafka or on disk.

Knows nothing of HTTP or of what a body says. A record handed to `Publisher.publish` is in Kafka (acks=all), or on disk,
once its future has a result: which of the two, says that. If it raises, the record may still get to Kafka later, which
is harmless: the accept stage deduplicates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path

from pipeline.bridge.batch import PendingBatch, StoredIn
from pipeline.bridge.drain import Drain, connected
from pipeline.bridge.errors import AckTimeoutError, OverloadedError, PublishError
from pipeline.bridge.ingress import AdmittedBody
from pipeline.bridge.left_behind import LeftBehind
from pipeline.bridge.sender import REQUEST_RECORDS_MIN, Sender
from pipeline.bridge.spool_writer import Spooler
from pipeline.core.contract import RawRecord
from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.settings import KafkaSettings


class Source(Enum):
    """Where a record came from: the value of its `source` header."""

    HTTP = b"http"
    MNS = b"mns"


class Publisher:
    """Publishes to one topic; what Kafka does not take in time is spooled, where there is a spool."""

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
        self._open: PendingBatch | None = None
        self._spooler = spooler
        self._find_left_behind = find_left_behind
        self._sender = Sender(
            kafka,
            topic,
            metrics,
            # A request that outlives its waiters only keeps a dead connection alive.
            request_timeout_seconds=max(1.0, ack_timeout_seconds),
            keeps_waiting=spooler is None,
            complete=self._complete,
            fail=self._fail,
        )
        metrics.in_flight.set_function(lambda: self._in_flight)

    async def start(self) -> None:
        """Begin to connect; does not wait for Kafka, as callbacks may arrive before it does."""
        self._loop = asyncio.get_running_loop()
        self.tasks = [asyncio.create_task(self._sender.run(), name="publisher")]
        connect = partial(connected, self._kafka, self._topic, self._sender.connected)
        if self._find_left_behind is not None:
            left = LeftBehind(self._find_left_behind, connect, self._sender.connected, self._metrics)
            self.tasks.append(asyncio.create_task(left.run(), name="left behind"))
        if self._spooler is not None:
            drain = Drain(self._spooler.thread, connect, self._metrics)
            self.tasks += [
                asyncio.create_task(self._spooler.write(), name="spooler"),
                asyncio.create_task(drain.run(self._spooler.filled), name="drain"),
            ]

    async def stop(self) -> None:
        """Wait for what is in flight, until its deadline at most, then close connections and spool."""
        acks = [batch.acked for batch in self._sender.batches()]
        if acks:
            await asyncio.wait(acks, timeout=self._ack_timeout_seconds)
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        if self._spooler is not None:
            await self._spooler.close()
        await self._sender.close()

    def problems(self) -> list[str]:
        """Say what keeps records from being published or spooled; nothing if they are."""
        if self._spooler is not None:
            return [] if self._spooler.is_working else ["Kafka does not take records, and the spool fails"]
        if self._sender.connected.is_set():
            return []
        return [self._sender.refusal or f"not connected to Kafka at {self._kafka.bootstrap_servers}"]

    def publish(
        self, key: bytes | None, body: AdmittedBody, *, source: Source, received_at_ms: int
    ) -> asyncio.Future[StoredIn]:
        """
        Take a record for publication.

        Args:
            key: The record's key; None: any partition.
            body: The record's value, verbatim.
            source: Header: which way the record came.
            received_at_ms: Header: when, in ms since the epoch.

        Returns:
            A future, done once the record is durable: in Kafka (acks=all), or in the spool. It fails with
            AckTimeoutError, KafkaFailedError or SpoolFailedError.

        Raises:
            OverloadedError: the record was not taken.
        """
        if self._in_flight >= self._in_flight_max:
            raise OverloadedError
        batch = self._open
        if batch is None or self._loop.time() > batch.closes_at:
            batch = self._open = PendingBatch(self._expire, self._loop, self._ack_timeout_seconds)
            if self._spooler is None or self._sender.connected.is_set():
                self._sender.put(batch)
            else:  # Kafka is known to be down: with all that arrives in this pass of the loop, straight to disk.
                self._loop.call_soon(self._fail, batch, AckTimeoutError(), batch.records)
        self._in_flight += 1
        batch.records.append((key, body, source._value_, received_at_ms))
        if len(batch.records) == REQUEST_RECORDS_MIN:
            self._sender.wake.set()
        return batch.acked

    def _expire(self, batch: PendingBatch) -> None:
        """Stop waiting for Kafka to take *batch*, whose deadline has passed."""
        self._fail(batch, AckTimeoutError(), batch.records)
        self._sender.drop_expired()

    def _fail(self, batch: PendingBatch, error: PublishError, records: list[RawRecord]) -> None:
        """Spool *records*, what Kafka did not take of *batch*, or give it up because of *error*."""
        if batch.is_over:
            return
        if self._spooler is None:
            self._complete(batch, error)
            return
        batch.close()
        batch.is_spooling = True
        batch.timer.cancel()
        batch.timer = self._loop.call_later(self._ack_timeout_seconds, self._give_up, batch, self._spooler)
        self._spooler.put(records, lambda error: self._complete(batch, error, stored_in=StoredIn.SPOOL))

    def _give_up(self, batch: PendingBatch, spooler: Spooler) -> None:
        spooler.note_stall()
        self._complete(batch, AckTimeoutError())

    def _complete(
        self, batch: PendingBatch, error: PublishError | None = None, *, stored_in: StoredIn = StoredIn.KAFKA
    ) -> None:
        """Tell all who wait for *batch* how it ended."""
        if batch.acked.done():
            return
        batch.close()
        batch.timer.cancel()
        self._in_flight -= len(batch.records)
        batch.records.clear()  # The spooler may have the list still, behind a disk that hangs.
        if error is None:
            batch.acked.set_result(stored_in)
        else:
            batch.acked.set_exception(error)
            batch.acked.exception()  # Every waiter may be gone: that is nothing to complain about.
