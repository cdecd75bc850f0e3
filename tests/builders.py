"""What tests of several rooms build: bodies, records, settings, and values of the core written as their texts."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.event import Content
from pipeline.core.outcome import OutcomeKey
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from tests.vectors.delete_media_complete import SUCCESS


def keyed(totals: Mapping[str, int]) -> Counter[OutcomeKey]:
    """Return totals by outcome, given as ``{"accepted": 5, "rejected/conflict": 2}``."""
    return Counter({OutcomeKey.parse(text): number for text, number in totals.items()})


def named(totals: Mapping[OutcomeKey, int]) -> Counter[str]:
    """Return the inverse of `keyed`."""
    return Counter({str(key): number for key, number in totals.items()})


@dataclass
class ClientRecord:
    """
    A record as both Kafka clients hand it out, as far as the product reads it.

    A header's value may be null, whatever its type says.
    """

    key: bytes | None
    value: bytes | None
    timestamp: int
    offset: int = 0
    partition: int = 0
    headers: Any = field(default_factory=list)


def body(media_id: object = "m", at: object = "2024-01-01T12:00:00Z", **fields: object) -> bytes:
    """Return a successful deletion, with *fields* besides or instead; of a wrong type, if a test is about that."""
    event = {"EventType": "DeleteMediaComplete", "EventTime": at, "Status": "success", "MediaType": "video"}
    return json.dumps({**event, "DeleteType": "all", "MediaId": media_id, **fields}).encode()


def with_text(text: bytes) -> bytes:
    """Append members to the documentation's success as they stand: json.dumps cannot write what some tests need."""
    return SUCCESS[:-1] + b"," + text + b"}"


def fields_of(found: Content) -> tuple[object, ...]:
    """All a content consists of: it is compared by its fingerprint in the product, and by everything here."""
    return found.fingerprint, found.code, found.code_bytes, found.status, found.media_type, found.delete_type


def own_settings(bootstrap_servers: str, *, partitions: int = 4, **worker: Any) -> Settings:
    """Return settings with a topic prefix and a group that no other test has; the topics do not exist yet."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    kafka = KafkaSettings(bootstrap_servers=bootstrap_servers, topic_prefix=f"{name}.", partitions=partitions)
    return Settings(kafka=kafka, worker=WorkerSettings(group=name, **worker))
