"""
uvicorn's HTTP protocol with bounds: head, headers, bytes of a request, requests sent ahead; refusals are counted.

uvicorn 0.54 and httptools 0.9 bound none of these, so only time limited what one connection could make us hold. It
overrides HttpToolsProtocol, whose version is pinned. What a path or a signature is, it does not know.

And a short way: a request that one read brought whole is offered to the application as it is, without a scope, a task
and messages, which cost as much as all that is done with it. What is unusual about a request sends it uvicorn's way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, Protocol

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pipeline.service.metrics.bridge import BridgeAnswer

# VOD's heads have 300 bytes; proxies add some more, and allow as much themselves.
HEAD_BYTES_MAX = 16 * 1024
# 16 KiB of "a:b" would be 3,276 headers and 34 times as much memory. Trailers have the same bound.
HEADERS_MAX = 100
# The largest body in chunks of one byte takes 393,216. Extensions of chunks and trailers are counted here only.
REQUEST_BYTES_MAX = 1024 * 1024
# One read brings up to 256 KiB: 11,900 requests of 22 bytes, and 3.5 KB of memory each. Nobody honest sends ahead.
PIPELINED_MAX = 16

# With one of these the connection, or how the body comes, is not what it is without.
_UNUSUAL = frozenset({b"connection", b"expect", b"proxy-connection", b"transfer-encoding", b"upgrade"})

CUT_OFF = "cut_off"  # In the scope's `state`: the outcome under which the application counts a client that is gone.

_ANSWERS = {
    outcome: b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status
    for outcome, status in (
        (BridgeAnswer.MALFORMED, b"400 Bad Request"),
        (BridgeAnswer.HEAD_TIMEOUT, b"408 Request Timeout"),
        (BridgeAnswer.BODY_TIMEOUT, b"408 Request Timeout"),
        (BridgeAnswer.BODY_TOO_LARGE, b"413 Request Entity Too Large"),
        (BridgeAnswer.HEAD_TOO_LARGE, b"431 Request Header Fields Too Large"),
        (BridgeAnswer.OVERLOADED, b"503 Service Unavailable"),
    )
}


class _RefusedError(Exception):
    """Stops the parser; it becomes the call of send_400_response."""


class Exchange:
    """A whole request that waits for its answer. To uvicorn it is a cycle, of a request that needs no more data."""

    __slots__ = ("_protocol", "client", "disconnected", "keep_alive", "response_complete")

    more_body = False
    message_event = asyncio.Event()  # Nobody waits for it; uvicorn sets it when the connection is lost.

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._protocol: BoundedProtocol | None = protocol
        self.client = protocol.client
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False

    @property
    def scope(self) -> Exchange:
        """What tells this request from others; not an attribute, which would be a reference to itself."""
        return self

    def answer(self, whole: bytes) -> None:
        """Write *whole*, a response without a body, once; there may be nobody any more to read it."""
        protocol, self._protocol = self._protocol, None  # No reference cycle keeps a connection that was closed.
        self.response_complete = True
        if protocol is None or self.disconnected or protocol.transport.is_closing():
            return
        if self.keep_alive:
            protocol.transport.write(whole)
        else:  # The server is stopping.
            protocol.transport.write(whole[:-2] + b"connection: close\r\n\r\n")
            protocol.transport.close()
        protocol.on_response_complete()

    def fail(self, error: BaseException) -> None:
        """Answer 500 and close the connection, as uvicorn does where an application raises: a bug of ours."""
        if self._protocol is not None:
            self._protocol.logger.error("Exception in the application", exc_info=error)
            self.keep_alive = False
            self.answer(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n")


class Application(Protocol):
    """What the protocol asks of its application beside being one."""

    def serves(self, url: bytes) -> bool:
        """Whether *url*, a target as it came, is one of those that `take` knows."""
        ...

    def take(self, exchange: Exchange, url: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
        """See to it that *exchange* is answered; False: nothing was done, and the request comes uvicorn's way."""
        ...


class BoundedProtocol(HttpToolsProtocol):
    """One connection; its application takes a fourth argument, `answer`, and is an Application."""

    def __init__(
        self, *args: Any, connections_max: int, on_refused: Callable[[BridgeAnswer], None], **kwargs: Any
    ) -> None:
        """
        Args:
            connections_max: How many connections the server may have.
            on_refused: Called with the outcome of what is refused here, before the application sees it.
        """
        super().__init__(*args, **kwargs)
        self._connections_max = connections_max
        self._on_refused = on_refused
        self._refusal = BridgeAnswer.MALFORMED
        self._running: RequestResponseCycle | Exchange | None = None
        self._application: Application = self.app
        self._is_usual = True
        self._is_held = False  # Whether the head is complete, and uvicorn not told of it yet.
        self._has_taken = False  # Whether the application took a request of this read.
        self._body = b""
        self.waiting: tuple[Any, Any, float] | None = None
        """Of `patience`: the scope, what it waits for, and since when; None if it was never found waiting."""
        self._before = 0  # Bytes of the current request in earlier reads.
        self._read = 0  # Bytes of this read.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        # Not in the scope: that would be a reference cycle, which keeps a closed connection until it is collected.
        super()._start_asgi_task(cycle, partial(app, answer=self.answer))  # type: ignore[call-arg]  # Ours takes it.

    def answer(self, whole: bytes) -> bool:
        """
        Write *whole*, a response without a body, to the request being answered; False: it has to be sent as messages.

        uvicorn takes 2.5 us to check and join the two messages, which are the same ones for every callback.
        """
        cycle = self._running
        if not isinstance(cycle, RequestResponseCycle):
            return False
        if self.transport.is_closing():
            cycle.disconnected = True  # Behind a refusal, its answer would be read as that of the next request.
        if cycle.disconnected or not cycle.keep_alive or self.flow.write_paused:
            return False
        cycle.response_started = cycle.response_complete = True
        self.transport.write(whole)
        cycle.on_response()
        return True

    def on_response_complete(self) -> None:
        """Do what uvicorn does, but for its keep-alive timer: `patience` times the pause between two requests, too."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered, too: uvicorn tells the newest only, and uvloop refuses to write."""
        super().connection_lost(exc)
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection, or close it at once where there are too many."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn names the kind it needs.
        if len(self.connections) > self._connections_max:
            self._on_refused(BridgeAnswer.OVERLOADED)
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse *data*, then look at what the request has come to."""
        self._read = len(data)
        self._has_taken = False
        super().data_received(data)
        if self._is_held and not self.transport.is_closing():
            self._tell()
        self._before += self._read
        if self._before > HEAD_BYTES_MAX and not self.transport.is_closing():
            self._bound()

    def _bound(self) -> None:
        """Look at a request that is longer than any head: it may have a body."""
        if not self.has_head:
            self.refuse(BridgeAnswer.HEAD_TOO_LARGE)
        elif self._before > REQUEST_BYTES_MAX and self.cycle.more_body:
            self.refuse(BridgeAnswer.BODY_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Begin to count. uvicorn makes its scope here, which the short way has no use for; `_tell` has it made."""
        self._before = 0
        self._is_usual = True
        self._is_held = False
        self._body = self.url = b""
        self.headers = []
        self.scope = {}  # type: ignore[typeddict-item]  # `_tell` fills it; `patience` tells requests by it.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header, of so many, or a trailer."""
        if len(self.headers) >= HEADERS_MAX:
            self._stop(BridgeAnswer.HEAD_TOO_LARGE)
        name = name.lower()
        if name in _UNUSUAL:
            self._is_usual = False
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Hand the head on, unless it is too large; what is usual is held back until the read has been looked at."""
        if self._before + self._read > HEAD_BYTES_MAX and self._is_too_large():
            self._stop(BridgeAnswer.HEAD_TOO_LARGE)
        self._is_held = (
            self._is_usual
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and self.parser.get_method() == b"POST"
            and self.parser.should_keep_alive()
            and self._application.serves(self.url)
        )
        if not self._is_held:
            self._tell()

    def on_body(self, body: bytes) -> None:
        """Keep what comes with the head."""
        if self._is_held:
            self._body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Offer a request that is whole to the application."""
        if not self._is_held:
            super().on_message_complete()
            return
        cycle, scope = self.cycle, self.scope
        exchange: Any = Exchange(self)
        self.cycle = self.scope = self._running = exchange
        try:
            self._has_taken = self._application.take(exchange, self.url, self.headers, self._body)
        except Exception as error:  # noqa: BLE001  # As around any application: the parser would take it for the client's.
            self._has_taken = True
            exchange.fail(error)
        if self._has_taken:
            self._is_held = False
            self._let_go()
            return
        self.cycle, self.scope = cycle, scope
        self._tell()
        super().on_message_complete()

    def _tell(self) -> None:
        """Have uvicorn begin the request whose head is complete, with as much of its body as there is."""
        url, headers, scope = self.url, self.headers, self.scope
        super().on_message_begin()
        scope.update(self.scope)  # Still the same request to `patience`.
        self.url, self.scope = url, scope
        self.headers.extend(headers)
        self.expect_100_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in headers
        )
        self._is_held = False
        super().on_headers_complete()
        self.headers = []  # Trailers go here: uvicorn would add them to the headers the application has got.
        if len(self.pipeline) > PIPELINED_MAX:
            self._stop(BridgeAnswer.OVERLOADED)
        if self._has_taken:
            self.flow.resume_reading()  # uvicorn does once a cycle waits for its data: who is gone is noticed.
        body, self._body = self._body, b""
        if body:
            super().on_body(body)

    def _let_go(self) -> None:
        """Hold no longer what came with the last request: the next one may be a while, or never come."""
        self._body = b""
        if self.headers:
            self.headers.clear()

    def _stop(self, refusal: BridgeAnswer) -> NoReturn:
        self._refusal = refusal
        raise _RefusedError

    def _is_too_large(self) -> bool:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES_MAX

    def send_400_response(self, _: str) -> None:
        """Answer what the parser, or a callback of ours, stopped at."""
        self.refuse(self._refusal)

    def refuse(self, outcome: BridgeAnswer) -> None:
        """Answer the request that is arriving with what *outcome* stands for, and close the connection."""
        if self.is_reading_body:
            self.cycle.scope["state"][CUT_OFF] = outcome  # The application is reading this body: it counts.
        else:
            self._on_refused(outcome)
        self.transport.write(_ANSWERS[outcome])
        self.transport.close()
        # The connection lives until the loop has closed it; what it holds need not: many may be refused at once.
        self.pipeline.clear()
        self._let_go()

    @property
    def has_head(self) -> bool:
        """Whether the head of the newest request is complete; its body need not be."""
        return self.cycle is not None and self.cycle.scope is self.scope

    @property
    def is_reading_body(self) -> bool:
        """Whether the application is waiting for the rest of a body."""
        return self.has_head and self.cycle.more_body and not self.pipeline
