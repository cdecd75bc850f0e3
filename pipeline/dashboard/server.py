"""The live page as a running service: the source, and the port it is read at."""

from __future__ import annotations

import asyncio

import structlog
from prometheus_client import CollectorRegistry

from pipeline.dashboard import assets
from pipeline.dashboard.snapshot import Snapshot
from pipeline.dashboard.source import SnapshotSource
from pipeline.dashboard.web import allowed_hosts, build_app
from pipeline.service.lifecycle import until
from pipeline.service.settings import Settings
from pipeline.service.web import Connections, listen, running

STOP_SECONDS_MAX = 2
CONNECTIONS_MAX = 128  # A browser opens six for a page; the streams have a bound of their own.
SILENCE_SECONDS_MAX = 10.0  # For a request to arrive, and for a client to read on.

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def serve(settings: Settings, *, stop: asyncio.Event, registry: CollectorRegistry) -> None:
    """
    Serve the live page until *stop* is set; Kafka need not be reachable: the page says so.

    Raises:
        ListenError: the port is taken.
        AssetsError: the installation is damaged.
    """
    del registry  # It has nothing to count: Prometheus keeps the bridge's and the worker's.
    page, snapshot = settings.dashboard, Snapshot()
    source = SnapshotSource(settings, snapshot)

    def problems() -> list[str]:
        if stop.is_set():
            return ["stopping"]
        return [] if source.is_current else ["Kafka has not been read"]

    app = build_app(assets.load(), snapshot, hosts=allowed_hosts(page), problems=problems)
    connections = Connections(connections_max=CONNECTIONS_MAX, silence_seconds_max=SILENCE_SECONDS_MAX)
    with listen(page.host, page.port, setting="dashboard.port") as bound:
        async with running(
            app, bound, stop_seconds_max=STOP_SECONDS_MAX, keep_alive_seconds=5, connections=connections
        ):
            logger.info("dashboard_listening", host=page.host, port=page.port)
            tasks = [
                asyncio.create_task(watch(), name=watch.__name__)
                for watch in (source.run, source.watch_spool, source.tell_status)
            ]
            try:
                await until(stop, *tasks)
            finally:
                snapshot.close()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    logger.info("dashboard_stopped")
