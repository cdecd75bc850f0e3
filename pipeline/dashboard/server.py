"""The live page as a running service: the source, and the port it is read at."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.dashboard import assets
from pipeline.dashboard.snapshot import Snapshot
from pipeline.dashboard.source import Source
from pipeline.dashboard.web import DashboardApp, allowed_hosts
from pipeline.lifecycle import until
from pipeline.monitor import listen, running
from pipeline.settings import Settings

CONNECTIONS_MAX = 128  # A browser opens six for a page; the streams have a bound of their own.
SILENCE_SECONDS_MAX = 10.0  # For a request to arrive, and for a client to read on.
REQUEST_BYTES_MAX = 16 * 1024  # One request is all a connection is for, and none has a body.
STOP_SECONDS_MAX = 2

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class PageProtocol(HttpToolsProtocol):
    """
    One connection, cut off when its client is silent or stops reading for SILENCE_SECONDS_MAX, or sends too much.

    uvicorn 0.54 bounds neither. Overrides what that version calls, which is pinned.
    """

    def __init__(self, *args: Any, silence_seconds_max: float = SILENCE_SECONDS_MAX, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._silence_seconds_max = silence_seconds_max
        self._cut: asyncio.TimerHandle | None = None
        self._bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # As uvicorn has it.
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            transport.abort()
        self._expect()

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > REQUEST_BYTES_MAX:
            self.transport.abort()
        else:
            super().data_received(data)

    def on_headers_complete(self) -> None:
        self._expect_no_more()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        self._expect()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._expect_no_more()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_no_more()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._expect_no_more()
        # Closing would wait until the client reads.
        self._cut = self.loop.call_later(self._silence_seconds_max, self.transport.abort)

    def _expect_no_more(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None


async def serve(settings: Settings, *, stop: asyncio.Event, registry: CollectorRegistry) -> None:
    """
    Serve the live page until *stop* is set; Kafka need not be reachable: the page says so.

    Raises:
        ListenError: the port is taken.
        AssetsError: the installation is damaged.
    """
    del registry  # It has nothing to count: Prometheus keeps the bridge's and the worker's.
    page, snapshot = settings.dashboard, Snapshot()
    source = Source(settings, snapshot)

    def problems() -> list[str]:
        if stop.is_set():
            return ["stopping"]
        return [] if source.is_current else ["Kafka has not been read"]

    app = DashboardApp(assets.load(), snapshot, hosts=allowed_hosts(page), problems=problems)
    with listen(page.host, page.port, setting="dashboard.port") as bound:
        async with running(app, bound, stop_seconds_max=STOP_SECONDS_MAX, keep_alive_seconds=5, protocol=PageProtocol):
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
