"""
The DescribeProducers request, which aiokafka 0.14.0 has not: which producers have a transaction open in a partition.

Source: https://kafka.apache.org/protocol#The_Messages_DescribeProducers, introduced by KIP-664 with Kafka 2.8.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import LeaderNotAvailableError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

NO_TRANSACTION = -1


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


async def open_transactions(client: AIOKafkaClient, tps: Iterable[TopicPartition]) -> set[tuple[TopicPartition, int]]:
    """
    Return the partition and the producer id of every transaction that is open in one of *tps*.

    Args:
        client: Knows the topics of *tps*.

    Raises:
        KafkaError: a leader cannot be asked now; nothing is known.
    """
    by_leader: dict[int, list[TopicPartition]] = defaultdict(list)
    for tp in tps:
        leader = client.cluster.leader_for_partition(tp)
        if leader is None or leader < 0:
            client.force_metadata_update()
            raise LeaderNotAvailableError(str(tp))
        by_leader[leader].append(tp)
    answers = await asyncio.gather(
        *(client.send(leader, _DescribeProducers(asked)) for leader, asked in by_leader.items())
    )
    found = set()
    for topic, partitions, _ in (row for answer in answers for row in answer.topics):
        for partition, code, _, active, _ in partitions:
            if code != 0:
                client.force_metadata_update()
                raise for_code(code)(f"{topic}[{partition}]")
            tp = TopicPartition(topic, partition)
            found |= {(tp, row[0]) for row in active if row[5] != NO_TRANSACTION}
    return found
