"""What can become of a raw record: a closed union, and the few reasons a rejection may carry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


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


class OutcomeKey(NamedTuple):
    """What a record is counted under: its outcome, and its Reason if rejected, its event type if ignored, else ""."""

    outcome: Outcome
    reason: str = ""

    def __str__(self) -> str:
        """Write it as the offset's metadata holds it: ``accepted``, ``rejected/conflict``."""
        return f"{self.outcome}/{self.reason}" if self.reason else self.outcome.value

    @classmethod
    def parse(cls, text: str) -> OutcomeKey:
        """Read what `str` wrote; raises ValueError if it names no outcome."""
        outcome, _, reason = text.partition("/")
        return cls(Outcome(outcome), reason)


@dataclass(frozen=True, slots=True)
class Rejected:
    """Bad data is a value: a reason out of a closed set, and a sentence for the operator."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """An event of another type. `event_type` is one VOD documents, or `other`: it becomes a label."""

    event_type: str
