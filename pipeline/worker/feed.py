"""
Where the records of a partition wait for its agent: one chunk, which grows while the agent is busy.

The consumer's thread puts chunks in, and the agent's loop takes them out. What one fetch brings for one partition never
waits for another partition, and the fetch after it never for the agent: what would be too much is not fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from faust.types import TP

from pipeline.worker.chunk import Chunk
from pipeline.worker.stage import TICK_SECONDS

BYTES_MAX = 8 << 20  # Waiting; a fetch that is on its way is taken in all the same.
FEW_RECORDS = 500  # Decided on in a millisecond; a commit takes several.


class Feed:
    """A partition's records, for as long as one assignment lasts. All of it runs on the agent's loop."""

    def __init__(self, tp: TP, assignment: Any, pause: Callable[[Feed, bool], None]) -> None:
        """
        Args:
            tp: The partition.
            assignment: What the group assigned together with it; the next one has other feeds.
            pause: Has no more of the partition fetched, or has it fetched again.
        """
        self.tp = tp
        self.assignment = assignment
        self.is_taken = False
        """Whether an agent has it: Faust drops messages while partitions move."""
        self.tick_seconds = TICK_SECONDS
        """After how long without records an idle chunk is wanted."""
        self._pause = pause
        self._is_paused = False
        self._chunk: Chunk | None = None
        self._bytes = 0
        self._changed = asyncio.Event()
        self._is_closed = False

    def put(self, chunk: Chunk, size: int) -> None:
        """Add what was fetched next, *size* bytes. After a seek it goes on elsewhere: what waits is of no use then."""
        waiting = self._chunk
        if waiting is None or chunk.begin != waiting.end:
            self._chunk, self._bytes = chunk, size
        elif chunk.end > waiting.end or not waiting.batches:
            batches = [*waiting.batches, *chunk.batches]
            self._chunk = replace(chunk, begin=waiting.begin, batches=batches)
            self._bytes += size
        self._changed.set()
        if self._bytes > BYTES_MAX and not self._is_paused:
            self._is_paused = True
            self._pause(self, True)

    def clear(self) -> None:
        """Forget what waits: the consumer goes on elsewhere."""
        self._chunk, self._bytes = None, 0

    def close(self) -> None:
        """End the iteration: the partition is assigned anew."""
        self._is_closed = True
        self._changed.set()

    async def take(self, committing: Callable[[], asyncio.Task[None] | None]) -> Chunk | None:
        """
        Wait for a chunk, and return all that waits; None once the feed is closed.

        Args:
            committing: Returns the commit of the chunk before, while it lasts. Few records wait for its end: more may
                come, and one transaction costs as much for one as for hundreds.
        """
        while not self._is_closed:
            self._changed.clear()
            if self._chunk is None:
                await self._changed.wait()
            elif self._chunk.count < FEW_RECORDS and (commit := committing()) is not None:
                await self._until_more(commit)
            else:
                return self._take()
        return None

    async def _until_more(self, commit: asyncio.Task[None]) -> None:
        """Wait for more records, or until *commit* has ended, however it does."""
        more = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait([commit, more], return_when=asyncio.FIRST_COMPLETED)
        finally:
            more.cancel()

    def _take(self) -> Chunk | None:
        chunk = self._chunk
        self.clear()
        if self._is_paused:
            self._is_paused = False
            self._pause(self, False)
        return chunk
