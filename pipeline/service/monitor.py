"""
The monitoring port: /healthz, /readyz and /metrics of one process. Also how a uvicorn server is run inside a loop.

Shared by bridge and worker; knows neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from pipeline.service.errors import OperatorError
from pipeline.service.probe import address_of

BACKLOG = 2048  # Connections the kernel holds for us while the loop is busy; Linux caps it at net.core.somaxconn.
STOP_SECONDS_MAX = 2
# Of a monitoring port: Prometheus and a health check need one each. Fewer than a process may have files open besides.
CONNECTIONS_MAX = 16
REQUEST_SECONDS_MAX = 5.0
HEAD_BYTES_MAX = 16 * 1024

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_TEXT = b"text/plain; charset=utf-8"


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
    protocol: Callable[..., asyncio.Protocol] | None = None,
) -> AsyncIterator[uvicorn.Server]:
    """
    Serve the ASGI application *app* on *bound* while the context lasts; yields the server.

    On leaving, requests that have begun are answered first, for up to *stop_seconds_max*. *protocol* makes that
    of a connection, if not uvicorn's own.
    """
    config = uvicorn.Config(
        app,
        http=protocol or "httptools",  # type: ignore[arg-type]  # It calls what it is given: not only classes.
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
        backlog=BACKLOG,
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


_Answer = tuple[HTTPStatus, bytes, bytes]  # Its content type and its body.


class _Monitor:
    """The connections of a monitoring port: a request each, then it is closed. A silent or slow client is cut off."""

    def __init__(self, answer: Callable[[str], Awaitable[_Answer]], *, seconds_max: float) -> None:
        self._answer = answer
        self._seconds_max = seconds_max
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}  # The oldest first.
        self._answering: set[asyncio.StreamWriter] = set()

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a new connection, in place of the oldest one if there are too many."""
        if len(self._open) >= CONNECTIONS_MAX:
            self._cut_off(next(iter(self._open)))
        # Closing waits, without an end, for a client to read what is left: nothing may be.
        writer.transport.set_write_buffer_limits(0)
        serving = asyncio.create_task(self._serve(reader, writer), name="monitoring")
        self._open[serving] = writer
        serving.add_done_callback(self._forget)

    async def end(self) -> None:
        """Let the answers that have begun go out, for STOP_SECONDS_MAX at most; cut off the rest."""
        answering = [serving for serving, writer in self._open.items() if writer in self._answering]
        if answering:
            await asyncio.wait(answering, timeout=STOP_SECONDS_MAX)
        left = [*self._open]
        for serving in left:
            self._cut_off(serving)
        await asyncio.gather(*left, return_exceptions=True)

    def _cut_off(self, serving: asyncio.Task[None]) -> None:
        serving.cancel()
        self._open.pop(serving).transport.abort()  # The task may not have begun, and would not do it then.

    def _forget(self, serving: asyncio.Task[None]) -> None:
        self._open.pop(serving, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._seconds_max):
                head = await reader.readuntil(b"\r\n\r\n")
            self._answering.add(writer)
            response = await self._respond(head)
            if writer.is_closing():  # Its client left meanwhile: uvloop refuses to write then.
                return
            async with asyncio.timeout(self._seconds_max):
                writer.write(response)
                await writer.drain()
            writer.close()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # The client is silent, slow, gone, or sends no request.
        finally:
            self._answering.discard(writer)
            if not writer.is_closing():
                writer.transport.abort()

    async def _respond(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode(errors="replace")
        status, kind, body = HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, b"only GET and HEAD\n"
        if method in (b"GET", b"HEAD"):
            try:
                status, kind, body = await self._answer(path)
            except Exception:  # What is wrong with the service is what is asked for: it gets an answer.
                logger.exception("monitoring_failed", path=path)
                status, body = HTTPStatus.INTERNAL_SERVER_ERROR, b"see the log\n"
        lines = (
            b"HTTP/1.1 %d %s" % (status, status.phrase.encode()),
            b"content-type: " + kind,
            b"content-length: %d" % len(body),
            b"allow: GET, HEAD",
            b"connection: close",
            b"",
            b"" if method == b"HEAD" else body,
        )
        return b"\r\n".join(lines)


@contextlib.asynccontextmanager
async def monitoring(
    registry: CollectorRegistry,
    problems: Callable[[], Sequence[str]],
    bound: socket.socket,
    *,
    asks_others: bool = False,
    seconds_max: float = REQUEST_SECONDS_MAX,
) -> AsyncIterator[None]:
    """
    Serve the monitoring port on *bound* (see `listen`) while the context lasts.

    Args:
        registry: What /metrics shows.
        problems: Why the process is not ready; empty if it is.
        bound: The port's socket; closed in the end.
        asks_others: Whether an answer may take a while, and must not hold up the loop meanwhile.
        seconds_max: For a request to arrive, and for its answer to be read.
    """

    def answer(path: str) -> _Answer:
        if path == "/healthz":
            return HTTPStatus.OK, _TEXT, b"alive\n"
        if path == "/readyz":
            found = problems()
            status = HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK
            return status, _TEXT, "".join(f"{line}\n" for line in found or ["ready"]).encode()
        if path == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_LATEST.encode(), generate_latest(registry)
        return HTTPStatus.NOT_FOUND, _TEXT, b"there are /healthz, /readyz and /metrics\n"

    async def answered(path: str) -> _Answer:
        return await asyncio.to_thread(answer, path) if asks_others else answer(path)

    monitor = _Monitor(answered, seconds_max=seconds_max)
    with bound:
        server = await asyncio.start_server(monitor.take, sock=bound, limit=HEAD_BYTES_MAX, backlog=CONNECTIONS_MAX)
        try:
            yield
        finally:
            server.close()
            await monitor.end()
