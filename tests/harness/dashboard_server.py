"""The live page's port without Kafka behind it, and clients that send it what they like."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

from pipeline.dashboard import assets
from pipeline.dashboard.server import CONNECTIONS_MAX
from pipeline.dashboard.snapshot import Snapshot
from pipeline.dashboard.web import allowed_hosts, build_app
from pipeline.service.settings import DashboardSettings
from pipeline.service.web import Connections, listen, running

SECONDS_MAX = 60.0
STREAMS_MAX = 2


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


class Page:
    """A page that is served, its snapshot, and the connections to it."""

    def __init__(self, port: int, snapshot: Snapshot, connections: Connections) -> None:
        self.port = port
        self.snapshot = snapshot
        self._connections = connections
        self.opened: list[Connection] = []

    @property
    def connections(self) -> int:
        """How many the server has."""
        return len(self._connections.open)

    async def open(self, path: str, *, method: str = "GET", host: str = "127.0.0.1", **headers: str) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else [])]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        self.opened.append(Connection(reader, writer))
        return self.opened[-1]

    async def get(self, path: str, **request: str) -> Answer:
        connection = await self.open(path, **request)
        return await connection.answer()

    async def sent(self, data: bytes) -> bytes:
        """Send *data* as it is; return what came back until the server ended the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.opened.append(Connection(reader, writer))
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.read(), SECONDS_MAX)
        except ConnectionResetError:
            return b""


class Connection:
    """A request that was sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> Answer:
        """Read until the server closes."""
        data = await asyncio.wait_for(self.reader.read(), SECONDS_MAX)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return Answer(int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body)

    async def until(self, text: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(text), SECONDS_MAX)

    async def until_state(self, number: int) -> None:
        """Read on until state *number* of the rates has come; it may be larger than what `until` takes."""
        seen = b""
        while b'"%dx' % number not in seen:
            read = await asyncio.wait_for(self.reader.read(1 << 20), SECONDS_MAX)
            assert read
            seen = seen[-20:] + read

    def stop_reading(self) -> None:
        cast("asyncio.ReadTransport", self.writer.transport).pause_reading()


@asynccontextmanager
async def serving(
    *, silence_seconds_max: float = SECONDS_MAX, connections_max: int = CONNECTIONS_MAX, **settings: Any
) -> AsyncIterator[Page]:
    snapshot = Snapshot()
    app = build_app(
        assets.load(),
        snapshot,
        hosts=allowed_hosts(DashboardSettings(**settings)),
        problems=list,
        streams_max=STREAMS_MAX,
    )
    connections = Connections(connections_max=connections_max, silence_seconds_max=silence_seconds_max)
    with listen("127.0.0.1", 0, setting="test") as bound:
        async with running(app, bound, stop_seconds_max=1, keep_alive_seconds=5, connections=connections):
            page = Page(bound.getsockname()[1], snapshot, connections)
            try:
                yield page
            finally:
                snapshot.close()
                for connection in page.opened:
                    connection.writer.close()
                    with contextlib.suppress(ConnectionError):
                        await connection.writer.wait_closed()
