"""
Cuts off clients that begin a request and do not go on: slow heads, slow bodies, connections that stay silent.

uvicorn 0.54 times only the pause between two requests. Looking at all connections once a second costs a request
nothing; a timer for each costs several microseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from pipeline.bridge.protocol import BoundedProtocol
from pipeline.metrics import BridgeAnswer

SWEEP_SECONDS = 1.0


class Patience:
    """Remembers since when each connection has been in the middle of the same request."""

    def __init__(self, seconds: float) -> None:
        """
        Args:
            seconds: How long a request may take to arrive, and a new connection to begin one.
        """
        self._seconds = seconds
        self._since: dict[BoundedProtocol, tuple[Any, float]] = {}

    async def watch(self, connections: Collection[Any]) -> None:
        """Look at *connections*, which uvicorn keeps as those of any protocol, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, self._seconds / 4))
            self.sweep(connections, loop.time())

    def sweep(self, connections: Collection[BoundedProtocol], now: float) -> None:
        """Cut off every connection that has been in the middle of one and the same request for too long."""
        waiting = {}
        for connection in list(connections):
            if not _is_arriving(connection):
                continue
            scope, since = self._since.get(connection, (None, now))
            if scope is not connection.scope:
                since = now
            if now - since >= self._seconds:
                _cut(connection)
            else:
                waiting[connection] = connection.scope, since
        self._since = waiting


def _cut(connection: BoundedProtocol) -> None:
    if connection.flow.write_paused:
        connection.transport.abort()  # Closing would wait until the client reads.
    else:
        connection.refuse(BridgeAnswer.BODY_TIMEOUT if connection.is_reading_body else BridgeAnswer.HEAD_TIMEOUT)


def _is_arriving(connection: BoundedProtocol) -> bool:
    """Return whether the client owes us something: a first request, the rest of one, or to read its answers."""
    if connection.flow.write_paused:
        return True
    if connection.pipeline:
        return False  # It sent one request after another; now it is our turn.
    if not connection.has_head:
        return True
    # Line breaks after an answer end uvicorn's wait for the next request, and begin none.
    is_forgotten = connection.cycle.response_complete and connection.timeout_keep_alive_task is None
    return bool(connection.cycle.more_body or is_forgotten)
