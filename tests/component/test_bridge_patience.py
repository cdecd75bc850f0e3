"""Clients that do not go on, against the real HTTP server: they are cut off, and nobody else is."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from pipeline.bridge.http import BridgeApp
from pipeline.bridge.patience import Patience
from pipeline.metrics import BridgeMetrics
from pipeline.monitor import listen, running
from pipeline.settings import BridgeSettings, CallbackSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECONDS = 0.3
HEAD = b"POST /vod HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"
CUT_OFF = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Server:
    """The bridge's application behind uvicorn, without Kafka: a record is durable once `ack` is set."""

    def __init__(self) -> None:
        self.ack = asyncio.Event()
        self.ack.set()
        self.silent = 0
        self.registry = CollectorRegistry()
        callback = CallbackSettings.model_validate({"url": "http://x/vod", "auth_keys": []})
        settings = BridgeSettings(callbacks=(callback,))
        self.app = BridgeApp(settings, self, BridgeMetrics(self.registry), clock=lambda: 1.0)
        self.bodies: list[bytes] = []

    def publish(self, key: bytes | None, body: bytes, **_: Any) -> asyncio.Future[bool]:
        self.bodies.append(body)

        async def durable() -> bool:
            await self.ack.wait()
            return False

        return asyncio.ensure_future(durable())

    def count_silent(self) -> None:
        self.silent += 1

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        bound = listen("127.0.0.1", 0, setting="-")
        patience = Patience(SECONDS, on_silent=self.count_silent)
        async with running(self.app, bound, stop_seconds_max=1, keep_alive_seconds=60) as server:
            watching = asyncio.create_task(patience.watch(server.server_state.connections))
            yield bound.getsockname()[1]
            watching.cancel()

    def counted(self) -> Counter[str]:
        samples = [sample for metric in self.registry.collect() for sample in metric.samples]
        requests = [sample for sample in samples if sample.name == "pipeline_bridge_requests_total" and sample.value]
        return Counter({sample.labels["outcome"]: int(sample.value) for sample in requests})


async def exchange(port: int, *sent: bytes) -> bytes:
    """Send pieces and return everything until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in sent:
        writer.write(piece)
        await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


@pytest.mark.parametrize("sent", [[], [b"PO"], [HEAD[:30]], [HEAD[:-2]]])
async def test_a_client_that_does_not_finish_its_head_is_cut_off(sent: list[bytes]) -> None:
    server = Server()

    async with server.serve() as port:
        assert await exchange(port, *sent) == CUT_OFF

    assert server.silent == 1
    assert server.counted() == {}


@pytest.mark.parametrize("sent", [[HEAD], [HEAD, b"bod"]])
async def test_a_stalled_body_is_cut_off(sent: list[bytes]) -> None:
    server = Server()

    async with server.serve() as port:
        assert await exchange(port, *sent) == CUT_OFF

    assert server.bodies == []
    assert server.counted() == {"body_timeout": 1}
    assert server.silent == 0


async def test_bytes_that_trickle_in_do_not_prolong_it() -> None:
    """A slow loris sends just enough to look alive; the request as a whole has its time."""
    server = Server()

    async with server.serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        reading = asyncio.create_task(reader.read())
        for byte in HEAD[:-2] * 1000:
            if reading.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(SECONDS / 10)  # The client's own pace.

        assert await reading == CUT_OFF
        writer.close()


async def test_who_waits_for_kafka_or_has_nothing_to_say_between_requests_is_left_alone() -> None:
    server = Server()
    server.ack.clear()

    async with server.serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"one!" + HEAD)  # The second waits behind the first: nobody reads its body yet.
        assert await exchange(port) == CUT_OFF  # The time has passed, and more, for a client that stays silent.
        server.ack.set()
        writer.write(b"two!")
        assert await reader.readexactly(len(OK) * 2) == OK * 2
        assert await exchange(port) == CUT_OFF
        writer.write(HEAD + b"next")
        assert await reader.readexactly(len(OK)) == OK
        writer.close()

    assert server.bodies == [b"one!", b"two!", b"next"]


async def test_each_request_has_its_own_time() -> None:
    """However often somebody looks while one is arriving."""
    server = Server()

    async with server.serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(4):
            writer.write(HEAD)
            await asyncio.sleep(SECONDS / 2)  # The client's own pace.
            writer.write(b"body")
            assert await reader.readexactly(len(OK)) == OK
        writer.close()

    assert server.bodies == [b"body"] * 4
