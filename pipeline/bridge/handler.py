"""
What all connections of the callback port share: it hands callbacks to the publisher, and counts and logs every answer.

The rules are ingress.py's, the statuses replies.py's, and the protocol is connection.py's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Protocol, assert_never

import structlog

from pipeline.bridge.batch import StoredIn
from pipeline.bridge.errors import AckTimeoutError, KafkaFailedError, OverloadedError, SpoolFailedError
from pipeline.bridge.ingress import AdmittedBody, Policy, Refusal, admit_body, admit_head
from pipeline.bridge.publisher import Source
from pipeline.bridge.repeats import Bursts, Recent
from pipeline.bridge.replies import FAILED, NOT_TAKEN, REFUSED, TAKEN, Reply
from pipeline.core.event import media_id_of
from pipeline.core.signature import Callback, Denial
from pipeline.service.errors import SettingsError
from pipeline.service.metrics.bridge import BridgeAnswer, BridgeMetrics
from pipeline.service.settings import BridgeSettings, CallbackSettings, by_target

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_HTTP = Source.HTTP

# What we take for the identifier that a proxy gave a request: anything else could be written to forge log lines.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:=-]{1,64}")

Headers = Mapping[bytes, bytes]  # By lower-case name, of repeated ones the first.
Client = tuple[str, int] | None  # Who is connected, as far as the server knows.


class RecordPublisher(Protocol):
    """What the handler needs of a Publisher."""

    def publish(
        self, key: bytes | None, body: AdmittedBody, *, source: Source, received_at_ms: int
    ) -> asyncio.Future[StoredIn]: ...


class Waiter(Protocol):
    """What waits for records to become durable: a connection."""

    def answer(self) -> None: ...
    def abort(self) -> None: ...


# A callback that was handed on: the future of its durability, whether that is of an equal request before it, its
# headers, and when it was received. A plain tuple, as one is made for every callback.
Pending = tuple[asyncio.Future[StoredIn], bool, Headers, float]


_OUTCOMES = {
    Refusal.MALFORMED: BridgeAnswer.MALFORMED,
    Refusal.NOT_FOUND: BridgeAnswer.NOT_FOUND,
    Refusal.METHOD_NOT_ALLOWED: BridgeAnswer.METHOD_NOT_ALLOWED,
    Refusal.LENGTH_MISSING: BridgeAnswer.LENGTH_MISSING,
    Refusal.BODY_TOO_LARGE: BridgeAnswer.BODY_TOO_LARGE,
}
_FAILURES: dict[type[BaseException], BridgeAnswer] = {
    OverloadedError: BridgeAnswer.OVERLOADED,
    AckTimeoutError: BridgeAnswer.KAFKA_TIMEOUT,
    KafkaFailedError: BridgeAnswer.KAFKA_ERROR,
    SpoolFailedError: BridgeAnswer.SPOOL_FAILED,
}


class Handler:
    """Judges requests and publishes them: one POST, one record, and 200 only once it is durable."""

    def __init__(
        self,
        settings: BridgeSettings,
        publisher: RecordPublisher,
        metrics: BridgeMetrics,
        *,
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            settings: Callbacks, tolerance and limits.
            publisher: Where admitted callbacks go.
            metrics: Counts every answer once.
            clock: Now, in seconds since the epoch.
        """
        self._policy = Policy(
            callbacks=by_target(settings.callbacks),
            tolerance_seconds=settings.timestamp_tolerance_seconds,
            body_bytes_max=settings.body_bytes_max,
        )
        self._publisher = publisher
        self._clock = clock
        self._bodies = 0
        self._bodies_max = settings.in_flight_max
        self._recent = Recent(settings.replay_cache_bytes)
        self._bursts = Bursts(settings.bodies_per_signature_max)
        self._metrics = metrics
        metrics.replay_cache_bytes.set_function(lambda: self._recent.bytes)
        self._counts = {outcome: metrics.requests.labels(outcome.value).inc for outcome in BridgeAnswer}
        self._published = 0  # Not counted yet: all that one batch answers are counted at once.
        self._waiters: dict[asyncio.Future[StoredIn], list[Waiter]] = {}

    @property
    def body_bytes_max(self) -> int:
        """How long a body may be."""
        return self._policy.body_bytes_max

    def show_connections(self, number: Callable[[], int], number_max: int) -> None:
        """Show how many connections there are, and may be."""
        self._metrics.connections.set_function(number)
        self._metrics.connections_max.set(number_max)

    def use(self, callbacks: Iterable[CallbackSettings]) -> None:
        """Serve *callbacks*, with their keys, from the next request on."""
        self._policy = replace(self._policy, callbacks=by_target(callbacks))

    def require_no_less(self, callbacks: Iterable[CallbackSettings]) -> None:
        """
        Check what a running bridge is to serve instead.

        Raises:
            SettingsError: no callback would be left, or one with keys would accept unsigned bodies: a file that was cut
                off, or is being written, reads like that. A restart accepts either.
        """
        instead = by_target(callbacks)
        if self._policy.callbacks and not instead:
            raise SettingsError("bridge.callbacks: none are left; restart the bridge if that is meant")
        for target, served in self._policy.callbacks.items():
            if served[0].auth_keys and not instead.get(target, served)[0].auth_keys:
                # Which one is not said: a path may be a secret, and this is logged.
                raise SettingsError("bridge.callbacks: one has no keys any more; restart the bridge if that is meant")

    def admit(self, method: bytes, target: bytes, headers: Headers, client: Client) -> Callback | Reply:
        """Judge a head. What is admitted is published or abandoned: until then its body counts as being read."""
        now = self._clock()
        verdict = admit_head(self._policy, method=method, target=target, headers=headers, now=now)
        if isinstance(verdict, Callback):
            if self._bodies >= self._bodies_max:
                return self.refuse(BridgeAnswer.OVERLOADED)
            self._bodies += 1
            return verdict
        if isinstance(verdict, Refusal):
            return self.refuse(_OUTCOMES[verdict])
        if isinstance(verdict, Denial):
            self._metrics.denials.labels(verdict.value).inc()
            logger.warning("callback_denied", reason=verdict.value, **_identity(headers, client, now))
            return self.refuse(BridgeAnswer.DENIED)
        assert_never(verdict)

    def abandon(self) -> None:
        """Count the body of an admitted request as read no longer: it will not be complete."""
        self._bodies -= 1

    def publish(self, callback: Callback, headers: Headers, body: bytes, client: Client) -> Pending | Reply:
        """Hand on the body of a request that was admitted for *callback*."""
        self._bodies -= 1
        admitted = admit_body(self._policy, body)
        if not isinstance(admitted, bytes):
            return self.refuse(_OUTCOMES[admitted])
        now = self._clock()
        request = None
        if callback.auth_keys:  # Without keys a timestamp proves nothing, and may be as long as a head.
            request = headers[b"x-vod-timestamp"], admitted
            if self._bursts.add(headers[b"x-vod-signature"], now):
                self._metrics.bursts.inc()
                hint = "a stolen signature, or a very large deletion"
                logger.warning("signature_burst", hint=hint, **_identity(headers, client, now))
            durable = self._recent.get(request)
            if durable is not None:
                return durable, True, headers, now
        try:
            durable = self._publisher.publish(
                media_id_of(admitted), admitted, source=_HTTP, received_at_ms=int(now * 1000)
            )
        except OverloadedError as error:
            return self._not_taken(error, headers, client, now)
        if request is not None:
            self._recent.add(request, durable)
        return durable, False, headers, now

    def answer_when(self, durable: asyncio.Future[StoredIn], waiter: Waiter) -> None:
        """Have *waiter* answer once *durable* is done: all that wait for it in one go, which costs each far less."""
        waiters = self._waiters.get(durable)
        if waiters is None:
            waiters = self._waiters[durable] = []
            durable.add_done_callback(self._answer)
        waiters.append(waiter)

    def _answer(self, durable: asyncio.Future[StoredIn]) -> None:
        for waiter in self._waiters.pop(durable):
            try:
                waiter.answer()
            except Exception as error:  # noqa: BLE001  # One's must not keep the others from their answers.
                self.fail(error)
                waiter.abort()
        self._counts[BridgeAnswer.PUBLISHED](self._published)
        self._published = 0

    def reply(self, pending: Pending, client: Client) -> Reply:
        """Return the reply to what is *pending*, once that is done."""
        durable, is_repeated, headers, received_at = pending
        error = durable.exception()
        if error is not None:
            return self._not_taken(error, headers, client, received_at)
        if is_repeated:
            self._counts[BridgeAnswer.REPEATED]()
        elif durable.result() is StoredIn.SPOOL:
            self._counts[BridgeAnswer.SPOOLED]()
        else:
            self._published += 1
        return TAKEN

    def refuse(self, outcome: BridgeAnswer) -> Reply:
        """Count a request that is refused as *outcome*, and return the reply, which closes its connection."""
        self._counts[outcome]()
        return REFUSED[outcome]

    def fail(self, error: BaseException) -> Reply:
        """Log a bug of ours, and return the reply to the request it was met at."""
        logger.error("request_failed", exc_info=error)
        return FAILED

    def note_gone(self) -> None:
        """Count a client that is gone before the body of its admitted request was complete."""
        self._counts[BridgeAnswer.CLIENT_GONE]()

    def _not_taken(self, error: BaseException, headers: Headers, client: Client, received_at: float) -> Reply:
        outcome = _FAILURES[type(error)]
        self._counts[outcome]()
        logger.warning("callback_not_taken", outcome=outcome.value, **_identity(headers, client, received_at))
        return NOT_TAKEN


def _identity(headers: Headers, client: Client, now: float) -> dict[str, object]:
    """
    Return what names a request in the log: nothing of its path, signature or body, each of which may be a secret.

    `request_id` is the X-Request-Id of the proxy in front, else who is connected and when; `received_at_ms` is the
    header `received-at` of its record, if it has one.
    """
    received_at_ms = int(now * 1000)
    given = headers.get(b"x-request-id", b"")
    if _REQUEST_ID.fullmatch(given):
        return {"request_id": given.decode(), "received_at_ms": received_at_ms}
    host, port = client or ("unknown", 0)
    return {"request_id": f"{host}:{port}-{received_at_ms}", "received_at_ms": received_at_ms}
