"""
What a partition's offset commit carries: what `accepted` cannot restore of its state, and whose producer commits it.

Pure.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from pipeline.core.deduplication import UNKNOWN, AcceptState, LastAccepted
from pipeline.core.log_clock import LogClock
from pipeline.core.outcome import OutcomeKey
from pipeline.core.windows import TimePolicy


def to_metadata(state: AcceptState) -> str:
    """Write what `accepted` cannot restore, for the offset commit: JSON, under 4 KB as its parts are bounded."""
    clock, totals = state.clock, {str(key): number for key, number in state.totals.items()}
    times = {"stream_time": clock.stream_time, "watermark": state.watermark}
    more = {"stamps": (clock.refused, clock.unconfirmed), "last_accepted": state.last, "begun": state.begun}
    return json.dumps(times | more | {"totals": totals}, separators=(",", ":"))


def from_metadata(partition: int, policy: TimePolicy, metadata: str) -> AcceptState:
    """
    Start a state from an offset commit's metadata; `restore` then fills it from `accepted`.

    Empty or foreign metadata (an operator set the offset by hand) gives a state that has seen no time: the restore
    then takes in all of `accepted`, the next record's timestamp sets the stream time, and all counts are written anew.
    """
    state = AcceptState(partition, policy, is_anew=True)
    try:
        known = json.loads(metadata)
        stream_time, watermark = int(known["stream_time"]), int(known["watermark"])
        # The version before named neither stamps nor a last record.
        clock = LogClock(stream_time, *map(int, known.get("stamps", ())))
        totals = Counter({OutcomeKey.parse(name): int(number) for name, number in known["totals"].items()})
        last, begun = LastAccepted(*map(int, known.get("last_accepted", UNKNOWN))), int(known.get("begun", 0))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return state
    state.clock, state.watermark, state.totals, state.last = clock, watermark, totals, last
    state.is_anew, state.begun = False, begun
    return state


def with_owner(metadata: str, owner: str, **more: int) -> str:
    """Return *metadata* that names *owner*, the transactional id under which the partition is committed ("": none)."""
    return json.dumps({**_fields(metadata), "owner": owner, **more}, separators=(",", ":"))


def owner_of(metadata: str) -> str:
    """Return the transactional id that *metadata* names; "": none."""
    owner = _fields(metadata).get("owner")
    return owner if isinstance(owner, str) else ""


def is_owned(metadata: str) -> bool:
    """Return whether *metadata* says who its owner is, or that there is none."""
    return "owner" in _fields(metadata)


def _fields(metadata: str) -> dict[str, Any]:
    """Return what *metadata* says; nothing of what others wrote."""
    try:
        fields = json.loads(metadata)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
