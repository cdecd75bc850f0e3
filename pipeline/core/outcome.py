"""What can become of a raw record: a closed union, and the few reasons a rejection may carry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a record is in `rejected`: a header there and a metric label, so the set is closed."""

    INVALID_JSON = "invalid_json"
    NOT_AN_OBJECT = "not_an_object"
    INVALID_FIELD = "invalid_field"
    BODY_TOO_LARGE = "body_too_large"
    EVENT_TIME_IN_FUTURE = "event_time_in_future"
    EVENT_TIME_EXPIRED = "event_time_expired"
    CONFLICT = "conflict"


class Outcome(StrEnum):
    """Where a raw record went. received = the sum of these four, always."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Rejected:
    """Bad data is a value: a reason out of a closed set, and a sentence for the operator."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """An event of another type. `event_type` is one VOD documents, or `other`: it becomes a label."""

    event_type: str
