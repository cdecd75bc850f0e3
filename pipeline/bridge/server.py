"""The bridge as a running service: publisher, HTTP server and monitoring port, wired together and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from pipeline.bridge.connection import Timeouts
from pipeline.bridge.handler import Handler
from pipeline.bridge.listener import Listener
from pipeline.bridge.mns_poller import polling
from pipeline.bridge.publisher import Publisher
from pipeline.bridge.spool import Spool
from pipeline.bridge.spool_writer import Spooler
from pipeline.bridge.workers import WorkerProcess, finder_of_left_behind
from pipeline.service.certificates import in_use
from pipeline.service.lifecycle import on_hangup, until
from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.metrics.mns import MnsMetrics
from pipeline.service.metrics.process import ProcessMetrics, show_process, show_ready
from pipeline.service.monitor import monitoring
from pipeline.service.settings import BridgeSettings, Settings, SettingsError
from pipeline.service.web import listen

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# VOD retries after a second; a proxy in front of us keeps connections for a minute and more.
KEEP_ALIVE_SECONDS = 75
# Requests in flight are no garbage: at the default of 700 the cyclic collector walks them often, in vain.
GC_THRESHOLD = 20_000
# Of the process's limit of open files: a crowd of clients must not keep Kafka from being reached again.
DESCRIPTORS_RESERVED = 64
STOP_MARGIN_SECONDS = 1  # For the answer itself, after the last acknowledgement or its deadline.


async def serve(
    settings: Settings,
    *,
    stop: asyncio.Event,
    registry: CollectorRegistry,
    reload: Callable[[], Settings],
    hangup: asyncio.Event | None = None,
    worker_process: WorkerProcess | None = None,
) -> None:
    """
    Run the bridge until *stop* is set; Kafka need not be reachable: what it does not take is spooled.

    On stop: not ready any more, no new messages, no new connections, what has begun is answered, the publisher closes.

    Args:
        settings: All settings; this uses kafka and bridge.
        stop: Set by the one who handles signals.
        registry: Gets the bridge's metrics.
        reload: Reads the settings again; its callbacks and keys are used from then on.
        hangup: Set by the one who handles signals: *reload* is called.
        worker_process: Given if this is one of several bridges behind one port.

    Raises:
        SettingsError: neither callbacks nor queues are configured.
        ListenError: a port is taken.
        SpoolError: the spool cannot be used, or is another bridge's.
    """
    find_left_behind = finder_of_left_behind(worker_process, settings.bridge)
    if worker_process is not None:
        settings = worker_process.settings_of(settings)
    bridge = settings.bridge
    _require_source(bridge)
    _warn_of_unsigned(bridge)
    metrics, mns_metrics = BridgeMetrics(registry), MnsMetrics(registry, [entry.queue for entry in bridge.mns])
    publisher = _publisher(settings, metrics, find_left_behind)
    handler = Handler(bridge, publisher, metrics, clock=time.time)

    def problems() -> list[str]:
        return ["stopping"] if stop.is_set() else publisher.problems()

    _show_process(registry, settings, problems)
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    with listen(bridge.host, bridge.port, setting="bridge.port", is_shared=worker_process is not None) as bound:
        listener = _listener(handler, bound, bridge)
        monitored = monitoring(registry, problems, _monitored(bridge, worker_process))
        async with monitored, _receiving(listener, publisher, bridge):
            reloading = on_hangup(hangup or asyncio.Event(), partial(_use_callbacks, handler, reload, metrics))
            async with reloading, polling(bridge.mns, publisher.publish, mns_metrics):
                await until(stop, *publisher.tasks)


def _require_source(bridge: BridgeSettings) -> None:
    if not bridge.callbacks and not bridge.mns:
        raise SettingsError(
            "bridge.callbacks: none configured, so nothing could be received; add one with its url and auth_keys, "
            "or a queue to bridge.mns"
        )


def _publisher(
    settings: Settings, metrics: BridgeMetrics, find_left_behind: Callable[[], list[Path]] | None
) -> Publisher:
    bridge = settings.bridge
    spooler = None
    if bridge.spool_directory is not None:
        metrics.spool_bytes_max.set(bridge.spool_bytes_max)
        spooler = Spooler(Spool(bridge.spool_directory, bytes_max=bridge.spool_bytes_max), metrics)
    return Publisher(
        settings.kafka,
        settings.kafka.topics.raw,
        metrics,
        ack_timeout_seconds=bridge.ack_timeout_seconds,
        in_flight_max=bridge.in_flight_max,
        spooler=spooler,
        find_left_behind=find_left_behind,
    )


def _listener(handler: Handler, bound: socket.socket, bridge: BridgeSettings) -> Listener:
    return Listener(
        handler,
        bound,
        timeouts=Timeouts(request_seconds=bridge.body_timeout_seconds, idle_seconds=KEEP_ALIVE_SECONDS),
        connections_max=_connections_max(),
        tls=bridge.tls_context(),
    )


def _show_process(registry: CollectorRegistry, settings: Settings, problems: Callable[[], list[str]]) -> None:
    ProcessMetrics(registry, started_at=time.time(), certificates=in_use(settings.kafka, settings.bridge))
    show_ready(registry, problems)
    show_process(registry)


def _monitored(bridge: BridgeSettings, worker_process: WorkerProcess | None) -> socket.socket:
    """Return the socket of the monitoring port; that of a worker process is known to its parent alone."""
    if worker_process is not None:
        return worker_process.metrics
    return listen(bridge.metrics_host, bridge.metrics_port, setting="bridge.metrics_port")


@contextlib.asynccontextmanager
async def _receiving(listener: Listener, publisher: Publisher, bridge: BridgeSettings) -> AsyncIterator[None]:
    """Publish callbacks while the context lasts; on leaving, answer what has begun before the publisher stops."""
    await publisher.start()
    try:
        # An acknowledgement's deadline, and then the spool's.
        seconds_max = math.ceil(2 * bridge.ack_timeout_seconds) + STOP_MARGIN_SECONDS
        async with listener.running(stop_seconds_max=seconds_max):
            logger.info("bridge_listening", host=bridge.host, port=bridge.port)
            yield
    finally:
        await publisher.stop()


def _use_callbacks(handler: Handler, reload: Callable[[], Settings], metrics: BridgeMetrics) -> None:
    """Have *handler* use the callbacks that *reload* returns; what is wrong changes nothing."""
    try:
        bridge = reload().bridge
        handler.require_no_less(bridge.callbacks)
    except SettingsError as error:
        logger.error("reload_refused", error=str(error))
        metrics.reload_refused.set(1)
        return
    handler.use(bridge.callbacks)
    metrics.reload_refused.set(0)
    _warn_of_unsigned(bridge)
    logger.info("callbacks_reloaded", callbacks=len(bridge.callbacks))


def _connections_max() -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if descriptors == resource.RLIM_INFINITY else max(1, descriptors - DESCRIPTORS_RESERVED)


def _warn_of_unsigned(bridge: BridgeSettings) -> None:
    for number, callback in enumerate(bridge.callbacks):
        if not callback.auth_keys:
            # By its number: the path may be the secret that unsigned callbacks rely on.
            logger.warning("callback_unsigned", entry=f"bridge.callbacks.{number}")
