"""The proxy of the fault suite, between a client and a peer that speak Kafka's framing: each fault is what it says."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING

import pytest

from tests.harness.ports import free_port
from tests.harness.proxy import PRODUCE, Fault, Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FETCH = 1


class Peer:
    """Answers each request with its correlation id, as Kafka does, and remembers the requests."""

    def __init__(self) -> None:
        self.port = free_port()
        self.requests: list[bytes] = []

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Peer]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        yield self
        server.close()
        await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                (length,) = struct.unpack(">i", await reader.readexactly(4))
                request = await reader.readexactly(length)
                self.requests.append(request)
                writer.write(struct.pack(">ii", 8, *struct.unpack_from(">i", request, 4)) + b"done")
        writer.close()


class Client:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def ask(self, api: int, correlation: int) -> None:
        self.writer.write(struct.pack(">ihhi", 8, api, 3, correlation))

    async def answer(self) -> int:
        """Return the correlation id of the next answer."""
        _, correlation = struct.unpack(">ii", (await self._reader.readexactly(12))[:8])
        return int(correlation)

    async def is_silent(self) -> bool:
        """Whether the connection is open, and nothing comes."""
        try:
            await asyncio.wait_for(self._reader.readexactly(1), 0.2)
        except TimeoutError:
            return True
        return False


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer().listening() as listening:
        yield listening


@pytest.fixture
async def proxy(peer: Peer) -> AsyncIterator[Proxy]:
    async with Proxy(free_port(), peer.port) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[Client]:
    """A client that has had an answer."""
    connected = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    connected.ask(PRODUCE, 1)
    assert await connected.answer() == 1
    yield connected
    connected.writer.close()


async def test_a_delay_holds_each_frame_back(proxy: Proxy, client: Client) -> None:
    """One for the request, one for the answer."""
    proxy.fault, proxy.delay_seconds = Fault.DELAY, 0.1
    loop = asyncio.get_running_loop()
    began = loop.time()
    client.ask(FETCH, 2)

    assert await client.answer() == 2
    assert round(loop.time() - began, 3) >= 0.2  # uvloop counts whole milliseconds.


async def test_a_cut_ends_the_connection_in_the_middle_of_a_frame(proxy: Proxy, client: Client, peer: Peer) -> None:
    """The peer never sees the request as a whole."""
    proxy.fault = Fault.CUT
    client.ask(FETCH, 2)

    with pytest.raises(asyncio.IncompleteReadError):
        await client.answer()
    assert len(peer.requests) == 1


async def test_a_reset_is_seen_as_one(proxy: Proxy, client: Client) -> None:
    """RST, not FIN: the client gets an error instead of an end."""
    proxy.fault = Fault.RESET
    client.ask(FETCH, 2)

    with pytest.raises(ConnectionResetError):
        await client.answer()


async def test_a_silent_connection_stays_open_and_silent_after_the_fault(
    proxy: Proxy, client: Client, peer: Peer
) -> None:
    """What it swallowed can't be made up for; a new connection works."""
    proxy.fault = Fault.SILENCE
    client.ask(FETCH, 2)
    assert await client.is_silent()
    proxy.fault = Fault.NONE
    client.ask(FETCH, 3)
    assert await client.is_silent()

    other = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    other.ask(FETCH, 4)
    assert await other.answer() == 4
    assert len(peer.requests) == 2
    other.writer.close()


async def test_a_delayed_ack_is_of_a_write_that_arrived(proxy: Proxy, client: Client, peer: Peer) -> None:
    """Kafka has the records at once; other answers come at once, too."""
    proxy.fault, proxy.delay_seconds = Fault.DELAY_ACK, 0.1
    loop = asyncio.get_running_loop()
    began = loop.time()
    client.ask(FETCH, 2)
    client.ask(PRODUCE, 3)

    assert await client.answer() == 2
    assert len(peer.requests) == 3
    assert await client.answer() == 3
    assert round(loop.time() - began, 3) >= 0.1


async def test_a_dropped_ack_is_of_a_write_that_arrived(proxy: Proxy, client: Client, peer: Peer) -> None:
    """Kafka has the records, and the client never hears of it; other answers pass."""
    proxy.fault = Fault.DROP_ACK
    client.ask(PRODUCE, 2)
    client.ask(FETCH, 3)

    assert await client.answer() == 3
    assert len(peer.requests) == 3
