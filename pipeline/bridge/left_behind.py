"""
The spools of bridges that run no more, as where `bridge --workers 3` became `bridge`.

Each is emptied where it lies. One that cannot be, as another process has it or as its file is damaged, is counted and
logged, and tried again every minute: what was answered 200 reaches Kafka, or somebody knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path

import structlog

from pipeline.bridge.drain import Drain, Send
from pipeline.bridge.spool import Spool, SpoolError, SpoolStatus, status_of
from pipeline.bridge.spool_thread import SpoolThread
from pipeline.kafka import KafkaError
from pipeline.service.metrics.bridge import BridgeMetrics

LOOK_SECONDS = 60.0

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class LeftBehind:
    """Looks after such spools, one after the other."""

    def __init__(
        self,
        find: Callable[[], list[Path]],
        connect: Callable[[], AbstractAsyncContextManager[Send]],
        is_up: asyncio.Event,
        metrics: BridgeMetrics,
    ) -> None:
        """
        Args:
            find: Returns their directories.
            connect: As for `Drain`.
            is_up: Whether Kafka is; no spool is kept from others while it is not.
            metrics: Shows what waits in them, and how many cannot be emptied.
        """
        self._find = find
        self._connect = connect
        self._is_up = is_up
        self._metrics = metrics
        self._shown: set[Path] = set()

    async def run(self) -> None:
        """Look every minute, and once Kafka is up, until cancelled."""
        while True:
            was_up = self._is_up.is_set()
            try:
                await self._look()
            except Exception as error:
                logger.warning("spools_not_looked_at", error=repr(error), exc_info=not isinstance(error, OSError))
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await (asyncio.Event() if was_up else self._is_up).wait()

    async def _look(self) -> None:
        found = await asyncio.to_thread(self._find)
        for folder in self._shown.difference(found):  # Somebody moved it away.
            self._show(folder, SpoolStatus(0, 0, None))
        problems = {folder: await self._empty(folder) for folder in found}
        staying = {folder: problem for folder, problem in problems.items() if problem is not None}
        self._metrics.spools_left_behind.set(len(staying))
        for folder, problem in staying.items():
            logger.error("spool_left_behind", spool=str(folder), problem=problem)

    async def _empty(self, folder: Path) -> str | None:
        """Empty the spool in *folder*, if Kafka is up; returns why something will stay there, None if nothing will."""
        try:
            spool = await _opened(folder)
        except SpoolError as error:
            return await self._show_only(folder, str(error))
        thread = SpoolThread(spool, partial(self._show, folder))
        try:
            before = await thread.run(Spool.status)
            if before.records == 0 or not self._is_up.is_set():
                return None
            drain = Drain(thread, self._connect, self._metrics)
            await drain.empty()
            logger.info("spool_emptied", spool=str(folder), records=before.records - drain.refused)
            return f"Kafka refuses {drain.refused} of its records" if drain.refused else None
        except SpoolError as error:
            return str(error)
        except (KafkaError, OSError) as error:
            logger.warning("drain_failed", spool=str(folder), error=repr(error))
            return None
        finally:
            await thread.close()

    async def _show_only(self, folder: Path, problem: str) -> str | None:
        """Show what waits in *folder*, which cannot be opened because of *problem*; nothing may wait there."""
        try:
            status, _ = await asyncio.to_thread(status_of, folder)
        except SpoolError:
            return problem
        self._show(folder, status)
        return problem if status.records else None

    def _show(self, folder: Path, status: SpoolStatus) -> None:
        self._shown.add(folder)
        self._metrics.show_spool(folder, records=status.records, oldest_ms=status.oldest_received_at_ms)


async def _opened(folder: Path) -> Spool:
    """Open the spool in *folder*; a cancellation leaves none open, whose lock would be kept."""
    opening = asyncio.ensure_future(asyncio.to_thread(Spool, folder, bytes_max=0))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with suppress(SpoolError):
            (await opening).close()
        raise
