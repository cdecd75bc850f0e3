"""
The HTTP ingress: a raw ASGI application that turns authenticated callbacks into published records.

Total: any request has an answer. The body is looked at for its key only; judging it is the accept stage's work.
Frameworks cost 1.5 to 6 times what all of this does, hence none.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol

import structlog

from pipeline.bridge.errors import AckTimeoutError, OverloadedError, PublishError, RefusedError, SpoolFailedError
from pipeline.bridge.protocol import CUT_OFF, Exchange
from pipeline.bridge.publisher import Authenticated, Source
from pipeline.bridge.repeats import Bursts, Recent
from pipeline.core.event import media_id_of
from pipeline.core.signature import Callback, Denial, deny
from pipeline.service.metrics.bridge import BridgeAnswer, BridgeMetrics
from pipeline.service.settings import BridgeSettings, CallbackSettings, SettingsError, by_target

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Scope = Mapping[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_Client = tuple[str, int] | None  # Who is connected, as far as the server knows.
# Writes a whole response without a body; False: it was not written, and has to be sent as messages.
Answer = Callable[[bytes], bool]

LENGTH_DIGITS_MAX = 18  # More digits than this is a length over any cap, and int() refuses thousands of them.

# What we take for the identifier that a proxy gave a request: anything else could be written to forge log lines.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:=-]{1,64}")

_LENGTH = (b"content-length", b"0")
# An answer given before the body was read ends the connection: uvicorn drops its keep-alive timer on incoming data, so
# the rest of such a body could hold the connection without a limit.
_CLOSE = (b"connection", b"close")


class RecordPublisher(Protocol):
    """What the application needs of a Publisher."""

    def publish(
        self, key: bytes | None, body: Authenticated, *, source: Source, received_at_ms: int
    ) -> asyncio.Future[bool]: ...


class _Answer:
    """A response without a body, made once; the sender learns nothing but the status."""

    __slots__ = ("count", "is_failure", "outcome", "start", "whole")
    end: Message = {"type": "http.response.body", "body": b""}  # noqa: RUF012  # Never written to.

    def __init__(
        self, metrics: BridgeMetrics, outcome: BridgeAnswer, status: int, *headers: tuple[bytes, bytes]
    ) -> None:
        self.start: Message = {"type": "http.response.start", "status": status, "headers": [_LENGTH, *headers]}
        self.outcome = outcome.value
        self.is_failure = status >= 500
        self.count = metrics.requests.labels(outcome.value).inc
        line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
        self.whole = b"" if headers else f"{line}\r\ncontent-length: 0\r\n\r\n".encode()

    async def send(self, send: Send, answer: Answer | None) -> None:
        """Send it by *answer* where that is possible and it has no headers of its own."""
        self.count()
        if answer is None or not self.whole or not answer(self.whole):
            await send(self.start)
            await send(self.end)


class _BodyTooLargeError(Exception):
    """The body grew over the cap."""


class _ClientGoneError(Exception):
    """The client disconnected before its body was complete."""


class BridgeApp:
    """The ASGI application: one POST, one record, and 200 only once Kafka has it."""

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
            publisher: Where authenticated callbacks go.
            metrics: Counts every answer once.
            clock: Now, in seconds since the epoch.
        """
        self.use(settings.callbacks)
        self._tolerance_seconds = settings.timestamp_tolerance_seconds
        self._body_bytes_max = settings.body_bytes_max
        self._publisher = publisher
        self._clock = clock
        self._reading = 0
        self._reading_max = settings.in_flight_max
        self._denials = {denial: metrics.denials.labels(denial.value).inc for denial in Denial}
        self._recent = Recent(settings.replay_cache_bytes)
        self._bursts = Bursts(settings.bodies_per_signature_max)
        self._count_burst = metrics.bursts.inc
        self._replayed = _Answer(metrics, BridgeAnswer.REPLAYED, 200)
        self._requests = metrics.requests
        self._published = _Answer(metrics, BridgeAnswer.PUBLISHED, 200)
        self._spooled = _Answer(metrics, BridgeAnswer.SPOOLED, 200)
        self._denied = _Answer(metrics, BridgeAnswer.DENIED, 403, _CLOSE)
        self._not_found = _Answer(metrics, BridgeAnswer.NOT_FOUND, 404, _CLOSE)
        self._not_post = _Answer(metrics, BridgeAnswer.METHOD_NOT_ALLOWED, 405, (b"allow", b"POST"), _CLOSE)
        self._upgrade = _Answer(metrics, BridgeAnswer.UPGRADE_REFUSED, 400, _CLOSE)
        self._no_length = _Answer(metrics, BridgeAnswer.LENGTH_MISSING, 411, _CLOSE)
        self._too_large = _Answer(metrics, BridgeAnswer.BODY_TOO_LARGE, 413, _CLOSE)
        self._busy_reading = _Answer(metrics, BridgeAnswer.OVERLOADED, 503, _CLOSE)
        self._failed: dict[type[BaseException], _Answer] = {
            OverloadedError: _Answer(metrics, BridgeAnswer.OVERLOADED, 503),
            AckTimeoutError: _Answer(metrics, BridgeAnswer.KAFKA_TIMEOUT, 503),
            RefusedError: _Answer(metrics, BridgeAnswer.KAFKA_ERROR, 503),
            SpoolFailedError: _Answer(metrics, BridgeAnswer.SPOOL_FAILED, 503),
        }

    def use(self, callbacks: Iterable[CallbackSettings]) -> None:
        """Serve *callbacks*, with their keys, from the next request on."""
        self._callbacks = by_target(callbacks)

    def require_no_less(self, callbacks: Iterable[CallbackSettings]) -> None:
        """
        Check what a running bridge is told to serve instead.

        Raises:
            SettingsError: no callback would be left, or one with keys would accept unsigned bodies: a file that was cut
                off, or is being written, reads like that. Whoever means it restarts the bridge.
        """
        instead = by_target(callbacks)
        if self._callbacks and not instead:
            raise SettingsError("bridge.callbacks: none are left; restart the bridge if that is meant")
        for target, served in self._callbacks.items():
            if served[0].auth_keys and not instead.get(target, served)[0].auth_keys:
                raise SettingsError(f"bridge.callbacks: {served[0].url} has no keys any more; restart if that is meant")

    async def __call__(self, scope: Scope, receive: Receive, send: Send, answer: Answer | None = None) -> None:
        """Answer one request; *answer*: the server's short way, if it has one."""
        # reversed: of repeated headers the first counts. Which one does is no question of safety, as no value makes a
        # request authentic but a right signature; what a proxy appends to the sender's is not the sender's.
        headers = dict(reversed(scope["headers"]))
        refusal = self._refuse(scope, headers)
        if refusal is not None:
            await refusal.send(send, answer)
            return
        try:
            body = await self._read(receive)
        except _ClientGoneError:
            self._requests.labels(scope["state"].get(CUT_OFF, BridgeAnswer.CLIENT_GONE).value).inc()
            return
        except _BodyTooLargeError:
            await self._too_large.send(send, answer)
            return
        now = self._clock()
        try:
            durable, is_replay = self._hand_on(scope.get("client"), headers, body, now)
        except OverloadedError:
            outcome = self._failed[OverloadedError]
        else:
            with contextlib.suppress(PublishError):
                await durable
            outcome = self._outcome(durable, is_replay)
        self._log_failure(outcome, scope.get("client"), headers, now)
        await outcome.send(send, answer)

    def serves(self, url: bytes) -> bool:
        """Whether *url* is the target of a configured callback, as it came."""
        return url in self._callbacks

    def take(self, exchange: Exchange, url: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
        """
        Answer a whole request that will be published, which is nearly every one; False: it has to be called with it.

        Args:
            exchange: Gets the answer.
            url: The request's target, as it came; one that it `serves`.
            headers: As they came; none of them says how the body comes, but for its length.
            body: All of it.
        """
        named = dict(reversed(headers))  # As above.
        if b"content-length" not in named or len(body) > self._body_bytes_max:
            return False
        if self._denial(self._callbacks[url], named) is not None:
            return False
        now = self._clock()
        try:
            durable, is_replay = self._hand_on(exchange.client, named, Authenticated(body), now)
        except OverloadedError:
            # Not at once: what follows in the same read would be no queue that could be too long, but a long stall.
            durable, is_replay = asyncio.get_running_loop().create_future(), False
            durable.set_exception(OverloadedError())
        durable.add_done_callback(lambda durable: self._finish(exchange, durable, is_replay, named, now))
        return True

    def _finish(
        self,
        exchange: Exchange,
        durable: asyncio.Future[bool],
        is_replay: bool,
        headers: Mapping[bytes, bytes],
        now: float,
    ) -> None:
        try:
            outcome = self._outcome(durable, is_replay)
            self._log_failure(outcome, exchange.client, headers, now)
            outcome.count()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # The loop would log it, and nobody answer.
            exchange.fail(error)
        else:
            exchange.answer(outcome.whole)

    def _refuse(self, scope: Scope, headers: Mapping[bytes, bytes]) -> _Answer | None:
        """Return the answer to a request that is refused for its head alone; None: its sender is authenticated."""
        query = scope["query_string"]
        path = scope["raw_path"]
        callbacks = self._callbacks.get(path + b"?" + query if query else path)
        if callbacks is None:
            return self._not_found
        if scope["method"] != "POST":
            return self._not_post
        if b"upgrade" in headers:
            # uvicorn 0.54 drops the body of such a request and ends it as complete: answering 200 would lose the event.
            return self._upgrade
        unfit = self._unfit_length(headers)
        if unfit is not None:
            return unfit
        denial = self._denial(callbacks, headers)
        if denial is not None:
            self._denials[denial]()
            logger.warning(
                "callback_denied", reason=denial.value, **_identity(scope.get("client"), headers, self._clock())
            )
            return self._denied
        return self._busy_reading if self._reading >= self._reading_max else None

    def _unfit_length(self, headers: Mapping[bytes, bytes]) -> _Answer | None:
        length = headers.get(b"content-length")
        if length is None:
            # RFC 9112, 6.3: without either there is no body, whatever follows. A 200 would lose what the sender thought
            # was one. What arrives in chunks is counted as it comes.
            return None if b"transfer-encoding" in headers else self._no_length
        if not length.isdigit():
            return None  # Nothing a server lets through.
        return self._too_large if len(length) > LENGTH_DIGITS_MAX or int(length) > self._body_bytes_max else None

    def _denial(self, callbacks: Iterable[Callback], headers: Mapping[bytes, bytes]) -> Denial | None:
        now = self._clock()
        signature, timestamp = headers.get(b"x-vod-signature"), headers.get(b"x-vod-timestamp")
        denials = [
            deny(callback, signature, timestamp, now=now, tolerance_seconds=self._tolerance_seconds)
            for callback in callbacks
        ]
        return None if None in denials else denials[0]

    async def _read(self, receive: Receive) -> Authenticated:
        """Read the body of an authenticated request, within its cap; how long it may take is for `patience` to say."""
        self._reading += 1
        try:
            message = await receive()
            body: bytes = message.get("body", b"")
            if len(body) <= self._body_bytes_max and message["type"] == "http.request" and not message.get("more_body"):
                return Authenticated(body)
            return Authenticated(await self._read_on(message, receive))
        finally:
            self._reading -= 1

    async def _read_on(self, message: Message, receive: Receive) -> bytes:
        body = bytearray()
        while message["type"] == "http.request":
            body += message.get("body", b"")
            if len(body) > self._body_bytes_max:
                raise _BodyTooLargeError
            if not message.get("more_body"):
                return bytes(body)
            message = await receive()
        raise _ClientGoneError

    def _hand_on(
        self, client: _Client, headers: Mapping[bytes, bytes], body: Authenticated, now: float
    ) -> tuple[asyncio.Future[bool], bool]:
        """
        Publish *body*; returns the future of its durability, and whether that is of an equal request that came before.

        Raises:
            OverloadedError: it was not taken.
        """
        signature = headers.get(b"x-vod-signature")
        if signature is not None and self._bursts.add(signature, now):
            self._count_burst()
            logger.warning(
                "signature_burst",
                hint="a stolen signature, or a very large deletion",
                **_identity(client, headers, now),
            )
        timestamp = headers.get(b"x-vod-timestamp")
        request = (timestamp or b"", body)
        durable = self._recent.get(request)
        if durable is not None:
            return durable, True
        durable = self._publisher.publish(media_id_of(body), body, source=Source.HTTP, received_at_ms=int(now * 1000))
        if timestamp is not None:
            self._recent.add(request, durable)
        return durable, False

    def _outcome(self, durable: asyncio.Future[bool], is_replay: bool) -> _Answer:
        """Return the answer that *durable*, which is done, stands for."""
        error = durable.exception()
        if error is not None:
            return self._failed[type(error)]
        if is_replay:
            return self._replayed
        return self._spooled if durable.result() else self._published

    def _log_failure(self, outcome: _Answer, client: _Client, headers: Mapping[bytes, bytes], now: float) -> None:
        if outcome.is_failure:
            logger.warning("callback_not_taken", outcome=outcome.outcome, **_identity(client, headers, now))


def _identity(client: _Client, headers: Mapping[bytes, bytes], now: float) -> dict[str, object]:
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
