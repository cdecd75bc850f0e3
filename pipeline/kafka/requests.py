"""
The requests of a transaction, and their answers: one version of each, which every broker from 2.8 to 4.3 takes.

Source: https://kafka.apache.org/protocol; tests/contract/test_requests.py compares with the broker's own definitions.
The versions are the last ones of transaction protocol 1: they do the same on all these brokers.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from typing import Generic, NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from pipeline.kafka.wire import NO_TAGS, Answer, Request, octets, string, topics, uvarint

ACKS_ALL = -1
NO_GENERATION = -1
NO_LEADER_EPOCH = -1
NO_TRANSACTION = -1

_SETTINGS = struct.Struct(">hi")
_INT32 = struct.Struct(">i")
_ID = struct.Struct(">qh")
_ID_END = struct.Struct(">qh?")
_INIT = struct.Struct(">iqh")
_INITED = struct.Struct(">ihqh")
_MEMBER = struct.Struct(">qhi")
_POSITION = struct.Struct(">qi")
_APPENDED = struct.Struct(">ihqqq")
_CODE = struct.Struct(">ih")
_OPEN = struct.Struct(">qiiqiq")
_COMMITTED = struct.Struct(">iqi")
_INT16 = struct.Struct(">h")
_INT64 = struct.Struct(">q")

T = TypeVar("T")


class Committed(NamedTuple):
    """A consumer group's position in a partition, and the metadata committed with it."""

    offset: int
    metadata: str


class ProducerId(NamedTuple):
    """Who writes: every epoch fences the ones before it."""

    transactional_id: str
    id: int = -1
    epoch: int = -1


class CodedAnswer(NamedTuple, Generic[T]):
    """The error codes of an answer (0 is none), and what it says besides."""

    codes: Collection[int]
    value: T


class Appended(NamedTuple):
    """What became of a partition's batch: an error code, and the broker's time (ms) if its topic has a clock."""

    code: int
    timestamp: int


def produce(
    transactional_id: str | None, batches: Mapping[TopicPartition, bytes], *, timeout_ms: int
) -> Request[dict[TopicPartition, Appended]]:
    """Append one batch to each partition, on all its replicas that are in sync."""
    shares = {tp: octets(batch) for tp, batch in batches.items()}
    parts = [string(transactional_id), _SETTINGS.pack(ACKS_ALL, timeout_ms), *topics(shares), NO_TAGS]
    return Request(0, 9, parts, _read_appended)


def init_producer_id(producer: ProducerId, *, timeout_ms: int) -> Request[CodedAnswer[ProducerId]]:
    """Abort what the transactional id has open, and begin an epoch; *producer* names the one before, if it is known."""
    parts = [string(producer.transactional_id), _INIT.pack(timeout_ms, producer.id, producer.epoch), NO_TAGS]

    def read(answer: Answer) -> CodedAnswer[ProducerId]:
        _, code, producer_id, epoch = answer.take(_INITED)
        return CodedAnswer([code], ProducerId(producer.transactional_id, producer_id, epoch))

    return Request(22, 4, parts, read)


def add_partitions(producer: ProducerId, tps: Collection[TopicPartition]) -> Request[CodedAnswer[None]]:
    """Let *tps* get the transaction's marker."""
    shares = topics(dict.fromkeys(tps, ()), tagged=False)
    return Request(24, 3, [_packed(producer), *shares, NO_TAGS], _read_codes)


def add_group(producer: ProducerId, group: str) -> Request[CodedAnswer[None]]:
    """Let *group*'s offsets get the transaction's marker."""
    return Request(25, 3, [_packed(producer), string(group), NO_TAGS], _read_code)


def commit_offsets(
    producer: ProducerId, group: str, positions: Mapping[TopicPartition, OffsetAndMetadata]
) -> Request[CodedAnswer[None]]:
    """Commit *positions* of *group* together with the transaction; no member of the group is named."""
    shares = {
        tp: (_POSITION.pack(position.offset, NO_LEADER_EPOCH), string(position.metadata))
        for tp, position in positions.items()
    }
    member = [_MEMBER.pack(producer.id, producer.epoch, NO_GENERATION), string(""), string(None)]
    parts = [string(producer.transactional_id), string(group), *member, *topics(shares), NO_TAGS]
    return Request(28, 3, parts, _read_codes)


def end(producer: ProducerId, *, commit: bool) -> Request[CodedAnswer[None]]:
    """Commit or abort; the markers follow."""
    parts = [string(producer.transactional_id), _ID_END.pack(producer.id, producer.epoch, commit), NO_TAGS]
    return Request(26, 3, parts, _read_code)


def describe_producers(tps: Collection[TopicPartition]) -> Request[CodedAnswer[set[tuple[TopicPartition, int]]]]:
    """Ask which producer ids have a transaction open in *tps* (KIP-664)."""
    return Request(61, 0, [*topics(dict.fromkeys(tps, ()), tagged=False), NO_TAGS], _read_open)


def fetch_offset(group: str, tp: TopicPartition, *, is_stable: bool) -> Request[CodedAnswer[Committed | None]]:
    """
    Ask what *group* committed for *tp*.

    Args:
        is_stable: Refuse to answer while a transaction that is open, or has no marker yet, holds another position.
    """
    share = topics({tp: ()}, tagged=False)
    return Request(9, 7, [string(group), *share, b"\1" if is_stable else b"\0", NO_TAGS], _read_committed)


def list_transactions(producer_id: int, states: Collection[str] = ()) -> Request[CodedAnswer[list[str]]]:
    """Ask a broker which transactional ids it coordinates of a producer id, in one of *states* (KIP-664; Kafka 3.0)."""
    parts = [uvarint(len(states) + 1), *map(string, states), uvarint(2), _INT64.pack(producer_id), NO_TAGS]
    return Request(66, 0, parts, _read_transactional_ids)


def _packed(producer: ProducerId) -> bytes:
    return string(producer.transactional_id) + _ID.pack(producer.id, producer.epoch)


def _read_code(answer: Answer) -> CodedAnswer[None]:
    _, code = answer.take(_CODE)  # Behind the throttle time.
    return CodedAnswer([code], None)


def _read_codes(answer: Answer) -> CodedAnswer[None]:
    answer.take(_INT32)  # The throttle time.
    codes = []
    for _ in answer.items():
        answer.string()
        for _ in answer.items():
            codes.append(answer.take(_CODE)[1])  # Behind the partition's number.
            answer.skip_tags()
        answer.skip_tags()
    return CodedAnswer(codes, None)


def _read_appended(answer: Answer) -> dict[TopicPartition, Appended]:
    found = {}
    for _ in answer.items():
        topic = answer.string()
        for _ in answer.items():
            partition, code, _, timestamp, _ = answer.take(_APPENDED)
            for _ in answer.items():
                answer.take(_INT32)
                answer.string()
                answer.skip_tags()
            answer.string()
            answer.skip_tags()
            found[TopicPartition(topic, partition)] = Appended(code, timestamp)
        answer.skip_tags()
    return found


def _read_open(answer: Answer) -> CodedAnswer[set[tuple[TopicPartition, int]]]:
    answer.take(_INT32)  # The throttle time.
    codes, found = [], set()
    for _ in answer.items():
        topic = answer.string()
        for _ in answer.items():
            partition, code = answer.take(_CODE)
            codes.append(code)
            answer.string()
            for _ in answer.items():
                producer_id, _, _, _, _, start = answer.take(_OPEN)
                answer.skip_tags()
                if start != NO_TRANSACTION:
                    found.add((TopicPartition(topic, partition), producer_id))
            answer.skip_tags()
        answer.skip_tags()
    return CodedAnswer(codes, found)


def _read_committed(answer: Answer) -> CodedAnswer[Committed | None]:
    answer.take(_INT32)  # The throttle time.
    codes, found = list[int](), None
    for _ in answer.items():
        answer.string()
        for _ in answer.items():
            _, offset, _ = answer.take(_COMMITTED)
            metadata = answer.string()
            codes += answer.take(_INT16)
            answer.skip_tags()
            found = Committed(offset, metadata or "") if offset >= 0 else None
        answer.skip_tags()
    codes += answer.take(_INT16)
    return CodedAnswer(codes, found)


def _read_transactional_ids(answer: Answer) -> CodedAnswer[list[str]]:
    _, code = answer.take(_CODE)  # Behind the throttle time.
    for _ in answer.items():  # States that were asked for, and do not exist.
        answer.string()
    found = []
    for _ in answer.items():
        found.append(answer.string() or "")
        answer.take(_INT64)
        answer.string()
        answer.skip_tags()
    return CodedAnswer([code], found)
