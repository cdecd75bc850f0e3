"""
Cuts off clients that do not go on: slow heads, slow bodies, connections that stay silent, also between two requests.

uvicorn 0.54 times only the pause between two requests, with a timer for each. Looking at all connections once a second
costs a request nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from enum import Enum, auto
from typing import Any

from pipeline.bridge.protocol import BoundedProtocol
from pipeline.service.metrics.bridge import BridgeAnswer

SWEEP_SECONDS = 1.0


class _Turn(Enum):
    """Whom a connection waits for."""

    OURS = auto()
    ARRIVING = auto()
    """The client: a first request, the rest of one, or to read its answers."""
    PAUSE = auto()
    """The client, who need not send another request."""


class Patience:
    """Notes on each connection since when it has been waiting for the same thing of its client."""

    def __init__(self, seconds: float, *, pause_seconds: float) -> None:
        """
        Args:
            seconds: How long a request may take to arrive, and a new connection to begin one.
            pause_seconds: How long a connection may stay silent after an answer.
        """
        self._seconds = seconds
        self._pause_seconds = pause_seconds

    async def watch(self, connections: Collection[Any]) -> None:
        """Look at *connections*, which uvicorn keeps as those of any protocol, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, self._seconds / 4))
            self.sweep(connections, loop.time())

    def sweep(self, connections: Collection[BoundedProtocol], now: float) -> None:
        """Cut off every connection that has waited for one and the same thing for too long."""
        for connection in list(connections):
            turn = _turn(connection)
            if turn is _Turn.OURS:
                connection.waiting = None
                continue
            scope, before, since = connection.waiting or (None, turn, now)
            if scope is not connection.scope or before is not turn:
                since = now
            connection.waiting = connection.scope, turn, since
            if now - since < (self._pause_seconds if turn is _Turn.PAUSE else self._seconds):
                continue
            if turn is _Turn.PAUSE:
                connection.transport.close()
            else:
                _cut(connection)


def _cut(connection: BoundedProtocol) -> None:
    if connection.flow.write_paused:
        connection.transport.abort()  # Closing would wait until the client reads.
    else:
        connection.refuse(BridgeAnswer.BODY_TIMEOUT if connection.is_reading_body else BridgeAnswer.HEAD_TIMEOUT)


def _turn(connection: BoundedProtocol) -> _Turn:
    if connection.flow.write_paused:
        return _Turn.ARRIVING
    if connection.pipeline:
        return _Turn.OURS  # It sent one request after another.
    if not connection.has_head or connection.cycle.more_body:
        return _Turn.ARRIVING
    return _Turn.PAUSE if connection.cycle.response_complete else _Turn.OURS
