"""A spool's place in the event loop: everything about SQLite blocks, so a thread does it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline.bridge.spool import Spool, SpoolStatus

Result = TypeVar("Result")


class SpoolThread:
    """One spool and its thread; what is asked for is done one after the other."""

    def __init__(self, spool: Spool, show: Callable[[SpoolStatus], None]) -> None:
        """*show* is called with what waits, whenever something was done."""
        self.directory = spool.directory
        self._spool = spool
        self._show = show
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")

    async def run(self, work: Callable[[Spool], Result]) -> Result:
        """Return what *work* returns; raises what it raises, which of the spool's own methods is SpoolError."""
        loop = asyncio.get_running_loop()
        result, status = await loop.run_in_executor(self._thread, lambda: (work(self._spool), self._spool.status()))
        self._show(status)
        return result

    async def close(self) -> None:
        """Let go of the spool, whose lock others wait for: also if this is cancelled, once the thread gets to it."""
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._spool.close)
        self._thread.shutdown(wait=False)
        await asyncio.shield(closing)
