"""Clients that do not go on, against the real HTTP server: they are cut off, and no other client is."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from tests.harness.bridge_server import OK, Server
from tests.waiting import until

SECONDS = 0.3
HEAD = b"POST /vod HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"
CUT_OFF = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


async def exchange(port: int, *sent: bytes) -> bytes:
    """Send pieces and return everything until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in sent:
        writer.write(piece)
        await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return answer


@pytest.mark.parametrize("sent", [[], [b"PO"], [HEAD[:30]], [HEAD[:-2]]])
async def test_a_client_that_does_not_finish_its_head_is_cut_off(sent: list[bytes]) -> None:
    server = Server(request_seconds=SECONDS)

    async with server.serve() as port:
        assert await exchange(port, *sent) == CUT_OFF

    assert server.counted() == {"head_timeout": 1}


@pytest.mark.parametrize("sent", [[HEAD], [HEAD, b"bod"]])
async def test_a_stalled_body_is_cut_off(sent: list[bytes]) -> None:
    server = Server(request_seconds=SECONDS)

    async with server.serve() as port:
        assert await exchange(port, *sent) == CUT_OFF

    assert server.bodies == []
    assert server.counted() == {"body_timeout": 1}


async def test_bytes_that_trickle_in_do_not_prolong_it() -> None:
    """A slow loris sends just enough to look alive; the request as a whole has its time."""
    server = Server(request_seconds=SECONDS)

    async with server.serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        reading = asyncio.create_task(reader.readexactly(len(CUT_OFF)))
        for byte in HEAD[:-2] * 1000:
            if reading.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(SECONDS / 10)  # The client's own pace.

        assert await reading == CUT_OFF  # Behind it, the connection may end by a reset: a byte was on its way.
        writer.close()


async def test_who_waits_for_kafka_or_has_nothing_to_say_between_requests_is_left_alone() -> None:
    server = Server(request_seconds=SECONDS)
    server.ack.clear()

    async with server.serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"one!" + HEAD)  # The second waits behind the first: no one reads its body yet.
        assert await exchange(port) == CUT_OFF  # The time has passed, and more, for a client that stays silent.
        server.ack.set()
        writer.write(b"two!")
        assert await reader.readexactly(len(OK) * 2) == OK * 2
        assert await exchange(port) == CUT_OFF
        writer.write(HEAD + b"next")
        assert await reader.readexactly(len(OK)) == OK
        writer.close()

    assert server.bodies == [b"one!", b"two!", b"next"]


@pytest.mark.parametrize("between", [b"", b"\r\n"])
async def test_a_connection_that_pauses_for_too_long_is_closed_without_an_answer(between: bytes) -> None:
    """A line break after an answer begins no request."""
    server = Server(request_seconds=1, idle_seconds=SECONDS)

    async with server.serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(HEAD + b"body")
            assert await reader.readexactly(len(OK)) == OK
        writer.write(between)
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        writer.close()

    assert server.counted() == {"published": 2}


async def test_a_pause_may_be_longer_than_a_request_takes() -> None:
    server = Server(request_seconds=SECONDS, idle_seconds=60)

    async with server.serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in (b"one!", b"two!"):
            writer.write(HEAD + body)
            assert await reader.readexactly(len(OK)) == OK
            assert await exchange(port) == CUT_OFF  # The time of a request has passed for a client that sends none.
        writer.close()

    assert server.bodies == [b"one!", b"two!"]


async def test_a_client_that_does_not_read_its_answers_is_cut_off() -> None:
    """Its answers wait in our memory, and the request that waits to be answered for ever."""
    server = Server(request_seconds=SECONDS, send_buffer_bytes=4096)

    async with server.serve() as port:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", port))
            sent = 0
            async with asyncio.timeout(60):
                while server.connections or not sent:
                    if len(server.bodies) == sent:
                        await loop.sock_sendall(client, HEAD + b"body")
                        sent += 1
                    await asyncio.sleep(0)
        await server.until_idle()

    assert server.counted() == {"published": len(server.bodies)}


@pytest.mark.parametrize("following", [b"", HEAD[:30], b"garbage"])
async def test_a_client_gone_before_its_answer_is_nobodys_error(
    following: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    server.ack.clear()

    async with server.serve() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"body" + following)
        await until(lambda: bool(server.bodies))
        writer.close()
        await until(lambda: not server.connections)
        server.ack.set()
        await server.until_idle()

    assert server.counted()["published"] == 1
    assert caplog.records == []


async def test_nor_is_one_whose_end_is_not_seen_as_it_sent_ahead(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is read while two requests wait, so the answers are written to a socket that was reset."""
    server = Server()
    server.ack.clear()

    async with server.serve() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.write((HEAD + b"body") * 2)
        await until(lambda: len(server.bodies) == 2)
        writer.close()
        await writer.wait_closed()
        server.ack.set()
        await server.until_idle()

    assert server.counted()["published"] == 2
    assert caplog.records == []
