"""The thread of a spool: others get the lock, even if its close is cancelled."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from pipeline.bridge.spool import Spool
from pipeline.bridge.spool_thread import SpoolThread

if TYPE_CHECKING:
    from pathlib import Path


async def test_one_that_is_cancelled_while_it_closes_keeps_no_lock(tmp_path: Path) -> None:
    """A bridge that stops while it looks at what others left: the thread is still busy with the disk."""
    busy, may_end = threading.Event(), threading.Event()

    def block(_: Spool) -> None:
        busy.set()
        may_end.wait(60)

    spool = Spool(tmp_path, bytes_max=1 << 20)
    thread = SpoolThread(spool, lambda _: None)
    working = asyncio.create_task(thread.run(block))
    await asyncio.to_thread(busy.wait, 10)
    closing = asyncio.create_task(thread.close())
    await asyncio.sleep(0)  # It asks the thread, which has not come to it.

    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    may_end.set()
    await working
    for ending in threading.enumerate():
        if ending.name.startswith("spool"):
            await asyncio.to_thread(ending.join, 10)

    Spool(tmp_path, bytes_max=1 << 20).close()
