"""
The page's connections, with the bounds that uvicorn has no options for: their number, the size of a request, and how
long a client may take to send it or to read on.

uvicorn makes each connection by its option `http`. What is made here hands everything on to uvicorn's own protocol, and
uses nothing of that but the interface that asyncio gives every protocol.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTIONS_MAX = 128  # A browser opens six for a page; the streams have a bound of their own.
SILENCE_SECONDS_MAX = 10.0  # For a request to arrive, and for a client to read on.
REQUEST_BYTES_MAX = 16 * 1024  # One request is all a connection is for, and none has a body.


class Connections:
    """The open connections of one server; call it to make the protocol of a new one, as uvicorn does."""

    def __init__(
        self, *, connections_max: int = CONNECTIONS_MAX, silence_seconds_max: float = SILENCE_SECONDS_MAX
    ) -> None:
        self.open: set[asyncio.Protocol] = set()
        self.connections_max = connections_max
        self.silence_seconds_max = silence_seconds_max

    def __call__(self, **options: Any) -> asyncio.Protocol:
        """Make a protocol; *options* are what uvicorn gives to its own."""
        return _Connection(HttpToolsProtocol(**options), self)


class _Connection(asyncio.Protocol):
    """One connection: *inner*'s within the bounds of *connections*, cut off beyond them."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._received = bytearray()
        self._has_head = False
        self._cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.open.add(self)
        self._inner.connection_made(transport)
        self._expect()
        if len(self._connections.open) > self._connections.connections_max:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > REQUEST_BYTES_MAX:
            self._transport.abort()
            return
        # Before a request, empty lines are skipped.
        if not self._has_head and b"\r\n\r\n" in self._received.lstrip(b"\r\n"):
            self._has_head = True
            self._expect_no_more()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._expect()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._expect_no_more()
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.open.discard(self)
        self._expect_no_more()
        self._inner.connection_lost(exc)

    def _expect(self) -> None:
        """Cut the connection off unless its client goes on in time. Closing would wait until the client reads."""
        self._expect_no_more()
        self._cut = asyncio.get_running_loop().call_later(self._connections.silence_seconds_max, self._transport.abort)

    def _expect_no_more(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None
