"""
The Kafka contract: topic names, keys, headers and how each is read back; retentions and sizes.

Everything that two processes must agree on, and nothing else. Source: docs/contract.md, "Topics".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

HEADER_SOURCE = "source"
HEADER_RECEIVED_AT = "received-at"
HEADER_ENTRY = "entry"
HEADER_RAW_OFFSET = "raw-offset"
HEADER_REASON = "reason"
HEADER_DETAIL = "detail"
HEADER_DECISION = "decision"

DAY_SECONDS = 86_400
RAW_RETENTION_SECONDS = 7 * DAY_SECONDS  # How long the worker may stand still before records are lost.
OUTPUT_RETENTION_SECONDS = 30 * DAY_SECONDS  # State is restored from outputs: raw's and the dedupe horizon fit into it.
COMPACTION_LAG_SECONDS = 3600  # How long partial-counts keeps what a later record replaces.

# A topic's max.message.bytes judges whole batches; what writes to it fills its batches up to less, or to just that.
RAW_MESSAGE_BYTES_MAX = 128 * 1024  # A body has at most 64 KiB; the rest is room for headers and for small batches.
REJECTED_MESSAGE_BYTES_MAX = 256 * 1024  # A raw record, plus the reason and detail, whatever size raw admitted.
REJECTED_BATCH_BYTES_MAX = 200_000  # More than the largest record of raw, less than the topic admits.
OUTPUT_MESSAGE_BYTES_MAX = 1_048_588  # Of every other topic: Kafka's own default.
OUTPUT_BATCH_BYTES_MAX = 900_000

DETAIL_BYTES_MAX = 1024
TIME_DIGITS_MAX = 13  # Until the year 2286.
NO_TIMESTAMP = -1  # Kafka's own word for none: a broker has nothing to compare with its clock.
SUCCESS = ""  # The ErrorCode under which successes are counted; no failure can carry it (it would be `unknown`).

Headers = Sequence[tuple[str, bytes]]


# One record to be written: key, value, timestamp in ms since the epoch (or NO_TIMESTAMP), headers. A plain tuple, as
# millions are made: a NamedTuple costs more.
Row = tuple[bytes | None, bytes | None, int, list[tuple[str, bytes]]]


# Key, body, source, time of receipt in ms, and the name of the entry it came by (empty: not known): a plain tuple, as
# one is made for every request.
RawRecord = tuple[bytes | None, bytes, bytes, int, bytes]


class Rows(Protocol):
    """Where rows go: a list, or whatever encodes them as they come."""

    def append(self, row: Row, /) -> None:
        """Take one more row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """The five topic names behind one prefix, such as ``vod-deletions.``."""

    raw: str
    accepted: str
    rejected: str
    partial_counts: str
    failure_rates: str

    @classmethod
    def with_prefix(cls, prefix: str) -> Topics:
        return cls(
            raw=f"{prefix}raw",
            accepted=f"{prefix}accepted",
            rejected=f"{prefix}rejected",
            partial_counts=f"{prefix}partial-counts",
            failure_rates=f"{prefix}failure-rates",
        )

    def partitions(self, number: int) -> dict[str, int]:
        """Return how many partitions each has: *number* where a record stays on the one it has in raw, else one."""
        return {
            **dict.fromkeys((self.raw, self.accepted, self.rejected), number),
            **dict.fromkeys((self.partial_counts, self.failure_rates), 1),
        }


class Decision(NamedTuple):
    """What a restore needs of an accepted record beside its key and timestamp: no JSON has to be parsed again."""

    raw_offset: int
    fingerprint: int
    code: str


_DECISION = struct.Struct(">QQ")
pack_decision = _DECISION.pack


def unpack_decision(value: bytes) -> Decision:
    """Read the `decision` header: raw offset and fingerprint as big-endian uint64, then the ErrorCode in UTF-8."""
    raw_offset, fingerprint = _DECISION.unpack_from(value)
    return Decision(raw_offset, fingerprint, value[_DECISION.size :].decode())


def transactional_prefix(raw: str, group: str, stage: str = "") -> str:
    """
    Return what the transactional ids of a *group* that reads *raw* begin with, or those of its *stage*.

    The number of the stage's source partition follows: under that id it is claimed. Those of the workers, which write,
    have "worker" for a stage, and what no other has behind it.
    """
    return f"{raw}-{group}-{stage}-" if stage else f"{raw}-{group}-"


def header(headers: Headers, name: str) -> bytes | None:
    """Return the last header called *name*: ours are appended behind whatever the record came with."""
    for key, value in reversed(headers):
        if key == name:
            return value
    return None


def received_at_of(headers: Headers) -> int | None:
    """Return when the bridge received a record, in ms since the epoch; None if its headers do not say, or nonsense."""
    value = header(headers, HEADER_RECEIVED_AT)
    return int(value) if value and value.isdigit() and len(value) <= TIME_DIGITS_MAX else None


def rejected_key(partition: int, offset: int) -> bytes:
    """Name the raw record that was rejected, so that a rejection has one key however often it is replayed."""
    return b"%d:%d" % (partition, offset)


class CountKey(NamedTuple):
    """Key of a cumulative count in partial-counts; `code` is SUCCESS for deletions that did not fail."""

    partition: int
    window: int
    code: str


class WatermarkKey(NamedTuple):
    """Key of a partition's watermark in partial-counts."""

    partition: int


def pack_count_key(partition: int, window: int, code: str) -> bytes:
    """Write ``<partition>|<window start, ms>|<ErrorCode>``; the code is last as it may hold any character."""
    return f"{partition}|{window}|{code}".encode()


def pack_watermark_key(partition: int) -> bytes:
    """Write ``watermark|<partition>``."""
    return b"watermark|%d" % partition


def unpack_partial_key(key: bytes) -> CountKey | WatermarkKey:
    """Read either key of partial-counts back."""
    first, rest = key.decode().split("|", 1)
    if first == "watermark":
        return WatermarkKey(int(rest))
    window, code = rest.split("|", 1)
    return CountKey(int(first), int(window), code)
