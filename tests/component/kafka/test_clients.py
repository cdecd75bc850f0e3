"""What aiokafka's clients do otherwise than we need, on the loop that the product runs on."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest

from tests.waiting import until


async def test_a_connection_reset_a_moment_ago_is_a_lost_one() -> None:
    """aiokafka learns of a reset some passes of the loop later; until then uvloop refuses what is written."""
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        connection = AIOKafkaConnection(host, port)
        connection._reader, connection._writer = reader, _ = await asyncio.open_connection(host, port)
        connection._read_task = asyncio.create_task(asyncio.Event().wait())  # It has not read on yet.
        peer = await accepted.get()
        peer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.transport.abort()
        await until(lambda: reader.exception() is not None)
        assert connection.connected()

        with pytest.raises(KafkaConnectionError, match="was reset"):
            connection.send(ApiVersionRequest())

        assert not connection.connected()
