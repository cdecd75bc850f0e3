"""Callbacks that Kafka did not take, on their way to the disk: in batches, as a transaction costs the same for many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from pipeline.bridge.errors import PublishError, SpoolFailedError
from pipeline.bridge.spool import Spool, SpoolFullError, SpoolStatus
from pipeline.bridge.spool_directory import SpoolError
from pipeline.bridge.spool_thread import SpoolThread
from pipeline.core.contract import RawRecord
from pipeline.service.metrics.bridge import BridgeMetrics

Done = Callable[[PublishError | None], None]

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Spooler:
    """Writes what it is given, one transaction for all that came while the one before was written."""

    def __init__(self, spool: Spool, metrics: BridgeMetrics) -> None:
        self.thread = SpoolThread(spool, self._show)
        self.filled = asyncio.Event()
        """Set whenever something was written."""
        self._metrics = metrics
        self._pending: list[tuple[list[RawRecord], Done]] = []
        self._arrived = asyncio.Event()
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

    async def close(self) -> None:
        """Write what is left, and let go of the spool."""
        if self._pending:
            await self._write_pending()
        await self.thread.close()

    async def _write_pending(self) -> None:
        batches, self._pending = self._pending, []
        error = await self._append([record for batch, _ in batches for record in batch])
        for _, done in batches:
            done(error)

    async def _append(self, records: list[RawRecord]) -> PublishError | None:
        try:
            await self.thread.run(partial(Spool.append, records=records))
        except SpoolError as error:
            self._metrics.spool_failures.labels("full" if isinstance(error, SpoolFullError) else "disk").inc()
            if not self._is_failing:  # Once for each time it begins to fail, not for every callback.
                logger.error("spool_failed", error=str(error))
            self._is_failing = True
            return SpoolFailedError(str(error))
        self._is_failing = False
        self._metrics.spooled.inc(len(records))
        self.filled.set()
        return None

    def _show(self, status: SpoolStatus) -> None:
        self._metrics.spool_bytes.set(status.bytes)
        self._metrics.show_spool(self.thread.directory, records=status.records, oldest_ms=status.oldest_received_at_ms)
