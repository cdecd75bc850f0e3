"""The bridge's application behind the real HTTP server, without Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import uvloop
from prometheus_client import CollectorRegistry
from uvicorn.server import ServerState

from pipeline.bridge.http import BridgeApp
from pipeline.bridge.patience import Patience
from pipeline.bridge.protocol import BoundedProtocol
from pipeline.service.metrics.bridge import BridgeAnswer, BridgeMetrics
from pipeline.service.monitor import listen, running
from pipeline.service.settings import BridgeSettings, CallbackSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

NOW = 1519375990.5
# The documentation's example, as `/your/callback` with the key test123 wants it at NOW.
SIGNED = b"x-vod-timestamp: 1519375990\r\nx-vod-signature: c72b60894140fa98920f1279219b7ed4\r\n"


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until *condition* holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # What is waited for has no event.
            await asyncio.sleep(0)


class Server:
    """One server: `/vod` is unsigned, `/your/callback` is signed; a record is durable once `ack` is set."""

    def __init__(
        self,
        *,
        patience_seconds: float = 10,
        pause_seconds: float = 60,
        send_buffer_bytes: int | None = None,
        connections_max: int = 100_000,
    ) -> None:
        self.ack = asyncio.Event()
        self.ack.set()
        self.registry = CollectorRegistry()
        self.metrics = BridgeMetrics(self.registry)
        self.bodies: list[bytes] = []
        self._state = ServerState()
        self._connections_max = connections_max
        self._send_buffer_bytes = send_buffer_bytes
        self._patience = Patience(patience_seconds, pause_seconds=pause_seconds)
        callbacks = (
            CallbackSettings.model_validate({"url": "http://x/vod", "auth_keys": []}),
            CallbackSettings.model_validate({"url": "https://www.example.com/your/callback", "auth_keys": ["test123"]}),
        )
        # No replay cache: what a request comes to must not depend on the one before.
        self.app = BridgeApp(
            BridgeSettings(callbacks=callbacks, replay_cache_bytes=0), self, self.metrics, clock=lambda: NOW
        )

    def publish(self, key: bytes | None, body: bytes, **_: Any) -> asyncio.Future[bool]:
        """Be the application's publisher."""
        self.bodies.append(body)

        async def durable() -> bool:
            await self.ack.wait()
            return False

        return asyncio.ensure_future(durable())

    def _count(self, outcome: BridgeAnswer) -> None:
        self.metrics.requests.labels(outcome.value).inc()

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        """Serve while the context lasts; yields the port."""
        bound = listen("127.0.0.1", 0, setting="-")
        if self._send_buffer_bytes is not None:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer_bytes)
        protocol = partial(BoundedProtocol, connections_max=self._connections_max, on_refused=self._count)
        async with running(self.app, bound, stop_seconds_max=1, keep_alive_seconds=60, protocol=protocol) as server:
            self._state = server.server_state
            watching = asyncio.create_task(self._patience.watch(server.server_state.connections))
            try:
                yield bound.getsockname()[1]
            finally:
                watching.cancel()

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._state.connections)

    async def settled(self) -> None:
        """Wait until every connection is gone and every request has ended."""
        await until(lambda: not (self._state.connections or self._state.tasks))

    def counted(self) -> Counter[str]:
        """Return the outcomes counted, without the zeros."""
        samples = [sample for metric in self.registry.collect() for sample in metric.samples]
        requests = [
            sample for sample in samples if sample.name == "vod_pipeline_bridge_requests_total" and sample.value
        ]
        return Counter({sample.labels["outcome"]: int(sample.value) for sample in requests})


async def _main(descriptors_max: int, connections_max: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors_max, descriptors_max))
    async with Server(patience_seconds=60, connections_max=connections_max).serve() as port:
        print(port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":  # A server in a process of its own, whose memory and descriptors are only its own.
    uvloop.run(_main(*map(int, sys.argv[1:])))
