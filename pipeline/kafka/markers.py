"""
Transaction markers: which Kafka has not written yet, and having it write them.

aiokafka 0.14.0 has no DescribeProducers request: https://kafka.apache.org/protocol#The_Messages_DescribeProducers,
introduced by KIP-664 with Kafka 2.8.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import LeaderNotAvailableError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

NO_TRANSACTION = -1
POLL_SECONDS = 0.01


class _Answer(Response):  # type: ignore[misc]  # aiokafka is untyped.
    API_KEY = 61
    API_VERSION = 0
    _PRODUCER = CompactArray(
        ("producer_id", Int64),
        ("producer_epoch", Int32),
        ("last_sequence", Int32),
        ("last_timestamp", Int64),
        ("coordinator_epoch", Int32),
        ("current_txn_start_offset", Int64),
        ("tags", TaggedFields),
    )
    _PARTITION = CompactArray(
        ("partition_index", Int32),
        ("error_code", Int16),
        ("error_message", CompactString("utf-8")),
        ("active_producers", _PRODUCER),
        ("tags", TaggedFields),
    )
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("topics", CompactArray(("name", CompactString("utf-8")), ("partitions", _PARTITION), ("tags", TaggedFields))),
        ("tags", TaggedFields),
    )


class _Question(RequestStruct):  # type: ignore[misc]
    API_KEY = 61
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")), ("partition_indexes", CompactArray(Int32)), ("tags", TaggedFields)
            ),
        ),
        ("tags", TaggedFields),
    )


class _DescribeProducers(Request[_Question]):  # type: ignore[misc]
    API_KEY = 61

    def __init__(self, tps: Iterable[TopicPartition]) -> None:
        self._tps = tps

    def build(self, request_struct_class: type[_Question]) -> _Question:
        return request_struct_class([(tp.topic, [tp.partition], {}) for tp in self._tps], {})


async def unmarked(producer: AIOKafkaProducer, tps: Iterable[TopicPartition]) -> set[TopicPartition]:
    """
    Return which of *tps* hold records of *producer*'s id that are neither committed nor aborted.

    Raises:
        KafkaError: a leader cannot be asked now; nothing is known.
    """
    by_leader: dict[int, list[TopicPartition]] = defaultdict(list)
    for tp in tps:
        await producer.partitions_for(tp.topic)  # A fresh producer knows no topics.
        leader = producer.client.cluster.leader_for_partition(tp)
        if leader is None or leader < 0:
            producer.client.force_metadata_update()
            raise LeaderNotAvailableError(str(tp))
        by_leader[leader].append(tp)
    answers = await asyncio.gather(
        *(producer.client.send(leader, _DescribeProducers(asked)) for leader, asked in by_leader.items())
    )
    found = set()
    for topic, partitions, _ in (row for answer in answers for row in answer.topics):
        for partition, code, _, active, _ in partitions:
            if code != 0:
                producer.client.force_metadata_update()
                raise for_code(code)(f"{topic}[{partition}]")
            starts = {row[0]: row[5] for row in active}
            if starts.get(producer._txn_manager.producer_id, NO_TRANSACTION) != NO_TRANSACTION:
                found.add(TopicPartition(topic, partition))
    return found


async def mark(producer: AIOKafkaProducer, tps: set[TopicPartition], *, commit: bool) -> None:
    """Run a transaction without records over *tps*: its markers end whatever this producer id has open there."""
    transaction = producer._txn_manager
    await producer.begin_transaction()
    for tp in tps:
        transaction.maybe_add_partition_to_txn(tp)
    while not tps <= transaction.txn_partitions:  # noqa: ASYNC110  # aiokafka 0.14.0 has no event for it.
        await asyncio.sleep(POLL_SECONDS)
    await (producer.commit_transaction() if commit else producer.abort_transaction())
