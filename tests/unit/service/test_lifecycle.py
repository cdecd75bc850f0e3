"""Closing a client ends, whatever that client does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pipeline.service.lifecycle import close


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
    """A CancelledError that nobody asked for would end whoever closes the client."""
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
