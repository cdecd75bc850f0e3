"""
What should become of one raw record: the contract's rules once more, in the plainest way, and nothing of the worker's.

Only the event's schema and its content's fingerprint are shared (pipeline.core.event): they are the contract itself.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from pipeline.core.event import BODY_BYTES_MAX, EVENT_TYPE, content_of, validate
from pipeline.service.settings import WorkerSettings

FUTURE_MS = 600_000
HOUR_MS = 3_600_000
ACCEPTED, DUPLICATE, IGNORED = "accepted", "duplicate", "ignored"
BEFORE_EVERYTHING = -1
TIMES_REMEMBERED_MAX = 100_000

_EVENT_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


@dataclass(slots=True)
class Expected:
    """
    What should become of a raw record.

    `outcome` is ACCEPTED, DUPLICATE, IGNORED or the reason of a rejection; the rest is set for ACCEPTED alone.
    """

    outcome: str
    at: int = 0
    window: int = 0
    fingerprint: int = 0
    code: str = ""
    code_bytes: bytes = b""


@dataclass(slots=True)
class ReferenceRules:
    """
    What the contract makes of the raw records of one partition, in order.

    `seen` maps the start of a window to its events (key and EventTime) and their fingerprints. It holds what lies
    behind the dedupe horizon E only for as long as one window lasts: this bounds the audit's memory. `doubted` is a
    timestamp over an hour ahead of the stream time, until a record with another timestamp follows.
    """

    width_ms: int
    horizon_ms: int
    stream_time: int = BEFORE_EVERYTHING
    doubted: int | None = None
    highest: int = BEFORE_EVERYTHING
    seen: dict[int, dict[bytes, int]] = field(default_factory=dict)
    _times: dict[str, tuple[int, int, bytes]] = field(default_factory=dict)

    @classmethod
    def of(cls, worker: WorkerSettings) -> ReferenceRules:
        return cls(worker.window_seconds * 1000, worker.dedupe_horizon_seconds * 1000)

    @property
    def expiry(self) -> int:
        """E: events before it are expired, and forgotten."""
        return self._expiry_at(self.stream_time)

    def remember(self, key: bytes, at: int, fingerprint: int) -> None:
        """Take in an event that was accepted before the first record to be judged."""
        if at >= self.expiry:
            self.seen.setdefault(at - at % self.width_ms, {})[key + _suffix(at)] = fingerprint
            self.highest = max(self.highest, at)

    def knows(self, key: bytes | None, at: int) -> bool:
        """Whether an event was accepted already."""
        return (key or b"") + _suffix(at) in self.seen.get(at - at % self.width_ms, ())

    def advance(self, timestamp: int) -> None:
        """Take in a raw record's timestamp, and forget what has expired."""
        if timestamp == self.doubted:
            return
        before, waiting = self.expiry, [] if self.doubted is None else [self.doubted]
        if waiting and self._is_far(timestamp):
            self.stream_time = min(*waiting, timestamp)
        for each in (*waiting, timestamp):
            if not self._is_far(each):
                self.stream_time = max(self.stream_time, each)
        self.doubted = timestamp if self._is_far(timestamp) else None
        if self.expiry > before:
            for window in [window for window in self.seen if window < self.expiry]:
                del self.seen[window]

    def _is_far(self, timestamp: int) -> bool:
        return BEFORE_EVERYTHING != self.stream_time < timestamp - HOUR_MS

    def _expiry_at(self, time: int) -> int:
        return (time - self.horizon_ms) // self.width_ms * self.width_ms

    def decide(self, record: Any) -> Expected:  # noqa: PLR0911  # The rules in the order of the contract, each its answer.
        """Return what should become of *record*, and remember it if that is to be accepted."""
        self.advance(record.timestamp)
        body = record.value
        if body is not None and len(body) > BODY_BYTES_MAX:
            return Expected("body_too_large")
        try:
            event = validate(body or b"")
        except ValidationError as error:
            return Expected(_why_invalid(body, error))
        time = self._times.get(event["EventTime"]) or self._understand(event["EventTime"])
        if event["MediaId"].encode() != record.key or time is None:
            return Expected("invalid_field")
        try:
            content = content_of(event)
        except ValueError:
            return Expected("invalid_json")  # A number that JSON does not have, NaN or Infinity.
        at, window, suffix = time
        arrival = max(self.stream_time, record.timestamp)
        if at > arrival + FUTURE_MS:
            return Expected("event_time_in_future")
        if at < self._expiry_at(arrival):
            return Expected("event_time_expired")
        events, event_id = self.seen.setdefault(window, {}), record.key + suffix
        known = events.get(event_id)
        if known is None:
            events[event_id] = content.fingerprint
            self.highest = max(self.highest, at)
            return Expected(ACCEPTED, at, window, content.fingerprint, content.code, content.code_bytes)
        return Expected(DUPLICATE if known == content.fingerprint else "conflict")

    def _understand(self, text: str) -> tuple[int, int, bytes] | None:
        """Return an EventTime in ms, the start of its window, and its suffix in `seen`; None if it is no such time."""
        if not _EVENT_TIME.fullmatch(text):
            return None
        try:
            at = int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()) * 1000
        except ValueError:
            return None
        if len(self._times) >= TIMES_REMEMBERED_MAX:
            self._times.clear()
        understood = self._times[text] = (at, at - at % self.width_ms, _suffix(at))
        return understood


def _suffix(at: int) -> bytes:
    return b"|%d" % at


def _why_invalid(body: bytes | None, error: ValidationError) -> str:
    """Return the first rule that a body breaks which is not a valid event: the contract's order of reasons."""
    try:
        parsed = from_json(body or b"")
    except ValueError:
        return "invalid_json"
    wrong = error.errors(include_url=False, include_context=False)[0]["input"]
    if isinstance(wrong, float) and not isfinite(wrong):
        return "invalid_json"  # JSON has no such number, though its parsers read it.
    if not isinstance(parsed, dict):
        return "not_an_object"
    event_type = parsed.get("EventType")
    return IGNORED if isinstance(event_type, str) and event_type != EVENT_TYPE else "invalid_field"


def partition_of(key: bytes, partitions: int) -> int:
    """
    Return the partition that Java's clients give *key*.

    Source: org.apache.kafka.common.utils.Utils.murmur2 and BuiltInPartitioner.partitionForKey.
    """
    length = len(key)
    rest = length & 3
    hashed = 0x9747B28C ^ length
    for word in struct.unpack_from(f"<{length >> 2}I", key):
        mixed = word * 0x5BD1E995 & 0xFFFFFFFF
        hashed = (hashed * 0x5BD1E995 ^ (mixed ^ mixed >> 24) * 0x5BD1E995) & 0xFFFFFFFF
    if rest:
        hashed = (hashed ^ int.from_bytes(key[-rest:], "little")) * 0x5BD1E995 & 0xFFFFFFFF
    hashed = (hashed ^ hashed >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return ((hashed ^ hashed >> 15) & 0x7FFFFFFF) % partitions
