"""
The audit: every promise of the pipeline recomputed from `raw`, with code that the worker has no part in.

Both read bodies with pipeline.core.event, as that is the contract; an import contract holds everything else apart.

The scope. The worker's committed offset of each raw partition is read first: raw records from it on are in flight,
which is neither right nor wrong. Then come the high watermarks of accepted and rejected, and raw's ends last. All that
led to a commit was written before it, so it lies below those high watermarks, even while its transaction's markers are
still being written; reading committed records up to there waits for them. What outputs say of raw records behind the
scope is not judged, unless raw ends before the record they name. Without a committed offset (a group that expired) the
scope ends where a worker would go on: behind the last raw record that an output names.

The memory before the first judged record, be it because of `since_ms` or because retention took the records before it,
is what the worker's own is: the accepted records of earlier raw offsets with an EventTime of at least E, with the
fingerprints in their headers. Accepted is read from the first record with such a timestamp on; none before it has one.
The stream time is taken from the raw records just before, if raw still holds any. Memory is dropped below E as the
stream time rises, so it is bounded by the dedupe horizon.

Windows are counted from the recount of what is judged and from accepted itself for what lies before and behind that.
Rows follow deletions within a moment, so whatever differs is read on for a while. A row is pending, not wrong, if
deletions of its window still arrive, or if partial-counts holds some that the report agent had not read. Only what raw
determines is compared: failures, total, rate and times exactly, `complete` where it must be true, and of `late` and
`revision`, which depend on how counts were coalesced, that they fit together and never fall. Without a live worker a
row may lack its last 100 ms: start one, and audit again. With `since_ms` or `until_ms` the windows compared are those
that judged records fell into. Windows older than 30 days are left out, as retention may have taken a part of them.

Not judged: a doubled raw record behind all others (a duplicate, and harmless), running totals (a note, as they start
over when an operator sets the offset), raw timestamps in themselves, and outputs whose raw records are gone. After raw
was recreated its offsets start over, and older outputs look like new ones: they are reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pipeline.audit.findings import AuditReport, Finding, FindingKind
from pipeline.audit.join import accepted_raw_offset, rejected_raw_offset
from pipeline.audit.partition import Scope
from pipeline.audit.windows import RecountedWindows
from pipeline.audit.workers import audit_partitions
from pipeline.kafka.tools.cluster import Bounds, connect
from pipeline.kafka.tools.reader import Reader
from pipeline.service.settings import Settings

ROWS_TIMEOUT_SECONDS = 5.0
LAST_OFFSETS = 100  # So far back the last record of a log is looked for first: behind it are markers, if anything.

Progress = Callable[[int, int], None]


def run(
    settings: Settings,
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    rows_timeout_seconds: float = ROWS_TIMEOUT_SECONDS,
    progress: Progress = lambda done, total: None,
) -> AuditReport:
    """
    Audit the pipeline that *settings* describe.

    Args:
        since_ms: Judge raw records that the broker stamped at this time (ms since the epoch) or later; None: all.
        until_ms: Judge those before this time; None: all that the worker has committed.
        rows_timeout_seconds: How long rows may take to agree with their deletions.
        progress: Called with how many raw offsets have been judged, and of how many.

    Raises:
        ClusterError: Kafka fails, or the topics have another number of partitions.
    """
    began = time.perf_counter()
    report = AuditReport()
    with connect(settings.kafka) as cluster:
        reader = Reader(cluster)
        scopes = _scopes(settings, reader, since_ms, until_ms, report)
        results = audit_partitions(settings, scopes, progress)
        for result in results:
            report.balance.merge(result.balance)
            report.findings.merge(result.findings)
            report.notes += result.notes
            report.records += result.records
        windows = RecountedWindows.of(settings, reader, results, report, is_to_the_end=until_ms is None)
        windows.wait_until_settled(report, rows_timeout_seconds)
        report.records += reader.records
    report.seconds = time.perf_counter() - began
    return report


def _scopes(
    settings: Settings, reader: Reader, since_ms: int | None, until_ms: int | None, report: AuditReport
) -> list[Scope]:
    """Return what of each partition is judged. The committed offsets are read first, and raw's ends last: see above."""
    cluster, topics, partitions = reader.cluster, settings.kafka.topics, settings.kafka.partitions
    committed = cluster.committed(settings.worker.group, topics.raw, partitions)
    logs = {topic: cluster.own_bounds(topic) for topic in (topics.accepted, topics.rejected, topics.raw)}
    starts = {} if since_ms is None else cluster.offsets_at(topics.raw, range(partitions), since_ms)
    ends = {} if until_ms is None else cluster.offsets_at(topics.raw, range(partitions), until_ms)
    scopes = []
    for number in range(partitions):
        raw, accepted, rejected = (logs[topic][number] for topic in (topics.raw, topics.accepted, topics.rejected))
        found = committed.get(number)
        position = found.offset if found else _resume(reader, settings, number, accepted, rejected)
        _judge_position(settings, report, number, raw, position)
        start = raw.start if since_ms is None else starts.get(number, raw.end)
        end = raw.end if until_ms is None else ends.get(number, raw.end)
        stop = min(position, end)
        scopes.append(
            Scope(
                partition=number,
                raw=raw,
                accepted=accepted,
                rejected=rejected,
                committed=found,
                start=min(start, max(stop, raw.start)),
                stop=max(stop, raw.start),
                in_flight=max(0, end - max(start, stop)),
                since_ms=since_ms,
            )
        )
    return scopes


def _resume(reader: Reader, settings: Settings, partition: int, accepted: Bounds, rejected: Bounds) -> int:
    """Return where a worker without a committed offset goes on: behind all that its outputs name."""
    last = -1
    for topic, bounds, raw_offset_of in (
        (settings.kafka.topics.accepted, accepted, accepted_raw_offset),
        (settings.kafka.topics.rejected, rejected, rejected_raw_offset),
    ):
        for record in _last(reader, topic, partition, bounds):
            last = max(last, raw_offset_of(record))
    return last + 1


def _last(reader: Reader, topic: str, partition: int, bounds: Bounds) -> list[Any]:
    """Return some records from the end of a log, none only if it has none: markers and aborted ones are skipped."""
    found: list[Any] = []
    start, step = bounds.end, LAST_OFFSETS
    while not found and start > bounds.start:
        start, end, step = max(bounds.start, start - step), start, step * 10
        found = [record for records in reader.read(topic, partition, start, end) for record in records]
    return found


def _judge_position(settings: Settings, report: AuditReport, partition: int, raw: Bounds, position: int) -> None:
    what = None
    if position > raw.end:
        what = f"the worker's offset {position} lies behind the log's end {raw.end}: the topic was recreated or cut off"
    elif position < raw.start and position > 0:
        what = (
            f"the log begins at {raw.start}, so the worker at {position} has lost {raw.start - position} to retention"
        )
    if what:
        report.findings.add(
            Finding(kind=FindingKind.OFFSET, topic=settings.kafka.topics.raw, partition=partition, what=what)
        )
