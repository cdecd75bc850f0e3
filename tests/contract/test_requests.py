"""
Our own requests are what a broker reads, and its answers what we read: compared with the broker's own definitions.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from pipeline.kafka import requests
from pipeline.kafka.requests import Appended, CodedAnswer, Committed, ProducerId
from pipeline.kafka.wire import Answer, Request
from tests.contract.definitions import Reading, definition, is_in, message, structs_of

if TYPE_CHECKING:
    pass

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)
PRODUCER = ProducerId("id-ä", 1 << 40, 7)
LONG = "x" * 300  # A length of two bytes.

PRODUCE = requests.produce(None, {A0: b"batch", A1: LONG.encode(), B0: b""}, timeout_ms=9)
PRODUCE_IN_TRANSACTION = requests.produce("id", {A0: b"batch"}, timeout_ms=9)
INIT = requests.init_producer_id(PRODUCER, timeout_ms=15_000)
ADD_PARTITIONS = requests.add_partitions(PRODUCER, [A0, A1, B0])
ADD_GROUP = requests.add_group(PRODUCER, "group")
COMMIT_OFFSETS = requests.commit_offsets(
    PRODUCER, "group", {A0: OffsetAndMetadata(1 << 40, LONG), B0: OffsetAndMetadata(0, "")}
)
END = requests.end(PRODUCER, commit=True)
DESCRIBE = requests.describe_producers([A0, A1, B0])
FETCH_OFFSET = requests.fetch_offset("group", A1, is_stable=True)
LIST_TRANSACTIONS = requests.list_transactions(1 << 40, ["Empty", "CompleteCommit"])

OURS = {"TransactionalId": "id-ä", "ProducerId": 1 << 40, "ProducerEpoch": 7}
REQUESTS: list[tuple[str, Request[Any], dict[str, Any]]] = [
    (
        "Produce",
        PRODUCE,
        {
            "TransactionalId": None,
            "Acks": -1,
            "TimeoutMs": 9,
            "TopicData": [
                {
                    "Name": "a",
                    "PartitionData": [{"Index": 0, "Records": b"batch"}, {"Index": 1, "Records": LONG.encode()}],
                },
                {"Name": "b", "PartitionData": [{"Index": 0, "Records": b""}]},
            ],
        },
    ),
    (
        "Produce",
        PRODUCE_IN_TRANSACTION,
        {
            "TransactionalId": "id",
            "Acks": -1,
            "TimeoutMs": 9,
            "TopicData": [{"Name": "a", "PartitionData": [{"Index": 0, "Records": b"batch"}]}],
        },
    ),
    ("InitProducerId", INIT, {**OURS, "TransactionTimeoutMs": 15_000}),
    (
        "AddPartitionsToTxn",
        ADD_PARTITIONS,
        {
            **{f"V3AndBelow{name}": value for name, value in OURS.items()},
            "V3AndBelowTopics": [{"Name": "a", "Partitions": [0, 1]}, {"Name": "b", "Partitions": [0]}],
        },
    ),
    ("AddOffsetsToTxn", ADD_GROUP, {**OURS, "GroupId": "group"}),
    (
        "TxnOffsetCommit",
        COMMIT_OFFSETS,
        {
            **OURS,
            "GroupId": "group",
            "GenerationId": -1,
            "MemberId": "",
            "GroupInstanceId": None,
            "Topics": [
                {
                    "Name": topic,
                    "Partitions": [
                        {
                            "PartitionIndex": 0,
                            "CommittedOffset": offset,
                            "CommittedLeaderEpoch": -1,
                            "CommittedMetadata": metadata,
                        }
                    ],
                }
                for topic, offset, metadata in (("a", 1 << 40, LONG), ("b", 0, ""))
            ],
        },
    ),
    ("EndTxn", END, {**OURS, "Committed": True}),
    (
        "DescribeProducers",
        DESCRIBE,
        {"Topics": [{"Name": "a", "PartitionIndexes": [0, 1]}, {"Name": "b", "PartitionIndexes": [0]}]},
    ),
    (
        "OffsetFetch",
        FETCH_OFFSET,
        {"GroupId": "group", "Topics": [{"Name": "a", "PartitionIndexes": [1]}], "RequireStable": True},
    ),
    (
        "ListTransactions",
        LIST_TRANSACTIONS,
        {"StateFilters": ["Empty", "CompleteCommit"], "ProducerIdFilters": [1 << 40]},
    ),
]


def by_partition(name: str, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"Name": "a", name: list(rows)}]


ERROR: dict[str, Any] = {"BatchIndex": 3, "BatchIndexErrorMessage": "no key"}
APPENDED: dict[str, Any] = {"BaseOffset": 5, "LogAppendTimeMs": 1 << 40, "LogStartOffset": 0}
POSITION = {"PartitionIndex": 1, "CommittedOffset": 1 << 40, "CommittedLeaderEpoch": 3, "ErrorCode": 88}
STATE = {"ProducerEpoch": 1, "LastSequence": 2, "LastTimestamp": 3, "CoordinatorEpoch": 4}
ANSWERS: list[tuple[str, Request[Any], dict[str, Any], Any]] = [
    (
        "Produce",
        PRODUCE,
        {
            "Responses": by_partition(
                "PartitionResponses",
                {**APPENDED, "Index": 0, "ErrorCode": 0, "RecordErrors": [], "ErrorMessage": None},
                {**APPENDED, "Index": 1, "ErrorCode": 87, "RecordErrors": [ERROR], "ErrorMessage": LONG},
            ),
            "ThrottleTimeMs": 1,
        },
        {A0: Appended(0, 1 << 40), A1: Appended(87, 1 << 40)},
    ),
    (
        "InitProducerId",
        INIT,
        {"ThrottleTimeMs": 1, "ErrorCode": 2, "ProducerId": 3, "ProducerEpoch": 4},
        CodedAnswer([2], ProducerId("id-ä", 3, 4)),
    ),
    (
        "AddPartitionsToTxn",
        ADD_PARTITIONS,
        {
            "ThrottleTimeMs": 1,
            "ResultsByTopicV3AndBelow": by_partition(
                "ResultsByPartition",
                {"PartitionIndex": 0, "PartitionErrorCode": 0},
                {"PartitionIndex": 1, "PartitionErrorCode": 55},
            ),
        },
        CodedAnswer([0, 55], None),
    ),
    ("AddOffsetsToTxn", ADD_GROUP, {"ThrottleTimeMs": 1, "ErrorCode": 2}, CodedAnswer([2], None)),
    (
        "TxnOffsetCommit",
        COMMIT_OFFSETS,
        {"ThrottleTimeMs": 1, "Topics": by_partition("Partitions", {"PartitionIndex": 0, "ErrorCode": 25})},
        CodedAnswer([25], None),
    ),
    ("EndTxn", END, {"ThrottleTimeMs": 1, "ErrorCode": 51}, CodedAnswer([51], None)),
    (
        "DescribeProducers",
        DESCRIBE,
        {
            "ThrottleTimeMs": 1,
            "Topics": by_partition(
                "Partitions",
                {
                    "PartitionIndex": 1,
                    "ErrorCode": 0,
                    "ErrorMessage": None,
                    "ActiveProducers": [
                        {**STATE, "ProducerId": 8, "CurrentTxnStartOffset": -1},
                        {**STATE, "ProducerId": 9, "CurrentTxnStartOffset": 0},
                    ],
                },
            ),
        },
        CodedAnswer([0], {(A1, 9)}),
    ),
    (
        "OffsetFetch",
        FETCH_OFFSET,
        {"ThrottleTimeMs": 1, "Topics": by_partition("Partitions", {**POSITION, "Metadata": LONG}), "ErrorCode": 16},
        CodedAnswer([88, 16], Committed(1 << 40, LONG)),
    ),
    (
        "ListTransactions",
        LIST_TRANSACTIONS,
        {
            "ThrottleTimeMs": 1,
            "ErrorCode": 14,
            "UnknownStateFilters": ["Full"],
            "TransactionStates": [
                {"TransactionalId": name, "ProducerId": 7, "TransactionState": "Empty"} for name in ("a", LONG)
            ],
        },
        CodedAnswer([14], ["a", LONG]),
    ),
]


@pytest.mark.parametrize(
    ("name", "request_", "values"), REQUESTS, ids=[f"{name}-{len(request_.parts)}" for name, request_, _ in REQUESTS]
)
def test_a_broker_reads_what_we_mean(name: str, request_: Request[Any], values: dict[str, Any]) -> None:
    described = definition(f"{name}Request")
    reading = Reading(b"".join(request_.parts), request_.version, structs_of(described))

    assert reading.message(described["fields"]) == values
    assert reading.data == b""
    assert request_.key == described["apiKey"]
    assert is_in(described["validVersions"], request_.version)
    assert is_in(described["flexibleVersions"], request_.version)


@pytest.mark.parametrize(("name", "request_", "values", "expected"), ANSWERS, ids=[name for name, _, _, _ in ANSWERS])
def test_we_read_what_a_broker_means(name: str, request_: Request[Any], values: dict[str, Any], expected: Any) -> None:
    """With a field that a later version adds."""
    described = definition(f"{name}Response")
    data = message(json.loads(json.dumps(values)), described["fields"], request_.version, structs_of(described))

    assert request_.parse(Answer(data, 0)) == expected
