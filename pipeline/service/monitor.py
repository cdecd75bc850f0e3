"""
The monitoring port: /healthz, /readyz and /metrics of one process.

Shared by bridge and worker; knows neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from pipeline.service.metrics.process import PortMetrics
from pipeline.service.web import Connections, running

STOP_SECONDS_MAX = 2
# Prometheus and a health check need one connection each. Fewer than a process may have files open besides.
CONNECTIONS_MAX = 16
REQUEST_SECONDS_MAX = 5.0

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_TEXT = b"text/plain; charset=utf-8"
_Answer = tuple[HTTPStatus, bytes, bytes]  # Its content type and its body.
_Send = Callable[[dict[str, Any]], Awaitable[None]]


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
    connections = Connections(connections_max=CONNECTIONS_MAX, silence_seconds_max=seconds_max, evicts_oldest=True)
    if not asks_others:  # Whose metrics are shown, with those of their own ports.
        metrics = PortMetrics(registry)
        metrics.connections.set_function(lambda: len(connections.open))
        connections.on_cut = metrics.cut.inc
    with bound:
        async with running(
            _Pages(registry, problems, asks_others=asks_others),
            bound,
            stop_seconds_max=STOP_SECONDS_MAX,
            keep_alive_seconds=1,
            connections=connections,
            backlog=CONNECTIONS_MAX,
        ):
            yield


class _Pages:
    """The ASGI application of the three pages; for what the arguments are see `monitoring`."""

    def __init__(
        self, registry: CollectorRegistry, problems: Callable[[], Sequence[str]], *, asks_others: bool
    ) -> None:
        self._registry = registry
        self._problems = problems
        self._asks_others = asks_others

    async def __call__(self, scope: Mapping[str, Any], _: Any, send: _Send) -> None:
        status, kind, body = await self._respond(scope["method"], scope["path"])
        headers = [
            (b"content-type", kind),
            (b"content-length", b"%d" % len(body)),
            (b"allow", b"GET, HEAD"),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _respond(self, method: str, path: str) -> _Answer:
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, b"only GET and HEAD\n"
        try:
            return await asyncio.to_thread(self._page, path) if self._asks_others else self._page(path)
        except Exception:  # A bug, which must be seen and end nothing.
            logger.exception("monitoring_failed", path=path)
            return HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, b"see the log\n"

    def _page(self, path: str) -> _Answer:
        match path:
            case "/healthz":
                return HTTPStatus.OK, _TEXT, b"alive\n"
            case "/readyz":
                found = self._problems()
                status = HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK
                return status, _TEXT, "".join(f"{line}\n" for line in found or ["ready"]).encode()
            case "/metrics":
                return HTTPStatus.OK, CONTENT_TYPE_LATEST.encode(), generate_latest(self._registry)
            case _:
                return HTTPStatus.NOT_FOUND, _TEXT, b"there are /healthz, /readyz and /metrics\n"
