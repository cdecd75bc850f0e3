"""A bridge as production runs it: a process of its own, and a client that remembers what got a 200."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httptools

from pipeline.core.signature import sign
from tests.harness.ports import free_port
from tests.harness.process import ServiceProcess

if TYPE_CHECKING:
    from pipeline.service.settings import Settings

URL = "https://vod.example.com/callback"
KEY = "Test1Key"
START_SECONDS = 90  # Takes 1 s; a machine that is busy with other tests is slow.


class BridgeProcess(ServiceProcess):
    """One `vod-pipeline bridge`; its log and its spool are in *directory*."""

    def __init__(self, settings: Settings, directory: Path, *, workers: int = 1, **bridge: object) -> None:
        self.port = free_port()
        self.metrics_port = free_port()
        self.spool = directory / "spool"
        values = {
            "SPOOL_DIRECTORY": self.spool,
            "PORT": self.port,
            "METRICS_PORT": self.metrics_port,
            "CALLBACKS": json.dumps([{"url": URL, "auth_keys": [KEY]}]),
            **{name.upper(): value for name, value in bridge.items()},
        }
        environ = {f"VOD_PIPELINE_BRIDGE__{name}": str(value) for name, value in values.items()}
        arguments = ("bridge", "--workers", str(workers))
        super().__init__(*arguments, settings=settings, log=directory / "bridge.log", environ=environ)

    async def start(self) -> None:
        """Start it and wait until it listens."""
        process = self.launch()
        async with asyncio.timeout(START_SECONDS):
            while process.poll() is None:
                with contextlib.suppress(ConnectionError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.01)  # Paces the polling; the open port is what ends it.
        raise AssertionError(self.log.read_text())

    def hang_up(self) -> None:
        """Have it read its callbacks again."""
        self.signal(signal.SIGHUP)

    async def status(self, path: str) -> int:
        """Return the status of a page of its monitoring port; 0 if that does not answer."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.metrics_port)
        except ConnectionError:
            return 0
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return int(answer.split()[1])

    async def metric(self, name: str) -> float:
        """Return the value of a metric: its name, with its labels if it has some."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.metrics_port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} "))


@dataclass
class Sent:
    """What a client sent: bodies that got a 200, what else was answered, and how long the slowest answer took."""

    taken: list[bytes] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    seconds_max: float = 0.0


class Client(asyncio.Protocol):
    """One connection that sends callbacks one after the other."""

    def __init__(self, sent: Sent, key: str) -> None:
        self._sent = sent
        self._key = key
        self._parser = httptools.HttpResponseParser(self)
        self._answered: asyncio.Future[int] | None = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(self._parser.get_status_code())

    def connection_lost(self, error: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionResetError())

    async def post(self, transport: asyncio.WriteTransport, body: bytes) -> int:
        """Send one callback; raises ConnectionError if the bridge is gone."""
        if transport.is_closing():
            raise ConnectionResetError
        self._answered = asyncio.get_running_loop().create_future()
        timestamp = str(int(time.time()))
        began = time.monotonic()
        head = (
            f"POST /callback HTTP/1.1\r\nHost: x\r\nX-VOD-TIMESTAMP: {timestamp}\r\n"
            f"X-VOD-SIGNATURE: {sign(URL, timestamp, self._key)}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        transport.write(head.encode() + body)
        status = await self._answered
        self._sent.seconds_max = max(self._sent.seconds_max, time.monotonic() - began)
        if status == 200:
            self._sent.taken.append(body)
        else:
            self._sent.refused.append(status)
        return status


async def send(port: int, bodies: list[bytes], sent: Sent, *, interval_seconds: float = 0.0, key: str = KEY) -> None:
    """Send *bodies* over one connection, one each *interval_seconds*, until all are answered or the bridge is gone."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        transport, client = await loop.create_connection(lambda: Client(sent, key), "127.0.0.1", port)
        due = loop.time()
        try:
            for body in bodies:
                await client.post(transport, body)
                due += interval_seconds
                await asyncio.sleep(due - loop.time())  # The sender's own pace; what is late is not waited for.
        finally:
            transport.close()
