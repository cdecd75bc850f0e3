"""
What waits on disk, on its way to Kafka.

It has connections of its own, and time, as no callback waits for it: where Kafka takes longer than a callback may, the
spool is emptied all the same, and neither closes the connection under the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import structlog

from pipeline.bridge.spool import Spool
from pipeline.bridge.spool_directory import SpoolError
from pipeline.bridge.spool_thread import SpoolThread
from pipeline.core.contract import RawRecord
from pipeline.kafka import KafkaError
from pipeline.kafka.producer import BatchRefusedError, Producer
from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.settings import KafkaSettings

# Of one batch. No callback is answered while so many records are packed; so many bytes with one key are eight requests,
# one after the other, all within SECONDS_MAX.
RECORDS_MAX = 1024
BYTES_MAX = 1 << 20
SECONDS_MAX = 30.0
HALVINGS_MAX = 10  # Down to a single record.
RETRY_SECONDS = 1.0
REFUSED_SECONDS = 60.0  # What Kafka refuses for good is offered again: an operator may have changed the topic.

WAITING_SECONDS = 10.0  # So is what its partition did not take, in order: a broker may be back.

Send = Callable[[Sequence[RawRecord], set[int]], Awaitable[list[int]]]
"""What `Producer.offer` is."""

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@asynccontextmanager
async def connected(kafka: KafkaSettings, topic: str, is_up: asyncio.Event) -> AsyncIterator[Send]:
    """Wait until Kafka *is_up*, and have connections to it, for the spool alone, while the context lasts."""
    await is_up.wait()
    producer = Producer(kafka, topic, request_timeout_seconds=SECONDS_MAX)
    try:
        await producer.connect()
        yield producer.offer
    finally:
        await producer.close()


class Drain:
    """
    Takes what one spool holds to Kafka, oldest first.

    A record that Kafka refuses by itself stays on disk, and holds up nothing behind it. Those of a partition that takes
    none, as one without a leader, stay there in order, and hold up no other partition's.
    """

    def __init__(
        self,
        spool: SpoolThread,
        connect: Callable[[], AbstractAsyncContextManager[Send]],
        metrics: BridgeMetrics,
        *,
        halvings: int = 0,
    ) -> None:
        """
        Args:
            spool: What is emptied.
            connect: Connects to Kafka while its context lasts. What that, or sending, raises ends the context.
            metrics: Counts what Kafka has taken, what it refuses, and lost connections.
            halvings: How often RECORDS_MAX and BYTES_MAX are halved for the first batch.
        """
        self.halvings = halvings
        """How often they are for the next one, by what Kafka did with those before."""
        self.refused = 0
        """How many records Kafka refused, each by itself, the last time it was offered them."""
        self.waiting = 0
        """How many wait for a partition that took none the last time."""
        self._spool = spool
        self._connect = connect
        self._metrics = metrics
        self._after = 0  # Behind which record to go on.
        self._passed_over: set[int] = set()  # Partitions, until it begins from the oldest again.
        # What Kafka has, and the disk would not delete so far: ranges, and what of them it has not.
        self._acked: list[tuple[int, int, list[int]]] = []
        self._refused_at: float | None = None
        self._waiting_at: float | None = None
        self._refusal: KafkaError | None = None

    async def run(self, filled: asyncio.Event) -> None:
        """Empty the spool whenever it was *filled*, until cancelled; whatever keeps it from that, it tries again."""
        while True:
            filled.clear()  # Before the look, or what comes right after it would wait for the next one.
            try:
                await self.empty()
            except Exception as error:
                is_known = isinstance(error, (KafkaError, OSError, SpoolError))
                logger.warning("drain_failed", error=str(error) or repr(error), exc_info=not is_known)
                if not isinstance(error, SpoolError):
                    self._metrics.reconnects.inc()
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._metrics.spool_refused.set(self.refused)
                self._metrics.spool_waiting.set(self.waiting)
                await self._until_due(filled)

    async def empty(self) -> None:
        """Take all there is to Kafka, once; raises what Kafka, the connection or the disk raised."""
        due = self._due()
        if due is not None and not self._acked and self._now() >= due:
            self._refused_at = self._waiting_at = None
            self._after = self.refused = self.waiting = 0
            self._passed_over.clear()
        if found := await self._look():
            async with self._connect() as send:
                while found:
                    await self._offer(send, found)
                    await self._delete()
                    found = await self._look()
        await self._delete()
        if self.refused:
            spool, last = str(self._spool.directory), repr(self._refusal)
            logger.error("records_refused", spool=spool, records=self.refused, last_error=last)
        if self.waiting:
            logger.warning("records_wait", records=self.waiting, partitions=sorted(self._passed_over))

    async def _look(self) -> list[tuple[int, RawRecord]]:
        count, size = RECORDS_MAX >> self.halvings, BYTES_MAX >> self.halvings
        return await self._spool.run(partial(Spool.oldest, count=count, after=self._after, bytes_max=size))

    async def _offer(self, send: Send, found: list[tuple[int, RawRecord]]) -> None:
        """Send *found*, and go on behind it; or with less, where that was too much for Kafka."""
        try:
            async with asyncio.timeout(SECONDS_MAX):
                left = [found[place][0] for place in await send([record for _, record in found], self._passed_over)]
        except TimeoutError:
            self._halve()
            raise
        except BatchRefusedError as error:
            if len(found) > 1:
                self._halve()
                return
            self.refused, self._refused_at, self._refusal = self.refused + 1, self._now(), error
        else:
            self.halvings = max(0, self.halvings - 1)
            self._acked.append((found[0][0], found[-1][0], left))
            self._metrics.drained.inc(len(found) - len(left))
            if left:
                self.waiting, self._waiting_at = self.waiting + len(left), self._waiting_at or self._now()
        self._after = found[-1][0]

    def _due(self) -> float | None:
        """Return when to begin from the oldest again."""
        stayed = ((self._refused_at, REFUSED_SECONDS), (self._waiting_at, WAITING_SECONDS))
        return min((at + seconds for at, seconds in stayed if at is not None), default=None)

    def _halve(self) -> None:
        self.halvings = min(self.halvings + 1, HALVINGS_MAX)

    async def _delete(self) -> None:
        """Forget what Kafka has. Should the disk refuse, it is not published again, unless the process ends first."""
        while self._acked:
            first, last, left = self._acked[0]
            await self._spool.run(partial(Spool.delete, first=first, last=last, but=left))
            del self._acked[0]

    async def _until_due(self, filled: asyncio.Event) -> None:
        """Wait for more, or until what stayed is to be offered again."""
        try:
            async with asyncio.timeout_at(self._due()):
                await filled.wait()
        except TimeoutError:
            return

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
