"""The audit on a real Kafka: what it judges, the rows of failure-rates, and the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from kafka import TopicPartition

from pipeline import audit
from pipeline.audit.findings import AuditReport
from tests.harness.admin import admin_of
from tests.harness.recorded import ACCEPTED, RATES, RAW, RECORDS, REJECTED, Logs, Run, copy, disagreements, settings_of

if TYPE_CHECKING:
    from pipeline.local.kafka import LocalKafka


def test_a_copy_without_damage_passes(logs: Logs, audited: Callable[[Logs], AuditReport]) -> None:
    report = audited(logs)

    assert disagreements(report) == []
    assert report.agrees
    assert report.balance.received == RECORDS


def newest(logs: Logs, *, failures: bool) -> int:
    """Return the offset of the newest row of some window: of an ErrorCode, or of all."""
    rows = logs[RATES][0]
    keys = [record.key or b"" for record in rows]
    return next(
        at for at in range(10, len(rows)) if keys[at].endswith(b"|") != failures and keys[at] not in keys[at + 1 :]
    )


ROW_ALTERATIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "failures": lambda row: {"failures": row["failures"] + 1, "rate": (row["failures"] + 1) / row["total"]},
    "total": lambda row: {"total": row["total"] + 1, "rate": row["failures"] / (row["total"] + 1)},
    "rate": lambda row: {"rate": row["rate"] + 0.01},
    "window_end": lambda row: {"window_end": row["window_start"]},
    "complete": lambda row: {"complete": not row["complete"]},
    "late": lambda row: {"late": row["late"] + 1},
    "revision": lambda row: {"revision": row["revision"] + 1},
    "fields": lambda _: {"more": 1},
    "type": lambda _: {"total": "1"},
}


@pytest.mark.parametrize("name", ROW_ALTERATIONS)
def test_a_row_that_is_off_by_one_or_says_anything_else_is_named(
    logs: Logs, audited: Callable[[Logs], AuditReport], name: str
) -> None:
    at = newest(logs, failures=True)
    row = logs[RATES][0][at]
    logs[RATES][0][at] = row.with_row(**ROW_ALTERATIONS[name](json.loads(row.value or b"")))

    report = audited(logs)

    assert at in {finding.offset for finding in report.findings.kept} or name == "complete"
    assert {finding.topic.partition(".")[2] for finding in report.findings.kept} == {RATES}


def test_a_missing_row_is_named_by_the_one_before(logs: Logs, audited: Callable[[Logs], AuditReport]) -> None:
    at = newest(logs, failures=False)
    key = logs[RATES][0].pop(at).key or b""

    report = audited(logs)

    assert any((key.decode() + ":" in str(finding)) for finding in report.findings.kept)
    assert {finding.topic.partition(".")[2] for finding in report.findings.kept} == {RATES}


def test_other_damage_to_rows_is_named(logs: Logs, audited: Callable[[Logs], AuditReport]) -> None:
    rows = logs[RATES][0]
    at, end = newest(logs, failures=False), len(rows)
    rows += [
        rows[at],  # Doubled.
        replace(rows[at], timestamp=rows[at].timestamp + 1).with_row(revision=rows[at].timestamp),  # Altered.
        replace(rows[at], key=b"other").with_row(complete=True),
        replace(rows[at], value=None),
        rows[0].with_row(window_start="2026-01-01T00:00:00Z"),
    ]

    found = {finding.offset: finding for finding in audited(logs).findings.kept}

    assert found[end].kind == "doubled"
    assert "timestamp" in str(found[end + 1]) or "revision" in str(found[end + 1])
    assert found.keys() >= {end, end + 1, end + 2, end + 3}


def test_between_two_times_only_those_records_are_judged(kafka: LocalKafka, run: Run, logs: Logs) -> None:
    """What came before is remembered from accepted: its repetitions are duplicates, though raw is not read there."""
    records = logs[RAW][0]
    middle = records[0].timestamp
    for partition in logs[RAW]:  # The broker's clock, as if the records had come in three bursts.
        for place, record in enumerate(partition):
            partition[place] = replace(record, timestamp=middle + place // (len(partition) // 3) * 1000)
    for number, rejected in enumerate(logs[REJECTED]):
        for place, record in enumerate(rejected):
            rejected[place] = replace(record, timestamp=logs[RAW][number][record.raw_offset].timestamp)
    settings = settings_of(kafka)
    copy(settings, logs, run)
    bursts = [sum(each.timestamp == middle + n * 1000 for part in logs[RAW] for each in part) for n in range(4)]

    since = audit.run(settings, since_ms=middle + 1000, rows_timeout_seconds=0)
    between = audit.run(settings, since_ms=middle + 1000, until_ms=middle + 2000, rows_timeout_seconds=0)

    assert disagreements(since) == disagreements(between) == []
    assert since.balance.received == sum(bursts[1:])
    assert between.balance.received == bursts[1]
    assert since.balance.duplicates > between.balance.duplicates > 0
    assert 0 < between.windows <= since.windows


def test_raw_records_that_retention_took_are_remembered_from_accepted(kafka: LocalKafka, run: Run, logs: Logs) -> None:
    """Raw is kept 7 days and accepted 30: the repetition of an event whose raw record is gone is a duplicate."""
    settings = settings_of(kafka)
    copy(settings, logs, run)
    gone = {TopicPartition(settings.kafka.topics.raw, number): len(part) // 2 for number, part in enumerate(logs[RAW])}
    with admin_of(settings) as client:
        client.delete_records(gone)

    report = audit.run(settings, rows_timeout_seconds=0)

    assert disagreements(report) == []
    assert report.balance.received == RECORDS - sum(gone.values())


def test_what_the_worker_has_not_committed_is_in_flight(kafka: LocalKafka, run: Run, logs: Logs) -> None:
    """Neither the raw records behind the committed offset are judged, nor what they have led to already."""
    settings = settings_of(kafka)
    committed = {number: found._replace(offset=found.offset - 10) for number, found in run.committed.items()}
    copy(settings, logs, replace(run, committed=committed))

    report = audit.run(settings, rows_timeout_seconds=0)

    assert report.findings.kept == []
    assert report.balance.in_flight == 20
    assert report.balance.received == RECORDS - 20


def test_the_command_says_what_it_found_and_ends_with_1(kafka: LocalKafka, run: Run, logs: Logs) -> None:
    lost = logs[ACCEPTED][0].pop(2)
    settings = settings_of(kafka)
    copy(settings, logs, run)
    environ = {
        **os.environ,
        "VOD_PIPELINE_CONFIG": os.devnull,
        "VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "VOD_PIPELINE_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
        "VOD_PIPELINE_KAFKA__PARTITIONS": "2",
        "VOD_PIPELINE_WORKER__GROUP": settings.worker.group,
    }

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "pipeline", "audit", *arguments]
        return subprocess.run(line, env=environ, capture_output=True, text=True, check=False)

    as_json, shown, misused = command("--json"), command(), command("--from", "yesterday")
    report = json.loads(as_json.stdout)
    (finding,) = report["findings"]

    assert (as_json.returncode, shown.returncode, misused.returncode) == (1, 1, 2)
    assert (finding["kind"], finding["offset"], finding["raw_offset"]) == ("missing", None, lost.raw_offset)
    assert report["balance"]["accepted"]["recount"] == report["balance"]["accepted"]["topic"] + 1
    assert "They do not agree" in shown.stdout
    assert "missing" in shown.stdout
    assert "yesterday" in misused.stderr
