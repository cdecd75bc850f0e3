"""
Cuts off clients that begin a request and do not go on: slow heads, slow bodies, connections that stay silent.

uvicorn 0.54 times only the pause between two requests. Looking at all connections once a second costs a request
nothing; a timer for each costs several microseconds. It reads uvicorn's HttpToolsProtocol, whose version is pinned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from pipeline.metrics import BridgeAnswer

SWEEP_SECONDS = 1.0
CUT_OFF = "cut_off"  # In the scope's `state`: the outcome under which the application counts a client that is gone.

_ANSWER = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Patience:
    """Remembers since when each connection has been in the middle of the same request."""

    def __init__(self, seconds: float, *, on_silent: Callable[[], None]) -> None:
        """
        Args:
            seconds: How long a request may take to arrive, and a new connection to begin one.
            on_silent: Called for each client cut off before its request's head was complete.
        """
        self._seconds = seconds
        self._on_silent = on_silent
        self._since: dict[Any, tuple[Any, float]] = {}

    async def watch(self, connections: Collection[Any]) -> None:
        """Look at *connections* (uvicorn's, of one server) until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, self._seconds / 4))
            self.sweep(connections, loop.time())

    def sweep(self, connections: Collection[Any], now: float) -> None:
        """Cut off every connection that has been in the middle of one and the same request for too long."""
        waiting = {}
        for connection in list(connections):
            if not _is_arriving(connection):
                continue
            scope, since = self._since.get(connection, (None, now))
            if scope is not connection.scope:
                since = now
            if now - since >= self._seconds:
                self._cut(connection)
            else:
                waiting[connection] = connection.scope, since
        self._since = waiting

    def _cut(self, connection: Any) -> None:
        if connection.flow.write_paused:
            connection.transport.abort()  # Closing would wait until the client reads.
            return
        if _has_head(connection) and connection.cycle.more_body:
            connection.scope["state"][CUT_OFF] = BridgeAnswer.BODY_TIMEOUT
        else:
            self._on_silent()
        connection.transport.write(_ANSWER)
        connection.transport.close()


def _has_head(connection: Any) -> bool:
    return connection.cycle is not None and connection.cycle.scope is connection.scope


def _is_arriving(connection: Any) -> bool:
    """Return whether the client owes us something: a first request, the rest of one, or to read its answers."""
    if connection.flow.write_paused:
        return True
    if connection.pipeline:
        return False  # It sent one request after another; now it is our turn.
    if not _has_head(connection):
        return True
    # Line breaks after an answer end uvicorn's wait for the next request, and begin none.
    is_forgotten = connection.cycle.response_complete and connection.timeout_keep_alive_task is None
    return bool(connection.cycle.more_body or is_forgotten)
