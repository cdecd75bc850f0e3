"""The bridge as a running service: publisher, HTTP server and monitoring port, wired together and stopped in order."""

from __future__ import annotations

import asyncio
import gc
import math
import resource
import sys
import time
from collections.abc import Callable
from functools import partial

import structlog
from prometheus_client import CollectorRegistry

from pipeline.bridge.http import BridgeApp
from pipeline.bridge.patience import Patience
from pipeline.bridge.protocol import BoundedProtocol
from pipeline.bridge.publisher import Publisher
from pipeline.metrics import BridgeAnswer, BridgeMetrics
from pipeline.monitor import listen, monitoring, running
from pipeline.settings import BridgeSettings, Settings, SettingsError

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# VOD retries after a second; a proxy in front of us keeps connections for a minute and more.
KEEP_ALIVE_SECONDS = 75
# Requests in flight are no garbage: at the default of 700 the cyclic collector took 14 us of each.
GC_THRESHOLD = 20_000
# Of the process's limit of open files: a crowd of clients must not keep Kafka from being reached again.
DESCRIPTORS_RESERVED = 64
STOP_MARGIN_SECONDS = 1  # For the answer itself, after the last acknowledgement or its deadline.


async def serve(settings: Settings, *, stop: asyncio.Event, registry: CollectorRegistry) -> None:
    """
    Run the bridge until *stop* is set; Kafka need not be reachable, only then the bridge is not ready and answers 503.

    On stop: not ready any more, then no new connections, what has begun is answered, and the publisher closes.

    Args:
        settings: All settings; this uses kafka and bridge.
        stop: Set by whoever handles signals.
        registry: Gets the bridge's metrics.

    Raises:
        SettingsError: no callbacks are configured.
        ListenError: a port is taken.
    """
    bridge = settings.bridge
    if not bridge.callbacks:
        raise SettingsError(
            "bridge.callbacks: none configured, so nothing could be received; add one with its url and auth_keys"
        )
    _warn_of_unsigned(bridge)
    metrics = BridgeMetrics(registry)
    publisher = Publisher(
        settings.kafka,
        settings.kafka.topics.raw,
        metrics,
        ack_timeout_seconds=bridge.ack_timeout_seconds,
        in_flight_max=bridge.in_flight_max,
    )

    def problems() -> list[str]:
        return ["stopping"] if stop.is_set() else publisher.problems()

    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    patience = Patience(
        bridge.body_timeout_seconds, on_silent=metrics.requests.labels(BridgeAnswer.HEAD_TIMEOUT.value).inc
    )
    app = BridgeApp(bridge, publisher, metrics, clock=time.time)
    with listen(bridge.host, bridge.port, setting="bridge.port") as bound:
        async with monitoring(
            registry, problems, host=bridge.metrics_host, port=bridge.metrics_port, setting="bridge.metrics_port"
        ):
            await publisher.start()
            try:
                async with running(
                    app,
                    bound,
                    stop_seconds_max=math.ceil(bridge.ack_timeout_seconds) + STOP_MARGIN_SECONDS,
                    keep_alive_seconds=KEEP_ALIVE_SECONDS,
                    protocol=_protocol(metrics),
                ) as server:
                    logger.info("bridge_listening", host=bridge.host, port=bridge.port)
                    watching = asyncio.create_task(patience.watch(server.server_state.connections), name="patience")
                    await _until(stop, publisher.running, watching)
                    watching.cancel()
            finally:
                await publisher.stop()


def _protocol(metrics: BridgeMetrics) -> Callable[..., BoundedProtocol]:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = descriptors == resource.RLIM_INFINITY
    return partial(
        BoundedProtocol,
        connections_max=sys.maxsize if unlimited else max(1, descriptors - DESCRIPTORS_RESERVED),
        on_refused=lambda outcome: metrics.requests.labels(outcome.value).inc(),
    )


def _warn_of_unsigned(bridge: BridgeSettings) -> None:
    for callback in bridge.callbacks:
        if not callback.auth_keys:
            # The path only: a query may be the secret that unsigned callbacks rely on.
            logger.warning("callback_unsigned", path=callback.path.partition("?")[0])


async def _until(stop: asyncio.Event, *running: asyncio.Task[None]) -> None:
    """Wait for *stop*; raise what ended one of *running*, should that come first: it is a bug."""
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
    for task in done:
        task.result()
