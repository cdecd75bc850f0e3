"""
HTTP servers inside a running loop: uvicorn, and the bounds that it has no options for.

uvicorn makes each connection by its option `http`. What is made here hands everything on to uvicorn's own protocol, and
uses nothing of that but the interface that asyncio gives every protocol. It serves the monitoring ports and the page.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.service.errors import OperatorError
from pipeline.service.probe import address_of

BACKLOG = 2048  # Connections the kernel holds for us while the loop is busy; Linux caps it at net.core.somaxconn.
REQUEST_BYTES_MAX = 16 * 1024  # One request is all a connection is for, and none has a body.


class ListenError(OperatorError):
    """A port cannot be listened on."""


def listen(host: str, port: int, *, setting: str, is_shared: bool = False) -> socket.socket:
    """
    Bind a TCP socket, so that a taken port is one clear error before anything else has started.

    Args:
        host: Address or name to listen on.
        port: 1 .. 65_535; 0: any free port.
        setting: The settings key of the port, for the message.
        is_shared: Whether other processes listen there, too, and the kernel spreads connections (SO_REUSEPORT).

    Raises:
        ListenError: the port is taken, or host is not an address of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"cannot listen on {address_of(host, port)} ({setting}): {error.strerror}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if is_shared else socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ListenError(f"cannot listen on {address_of(host, port)} ({setting}): {error.strerror}") from error
    bound.setblocking(False)
    return bound


class EmbeddedServer(uvicorn.Server):
    """A uvicorn server that leaves signals to the program it is part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@contextlib.asynccontextmanager
async def running(
    app: Any,
    bound: socket.socket,
    *,
    stop_seconds_max: int,
    keep_alive_seconds: int,
    connections: Connections,
    backlog: int = BACKLOG,
) -> AsyncIterator[uvicorn.Server]:
    """
    Serve the ASGI application *app* on *bound* while the context lasts; yields the server.

    On leaving, requests that have begun are answered first, for up to *stop_seconds_max*. The kernel holds *backlog*
    connections that are not taken yet.
    """
    config = uvicorn.Config(
        app,
        http=connections,  # type: ignore[arg-type]  # It calls what it is given; a class is only one kind of callable.
        ws="none",
        lifespan="off",
        interface="asgi3",
        loop="none",
        log_config=None,
        log_level="error",  # Its warnings are what hostile clients do.
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=backlog,
        timeout_keep_alive=keep_alive_seconds,
        timeout_graceful_shutdown=stop_seconds_max,
    )
    server = EmbeddedServer(config)
    serving = asyncio.create_task(server.serve(sockets=[bound]), name="http")
    try:
        while not (server.started or serving.done()):  # noqa: ASYNC110  # uvicorn 0.54 has no event for it.
            await asyncio.sleep(0.005)
        yield server
    finally:
        server.should_exit = True
        await serving


class Connections:
    """The open connections of one server; call it to make the protocol of a new one, as uvicorn does."""

    def __init__(
        self,
        *,
        connections_max: int,
        silence_seconds_max: float,
        evicts_oldest: bool = False,
        on_cut: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            connections_max: How many there may be.
            silence_seconds_max: How long a client may take to send its request, and to read on.
            evicts_oldest: Whether one too many takes the place of the oldest, instead of being closed itself.
            on_cut: Called for each that is cut off.
        """
        self.open: dict[_Connection, None] = {}  # The oldest first.
        self.connections_max = connections_max
        self.silence_seconds_max = silence_seconds_max
        self.evicts_oldest = evicts_oldest
        self.on_cut = on_cut

    def __call__(self, **options: Any) -> asyncio.Protocol:
        """Make a protocol; *options* are what uvicorn gives to its own."""
        return _Connection(HttpToolsProtocol(**options), self)

    def drop_one(self) -> None:
        """Make room: cut off the oldest, or the newest."""
        dropped = next(iter(self.open) if self.evicts_oldest else reversed(self.open))
        del self.open[dropped]
        dropped.abort()


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
        self._connections.open[self] = None
        self._inner.connection_made(transport)
        self._expect()
        if len(self._connections.open) > self._connections.connections_max:
            self._connections.drop_one()

    def abort(self) -> None:
        """Cut the connection off. Closing would wait until the client reads."""
        self._connections.on_cut()
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > REQUEST_BYTES_MAX:
            self.abort()
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
        self._connections.open.pop(self, None)
        self._expect_no_more()
        self._inner.connection_lost(exc)

    def _expect(self) -> None:
        """Cut the connection off unless its client goes on in time."""
        self._expect_no_more()
        self._cut = asyncio.get_running_loop().call_later(self._connections.silence_seconds_max, self.abort)

    def _expect_no_more(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None
