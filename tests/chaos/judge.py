"""
The verdict on a scenario: every callback that got a 200 is in raw, and raw led to what it should have.

What is no longer in raw (retention ran, or the topic was recreated) was kept by the scenario before it went.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.harness.recount import rate_differences, read, recount

if TYPE_CHECKING:
    from pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many records are lost and doubled, and all that is wrong in words: nothing, if the promise is kept."""

    lost: int
    doubled: int
    problems: tuple[str, ...]


@dataclass(slots=True)
class Past:
    """What raw held and holds no more, for each partition in order; and all bodies that were ever seen in it."""

    records: list[list[Any]]
    bodies: set[bytes] = field(default_factory=set)


def judge(settings: Settings, taken: list[bytes], past: Past) -> Verdict:
    """Compare the topics with a recount of raw; *taken* are the bodies that got a 200."""
    topics = settings.kafka.topics
    raw, accepted, rejected = (read(settings, topic) for topic in (topics.raw, topics.accepted, topics.rejected))
    bodies = past.bodies | {record.value for records in raw for record in records}
    missing = len(set(taken) - bodies)
    problems = [f"raw: {missing} callbacks are missing that got a 200"] if missing else []
    lost, doubled = missing, 0
    events: list[tuple[bytes, bytes, int]] = []
    for partition, records in enumerate(raw):
        expected = recount(settings, partition, [*past.records[partition], *records])
        events += expected.accepted
        has = [(record.key, record.value, record.timestamp) for record in accepted[partition]]
        reasons = [(record.key, dict(record.headers)["reason"].decode()) for record in rejected[partition]]
        for topic, wanted, found in (
            (topics.accepted, Counter[Any](expected.accepted), Counter[Any](has)),
            (topics.rejected, Counter[Any](expected.rejected), Counter[Any](reasons)),
        ):
            if wanted != found:
                lost += (wanted - found).total()
                doubled += (found - wanted).total()
                problems.append(
                    f"{topic}[{partition}]: {(wanted - found).total()} missing, {(found - wanted).total()} too many, "
                    f"of {wanted.total()}; such as {json.dumps(str([*(wanted - found), *(found - wanted)][:2]))}"
                )
    return Verdict(lost, doubled, (*problems, *rate_differences(settings, events)))
