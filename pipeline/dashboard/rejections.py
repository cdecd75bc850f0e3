"""
The last rejected records, as the page shows them: why, when and where, without their bodies.

Pure: it knows the records of `rejected` (docs/contract.md), not how they arrive. A body is not shown, as the page has
no password; `detail` names the field, and partition and offset lead those who may read the topic to the body.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from pipeline.core.contract import HEADER_DETAIL, HEADER_REASON, Headers, header

REJECTIONS_MAX = 20
DETAIL_CHARACTERS_MAX = 300  # The topic has up to 1 KiB of it.
MEDIA_ID_CHARACTERS_MAX = 256  # A longer one is none: core.event.


class FetchedRejection(Protocol):
    """A record of `rejected` as Kafka's client hands it out."""

    timestamp: int
    key: bytes
    value: bytes | None
    headers: Headers


class Rejection(NamedTuple):
    """A rejected record; partition and offset are those it had in raw, `at` is when it arrived there, ms."""

    partition: int
    offset: int
    at: int
    reason: str
    detail: str
    media_id: str | None


class Rejections:
    """The newest records of `rejected`, all partitions together."""

    def __init__(self) -> None:
        self._newest: tuple[Rejection, ...] = ()

    def add(self, records: Sequence[FetchedRejection]) -> None:
        """Take records of one partition, in order; of a flood only the last are looked into."""
        last = [read_rejection(record) for record in records[-REJECTIONS_MAX:]]
        known = {(rejection.partition, rejection.offset): rejection for rejection in (*self._newest, *last)}
        newest = sorted(known.values(), key=lambda rejection: (-rejection.at, rejection.partition, -rejection.offset))
        self._newest = tuple(newest[:REJECTIONS_MAX])

    def shown(self) -> tuple[Rejection, ...]:
        """Return them, newest first."""
        return self._newest

    def to_json(self) -> bytes:
        """Write them as a server-sent event needs it: one line of ASCII."""
        return json.dumps([rejection._asdict() for rejection in self._newest], separators=(",", ":")).encode()


def read_rejection(record: FetchedRejection) -> Rejection:
    """Read a record of `rejected`; its key is `partition:offset` of the raw record."""
    partition, _, offset = record.key.partition(b":")
    reason, detail = (_text(header(record.headers, name)) for name in (HEADER_REASON, HEADER_DETAIL))
    if len(detail) > DETAIL_CHARACTERS_MAX:
        detail = f"{detail[:DETAIL_CHARACTERS_MAX]}..."
    return Rejection(int(partition), int(offset), record.timestamp, reason, detail, _media_id(record.value))


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")


def _media_id(body: bytes | None) -> str | None:
    """Return the MediaId of a body that may be anything; None if it has none that can be read."""
    try:
        event: Any = json.loads(body or b"")
    except (ValueError, RecursionError):
        return None
    media_id = event.get("MediaId") if isinstance(event, dict) else None
    return media_id if isinstance(media_id, str) and 0 < len(media_id) <= MEDIA_ID_CHARACTERS_MAX else None
