"""
The callback port: accepts connections, so many at most, looks at their deadlines, and ends them in order.

A connection counts from its first moment, so that those which only begin a TLS handshake are bounded like all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import structlog

from pipeline.bridge.connection import Connection, State, Timeouts
from pipeline.bridge.handler import Handler
from pipeline.service.metrics.bridge import BridgeAnswer
from pipeline.service.web import BACKLOG

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

SWEEP_SECONDS = 1.0
ACCEPTED_MAX = 64  # In a row: requests are not to wait for a crowd that connects.
# Without a descriptor there is nothing to accept a connection with; it waits in the kernel's backlog meanwhile.
ACCEPT_RETRY_SECONDS = 0.1


class Listener:
    """The connections to one socket. Nothing that a client does ends it."""

    def __init__(
        self,
        handler: Handler,
        bound: socket.socket,
        *,
        timeouts: Timeouts,
        connections_max: int,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """
        Args:
            handler: Gets the requests.
            bound: A TCP socket, bound and not blocking; it is closed with the listener.
            timeouts: How long a client may take.
            connections_max: How many connections there may be; more are closed at once.
            tls: With it, the port speaks TLS and nothing else.
        """
        self.connections: set[Connection] = set()
        self._handler = handler
        self._bound = bound
        self._timeouts = timeouts
        self._connections_max = connections_max
        self._tls: dict[str, Any] = {"ssl": tls, "ssl_handshake_timeout": timeouts.handshake_seconds} if tls else {}
        self._sweep_seconds = min(SWEEP_SECONDS, timeouts.request_seconds / 4)
        self._opening: set[asyncio.Task[None]] = set()
        self._is_empty = asyncio.Event()
        handler.show_connections(lambda: len(self.connections), connections_max)

    @contextlib.asynccontextmanager
    async def running(self, *, stop_seconds_max: float) -> AsyncIterator[None]:
        """Listen while the context lasts; then answer what has begun, for *stop_seconds_max*, and end all else."""
        self._loop = asyncio.get_running_loop()
        self._bound.listen(BACKLOG)
        self._accepting = self._loop.call_soon(self._accept_on)
        self._sweeping = self._loop.call_later(self._sweep_seconds, self._sweep)
        try:
            yield
        finally:
            self._accepting.cancel()
            self._loop.remove_reader(self._bound)
            self._bound.close()
            await self._end(stop_seconds_max)
            self._sweeping.cancel()

    async def _end(self, seconds_max: float) -> None:
        for task in self._opening:
            task.cancel()
        for connection in tuple(self.connections):
            connection.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                while self.connections:
                    self._is_empty.clear()
                    await self._is_empty.wait()
        for connection in tuple(self.connections):
            connection.abort()

    def _accept_on(self) -> None:
        self._loop.add_reader(self._bound, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_MAX):
            try:
                client, _ = self._bound.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.warning("accept_failed", error=repr(error), retry_seconds=ACCEPT_RETRY_SECONDS)
                self._loop.remove_reader(self._bound)
                self._accepting = self._loop.call_later(ACCEPT_RETRY_SECONDS, self._accept_on)
                return
            if len(self.connections) >= self._connections_max:
                self._handler.refuse(BridgeAnswer.OVERLOADED)  # Counted; there is no request to answer.
                client.close()
                continue
            client.setblocking(False)
            connection = Connection(self._handler, self._timeouts, self._forget)
            self.connections.add(connection)
            opening = self._loop.create_task(self._open(connection, client))
            self._opening.add(opening)
            opening.add_done_callback(partial(self._opened, connection, client))

    async def _open(self, connection: Connection, client: socket.socket) -> None:
        await self._loop.connect_accepted_socket(lambda: connection, client, **self._tls)

    def _opened(self, connection: Connection, client: socket.socket, opening: asyncio.Task[None]) -> None:
        self._opening.discard(opening)
        if connection.state is not State.OPENING:
            return
        client.close()
        self._forget(connection)
        error = None if opening.cancelled() else opening.exception()
        if not isinstance(error, OSError | None):  # The client's: no handshake, or it is gone.
            logger.error("connection_failed", exc_info=error)

    def _forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._is_empty.set()

    def _sweep(self) -> None:
        """Look at all connections once a second, which costs a request nothing."""
        self._sweeping = self._loop.call_later(self._sweep_seconds, self._sweep)
        now = self._loop.time()
        for connection in tuple(self.connections):
            connection.check(now)
