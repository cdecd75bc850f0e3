"""One partition from end to end: the memory before its first record, and one pass over its three logs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from pipeline.audit import join
from pipeline.audit.findings import Balance, Finding, Findings, Kind
from pipeline.audit.join import Output
from pipeline.audit.log import Bounds, Committed, Reader
from pipeline.audit.verdict import ACCEPTED, DUPLICATE, IGNORED, Judge, partition_of
from pipeline.service.settings import Settings

CLOCK_RECORDS = 1000  # How many raw offsets before `start` tell the stream time: a broker's clock may have jumped back.
PROGRESS_RECORDS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """
    What of one partition is judged: raw offsets [start, stop), with logs as they were when the audit began.

    Args:
        since: The time (ms) that *start* was found by; None: the log's start.
        in_flight: Raw offsets that would be judged if the worker had committed them.
    """

    partition: int
    raw: Bounds
    accepted: Bounds
    rejected: Bounds
    committed: Committed | None
    start: int
    stop: int
    in_flight: int
    since: int | None


@dataclass(slots=True)
class Result:
    """
    What one partition gave.

    `counts` are deletions by window and ErrorCode ("": success) in all that was read of `accepted`; `touched` are the
    windows that judged records fell into. `watermark`: see README, "A failure-rate row"; -1 if it is not known.
    """

    cut: Cut
    balance: Balance = field(default_factory=Balance)
    findings: Findings = field(default_factory=Findings)
    notes: list[str] = field(default_factory=list)
    counts: Counter[tuple[int, str]] = field(default_factory=Counter)
    touched: set[int] = field(default_factory=set)
    watermark: int = -1
    records: int = 0


def audit_partition(settings: Settings, cut: Cut, progress: Callable[[int], None]) -> Result:
    """
    Judge the raw records of *cut*.

    Args:
        progress: Is told now and then how many raw offsets more have been judged.

    Raises:
        AuditError: Kafka fails.
    """
    reader = Reader(settings)
    result = Result(cut, balance=Balance(in_flight=cut.in_flight))
    judge = Judge.of(settings.worker)
    raw = chain.from_iterable(reader.read(settings.kafka.topics.raw, cut.partition, cut.start, cut.stop))
    first = next(raw, None)
    _set_clock(reader, settings.kafka.topics.raw, cut, judge)
    if first is not None:
        judge.advance(first.timestamp)  # As judging it will; whatever expires by that need not be remembered.
        raw = chain((first,), raw)
    accepted, rejected = _outputs(settings, reader, cut, judge, result)

    def count(record: Any) -> None:
        _, code = join.fingerprint_and_code(record)
        result.counts[record.timestamp - record.timestamp % judge.width, code] += 1

    def recall(record: Any) -> None:
        count(record)
        judge.remember(record.key or b"", record.timestamp, join.fingerprint_and_code(record)[0])

    accepted.skip_until(cut.start, recall)
    rejected.skip_until(cut.start, lambda _: None)
    last = _compare(settings, raw, judge, outputs=(accepted, rejected), result=result, progress=progress)
    accepted.finish(cut.stop, last, cut.raw.end, count)
    rejected.finish(cut.stop, last, cut.raw.end, lambda _: None)
    result.watermark = min(judge.highest, judge.stream_time) - settings.worker.allowed_delay_seconds * 1000
    result.records = reader.records
    _compare_totals(cut, result)
    return result


def _set_clock(reader: Reader, topic: str, cut: Cut, judge: Judge) -> None:
    start = max(cut.raw.start, cut.start - CLOCK_RECORDS)
    for records in reader.read(topic, cut.partition, start, cut.start):
        judge.advance(max(record.timestamp for record in records))


def _outputs(settings: Settings, reader: Reader, cut: Cut, judge: Judge, result: Result) -> tuple[Output, Output]:
    topics, number, balance = settings.kafka.topics, cut.partition, result.balance
    begins = {topics.accepted: cut.accepted.start, topics.rejected: cut.rejected.start}
    if cut.since is not None:  # Timestamps are EventTimes in accepted, and raw's own in rejected.
        for topic, bounds, at in (
            (topics.accepted, cut.accepted, judge.expiry),
            (topics.rejected, cut.rejected, cut.since),
        ):
            found = reader.offset_at(topic, number, at)
            begins[topic] = bounds.end if found is None else found

    def count_accepted(_: Any) -> None:
        balance.accepted_found += 1

    def count_rejected(record: Any) -> None:
        balance.rejected_found[(dict(record.headers).get("reason") or b"?").decode(errors="replace")] += 1

    accepted = Output(
        topic=topics.accepted,
        partition=number,
        records=chain.from_iterable(reader.read(topics.accepted, number, begins[topics.accepted], cut.accepted.end)),
        raw_offset_of=join.accepted_raw_offset,
        differs=join.accepted_differs,
        findings=result.findings,
        on_found=count_accepted,
        is_known=lambda record: judge.knows(record.key, record.timestamp),
    )
    rejected = Output(
        topic=topics.rejected,
        partition=number,
        records=chain.from_iterable(reader.read(topics.rejected, number, begins[topics.rejected], cut.rejected.end)),
        raw_offset_of=join.rejected_raw_offset,
        differs=join.rejected_differs,
        findings=result.findings,
        on_found=count_rejected,
        is_known=lambda record: (record.key or b"").startswith(b"%d:" % number),
    )
    return accepted, rejected


def _compare(
    settings: Settings,
    raw: Iterator[Any],
    judge: Judge,
    *,
    outputs: tuple[Output, Output],
    result: Result,
    progress: Callable[[int], None],
) -> int:
    """Judge each raw record and settle both outputs for it; return the last raw offset."""
    accepted, rejected = outputs
    balance, counts, touched = result.balance, result.counts, result.touched
    number, partitions = result.cut.partition, settings.kafka.partitions
    before, reported = result.cut.start - 1, result.cut.start
    for record in raw:
        offset = record.offset
        if record.key is not None and partition_of(record.key, partitions) != number:
            result.findings.add(_misplaced(settings, record))
        verdict = judge.judge(record)
        outcome = verdict.outcome
        accepted_row = rejected_row = None
        if outcome == ACCEPTED:
            accepted_row = join.accepted_row(record, verdict)
            counts[verdict.window, verdict.code] += 1
            touched.add(verdict.window)
            balance.accepted_wanted += 1
        elif outcome == DUPLICATE:
            balance.duplicates += 1
        elif outcome == IGNORED:
            balance.ignored += 1
        else:
            rejected_row = join.rejected_row(record, outcome)
            balance.rejected_wanted[outcome] += 1
        accepted.settle(offset, before, accepted_row, outcome)
        rejected.settle(offset, before, rejected_row, outcome)
        balance.received += 1
        before = offset
        if offset - reported >= PROGRESS_RECORDS:
            progress(offset - reported)
            reported = offset
    progress(result.cut.stop - reported)
    return before


def _misplaced(settings: Settings, record: Any) -> Finding:
    right = partition_of(record.key, settings.kafka.partitions)
    return Finding(
        kind=Kind.PARTITION, topic=settings.kafka.topics.raw, partition=record.partition, offset=record.offset,
        raw_offset=record.offset, what=f"the key {join.shown(record.key)} belongs on partition {right}",
    )  # fmt: skip


def _compare_totals(cut: Cut, result: Result) -> None:
    """
    Compare the running totals that the worker committed with its offset, if all they count was judged.

    They start over when an operator sets the offset by hand, so a difference is a note and no finding.
    """
    if cut.start > 0 or cut.committed is None or cut.stop != cut.committed.offset:
        return
    try:
        totals = json.loads(cut.committed.metadata)["totals"]
        committed = Counter({str(name): int(number) for name, number in totals.items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        result.notes.append(f"raw[{cut.partition}]: no running totals beside the committed offset {cut.stop}")
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
        result.notes.append(f"raw[{cut.partition}]: the worker's running total of {name} is {has}, a recount {wanted}")
