"""
The monitoring port: /healthz, /readyz and /metrics of one process. Also how a uvicorn server is run inside a loop.

Shared by bridge and worker; knows neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.errors import OperatorError

BACKLOG = 2048  # Connections the kernel holds for us while the loop is busy; Linux caps it at net.core.somaxconn.
STOP_SECONDS_MAX = 2

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
        raise ListenError(f"cannot listen on {host}:{port} ({setting}): {error.strerror}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if is_shared else socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ListenError(f"cannot listen on {host}:{port} ({setting}): {error.strerror}") from error
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
    certificate_file: Path | None = None,
    key_file: Path | None = None,
    protocol: Callable[..., asyncio.Protocol] = HttpToolsProtocol,
) -> AsyncIterator[uvicorn.Server]:
    """
    Serve the ASGI application *app* on *bound* while the context lasts; yields the server.

    On leaving, requests that have begun are answered first, for up to *stop_seconds_max*. With a certificate and its
    key (PEM), *bound* speaks TLS and nothing else. *protocol* makes the protocol of a connection.
    """
    config = uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]  # It calls what it is given; a class is only one kind of callable.
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
        ssl_certfile=certificate_file,
        ssl_keyfile=key_file,
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


def monitor_app(
    registry: CollectorRegistry, problems: Callable[[], Sequence[str]], *, asks_others: bool = False
) -> Callable[[Mapping[str, Any], Any, Callable[[dict[str, Any]], Awaitable[None]]], Awaitable[None]]:
    """
    Build the ASGI application of the monitoring port.

    Args:
        registry: What /metrics shows.
        problems: Why the process is not ready; empty if it is.
        asks_others: Whether an answer may take a while, and must not hold up the loop meanwhile.
    """

    def answer(path: str) -> tuple[int, bytes, bytes]:
        if path == "/healthz":
            return 200, _TEXT, b"alive\n"
        if path == "/readyz":
            found = problems()
            return (503, _TEXT, ("\n".join(found) + "\n").encode()) if found else (200, _TEXT, b"ready\n")
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST.encode(), generate_latest(registry)
        return 404, _TEXT, b"there are /healthz, /readyz and /metrics\n"

    async def app(scope: Mapping[str, Any], _: Any, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        if scope["method"] in ("GET", "HEAD"):
            path = scope["path"]
            status, kind, body = await asyncio.to_thread(answer, path) if asks_others else answer(path)
        else:
            status, kind, body = 405, _TEXT, b""
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


@contextlib.asynccontextmanager
async def monitoring(
    registry: CollectorRegistry,
    problems: Callable[[], Sequence[str]],
    bound: socket.socket,
    *,
    asks_others: bool = False,
) -> AsyncIterator[None]:
    """Serve the monitoring port on *bound* (see `listen`) while the context lasts; the rest is as for `monitor_app`."""
    app = monitor_app(registry, problems, asks_others=asks_others)
    with bound:
        async with running(app, bound, stop_seconds_max=STOP_SECONDS_MAX, keep_alive_seconds=5):
            yield
