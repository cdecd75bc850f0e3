"""One partition from end to end: the memory before its first record, and one pass over its three logs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from pipeline.audit import join
from pipeline.audit.findings import Balance, Finding, FindingKind, Findings
from pipeline.audit.join import OutputLog
from pipeline.audit.reference_rules import ACCEPTED, DUPLICATE, IGNORED, ReferenceRules, partition_of
from pipeline.kafka.tools.cluster import Bounds, CommittedOffset, connect
from pipeline.kafka.tools.reader import Reader
from pipeline.service.settings import Settings

CLOCK_RECORDS = 1000  # How many raw offsets before `start` tell the stream time: a broker's clock may have jumped back.
PROGRESS_RECORDS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """
    What of one partition is judged: raw offsets [start, stop), with logs as they were when the audit began.

    Args:
        since_ms: The time that *start* was found by; None: the log's start.
        in_flight: Raw offsets that would be judged if the worker had committed them.
    """

    partition: int
    raw: Bounds
    accepted: Bounds
    rejected: Bounds
    committed: CommittedOffset | None
    start: int
    stop: int
    in_flight: int
    since_ms: int | None


@dataclass(slots=True)
class Result:
    """
    What one partition gave.

    `counts` are deletions by window and ErrorCode ("": success) in all that was read of `accepted`; `judged` are the
    windows that judged records fell into. `watermark`: see docs/contract.md; -1 if it is not known.
    """

    scope: Scope
    balance: Balance = field(default_factory=Balance)
    findings: Findings = field(default_factory=Findings)
    notes: list[str] = field(default_factory=list)
    counts: Counter[tuple[int, str]] = field(default_factory=Counter)
    judged: set[int] = field(default_factory=set)
    watermark: int = -1
    records: int = 0


def audit_partition(settings: Settings, scope: Scope, progress: Callable[[int], None]) -> Result:
    """
    Judge the raw records of *scope*.

    Args:
        progress: Called now and then with how many raw offsets more have been judged.

    Raises:
        ClusterError: Kafka fails.
    """
    with connect(settings.kafka) as cluster:
        return _audit(settings, Reader(cluster), scope, progress)


def _audit(settings: Settings, reader: Reader, scope: Scope, progress: Callable[[int], None]) -> Result:
    result = Result(scope, balance=Balance(in_flight=scope.in_flight))
    rules = ReferenceRules.of(settings.worker)
    raw = chain.from_iterable(reader.read(settings.kafka.topics.raw, scope.partition, scope.start, scope.stop))
    first = next(raw, None)
    _set_clock(reader, settings.kafka.topics.raw, scope, rules)
    if first is not None:
        rules.advance(first.timestamp)  # As judging it will; whatever expires by that need not be remembered.
        raw = chain((first,), raw)
    accepted, rejected = _outputs(settings, reader, scope, rules, result)

    def count(record: Any) -> None:
        _, code = join.fingerprint_and_code(record)
        result.counts[record.timestamp - record.timestamp % rules.width_ms, code] += 1

    def restore(record: Any) -> None:
        count(record)
        rules.remember(record.key or b"", record.timestamp, join.fingerprint_and_code(record)[0])

    accepted.skip_until(scope.start, restore)
    rejected.skip_until(scope.start, lambda _: None)
    last = _compare(settings, raw, rules, outputs=(accepted, rejected), result=result, progress=progress)
    accepted.finish(scope.stop, last, scope.raw.end, count)
    rejected.finish(scope.stop, last, scope.raw.end, lambda _: None)
    result.watermark = min(rules.highest, rules.stream_time) - settings.worker.allowed_delay_seconds * 1000
    result.records = reader.records
    _compare_totals(scope, result)
    return result


def _set_clock(reader: Reader, topic: str, scope: Scope, rules: ReferenceRules) -> None:
    start = max(scope.raw.start, scope.start - CLOCK_RECORDS)
    for records in reader.read(topic, scope.partition, start, scope.start):
        for record in records:
            rules.advance(record.timestamp)


def _outputs(
    settings: Settings, reader: Reader, scope: Scope, rules: ReferenceRules, result: Result
) -> tuple[OutputLog, OutputLog]:
    topics, number, balance = settings.kafka.topics, scope.partition, result.balance

    def read(topic: str, bounds: Bounds, since_ms: int) -> Iterator[Any]:
        start = bounds.start
        if scope.since_ms is not None:
            start = reader.cluster.offsets_at(topic, [number], since_ms).get(number, bounds.end)
        return chain.from_iterable(reader.read(topic, number, start, bounds.end))

    def count_accepted(_: Any) -> None:
        balance.accepted_found += 1

    def count_rejected(record: Any) -> None:
        balance.rejected_found[(dict(record.headers).get("reason") or b"?").decode(errors="replace")] += 1

    output = partial(OutputLog, partition=number, findings=result.findings)
    accepted = output(
        topic=topics.accepted,
        records=read(topics.accepted, scope.accepted, rules.expiry),  # Its timestamps are EventTimes.
        raw_offset_of=join.accepted_raw_offset,
        differs=join.accepted_differs,
        on_found=count_accepted,
        is_known=lambda record: rules.knows(record.key, record.timestamp),
    )
    rejected = output(
        topic=topics.rejected,
        records=read(topics.rejected, scope.rejected, scope.since_ms or 0),  # Its timestamps are raw's own.
        raw_offset_of=join.rejected_raw_offset,
        differs=join.rejected_differs,
        on_found=count_rejected,
        is_known=lambda record: (record.key or b"").startswith(b"%d:" % number),
    )
    return accepted, rejected


def _compare(
    settings: Settings,
    raw: Iterator[Any],
    rules: ReferenceRules,
    *,
    outputs: tuple[OutputLog, OutputLog],
    result: Result,
    progress: Callable[[int], None],
) -> int:
    """Judge each raw record and match both outputs with it; return the last raw offset."""
    accepted, rejected = outputs
    balance, counts, judged = result.balance, result.counts, result.judged
    number, partitions = result.scope.partition, settings.kafka.partitions
    before, reported = result.scope.start - 1, result.scope.start
    for record in raw:
        offset = record.offset
        if record.key is not None and partition_of(record.key, partitions) != number:
            result.findings.add(_misplaced(settings, record))
        expected = rules.decide(record)
        outcome = expected.outcome
        accepted_row = rejected_row = None
        if outcome == ACCEPTED:
            accepted_row = join.accepted_row(record, expected)
            counts[expected.window, expected.code] += 1
            judged.add(expected.window)
            balance.accepted_wanted += 1
        elif outcome == DUPLICATE:
            balance.duplicates += 1
        elif outcome == IGNORED:
            balance.ignored += 1
        else:
            rejected_row = join.rejected_row(record, outcome)
            balance.rejected_wanted[outcome] += 1
        accepted.match(offset, before, accepted_row, outcome)
        rejected.match(offset, before, rejected_row, outcome)
        balance.received += 1
        before = offset
        if offset - reported >= PROGRESS_RECORDS:
            progress(offset - reported)
            reported = offset
    progress(result.scope.stop - reported)
    return before


def _misplaced(settings: Settings, record: Any) -> Finding:
    right = partition_of(record.key, settings.kafka.partitions)
    return Finding(
        kind=FindingKind.PARTITION, topic=settings.kafka.topics.raw, partition=record.partition, offset=record.offset,
        raw_offset=record.offset, what=f"the key {join.shown(record.key)} belongs on partition {right}",
    )  # fmt: skip


def _compare_totals(scope: Scope, result: Result) -> None:
    """
    Compare the running totals that the worker committed with its offset, if all they count was judged.

    They start over when an operator sets the offset by hand, so a difference is a note and no finding.
    """
    if scope.start > 0 or scope.committed is None or scope.stop != scope.committed.offset:
        return
    try:
        totals = json.loads(scope.committed.metadata)["totals"]
        committed = Counter({str(name): int(number) for name, number in totals.items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        result.notes.append(f"raw[{scope.partition}]: no running totals beside the committed offset {scope.stop}")
        return
    balance = result.balance
    recount = Counter({"accepted": balance.accepted_wanted, "duplicate": balance.duplicates})
    recount.update({f"rejected/{reason}": number for reason, number in balance.rejected_wanted.items()})
    ignored = sum(number for name, number in committed.items() if name.startswith("ignored"))
    names = {name for name in recount | committed if not name.startswith("ignored")}
    differing = {name: (committed[name], recount[name]) for name in sorted(names) if committed[name] != recount[name]}
    if ignored != balance.ignored:
        differing["ignored"] = (ignored, balance.ignored)
    for name, (has, wanted) in differing.items():
        what = f"the worker's running total of {name} is {has}, a recount {wanted}"
        result.notes.append(f"raw[{scope.partition}]: {what}")
