"""Closing a client ends, whatever that client does; a signal ends a program once, and nothing half done."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from pipeline.service.lifecycle import ENDING, close, interrupted_once, uninterrupted


async def cancels_itself() -> None:
    """Do as aiokafka's fetcher does: await a task that was cancelled."""
    task = asyncio.ensure_future(asyncio.sleep(3600))
    task.cancel()
    await task


async def fails() -> None:
    raise OSError("gone")


async def hangs() -> None:
    await asyncio.Event().wait()


async def ends() -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize(("client", "seconds"), [(cancels_itself, 60), (fails, 60), (hangs, 0.01)])
async def test_closing_ends_and_raises_nothing(client: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> None:
    """A CancelledError that no one asked for would end the one that closes the client."""
    assert not await close(client(), seconds=seconds)

    await asyncio.sleep(0)  # What was cancelled ends in the next step.
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_tells_whether_it_went_well() -> None:
    assert await close(ends(), seconds=60)


async def test_who_closes_and_is_cancelled_leaves_nothing_running() -> None:
    closing = asyncio.create_task(close(hangs(), seconds=60))
    await asyncio.sleep(0)

    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing

    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
def handlers() -> Iterator[dict[signal.Signals, Any]]:
    """What there is before, and has to be there again."""
    before = {number: signal.getsignal(number) for number in ENDING}
    yield before
    assert {number: signal.getsignal(number) for number in ENDING} == before


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.usefixtures("handlers")
def test_the_first_signal_interrupts_and_the_next_ones_do_nothing(number: signal.Signals) -> None:
    done = []
    with interrupted_once():
        try:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        finally:
            for later in ENDING:
                signal.raise_signal(later)
            done.append("stopped")

    assert done == ["stopped"]


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_is_ignored_stays_so() -> None:
    """nohup has SIGHUP ignored, and a shell SIGINT in the background."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupted_once():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("handlers")
def test_what_is_not_to_be_interrupted_is_done_to_its_end() -> None:
    done = []

    def start() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            done.append("started")
        done.append("not here")

    with interrupted_once(), pytest.raises(KeyboardInterrupt):
        start()

    assert done == ["started"]


@pytest.mark.usefixtures("handlers")
def test_without_a_signal_nothing_is_raised_and_in_another_thread_there_is_none() -> None:
    def start() -> None:
        with uninterrupted():
            pass

    with interrupted_once():
        start()
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
