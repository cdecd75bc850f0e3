"""
A load of signed VOD callbacks: what is sent, pure and seeded; `load` sends it.

It knows the callback's contract, not what receives it. Source of the delivery rules (exactly 200 is success, 5 s to
answer, three attempts 1 s apart, no redirects): ApsaraVideo VOD, "Overview of event notification".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from random import Random
from typing import TYPE_CHECKING, NamedTuple, assert_never

from pipeline.core.event import EVENT_TYPE
from pipeline.core.windows import format_time
from pipeline.service.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


REPEATABLE_MAX = 1000  # Earlier events kept for repeating: bounds the memory of a long load.
REORDERED_SHARE = 0.5  # Of the duplicates: the others repeat an earlier body byte for byte.

# Codes that VOD documents for DeleteVideo and for any call, and the failure without a code; None of them has a
# documented frequency. The weights are uneven so that the table of rates has something to rank.
_FAILURES: Mapping[tuple[str, str] | None, int] = {
    ("InvalidVideo.NotFound", "The video does not exist."): 50,
    ("DeleteVideoFailed", "Failed to delete the video."): 22,
    ("ServiceUnAvailable", "The service is unavailable."): 10,
    ("InternalError", "The request failed due to an unknown error."): 8,
    ("OperationDenied", "The operation is denied."): 4,
    ("Forbidden", "You are not authorized to do this."): 1,
    None: 5,
}

_Fields = dict[str, str]


class PlanError(OperatorError):
    """The load is impossible."""


class CallbackKind(StrEnum):
    """What a simulated callback is, and so what should become of it."""

    SUCCESS = "success"
    FAILURE = "failure"
    DUPLICATE = "duplicate"
    MALFORMED = "malformed"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    A load. Four kinds have a share of all callbacks, 0 .. 1; the rest are successes.

    Args:
        rate: Callbacks a second.
        seconds: How long.
        duplicates: Share that repeats an earlier event with the same content.
        failures: Share of new events with Status fail.
        malformed: Share that no valid event can be read from.
        conflicts: Share that repeats an earlier event's MediaId and EventTime with other content.
        seed: Equal seeds and starts give equal bodies.

    Raises:
        PlanError: a rate or duration that is not above 0, or shares outside 0 .. 1 or adding to over 1.
    """

    rate: float
    seconds: float
    duplicates: float = 0.0
    failures: float = 0.0
    malformed: float = 0.0
    conflicts: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rate", "seconds"):
            if not 0 < getattr(self, name) < inf:
                raise PlanError(f"{name} is {getattr(self, name)}: it must be above 0")
        for name in ("duplicates", "failures", "malformed", "conflicts"):
            if not 0 <= getattr(self, name) <= 1:
                raise PlanError(f"{name} is {getattr(self, name)}: a share lies between 0 and 1")
        shares = self.duplicates + self.failures + self.malformed + self.conflicts
        if shares > 1 + 1e-9:  # 0.7 + 0.2 + 0.1 is a little over 1 in some orders.
            raise PlanError(f"duplicates, failures, malformed and conflicts add to {shares:g}: together at most 1")

    @property
    def total(self) -> int:
        """How many callbacks the load has."""
        return max(1, round(self.rate * self.seconds))


class Simulated(NamedTuple):
    """One callback; `due_seconds` after the start it is sent."""

    kind: CallbackKind
    body: bytes
    due_seconds: float


def callbacks(plan: Plan, *, start: int) -> Iterator[Simulated]:
    """
    Generate the callbacks of *plan* in the order they are due.

    An event is repeated either by duplicates or by conflicts, never by both: so the same number of callbacks is
    accepted, doubled and refused in whatever order concurrent requests arrive. Where there is no earlier event to
    repeat, a success takes the place.

    Args:
        start: When the load starts, ms since the epoch. EventTime is the second in which the callback is due.
    """
    writer = _Writer(plan)
    for number in range(1, plan.total + 1):
        due_seconds = number / plan.rate
        kind, body = writer.write(format_time((start + int(due_seconds * 1000)) // 1000 * 1000))
        yield Simulated(kind, body, due_seconds)


@dataclass(slots=True)
class _Earlier:
    fields: _Fields
    body: bytes
    conflicts: int = 0


class _Writer:
    """Writes one body after the other, and remembers some events to repeat."""

    def __init__(self, plan: Plan) -> None:
        self._random = Random(plan.seed)  # noqa: S311  # Repeatable on purpose; nothing here is a secret.
        shares = {
            CallbackKind.DUPLICATE: plan.duplicates,
            CallbackKind.FAILURE: plan.failures,
            CallbackKind.MALFORMED: plan.malformed,
            CallbackKind.CONFLICT: plan.conflicts,
        }
        self._kinds = [*shares, CallbackKind.SUCCESS]
        self._weights = [*shares.values(), max(0.0, 1 - sum(shares.values()))]
        self._fresh: list[_Earlier] = []
        self._doubled: list[_Earlier] = []
        self._disputed: list[_Earlier] = []

    def write(self, event_time: str) -> tuple[CallbackKind, bytes]:
        kind = self._random.choices(self._kinds, self._weights)[0]
        match kind:
            case CallbackKind.DUPLICATE | CallbackKind.CONFLICT:
                earlier = self._pick(self._doubled if kind is CallbackKind.DUPLICATE else self._disputed)
                if earlier is None:
                    return CallbackKind.SUCCESS, self._remember(self._event(event_time))
                return kind, self._repeat(earlier) if kind is CallbackKind.DUPLICATE else self._contradict(earlier)
            case CallbackKind.MALFORMED:
                return kind, self._random.choice(_MALFORMATIONS)(self._event(event_time))
            case CallbackKind.FAILURE:
                return kind, self._remember(self._event(event_time) | self._failure())
            case CallbackKind.SUCCESS:
                return kind, self._remember(self._event(event_time))
            case _:
                assert_never(kind)

    def _event(self, event_time: str) -> _Fields:
        return {
            "EventType": EVENT_TYPE,
            "EventTime": event_time,
            "Status": "success",
            "MediaType": "video",
            "DeleteType": "all",
            "MediaId": f"{self._random.getrandbits(128):032x}",
        }

    def _failure(self) -> _Fields:
        failure = self._random.choices([*_FAILURES], [*_FAILURES.values()])[0]
        if failure is None:
            return {"Status": "fail"}
        return {"Status": "fail", "ErrorCode": failure[0], "ErrorMessage": failure[1]}

    def _remember(self, fields: _Fields) -> bytes:
        body = _encode(fields)
        _keep(self._fresh, _Earlier(fields, body))
        return body

    def _pick(self, used: list[_Earlier]) -> _Earlier | None:
        """Return an event that was not repeated yet and put it among *used*; if there is none, one of *used*."""
        if not self._fresh:
            return self._random.choice(used) if used else None
        earlier = self._fresh.pop(self._random.randrange(len(self._fresh)))
        _keep(used, earlier)
        return earlier

    def _repeat(self, earlier: _Earlier) -> bytes:
        if self._random.random() >= REORDERED_SHARE:
            return earlier.body
        fields = [*earlier.fields.items()]
        self._random.shuffle(fields)
        return json.dumps(dict(fields), indent=1).encode()

    def _contradict(self, earlier: _Earlier) -> bytes:
        earlier.conflicts += 1  # In the message, so that conflicts of one event differ from each other, too.
        status = "fail" if earlier.fields["Status"] == "success" else "success"
        return _encode(earlier.fields | {"Status": status, "ErrorMessage": f"Contradicted, {earlier.conflicts}."})


def _keep(events: list[_Earlier], event: _Earlier) -> None:
    if len(events) >= REPEATABLE_MAX:
        del events[0]
    events.append(event)


def _encode(fields: _Fields) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def _without(fields: _Fields, name: str) -> _Fields:
    return {key: value for key, value in fields.items() if key != name}


_MALFORMATIONS: tuple[Callable[[_Fields], bytes], ...] = (
    lambda event: _encode(event)[:-1],  # Not JSON: cut off.
    lambda event: b"[" + _encode(event) + b"]",
    lambda event: _encode(event | {"Status": "deleted"}),
    lambda event: _encode(_without(event, "EventTime")),
    lambda event: _encode(_without(event, "MediaId")),
    lambda event: _encode(event).replace(b"video", b"vid\xe9o"),  # Latin-1, not UTF-8.
)
