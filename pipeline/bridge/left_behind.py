"""
The spools of bridges that run no more, as where `bridge --workers 3` became `bridge`.

Each is emptied where it lies. One that cannot be, as another process has it or as its file is damaged, is counted and
logged, and tried again every minute: what was answered 200 reaches Kafka, or an operator knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path

import structlog

from pipeline.bridge.drain import Drain, Send
from pipeline.bridge.spool import Spool, SpoolStatus, status_of
from pipeline.bridge.spool_directory import SpoolError
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
        self._halvings = 0
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
        for directory in self._shown.difference(found):  # An operator moved it away.
            self._show(directory, SpoolStatus(0, 0, None))
        problems = {directory: await self._empty(directory) for directory in found}
        staying = {directory: problem for directory, problem in problems.items() if problem is not None}
        self._metrics.spools_left_behind.set(len(staying))
        for directory, problem in staying.items():
            logger.error("spool_left_behind", spool=str(directory), problem=problem)

    async def _empty(self, directory: Path) -> str | None:
        """Empty the spool in *directory*, if Kafka is up; returns why some of it will stay there, None if none will."""
        try:
            spool = await _opened(directory)
        except SpoolError as error:
            return await self._show_only(directory, str(error))
        thread = SpoolThread(spool, partial(self._show, directory))
        drain = Drain(thread, self._connect, self._metrics, halvings=self._halvings)
        try:
            before = await thread.run(Spool.status)
            if before.records == 0 or not self._is_up.is_set():
                return None
            await drain.empty()
            logger.info("spool_emptied", spool=str(directory), records=before.records - drain.refused - drain.waiting)
            if drain.waiting:
                return f"{drain.waiting} of its records wait for partitions that take none"
            return f"Kafka refuses {drain.refused} of its records" if drain.refused else None
        except SpoolError as error:
            return str(error)
        except (KafkaError, OSError) as error:
            logger.warning("drain_failed", spool=str(directory), error=repr(error))
            return None
        finally:
            self._halvings = drain.halvings
            await thread.close()

    async def _show_only(self, directory: Path, problem: str) -> str | None:
        """Show what waits in *directory*, which cannot be opened because of *problem*; nothing may wait there."""
        try:
            status, _ = await asyncio.to_thread(status_of, directory)
        except SpoolError:
            return problem
        self._show(directory, status)
        return problem if status.records else None

    def _show(self, directory: Path, status: SpoolStatus) -> None:
        self._shown.add(directory)
        self._metrics.show_spool(directory, records=status.records, oldest_ms=status.oldest_received_at_ms)


async def _opened(directory: Path) -> Spool:
    """Open the spool in *directory*; a cancellation leaves none open, whose lock would be kept."""
    opening = asyncio.ensure_future(asyncio.to_thread(Spool, directory, bytes_max=0))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with suppress(SpoolError):
            (await opening).close()
        raise
