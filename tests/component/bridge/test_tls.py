"""The callback port with TLS: its handshakes count and end, and no client keeps a connection from ending."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.harness.bridge_server import OK, Server, post
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BODY = b'{"MediaId":"m"}'
SILENT = 20


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def answered(port: int, trusting: ssl.SSLContext) -> bytes:
    """Send a callback; b"" if the server does not take the connection."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
    except OSError:
        return b""
    writer.write(post(BODY))
    answer = await reader.readexactly(len(OK))
    writer.close()
    return answer


@contextlib.asynccontextmanager
async def silent(port: int, number: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Open *number* connections that do not even begin a handshake."""
    streams = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(number)))
    try:
        yield [reader for reader, _ in streams]
    finally:
        for _, writer in streams:
            writer.close()


async def test_a_callback_is_taken(tls: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    server = Server(tls=tls)

    async with server.serve() as port:
        assert await answered(port, trusting) == OK
        await server.until_idle()

    assert server.bodies == [BODY]


async def test_handshakes_count_as_connections_and_end(tls: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    """A crowd of silent clients shuts honest ones out for as long as a handshake may take, and no longer."""
    server = Server(tls=tls, connections_max=SILENT, handshake_seconds=1)

    async with server.serve() as port, silent(port, SILENT) as readers:
        await until(lambda: server.connections == SILENT)
        assert await answered(port, trusting) == b""
        assert server.counted() == {"overloaded": 1}

        async with asyncio.timeout(60):
            assert await asyncio.gather(*(reader.read() for reader in readers)) == [b""] * SILENT
        await until(lambda: not server.connections)
        assert await answered(port, trusting) == OK


@pytest.mark.parametrize("sent", [b"", b"POST /vod HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\xc8\x01" + b"r" * 300])
async def test_a_handshake_that_fails_counts_no_longer(
    sent: bytes, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    """A load balancer's check of the port is one."""
    server = Server(tls=tls)

    async with server.serve() as port:
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda: server.connections == 1)
            writer.write(sent)
            writer.close()
            await until(lambda: not server.connections)

    assert (server.counted(), caplog.records) == ({}, [])


class Stubborn:
    """A client that shakes hands and sends, but never ends TLS in turn, as it reads no more."""

    def __init__(self, trusting: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = trusting.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")

    async def connect(self, port: int, sent: bytes) -> asyncio.StreamReader:
        """Shake hands, send, and return what still can be read below TLS."""
        reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            try:
                self.session.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.writer.write(self._outgoing.read())
                self._incoming.write(await reader.read(65_536))
        self.session.write(sent)
        self.writer.write(self._outgoing.read())
        return reader


@pytest.mark.parametrize(
    ("sent", "counted"),
    [(post(BODY)[:40], {"head_timeout": 1}), (post(BODY)[:-4], {"body_timeout": 1}), (post(BODY), {"published": 1})],
    ids=["in a head", "in a body", "between requests"],
)
async def test_a_client_that_does_not_end_tls_is_refused_once_and_cut_off(
    sent: bytes, counted: dict[str, int], tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    server = Server(tls=tls, request_seconds=0.2, idle_seconds=0.2, close_seconds=0.5)

    async with server.serve() as port:
        client = Stubborn(trusting)
        reader = await client.connect(port, sent)
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                await reader.read()
            await until(lambda: not server.connections)
        client.writer.close()

    assert server.counted() == counted


async def test_a_server_that_stops_waits_neither_for_handshakes_nor_for_the_end_of_tls(
    tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    server = Server(tls=tls, handshake_seconds=600, close_seconds=600)
    client = Stubborn(trusting)

    async with asyncio.timeout(60):  # What either may take is more.
        async with server.serve() as port, silent(port, SILENT):
            await client.connect(port, post(BODY))
            await until(lambda: server.connections == SILENT + 1 and bool(server.bodies))
        await until(lambda: not server.connections)
    client.writer.close()

    assert server.counted() == {"published": 1}
