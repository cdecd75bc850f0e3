"""Letting go of a producer, where it needs no Kafka."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient

from pipeline.kafka.transactions import TransactionalProducer
from tests.waiting import until


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

    await TransactionalProducer(producer).close()

    assert connection.is_closed


async def test_a_producer_that_does_not_stop_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client's metadata task would ask the broker for ever, on a connection of its own."""
    monkeypatch.setattr("pipeline.kafka.transactions.STOP_SECONDS", 0.01)
    connection, producer = abandoned()

    await TransactionalProducer(producer).close()

    assert connection.is_closed
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_it_is_closed_though_who_closes_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebalance cancels twice, at whatever moment."""
    monkeypatch.setattr("pipeline.kafka.transactions.STOP_SECONDS", 0.01)
    connection, producer = abandoned()
    closing = asyncio.create_task(TransactionalProducer(producer).close())
    await asyncio.sleep(0)

    closing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await closing
    await until(lambda: len(asyncio.all_tasks()) == 1)
    assert connection.is_closed


def abandoned() -> tuple[Connection, Any]:
    """A producer that waits for ever for what it cannot send."""
    connection, client = Connection(), AIOKafkaClient()
    client._sync_task = asyncio.create_task(asyncio.Event().wait())
    client._conns = {1: connection}
    producer = SimpleNamespace(
        stop=asyncio.Event().wait, client=client, _sender=None, _txn_manager=SimpleNamespace(transactional_id="a")
    )
    return connection, producer
