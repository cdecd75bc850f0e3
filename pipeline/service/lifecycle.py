"""What ends a running service and its clients, or has it look at its settings again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def until(stop: asyncio.Event, *running: asyncio.Task[None]) -> None:
    """Wait for *stop*; raise what ended one of *running*, should that come first."""
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
    for task in done:
        task.result()


@contextlib.contextmanager
def on_hangup(then: Callable[[], None]) -> Iterator[None]:
    """Call *then* whenever SIGHUP comes while the context lasts."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, then)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def close(closing: Coroutine[Any, Any, None], *, seconds: float) -> bool:
    """
    Run what closes a client, for *seconds* at most; returns whether that went well, and raises nothing of it.

    In a task of its own: a consumer of aiokafka 0.14.0 that stops while its broker is away lets a CancelledError out
    (Fetcher.close awaits what it cancelled), which would end the task that stops it.
    """
    task = asyncio.ensure_future(closing)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        is_over = not task.cancel()
    if not is_over or task.cancelled():
        return False
    if task.exception() is not None:
        logger.debug("close_failed", error=repr(task.exception()))
    return task.exception() is None
