"""
An independent recount: what `raw` should have led to, compared with what the other topics hold.

It shares the event schema with the worker and nothing else: its own client, its own dedupe, its own windows.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from pydantic import ValidationError

from pipeline.core.event import EVENT_TYPE, validate
from pipeline.service.settings import Settings
from tests.harness.stream_time import judged_at
from tests.waiting import eventually as eventually  # noqa: PLC0414  # Tests of the worker and of chaos ask here.

FUTURE_MS = 600_000


def read(settings: Settings, topic: str, *, committed: bool = True) -> list[list[Any]]:
    """Return all records of *topic*, a list a partition."""
    consumer = KafkaConsumer(
        **settings.kafka.client_options(),
        isolation_level="read_committed" if committed else "read_uncommitted",
        enable_auto_commit=False,
    )
    try:
        partitions = sorted(consumer.partitions_for_topic(topic))
        tps = [TopicPartition(topic, partition) for partition in partitions]
        consumer.assign(tps)
        consumer.seek_to_beginning(*tps)
        ends = consumer.end_offsets(tps)
        found: dict[int, list[Any]] = {partition: [] for partition in partitions}
        while any(consumer.position(tp) < ends[tp] for tp in tps):
            for tp, records in consumer.poll(timeout_ms=200).items():
                found[tp.partition] += [record for record in records if record.offset < ends[tp]]
        return [found[partition] for partition in partitions]
    finally:
        consumer.close()


def in_raw(settings: Settings) -> set[bytes]:
    """Return the bodies that raw has."""
    return {record.value for records in read(settings, settings.kafka.topics.raw) for record in records}


@dataclass
class Expected:
    """What one raw partition should have led to."""

    accepted: list[tuple[bytes, bytes, int]] = field(default_factory=list)
    rejected: list[tuple[bytes, str]] = field(default_factory=list)
    duplicates: int = 0
    ignored: int = 0


def recount(settings: Settings, partition: int, records: list[Any]) -> Expected:
    """Decide on every raw record again, in the plainest way."""
    expected = Expected()
    seen: dict[tuple[str, str], str] = {}
    for record, now in zip(records, judged_at(record.timestamp for record in records), strict=True):
        verdict = _verdict(settings, record, now, seen)
        if verdict == "accepted":
            event = json.loads(record.value)
            expected.accepted.append((record.key, record.value, _ms(event["EventTime"])))
        elif verdict == "duplicate":
            expected.duplicates += 1
        elif verdict == "ignored":
            expected.ignored += 1
        else:
            expected.rejected.append((b"%d:%d" % (partition, record.offset), verdict))
    return expected


def _verdict(settings: Settings, record: Any, now: int, seen: dict[tuple[str, str], str]) -> str:  # noqa: PLR0911  # As the contract lists them.
    try:
        body = json.loads(record.value)
    except (ValueError, TypeError):
        return "invalid_json"
    if not isinstance(body, dict):
        return "not_an_object"
    if isinstance(body.get("EventType"), str) and body["EventType"] != EVENT_TYPE:
        return "ignored"
    try:
        validate(record.value)
        at = _ms(body["EventTime"])
    except (ValidationError, ValueError):
        return "invalid_field"
    if record.key != body["MediaId"].encode():
        return "invalid_field"
    width, horizon = settings.worker.window_seconds * 1000, settings.worker.dedupe_horizon_seconds * 1000
    if at > now + FUTURE_MS:
        return "event_time_in_future"
    if at < (now - horizon) // width * width:
        return "event_time_expired"
    content = json.dumps(body, sort_keys=True)
    known = seen.setdefault((body["MediaId"], body["EventTime"]), content)
    if known is content:
        return "accepted"
    return "duplicate" if known == content else "conflict"


def _ms(text: str) -> int:
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()) * 1000


def differences(settings: Settings) -> list[str]:
    """Compare every output with the recount; an empty list is the promise kept."""
    topics = settings.kafka.topics
    raw, accepted, rejected = (read(settings, topic) for topic in (topics.raw, topics.accepted, topics.rejected))
    found: list[str] = []
    everything: list[tuple[bytes, bytes, int]] = []
    for partition, records in enumerate(raw):
        expected = recount(settings, partition, records)
        everything += expected.accepted
        has = [(record.key, record.value, record.timestamp) for record in accepted[partition]]
        if has != expected.accepted:
            missing, doubled = Counter(expected.accepted) - Counter(has), Counter(has) - Counter(expected.accepted)
            found.append(f"accepted[{partition}]: {missing.total()} missing, {doubled.total()} too many, of {len(has)}")
        reasons = [(record.key, dict(record.headers)["reason"].decode()) for record in rejected[partition]]
        if reasons != expected.rejected:
            found.append(f"rejected[{partition}]: {len(reasons)} instead of {len(expected.rejected)}, or other reasons")
        received = len(has) + len(reasons) + expected.duplicates + expected.ignored
        if received != len(records):
            found.append(f"raw[{partition}]: {len(records)} received, {received} accounted for")
    return found + rate_differences(settings, everything)


def rate_differences(settings: Settings, accepted: list[tuple[bytes, bytes, int]]) -> list[str]:
    """Compare failure-rates with what *accepted*, as (key, body, event time in ms), adds up to."""
    width = settings.worker.window_seconds * 1000
    totals: Counter[int] = Counter()
    failures: Counter[tuple[int, str | None]] = Counter()
    for _, value, at in accepted:
        window, event = at - at % width, json.loads(value)
        totals[window] += 1
        if event["Status"] == "fail":
            failures[window, event.get("ErrorCode") or "unknown"] += 1
            failures[window, None] += 1
    rows = {row["window_start"] + "|" + (row["error_code"] or ""): row for row in rates(settings)}
    wanted = {(window, None) for window in totals} | set(failures)
    found = []
    for window, code in sorted(wanted, key=str):
        key = f"{datetime.fromtimestamp(window / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}|{code or ''}"
        row = rows.pop(key, None)
        has = row and (row["failures"], row["total"])
        if has != (failures[window, code], totals[window]):
            found.append(f"failure-rates {key}: {has} instead of {(failures[window, code], totals[window])}")
    return found + [f"failure-rates {key}: should not exist" for key in rows]


def rates(settings: Settings) -> list[dict[str, Any]]:
    """Return the newest row of each key of failure-rates."""
    newest = {record.key: json.loads(record.value) for record in read(settings, settings.kafka.topics.failure_rates)[0]}
    return list(newest.values())
