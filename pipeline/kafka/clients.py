"""
What the libraries' Kafka clients do otherwise than this product needs, changed once for every client of the process.

The names used here are the libraries' own; their versions are pinned, and checked when they are changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from socket import socket
from typing import Any, cast

import aiokafka.admin.client
import aiokafka.client
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import BrokerResponseError, KafkaConnectionError, ProducerFenced, kafka_errors
from aiokafka.protocol.metadata import MetadataRequest
from kafka.cluster import ClusterMetadata
from kafka.net.inet import KafkaNetSocket

from pipeline.kafka.internals import check_versions
from pipeline.service.lifecycle import close

PRODUCER_FENCED = 90  # What transaction coordinators say from 2.7 on; aiokafka knows the older code only.

_send = AIOKafkaConnection.send
_connect = KafkaNetSocket.sock_connect


def install() -> None:
    """Change how this process's clients behave. Once, at the start: what is installed on disk may change later."""
    check_versions("aiokafka", "kafka-python")
    AIOKafkaConnection.send = _send_or_lose
    # Kafka's default is to make a topic that is asked for, with its own settings instead of the contract's.
    aiokafka.client.MetadataRequest = aiokafka.admin.client.MetadataRequest = _Lookup
    # Of all its clients: 3.0.12 overlooks the option of the same name that a consumer or producer is given.
    ClusterMetadata.DEFAULT_CONFIG["allow_auto_create_topics"] = False
    KafkaNetSocket.sock_connect = _connect_or_close
    kafka_errors[InvalidRecordError.errno] = InvalidRecordError
    kafka_errors[PRODUCER_FENCED] = ProducerFenced
    kafka_errors[UnstableOffsetError.errno] = UnstableOffsetError


class InvalidRecordError(BrokerResponseError):  # type: ignore[misc]  # aiokafka is untyped.
    """Kafka refuses a record for what is in it; aiokafka does not know this code, and would not tell it."""

    errno = 87
    message = "INVALID_RECORD"
    description = "A record failed the validation on the broker."


class UnstableOffsetError(BrokerResponseError):  # type: ignore[misc]  # aiokafka is untyped.
    """A transaction that is not decided, or has no marker yet, holds another position; aiokafka does not know this."""

    errno = 88
    message = "UNSTABLE_OFFSET_COMMIT"
    description = "There are unstable offsets that need to be cleared."
    retriable = True


def is_closed_handle(error: BaseException) -> bool:
    """Whether uvloop refused to write to a connection just lost, by a RuntimeError where aiokafka expects OSError."""
    return isinstance(error, RuntimeError) and "handler is closed" in str(error)


async def reach(client: AIOKafkaClient, topics: Collection[str]) -> None:
    """
    Connect *client*, and have it follow *topics*.

    Raises:
        KafkaError: no broker can be reached.
    """
    await client.bootstrap()
    if not await client.set_topics(topics):
        raise KafkaConnectionError("the brokers cannot be reached where they say they are")


def leader_of(client: AIOKafkaClient, tp: TopicPartition) -> int | None:
    """Return the broker that leads *tp*, as far as *client* knows; None: it has none."""
    leader: int | None = client.cluster.leader_for_partition(tp)
    return None if leader == -1 else leader  # -1: none is elected.


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


class _Lookup(MetadataRequest):  # type: ignore[misc]  # aiokafka is untyped.
    """Asks for topics (None: for all there are), and makes none."""

    def __init__(self, topics: list[str] | None = None) -> None:
        super().__init__(topics, allow_auto_topic_creation=False)


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


async def _connect_or_close(
    factory: KafkaNetSocket, net: Any, sock: socket, address: Any, timeout_at: float | None = None
) -> socket:
    """Connect *sock*; kafka-python 3.0.12 leaves one that is refused to the garbage collector."""
    try:
        return cast("socket", await _connect(factory, net, sock, address, timeout_at=timeout_at))
    except BaseException:
        sock.close()
        raise
