"""Runs the Faust application until it is stopped, with its metrics on a port of their own."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from contextlib import suppress
from typing import NoReturn

import faust
import structlog
from prometheus_client import CollectorRegistry

from pipeline.kafka import KafkaError
from pipeline.kafka.permissions import require_permissions
from pipeline.kafka.required_topics import require_topics
from pipeline.kafka.tools.cluster import ClusterError
from pipeline.service.certificates import in_use
from pipeline.service.metrics.process import ProcessMetrics, show_process, show_ready
from pipeline.service.metrics.worker import WorkerMetrics
from pipeline.service.monitor import monitoring
from pipeline.service.settings import Settings
from pipeline.service.web import listen
from pipeline.worker.exits import ExitCode
from pipeline.worker.faust_app import WorkerApp, build_app

# Chunks are tens of thousands of short-lived objects in no cycles, and the state is bytes and ints: the cyclic
# collector finds nothing there, and costs 8% at 50,000. What is a cycle is a closed client, 50 KB of it: an opened
# partition leaves four or five.
GC_THRESHOLD = 1_000_000
COLLECT_SECONDS = 60.0
STOP_SECONDS = 20.0
CRASH_CHECK_SECONDS = 1.0
JOINING_SECONDS_MAX = 120.0  # Some joins may fail before; a restart costs seconds.

logger = structlog.get_logger()


def crash(code: ExitCode, message: str) -> NoReturn:
    """End the process at once, with *message* as the last log line. Crash-only: exactly once survives kill -9."""
    logger.critical("worker_crashed", code=int(code), reason=code.name.lower(), message=message)
    os._exit(code)


async def serve(settings: Settings, *, stop: asyncio.Event, registry: CollectorRegistry) -> None:
    """
    Run a worker until *stop* is set. The process has to end then: it is ended after STOP_SECONDS.

    Raises:
        ListenError: metrics_host:metrics_port can't be bound.
        TopicsError: Kafka has not the topics of the settings.
    """
    worker = settings.worker
    ProcessMetrics(registry, started_at=time.time(), certificates=in_use(settings.kafka))
    metrics = WorkerMetrics(registry)
    metrics.expect(settings.kafka.partitions)
    built = build_app(settings, metrics, crash)
    built.faust.finalize()

    def problems() -> list[str]:
        return ["stopping"] if stop.is_set() else built.problems() if built.faust.started else ["starting"]

    show_ready(registry, problems)
    show_process(registry)
    async with monitoring(
        registry, problems, listen(worker.metrics_host, worker.metrics_port, setting="worker.metrics_port")
    ):
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        collecting = asyncio.create_task(_collect_closed_clients())
        starting = asyncio.create_task(_start(built.faust, settings))
        await _stopped_or_crashed(built, starting, stop)
        _end_after(STOP_SECONDS)
        collecting.cancel()
        starting.cancel()
        await built.faust.stop()
        await built.close()
    logger.info("worker_stopped")


async def _start(app: faust.App, settings: Settings) -> None:
    try:
        await require_topics(settings.kafka)
        with suppress(ClusterError):  # A group without coordinator may get one; what cannot be joined ends us later.
            await require_permissions(settings.kafka, settings.worker.group)
        await app.start()
    except (KafkaError, OSError, TimeoutError) as error:
        crash(ExitCode.KAFKA_UNUSABLE, f"Kafka at {settings.kafka.bootstrap_servers} does not answer: {error!r}")
    logger.info("worker_started", group=settings.worker.group, instance_id=settings.worker.instance_id)


def _end_after(seconds: float) -> None:
    """
    End the process after *seconds*, whatever it waits for then.

    A thread does it: Faust waits for that of its consumer without a limit, and holds up the event loop meanwhile.
    """

    def end() -> None:
        logger.warning("worker_stop_cut_short", seconds=seconds)
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


async def _collect_closed_clients() -> None:
    """Run the cyclic collector now and then: it takes milliseconds, as none of the keys are its business."""
    while True:
        await asyncio.sleep(COLLECT_SECONDS)
        gc.collect()


async def _stopped_or_crashed(built: WorkerApp, starting: asyncio.Task[None], stop: asyncio.Event) -> None:
    """
    Wait until *stop* is set; end the process where Faust can't go on, and raise what ended its start.

    Faust says nothing of a group that it cannot join, nor of a rebalance that it does not finish: it keeps its
    partitions, and fetches no more.
    """
    waiting_since: float | None = None
    while not stop.is_set():
        if starting.done():
            starting.result()
        if built.faust.crashed:
            reason = built.faust.crash_reason
            crash(ExitCode.KAFKA_UNUSABLE, f"Faust crashed: {reason!r}; see `vod-pipeline doctor`")
        waiting_since = None if built.is_member else waiting_since or time.monotonic()
        if waiting_since is not None and time.monotonic() - waiting_since > JOINING_SECONDS_MAX:
            crash(
                ExitCode.KAFKA_UNUSABLE,
                f"no member of the group after {JOINING_SECONDS_MAX:.0f} s: a rebalance was not over, the group has no "
                f"coordinator, or may not be joined; see `vod-pipeline doctor`",
            )
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), CRASH_CHECK_SECONDS)
