"""What ends a running service and its clients, or has it look at its settings again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

import structlog

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

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
def hangups() -> Iterator[asyncio.Event]:
    """
    Yield an event that SIGHUP sets from here on, one that was held back (see `__main__`) included.

    SIGHUP ends the process no more: behind the context it does nothing.
    """
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    # Not the loop's own handler, which gives the signal its default back, and so ends what is stopping.
    signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(came.set))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    try:
        yield came
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


@contextlib.asynccontextmanager
async def on_hangup(hangup: asyncio.Event, then: Callable[[], None]) -> AsyncIterator[None]:
    """Call *then* whenever *hangup* is set in the context, and once if it was before; what it raises ends nothing."""

    async def watch() -> None:
        while True:
            await hangup.wait()
            hangup.clear()
            asyncio.get_running_loop().call_soon(then)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


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


@contextlib.contextmanager
def interrupted_once() -> Iterator[None]:
    """
    Have the first SIGINT, SIGTERM or SIGHUP in the context raise KeyboardInterrupt, and the others do nothing.

    So what a `finally` does is not cut off by a second one. A signal that is ignored stays so: nohup does that, and a
    shell for SIGINT in the background.
    """
    is_raised = False

    def interrupt(_: int, __: FrameType | None) -> None:
        nonlocal is_raised
        if not is_raised:
            is_raised = True
            raise KeyboardInterrupt

    with _handled_by(interrupt, signal.SIG_IGN):
        yield


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off what handlers of SIGINT, SIGTERM and SIGHUP do until the context is left: nothing in it is half done."""
    if threading.current_thread() is not threading.main_thread():  # Handlers run in that one only.
        yield
        return
    came: list[int] = []
    with _handled_by(lambda number, _: came.append(number), signal.SIG_IGN, signal.SIG_DFL):
        yield
    for number in came:
        signal.raise_signal(number)


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None], *kept: signal.Handlers) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        for number, its in before.items():
            if its not in (None, *kept):
                signal.signal(number, handler)
        yield
    finally:
        for number, its in before.items():
            if its not in (None, *kept):
                signal.signal(number, its)
