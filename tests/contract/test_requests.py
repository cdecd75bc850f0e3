"""
Our own requests are what a broker reads, and its answers what we read: compared with the broker's own definitions.

They come with Kafka's clients jar (common/message/*.json), from which Kafka generates its own code.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from pipeline.kafka import requests
from pipeline.kafka.requests import Appended, CodedAnswer, ProducerId
from pipeline.kafka.wire import Answer, Request
from tests.conftest import KAFKA_JARS

if TYPE_CHECKING:
    from collections.abc import Iterator

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)
PRODUCER = ProducerId("id-ä", 1 << 40, 7)
FIXED = {"int8": ">b", "int16": ">h", "int32": ">i", "int64": ">q", "bool": ">?"}
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
]


def by_partition(name: str, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"Name": "a", name: list(rows)}]


ERROR: dict[str, Any] = {"BatchIndex": 3, "BatchIndexErrorMessage": "no key"}
APPENDED: dict[str, Any] = {"BaseOffset": 5, "LogAppendTimeMs": 1 << 40, "LogStartOffset": 0}
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
]


@lru_cache
def definition(name: str) -> Any:
    """Return what Kafka says of a message."""
    (jar,) = KAFKA_JARS.glob("kafka-clients-*.jar")
    with zipfile.ZipFile(jar) as file:
        text = file.read(f"common/message/{name}.json").decode()
    return json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))


def is_in(versions: str, version: int) -> bool:
    low, dash, high = versions.partition("-")
    if versions.endswith("+"):
        return version >= int(versions[:-1])
    return versions != "none" and int(low) <= version <= int(high if dash else low)


def fields(described: Any, version: int, structs: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield name, type and fields of what a message of *version* has, but for what stands in tags."""
    for field in described:
        if is_in(field["versions"], version) and "tag" not in field:
            kind = field["type"].removeprefix("[]")
            yield field["name"], field["type"], field.get("fields") or structs.get(kind)


def structs_of(message: Any) -> dict[str, Any]:
    return {common["name"]: common["fields"] for common in message.get("commonStructs", [])}


class Reading:
    """Reads a message as its definition has it."""

    def __init__(self, data: bytes, version: int, structs: dict[str, Any]) -> None:
        self.data, self.version, self.structs = data, version, structs

    def message(self, described: Any) -> dict[str, Any]:
        found = {name: self.value(kind, inner) for name, kind, inner in fields(described, self.version, self.structs)}
        assert self.take(1) == b"\0"  # No tags.
        return found

    def value(self, kind: str, inner: Any) -> Any:
        if kind.startswith("[]"):
            return [self.value(kind[2:], inner) for _ in range(self.length() or 0)]
        if kind in FIXED:
            (value,) = struct.unpack(FIXED[kind], self.take(struct.calcsize(FIXED[kind])))
            return value
        if inner is not None:
            return self.message(inner)
        size = self.length()
        found = None if size is None else self.take(size)
        return found.decode() if kind == "string" and found is not None else found

    def length(self) -> int | None:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value - 1 if value else None

    def take(self, size: int) -> bytes:
        found, self.data = self.data[:size], self.data[size:]
        assert len(found) == size
        return found


def written(value: Any, kind: str, inner: Any, version: int, structs: dict[str, Any]) -> bytes:
    """Write a value as its definition has it."""
    if kind.startswith("[]"):
        return length(len(value)) + b"".join(written(item, kind[2:], inner, version, structs) for item in value)
    if kind in FIXED:
        return struct.pack(FIXED[kind], value)
    if inner is not None:
        return message(value, inner, version, structs)
    return b"\0" if value is None else length(len(value.encode())) + value.encode()


def message(values: dict[str, Any], described: Any, version: int, structs: dict[str, Any]) -> bytes:
    parts = [
        written(values.pop(name), kind, inner, version, structs)
        for name, kind, inner in fields(described, version, structs)
    ]
    assert not values
    return b"".join(parts) + b"\x01\x09\x02hi"  # A tag of a later version.


def length(size: int) -> bytes:
    size += 1
    return bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])


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
