"""The callback port without Kafka: on a real socket, or without even that."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import socket
import ssl
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import uvloop
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from pipeline.bridge.connection import Connection, Timeouts
from pipeline.bridge.handler import Handler
from pipeline.bridge.listener import Listener
from pipeline.service.entries import CallbackSettings
from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.settings import BridgeSettings
from pipeline.service.web import listen
from tests.harness.publisher import FakePublisher
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


NOW = 1519375990.5
# The documentation's example, as `/your/callback` with the key test123 wants it at NOW.
SIGNED = b"x-vod-timestamp: 1519375990\r\nx-vod-signature: c72b60894140fa98920f1279219b7ed4\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
TURNS = 12  # Of the loop: more than any answer takes.


def head(*lines: bytes, first: bytes = b"POST /your/callback HTTP/1.1", signed: bytes = SIGNED) -> bytes:
    """Return a request's head."""
    return first + b"\r\nhost: www.example.com\r\n" + signed + b"".join(lines) + b"\r\n"


def post(body: bytes, *lines: bytes, signed: bytes = SIGNED) -> bytes:
    """Return a whole callback."""
    return head(*lines, b"content-length: %d\r\n" % len(body), signed=signed) + body


def statuses(received: bytes) -> list[int]:
    """Return the statuses of all answers, in order."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


class Server(FakePublisher):
    """One server, and the publisher behind it: `/vod` is unsigned, `/your/callback` is signed."""

    def __init__(
        self,
        *,
        request_seconds: float = 10,
        idle_seconds: float = 60,
        handshake_seconds: float = 10,
        close_seconds: float = 2,
        send_buffer_bytes: int | None = None,
        connections_max: int = 100_000,
        tls: ssl.SSLContext | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.registry = CollectorRegistry()
        self.timeouts = Timeouts(
            request_seconds=request_seconds,
            idle_seconds=idle_seconds,
            handshake_seconds=handshake_seconds,
            close_seconds=close_seconds,
        )
        self.listener: Listener | None = None
        self._connections_max = connections_max
        self._tls = tls
        self._send_buffer_bytes = send_buffer_bytes
        callbacks = (
            CallbackSettings(name="open", url="http://x/vod"),
            CallbackSettings(
                name="signed", url="https://www.example.com/your/callback", auth_keys=(SecretStr("test123"),)
            ),
            CallbackSettings(name="secret", url="https://www.example.com/secret?token=1"),
        )
        # No request is remembered unless a test is about it: what a request comes to must not depend on the one before.
        bridge = BridgeSettings(**{"callbacks": callbacks, "replay_cache_bytes": 0, **settings})
        self.handler = Handler(bridge, self, BridgeMetrics(self.registry), clock=lambda: NOW)

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        """Serve while the context lasts; yields the port."""
        bound = listen("127.0.0.1", 0, setting="-")
        if self._send_buffer_bytes is not None:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer_bytes)
        self.listener = Listener(
            self.handler, bound, timeouts=self.timeouts, connections_max=self._connections_max, tls=self._tls
        )
        port = bound.getsockname()[1]
        async with self.listener.running(stop_seconds_max=1):
            yield port

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self.listener.connections) if self.listener else 0

    async def until_idle(self) -> None:
        """Wait until every connection is gone and every request has ended."""
        await until(lambda: not (self.connections or self._publishing))

    def counted(self) -> Counter[str]:
        """Return the outcomes counted, without the zeros."""
        return self._samples("vod_pipeline_bridge_requests_total", "outcome")

    def counted_by_entry(self) -> Counter[str]:
        """Return how many requests were counted for each entry, likewise."""
        return self._samples("vod_pipeline_bridge_requests_total", "entry")

    def denied(self) -> Counter[str]:
        """Return the reasons of denials, likewise."""
        return self._samples("vod_pipeline_bridge_denials_total", "reason")

    def denied_by_entry(self) -> Counter[str]:
        """Return how many denials were counted for each entry, likewise."""
        return self._samples("vod_pipeline_bridge_denials_total", "entry")

    def _samples(self, name: str, label: str) -> Counter[str]:
        samples = [sample for metric in self.registry.collect() for sample in metric.samples if sample.name == name]
        found: Counter[str] = Counter()
        for sample in samples:
            if sample.value:
                found[sample.labels[label]] += int(sample.value)
        return found


async def ask(server: Server, *requests: bytes) -> bytes:
    """Send each request on a connection of its own, one after the other, and return all answers."""
    received = b""
    async with server.serve() as port:
        for request in requests:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            received += await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            writer.close()
    return received


class Wire(asyncio.Transport):
    """A transport whose client is the test; like a real one it delivers nothing while reading is paused."""

    def __init__(self, client: tuple[str, int] | None) -> None:
        super().__init__({"peername": client})
        self.written = b""
        self.is_closed = self.is_paused = self.is_aborted = False

    def write(self, data: Any) -> None:
        assert not self.is_closed, "uvloop refuses to write to a closed socket"
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


async def turns() -> None:
    """Let the bridge do all that it can."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


class Wired:
    """One connection to a server that has no socket."""

    def __init__(self, server: Server | None = None, *, client: tuple[str, int] | None = None, **settings: Any) -> None:
        self.server = server or Server(**settings)
        self.wire = Wire(client)
        self.is_over = False
        self.connection = Connection(self.server.handler, self.server.timeouts, self._forget)
        self.connection.connection_made(self.wire)
        self._waiting: list[bytes] = []

    def _forget(self, _: Connection) -> None:
        self.is_over = True

    async def deliver(self, *pieces: bytes) -> None:
        """Bring *pieces* as a read each, behind those that wait, and let the bridge do what it can after each."""
        self._waiting += pieces
        await turns()
        while self._waiting and not (self.wire.is_closed or self.wire.is_paused):
            self.connection.data_received(self._waiting.pop(0))
            await turns()

    @property
    def seen(self) -> tuple[bytes, bool, Counter[str], list[bytes]]:
        """What was written, whether the connection is closed, what was counted, and what was published."""
        return self.wire.written, self.wire.is_closed, self.server.counted(), self.server.bodies


async def _main(descriptors_max: int, connections_max: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors_max, descriptors_max))
    async with Server(request_seconds=60, connections_max=connections_max).serve() as port:
        print(port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":  # A server in a process of its own, whose memory and descriptors are only its own.
    uvloop.run(_main(*map(int, sys.argv[1:])))
