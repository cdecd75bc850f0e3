"""What ends a running service, or has it look at its settings again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator


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
