"""The spool's place in the event loop: what Kafka did not take goes to disk in groups, and back to Kafka in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import structlog

from pipeline.bridge.errors import PublishError, SpoolFailedError
from pipeline.bridge.spool import Spool, SpoolError, SpoolFullError, SpoolStatus
from pipeline.core.contract import RawRecord
from pipeline.service.metrics.bridge import BridgeMetrics

REPLAY_RECORDS = 256
# What one key's partition takes in four requests, one after the other, all within the deadline of a callback.
REPLAY_BYTES = 256 * 1024
RETRY_SECONDS = 1.0

Result = TypeVar("Result")
Done = Callable[[PublishError | None], None]

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Spooler:
    """Writes what it is given, one transaction for all that came while the one before was written."""

    def __init__(self, spool: Spool, metrics: BridgeMetrics) -> None:
        self._spool = spool
        self._metrics = metrics
        self._pending: list[tuple[list[RawRecord], Done]] = []
        self._arrived = asyncio.Event()
        self._filled = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._is_failing = False

    @property
    def is_working(self) -> bool:
        """Whether the last thing put is on disk."""
        return not self._is_failing

    def put(self, records: list[RawRecord], done: Done) -> None:
        """Spool *records*; *done* is called with None once they are on disk, or with why they are not."""
        self._pending.append((records, done))
        self._arrived.set()

    def note_stall(self) -> None:
        """Take the disk for failing: what was put was not written in time. The next write that ends says more."""
        self._metrics.spool_failures.labels("disk").inc()
        self._is_failing = True

    async def write(self) -> None:
        """Write whatever is put, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await self._write_pending()

    async def replay(self, publish: Callable[[Sequence[RawRecord]], Awaitable[None]], is_up: asyncio.Event) -> None:
        """Publish what is spooled, oldest first, whenever Kafka takes it, until cancelled."""
        published = deleted = 0
        while True:
            try:
                self._filled.clear()  # Before the look, or what comes right after it would wait for the next one.
                self._show(await self._run(self._spool.status))
                look = partial(self._spool.oldest, REPLAY_RECORDS, after=published, bytes_max=REPLAY_BYTES)
                found = await self._run(look)
                if found:
                    await is_up.wait()
                    await publish([record for _, record in found])
                    published = found[-1][0]  # Should the disk refuse to delete them, they are not published again.
                    self._metrics.replayed.inc(len(found))
                elif deleted == published:
                    await self._filled.wait()
                    continue
                await self._run(partial(self._spool.delete, published))
                deleted = published
            except (SpoolError, PublishError) as error:
                logger.warning("replay_failed", error=str(error) or repr(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def close(self) -> None:
        """Write what is left, and let go of the spool."""
        if self._pending:
            await self._write_pending()
        await self._run(self._spool.close)
        self._thread.shutdown()

    async def _write_pending(self) -> None:
        groups, self._pending = self._pending, []
        error = await self._append([record for group, _ in groups for record in group])
        for _, done in groups:
            done(error)

    async def _append(self, records: list[RawRecord]) -> PublishError | None:
        try:
            self._show(await self._run(partial(self._append_and_look, records)))
        except SpoolError as error:
            self._metrics.spool_failures.labels("full" if isinstance(error, SpoolFullError) else "disk").inc()
            if not self._is_failing:  # Once for each time it begins to fail, not for every callback.
                logger.error("spool_failed", error=str(error))
            self._is_failing = True
            return SpoolFailedError(str(error))
        self._is_failing = False
        self._metrics.spooled.inc(len(records))
        self._filled.set()
        return None

    def _append_and_look(self, records: list[RawRecord]) -> SpoolStatus:
        self._spool.append(records)
        return self._spool.status()

    def _show(self, status: SpoolStatus) -> None:
        self._metrics.spool_records.set(status.records)
        self._metrics.spool_bytes.set(status.bytes)
        self._metrics.spool_oldest.set((status.oldest_received_at_ms or 0) / 1000)

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
