"""Runs the Faust application until it is stopped, with its metrics on a port of their own."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from contextlib import suppress
from typing import NoReturn

import faust
import structlog
from prometheus_client import CollectorRegistry

from pipeline.service.certificates import in_use
from pipeline.service.metrics.process import ProcessMetrics, show_process, show_ready
from pipeline.service.metrics.worker import WorkerMetrics
from pipeline.service.monitor import monitoring
from pipeline.service.settings import Settings
from pipeline.service.web import listen
from pipeline.worker.faust_app import build_app
from pipeline.worker.partition import ExitCode

# Chunks are tens of thousands of short-lived objects in no cycles, and the state is bytes and ints: the cyclic
# collector finds nothing there, and costs 8% at 50,000. What is a cycle is a closed client, 50 KB of it: an opened
# partition leaves four or five.
GC_THRESHOLD = 1_000_000
COLLECT_SECONDS = 60.0
STOP_SECONDS = 20.0
CRASH_CHECK_SECONDS = 1.0
REBALANCING_SECONDS_MAX = 120.0  # Some joins may fail before; a restart costs seconds.

logger = structlog.get_logger()


def crash(code: ExitCode, message: str) -> NoReturn:
    """End the process at once, with *message* as the last log line. Crash-only: exactly once survives kill -9."""
    logger.critical("worker_crashed", code=int(code), reason=code.name.lower(), message=message)
    os._exit(code)


async def serve(settings: Settings, *, stop: asyncio.Event, registry: CollectorRegistry) -> None:
    """
    Run a worker until *stop* is set.

    Raises:
        ListenError: metrics_host:metrics_port can't be bound.
    """
    worker = settings.worker
    ProcessMetrics(registry, started_at=time.time(), certificates=in_use(settings.kafka))
    metrics = WorkerMetrics(registry)
    metrics.expect(settings.kafka.partitions)
    built = build_app(settings, metrics, crash)
    app = built.faust
    app.finalize()

    def problems() -> list[str]:
        return ["stopping"] if stop.is_set() else built.problems() if app.started else ["starting"]

    show_ready(registry, problems)
    show_process(registry)
    async with monitoring(
        registry, problems, listen(worker.metrics_host, worker.metrics_port, setting="worker.metrics_port")
    ):
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        collecting = asyncio.create_task(_collect_closed_clients())
        await app.start()
        logger.info("worker_started", group=worker.group, instance_id=worker.instance_id)
        await _stopped_or_crashed(app, stop)
        collecting.cancel()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await app.stop()
        except TimeoutError:
            logger.warning("worker_stop_cut_short", seconds=STOP_SECONDS)
    logger.info("worker_stopped")


async def _collect_closed_clients() -> None:
    """Run the cyclic collector now and then: it takes milliseconds, as none of the keys are its business."""
    while True:
        await asyncio.sleep(COLLECT_SECONDS)
        gc.collect()


async def _stopped_or_crashed(app: faust.App, stop: asyncio.Event) -> None:
    """
    Wait until *stop* is set; end the process where Faust can't go on.

    Faust says nothing of a rebalance that it does not finish: it keeps its partitions, and fetches no more.
    """
    rebalancing_since: float | None = None
    while not stop.is_set():
        if app.crashed:
            crash(ExitCode.KAFKA_UNUSABLE, f"Faust crashed: {app.crash_reason!r}")
        rebalancing_since = (rebalancing_since or time.monotonic()) if app.rebalancing else None
        if rebalancing_since is not None and time.monotonic() - rebalancing_since > REBALANCING_SECONDS_MAX:
            crash(ExitCode.KAFKA_UNUSABLE, f"a rebalance was not over after {REBALANCING_SECONDS_MAX:.0f} s")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), CRASH_CHECK_SECONDS)
