"""
The rejected records, for an operator: which there are and why, one in full, and back to raw to be decided on again.

To replay is safe at any time, and as often as one likes: what was accepted meanwhile is a duplicate, and what is still
wrong is rejected once more, under the key of its new raw record. By reason, each body is replayed once.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from pipeline.core.contract import (
    HEADER_DETAIL,
    HEADER_ENTRY,
    HEADER_REASON,
    HEADER_SOURCE,
    Headers,
    header,
    received_at_of,
)
from pipeline.core.outcome import Reason
from pipeline.kafka.tools.cluster import connect
from pipeline.kafka.tools.raw_writer import write_raw
from pipeline.kafka.tools.reader import Reader
from pipeline.service.errors import OperatorError
from pipeline.service.settings import KafkaSettings

_ID = re.compile(r"(\d{1,9}):(\d{1,19})")


class RejectedError(OperatorError):
    """There is no such record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRecord:
    """One rejected record. `id` is the raw record's ``partition:offset``; times are ms since the epoch."""

    id: str
    rejected_from_ms: int
    """When raw took it, by the broker's clock."""
    received_at_ms: int | None
    """When the bridge took it; None if another program wrote it."""
    source: str
    entry: str
    """The entry of the settings that it came by; "" if its headers do not say."""
    reason: str
    detail: str
    body: bytes | None
    headers: Headers


def read(kafka: KafkaSettings, *, since_ms: int, reason: Reason | None = None) -> Iterator[RejectedRecord]:
    """
    Yield what was rejected, a partition after the other, each in raw's order; see Reader.read_since.

    Args:
        kafka: Where Kafka is.
        since_ms: The earliest time that raw took them, ms since the epoch.
        reason: Only these; None: all.
    """
    with connect(kafka) as cluster:
        for record in Reader(cluster).read_since(kafka.topics.rejected, since_ms):
            found = _rejected(record)
            if reason is None or found.reason == reason:
                yield found


def newest(records: Iterator[RejectedRecord], count: int) -> list[RejectedRecord]:
    """Return the last *count* that raw took, the newest first."""
    return heapq.nlargest(count, records, key=lambda record: (record.rejected_from_ms, record.id))


def find(kafka: KafkaSettings, ids: list[str]) -> list[RejectedRecord]:
    """
    Return the records with these ids (``partition:offset`` of their raw records), in this order.

    Raises:
        RejectedError: an id is none, or no such record was rejected.
    """
    for wanted in ids:
        match = _ID.fullmatch(wanted)
        if match is None:
            raise RejectedError(f"{wanted}: not an id such as 2:1234, which `vod-pipeline rejected list` shows")
        if int(match[1]) >= kafka.partitions:
            raise RejectedError(f"{wanted}: there is no partition {match[1]}; there are 0 to {kafka.partitions - 1}")
    left = set(ids)
    found = {record.id: record for record in read(kafka, since_ms=0) if record.id in left}
    missing = [wanted for wanted in ids if wanted not in found]
    if missing:
        raise RejectedError(f"{', '.join(missing)}: no such record is in {kafka.topics.rejected}")
    return [found[wanted] for wanted in ids]


def distinct(records: Iterable[RejectedRecord]) -> Iterator[RejectedRecord]:
    """Yield the first record of each body: what was replayed and rejected again is the same event once more."""
    seen: set[bytes] = set()
    for record in records:
        digest = blake2b(record.body or b"", digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            yield record


def replay(kafka: KafkaSettings, records: Iterable[RejectedRecord], progress: Callable[[], None]) -> int:
    """Publish *records* to raw again, with the headers they came with; see `write_raw`."""
    return write_raw(kafka, ((record.body, record.headers) for record in records), progress)


def _rejected(record: Any) -> RejectedRecord:
    return RejectedRecord(
        id=record.key.decode(),
        rejected_from_ms=record.timestamp,
        received_at_ms=received_at_of(record.headers),
        source=(header(record.headers, HEADER_SOURCE) or b"").decode(errors="replace"),
        entry=(header(record.headers, HEADER_ENTRY) or b"").decode(errors="replace"),
        reason=(header(record.headers, HEADER_REASON) or b"").decode(errors="replace"),
        detail=(header(record.headers, HEADER_DETAIL) or b"").decode(errors="replace"),
        body=record.value,
        headers=record.headers,
    )
