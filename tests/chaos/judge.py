"""
The verdict on a scenario: every callback that got a 200 is in raw, and raw led to what it should have.

The audit judges. What is no longer in raw (retention ran, or the topic was recreated) it cannot know: then a recount
of what the scenario kept does.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline import audit
from pipeline.audit.findings import FindingKind
from pipeline.service.errors import OperatorError
from tests.harness.recount import rate_differences, read, recount

if TYPE_CHECKING:
    from pipeline.service.settings import Settings

FINDINGS_SHOWN = 5


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
    """Judge the topics, in which everything should be decided; *taken* are the bodies that got a 200."""
    raw = read(settings, settings.kafka.topics.raw)
    missing = len(set(taken) - past.bodies - {record.value for records in raw for record in records})
    verdict = _recounted(settings, raw, past) if any(past.records) or past.bodies else _audited(settings)
    lost = (f"raw: {missing} callbacks are missing that got a 200",) if missing else ()
    return Verdict(missing + verdict.lost, verdict.doubled, lost + verdict.problems)


def _audited(settings: Settings) -> Verdict:
    try:
        report = audit.run(settings, rows_timeout_seconds=0)
    except OperatorError as error:
        return Verdict(0, 0, (f"no audit: {error}",))
    problems = [str(finding) for finding in report.findings.kept[:FINDINGS_SHOWN]]
    if report.findings.counts:
        problems.append(f"audit: {dict(report.findings.counts)}")
    if not report.agrees and not problems:
        problems.append(f"audit: {report.balance}")
    if report.balance.in_flight:
        problems.append(f"audit: {report.balance.in_flight} raw records are not decided")
    if report.windows_pending:
        problems.append(f"audit: {report.windows_pending} windows are behind their deletions")
    counts = report.findings.counts
    return Verdict(
        counts[FindingKind.MISSING], counts[FindingKind.DOUBLED] + counts[FindingKind.UNEXPECTED], tuple(problems)
    )


def _recounted(settings: Settings, raw: list[list[Any]], past: Past) -> Verdict:
    topics = settings.kafka.topics
    accepted, rejected = read(settings, topics.accepted), read(settings, topics.rejected)
    problems: list[str] = []
    lost = doubled = 0
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
            missing, extra = wanted - found, found - wanted
            if missing or extra:
                lost += missing.total()
                doubled += extra.total()
                such = json.dumps(str([*missing, *extra][:2]))
                problems.append(
                    f"{topic}[{partition}]: {missing.total()} missing, {extra.total()} too many, such as {such}"
                )
    return Verdict(lost, doubled, (*problems, *rate_differences(settings, events)))
