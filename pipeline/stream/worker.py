"""Runs the Faust application until it is told to stop, with its metrics on a port of their own."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import NoReturn

import structlog
from prometheus_client import CollectorRegistry

from pipeline.metrics import WorkerMetrics
from pipeline.monitor import Monitor
from pipeline.settings import Settings
from pipeline.stream.app import build_app
from pipeline.stream.partition import ExitCode

GC_THRESHOLD = 50_000  # Chunks are thousands of short-lived objects in no cycles: collect rarely.
STOP_SECONDS = 20.0

logger = structlog.get_logger()


def die(code: ExitCode, message: str) -> NoReturn:
    """End the process at once, with *message* as the last log line. Crash-only: exactly once survives kill -9."""
    logger.critical("worker_died", code=int(code), reason=code.name.lower(), message=message)
    os._exit(code)


async def serve(settings: Settings, *, stop: asyncio.Event, registry: CollectorRegistry) -> None:
    """
    Run a worker until *stop* is set.

    Raises:
        monitor.PortTaken: metrics_host:metrics_port can't be bound.
    """
    metrics = WorkerMetrics(registry)
    app = build_app(settings, metrics, die)
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    app.finalize()
    await app.start()
    logger.info("worker_started", group=settings.worker.group, instance_id=settings.worker.instance_id)
    await stop.wait()
    async with asyncio.timeout(STOP_SECONDS):
        await app.stop()
    logger.info("worker_stopped")
