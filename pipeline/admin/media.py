"""
What became of one media, and which media failed: read out of the topics that hold events.

A record of `accepted` without a decision that can be read is not the worker's: it is shown, and counts as no outcome.
The audit reports it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from pipeline.core.contract import (
    HEADER_DECISION,
    HEADER_DETAIL,
    HEADER_ENTRY,
    HEADER_REASON,
    HEADER_SOURCE,
    Decision,
    Headers,
    Topics,
    header,
    rejected_key,
    unpack_decision,
)
from pipeline.core.event import MEDIA_ID_LETTERS_MAX, media_id_of, validate
from pipeline.kafka.murmur2 import partitions_of
from pipeline.kafka.tools.cluster import Bounds, Cluster, connect
from pipeline.kafka.tools.reader import Reader
from pipeline.service.errors import OperatorError
from pipeline.service.settings import KafkaSettings

Progress = Callable[[int, int], None]


class MediaError(OperatorError):
    """The topics hold nothing of what is looked for."""


class Found(NamedTuple):
    """A record of a media. `at_ms` is its timestamp, since the epoch; `says` what the topic's records tell."""

    topic: str
    partition: int
    offset: int
    at_ms: int
    says: dict[str, str | int]


class Failure(NamedTuple):
    """A deletion that VOD reported as failed; `at_ms` is its EventTime, since the epoch."""

    partition: int
    offset: int
    at_ms: int
    code: str
    media_id: str
    media_type: str
    delete_type: str
    message: str


_FIELDS = {"media_id": "MediaId", "media_type": "MediaType", "delete_type": "DeleteType", "message": "ErrorMessage"}


def encoded(media_id: str) -> bytes:
    """
    Return a MediaId as it stands in a key.

    Raises:
        ValueError: no event can have this one; the message says why.
    """
    if not media_id:
        raise ValueError("blank")
    if len(media_id) > MEDIA_ID_LETTERS_MAX:
        raise ValueError(f"{len(media_id):,} characters, and a MediaId has at most {MEDIA_ID_LETTERS_MAX}")
    return media_id.encode()  # UnicodeEncodeError, of half a surrogate pair, is a ValueError.


def find(kafka: KafkaSettings, media_id: bytes, *, since_ms: int | None, progress: Progress) -> Iterator[Found]:
    """
    Yield the records of *media_id* in its partition: raw's, then those of the topics that hold outcomes.

    A record is the media's by its key or by the MediaId of its body; a rejected one also by its raw record.

    Args:
        since_ms: From this timestamp on, ms since the epoch; None: all.
        progress: Called with how many offsets have been read, and of how many.

    Raises:
        ClusterError: Kafka fails, or a topic has another number of partitions.
    """
    partition = partitions_of([media_id], kafka.partitions)[0]
    topics = _tellers(kafka.topics)
    keys = {topic: {media_id} for topic in topics} | {kafka.topics.rejected: set()}
    with connect(kafka) as cluster:
        logs = {topic: {partition: bounds_of(cluster, topic, since_ms)[partition]} for topic in topics}
        for record in read(cluster, logs, since_ms, progress):
            if record.key in keys[record.topic] or media_id_of(record.value or b"") == media_id:
                if record.topic == kafka.topics.raw:
                    keys[kafka.topics.rejected].add(rejected_key(partition, record.offset))
                says = topics[record.topic](record)
                yield Found(record.topic, partition, record.offset, record.timestamp, says)


def failures(kafka: KafkaSettings, *, since_ms: int | None, code: str | None, progress: Progress) -> Iterator[Failure]:
    """
    Yield the failed deletions, a partition after the other, each in the order they were accepted; see `find`.

    Args:
        since_ms: The earliest EventTime, ms since the epoch; None: all.
        code: Only those with this ErrorCode; None: all.
    """
    with connect(kafka) as cluster:
        logs = {kafka.topics.accepted: bounds_of(cluster, kafka.topics.accepted, since_ms)}
        for record in read(cluster, logs, since_ms, progress):
            decision = decision_of(record)
            if decision and decision.code and code in (None, decision.code):
                event = _event(record)
                yield Failure(
                    partition=record.partition,
                    offset=record.offset,
                    at_ms=record.timestamp,
                    code=decision.code,
                    **{name: event.get(field, "") for name, field in _FIELDS.items()},
                )


def bounds_of(cluster: Cluster, topic: str, since_ms: int | None) -> dict[int, Bounds]:
    """
    Return what there is to read of each partition of *topic*, which has as many as the settings say.

    The end is the high watermark: all that led to an offset the worker committed lies before it.
    """
    bounds = cluster.own_bounds(topic)
    if since_ms is None:
        return bounds
    starts = cluster.offsets_at(topic, bounds, since_ms)
    return {number: Bounds(min(starts.get(number, end), end), end) for number, (_, end) in bounds.items()}


def read(
    cluster: Cluster, logs: Mapping[str, Mapping[int, Bounds]], since_ms: int | None, progress: Progress
) -> Iterator[Any]:
    """Yield the committed records of *logs*, by topic and partition, whose timestamp is *since_ms* or later."""
    reader, done = Reader(cluster), 0
    total = sum(end - start for bounds in logs.values() for start, end in bounds.values())
    for topic, bounds in logs.items():
        for partition, (start, end) in bounds.items():
            for records in reader.read(topic, partition, start, end):
                yield from (record for record in records if since_ms is None or record.timestamp >= since_ms)
                progress(done + records[-1].offset + 1 - start, total)
            done += end - start
            progress(done, total)


def decision_of(record: Any) -> Decision | None:
    """Return what the worker wrote beside an accepted record; None if that cannot be read."""
    try:
        return unpack_decision(header(record.headers, HEADER_DECISION) or b"")
    except (struct.error, UnicodeDecodeError):
        return None


def text_of(headers: Headers, name: str) -> str:
    """Return the text of the last header called *name*, "" if there is none."""
    return (header(headers, name) or b"").decode(errors="replace")


def _tellers(topics: Topics) -> dict[str, Callable[[Any], dict[str, str | int]]]:
    """Return the topics that hold events, and what each says of one. A further topic is one more line."""
    return {topics.raw: _raw, topics.accepted: _accepted, topics.rejected: _rejected}


def _raw(record: Any) -> dict[str, str | int]:
    return {"source": text_of(record.headers, HEADER_SOURCE), **_entry(record)}


def _accepted(record: Any) -> dict[str, str | int]:
    decision = decision_of(record)
    if decision is None:
        return {"outcome": "not the worker's: see vod-pipeline audit"}
    says = {**_entry(record), "raw_offset": decision.raw_offset, "outcome": "failed" if decision.code else "done"}
    if decision.code:
        says |= {"error_code": decision.code, "error_message": _event(record).get("ErrorMessage", "")}
    return says


def _rejected(record: Any) -> dict[str, str | int]:
    return {
        **_entry(record),
        "id": (record.key or b"").decode(errors="replace"),  # As `rejected show` takes it.
        "outcome": "rejected",
        "reason": text_of(record.headers, HEADER_REASON),
        "detail": text_of(record.headers, HEADER_DETAIL),
    }


def _entry(record: Any) -> dict[str, str | int]:
    """Return which entry of the settings it came by, in each topic: raw holds it for a shorter time than the others."""
    entry = text_of(record.headers, HEADER_ENTRY)
    return {"entry": entry} if entry else {}


def _event(record: Any) -> dict[str, str]:
    """Return what the body of an accepted record says; nothing if the worker cannot have accepted it."""
    try:
        return dict(validate(record.value or b""))
    except ValidationError:
        return {}
