"""Letting go of a client, where it needs no Kafka."""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from kafka.errors import KafkaConnectionError
from kafka.net.inet import KafkaNetSocket

from pipeline.kafka.clients import close_client, install
from tests.harness.ports import free_port


class Connection:
    """A connection that can be closed."""

    is_closed = False

    def close(self, reason: Any) -> asyncio.Future[None]:
        self.is_closed = True
        closed = asyncio.get_running_loop().create_future()
        closed.set_result(None)
        return closed


async def refused() -> None:
    raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")


async def test_a_client_whose_own_task_failed_is_closed_all_the_same() -> None:
    """aiokafka raises that task's error whenever its client is closed, and closes no connection then."""
    connection, client = Connection(), AIOKafkaClient()
    client._sync_task = asyncio.create_task(refused())
    await asyncio.wait([client._sync_task])
    client._conns = {1: connection}

    await close_client(client, seconds=2)

    assert connection.is_closed


async def test_a_client_leaves_nothing_running() -> None:
    """Its metadata task would ask the broker for ever, on a connection of its own."""
    connection, client = Connection(), AIOKafkaClient()
    client._sync_task = asyncio.create_task(asyncio.Event().wait())
    client._conns = {1: connection}

    await close_client(client, seconds=2)

    await asyncio.sleep(0)
    assert connection.is_closed
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_socket_that_is_refused_is_closed() -> None:
    """The garbage collector would warn of it in whatever runs then."""

    class Net:
        async def wait_write(self, sock: socket.socket, timeout_at: float | None = None) -> None:
            select.select([], [sock], [], 5)

    install()
    with socket.socket() as refused:
        refused.setblocking(False)
        with pytest.raises(KafkaConnectionError):
            await KafkaNetSocket().sock_connect(Net(), refused, ("127.0.0.1", free_port()))

        assert refused.fileno() == -1
