"""
The MNS ingress: one long poll per queue, and a message is deleted only once its record is safe.

At least once: whatever fails here, MNS shows the message again, and the accept stage knows it by its content. Bodies
are not judged: what is no JSON goes to raw as well, for the worker to reject.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from pipeline.bridge.batch import StoredIn
from pipeline.bridge.errors import OverloadedError, PublishError
from pipeline.bridge.ingress import AdmittedBody
from pipeline.bridge.mns_answers import Message, MnsError
from pipeline.bridge.mns_client import MnsClient
from pipeline.bridge.publisher import Source
from pipeline.core.event import media_id_of
from pipeline.service.backoff import Backoff
from pipeline.service.entries import MnsSettings
from pipeline.service.metrics.mns import MnsMetrics, MnsProblem, MnsStep

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Raw takes batches of 128 KiB. MNS has no body over 64 KiB and the worker rejects every larger one whatever it says,
# so of a body that could not be published at all its head is enough.
BODY_BYTES_MAX = 120 * 1024
REMEMBERED_MAX = 4096  # Messages whose record is safe but whose deletion failed.
# None of these passes within seconds: the settings, or MNS's, have to change.
LASTING = (MnsProblem.DENIED, MnsProblem.NO_QUEUE)


class Publish(Protocol):
    """What makes a record safe: `Publisher.publish`."""

    def __call__(
        self, key: bytes | None, body: AdmittedBody, *, source: Source, entry: bytes, received_at_ms: int
    ) -> asyncio.Future[StoredIn]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PollPolicy:
    """How to poll. Sources: MNS's limits (16 messages, 30 s) and its advice on retries (1 to 60 s, with jitter)."""

    batch_messages: int = 16
    wait_seconds: int = 30
    connect_seconds_max: float = 10
    request_seconds_max: float = 40  # A long poll, and 10 s for the way there and back.
    delete_seconds_max: float = 10
    # MNS answers at once where it has too many long polls already, and bills each answer.
    floor_seconds: float = 1
    retry_seconds_min: float = 1
    retry_seconds_max: float = 60


def body_of(text: str) -> bytes:
    """
    Return the callback body in a message: raw JSON, or Base64 of it; anything else byte by byte as it is.

    A JSON object begins with a brace, which Base64 has not, so one can't be taken for the other. Source: VOD sends JSON
    and does not say how; the official SDKs send Base64.
    """
    if not text.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            decoded = base64.b64decode("".join(text.split()), validate=True)
            if decoded.lstrip().startswith(b"{"):
                return decoded
    return text.encode("utf-8", "surrogateescape")


@contextlib.asynccontextmanager
async def polling(
    queues: Sequence[MnsSettings], publish: Publish, metrics: MnsMetrics, *, policy: PollPolicy = PollPolicy()
) -> AsyncIterator[None]:
    """
    Poll *queues* while the context is open; leaving it finishes what was received.

    Raises:
        ExceptionGroup: a poller met a bug of ours; the context's body is cancelled.
    """
    async with asyncio.TaskGroup() as group:
        pollers = [MnsPoller(queue, publish, metrics, policy=policy) for queue in queues]
        for queue, poller in zip(queues, pollers, strict=True):
            group.create_task(poller.run(), name=f"mns-{queue.name}")
        try:
            yield
        finally:
            for poller in pollers:
                poller.stop()


class MnsPoller:
    """Polls one queue, until it is stopped."""

    def __init__(
        self,
        settings: MnsSettings,
        publish: Publish,
        metrics: MnsMetrics,
        *,
        policy: PollPolicy = PollPolicy(),
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        """
        Args:
            settings: The queue.
            publish: Makes a record safe. It raises OverloadedError at once, or its future fails with a PublishError.
            metrics: Counts messages and errors under the names of the entry and of the queue.
            policy: Batch, waiting and retries.
            clock: Now, in seconds since the epoch.
            pause: Waits between two polls; default: until the time is over or the poller is stopped.
        """
        self._labels = settings.labels
        self._logger = logger.bind(entry=settings.name, queue=settings.queue)
        self._settings = settings
        self._publish = publish
        self._metrics = metrics
        self._policy = policy
        self._clock = clock
        self._pause = pause or self._sleep
        self._stop = asyncio.Event()
        self._backoff = Backoff(policy.retry_seconds_min, policy.retry_seconds_max)
        self._remembered: dict[str, None] = {}
        metrics.remembered.labels(*self._labels).set_function(lambda: len(self._remembered))

    def stop(self) -> None:
        """Receive no more; what was received is still published and deleted before `run` returns."""
        self._stop.set()

    async def run(self) -> None:
        """Poll until stopped; no answer of MNS and no message ends it."""
        async with MnsClient(self._settings, connect_seconds_max=self._policy.connect_seconds_max) as client:
            while not self._stop.is_set():
                pause_seconds = await self._turn(client)
                if pause_seconds > 0:
                    await self._pause(pause_seconds)

    async def _turn(self, client: MnsClient) -> float:
        """Receive, publish and delete once; return how many seconds to wait before the next time."""
        started_at = time.monotonic()
        try:
            messages = await self._receive(client)
            if messages and not await self._handle(client, messages):
                # To receive on would only use up what the queue's own dead-letter policy counts.
                return self._backoff.fail()
        except MnsError as error:
            self._metrics.errors.labels(*self._labels, error.problem.value).inc()
            pause_seconds = self._backoff.fail(is_lasting=error.problem in LASTING)
            self._logger.warning(
                "mns_request_failed",
                problem=error.problem.value,
                detail=str(error),
                retry_seconds=round(pause_seconds, 1),
            )
            return pause_seconds
        self._backoff.succeed()
        return 0 if messages else self._after_nothing(time.monotonic() - started_at)

    async def _receive(self, client: MnsClient) -> Sequence[Message]:
        """Receive, but end the long poll at a stop: what MNS hands out to it then comes again."""
        policy = self._policy
        receiving = asyncio.create_task(
            client.receive(
                policy.batch_messages, wait_seconds=policy.wait_seconds, seconds_max=policy.request_seconds_max
            )
        )
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((receiving, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            receiving.cancel()  # Changes nothing if it is done: messages that came with the stop are handled.
            stopping.cancel()
            await asyncio.wait((receiving, stopping))
        return () if receiving.cancelled() else receiving.result()

    async def _handle(self, client: MnsClient, messages: Sequence[Message]) -> bool:
        """Publish what is new and delete what is safe; return whether all of it is."""
        known = [message for message in messages if message.message_id in self._remembered]
        fresh = [message for message in messages if message.message_id not in self._remembered]
        self._count(MnsStep.RECEIVED, len(messages))
        self._count(MnsStep.REPEATED, len(known))
        problem = None
        try:
            await self._delete(client, known)  # First: waiting for Kafka may be what let their receipts expire before.
        except MnsError as error:
            problem = error  # What is new is published all the same: it may come no more often.
        safe = await self._publish_all(fresh)
        await self._delete(client, safe)
        if problem is not None:
            raise problem
        return len(safe) == len(fresh)

    def _after_nothing(self, waited_seconds: float) -> float:
        if self._stop.is_set() or waited_seconds >= self._policy.floor_seconds:
            return 0
        self._metrics.early.labels(*self._labels).inc()
        return self._policy.floor_seconds - waited_seconds

    async def _publish_all(self, messages: Iterable[Message]) -> list[Message]:
        """Publish all at once and return those that are safe; the others come again."""
        published: list[tuple[Message, asyncio.Future[StoredIn]]] = []
        refused = 0
        for message in messages:
            try:
                published.append((message, self._start_publishing(message)))
            except OverloadedError:
                refused += 1
        if published:
            # Not gather, which cancels what it waits for: callbacks over HTTP wait for the same futures.
            await asyncio.wait({durable for _, durable in published})
        safe, spooled = [], 0
        for message, durable in published:
            error = durable.exception()
            if isinstance(error, PublishError):
                refused += 1
            elif error is not None:
                raise error
            else:
                safe.append(message)
                spooled += durable.result() is StoredIn.SPOOL
                if message.enqueued_at_ms is not None:
                    waited_seconds = self._clock() - message.enqueued_at_ms / 1000
                    self._metrics.waited_seconds.labels(*self._labels).observe(max(0, waited_seconds))
        self._count(MnsStep.PUBLISHED, len(safe) - spooled)
        self._count(MnsStep.SPOOLED, spooled)
        self._count(MnsStep.NOT_PUBLISHED, refused)
        if refused:
            self._logger.warning("mns_not_published", messages=refused)
        return safe

    def _start_publishing(self, message: Message) -> asyncio.Future[StoredIn]:
        body = body_of(message.text)
        key = media_id_of(body)
        if len(body) > BODY_BYTES_MAX:
            self._logger.error(
                "mns_body_cut",
                message_id=message.message_id,
                body_bytes=len(body),
            )
            key, body = None, body[:BODY_BYTES_MAX]
        entry, received_at_ms = self._settings.name.encode(), int(self._clock() * 1000)
        return self._publish(key, AdmittedBody(body), source=Source.MNS, entry=entry, received_at_ms=received_at_ms)

    async def _delete(self, client: MnsClient, messages: Sequence[Message]) -> None:
        """Delete messages whose records are safe; what stays is remembered, and deleted unread when it comes again."""
        if not messages:
            return
        for message in messages:
            self._remembered[message.message_id] = None
        while len(self._remembered) > REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]
        receipts = [message.receipt for message in messages]
        try:
            kept = await client.delete(receipts, seconds_max=self._policy.delete_seconds_max)
        except MnsError:
            self._count(MnsStep.NOT_DELETED, len(messages))
            raise
        deleted = [message for message in messages if message.receipt not in kept]
        for message in deleted:
            self._remembered.pop(message.message_id, None)
        self._count(MnsStep.DELETED, len(deleted))
        self._count(MnsStep.NOT_DELETED, len(messages) - len(deleted))
        if kept:
            self._logger.warning(
                "mns_not_deleted",
                messages=len(kept),
                codes=sorted(set(kept.values())),
            )

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def _count(self, step: MnsStep, number: int) -> None:
        self._metrics.messages.labels(*self._labels, step.value).inc(number)
