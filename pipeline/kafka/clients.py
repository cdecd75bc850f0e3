"""
What aiokafka's clients do otherwise than this product needs, changed once for every client of the process.

The names used here are aiokafka's own; its version is pinned, and checked when they are changed.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

from pipeline.kafka.internals import check_versions
from pipeline.service.lifecycle import close

_send = AIOKafkaConnection.send


def install() -> None:
    """Change how this process's clients behave. Once, at the start: what is installed on disk may change later."""
    check_versions("aiokafka")
    AIOKafkaConnection.send = _send_or_lose


def is_closed_handle(error: BaseException) -> bool:
    """Whether uvloop refused to write to a connection just lost, by a RuntimeError where aiokafka expects OSError."""
    return isinstance(error, RuntimeError) and "handler is closed" in str(error)


async def close_client(client: AIOKafkaClient, *, seconds: float) -> None:
    """
    Close all connections of *client*, for *seconds* at most.

    Its own close would raise the error of its metadata task, should that have failed, and close no connection.
    """
    metadata, client._sync_task = client._sync_task, None
    if metadata is not None:
        metadata.add_done_callback(lambda task: task.cancelled() or task.exception())
        metadata.cancel()
    await close(client.close(), seconds=seconds)


def _send_or_lose(connection: AIOKafkaConnection, request: Any, expect_response: bool = True) -> Awaitable[Any]:
    """Send *request*; a connection that was reset a moment ago is a lost one, under any event loop."""
    try:
        answer: Awaitable[Any] = _send(connection, request, expect_response)
    except RuntimeError as error:
        if not is_closed_handle(error):
            raise
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"the connection to {connection.host}:{connection.port} was reset") from error
    return answer
