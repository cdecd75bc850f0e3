"""Letting go of a producer, where it needs no Kafka."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from aiokafka.client import AIOKafkaClient

from pipeline.stream.log import close_producer


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
    producer: Any = SimpleNamespace(
        stop=client.close, client=client, _sender=None, _txn_manager=SimpleNamespace(transactional_id="a")
    )

    await close_producer(producer)

    assert connection.is_closed
