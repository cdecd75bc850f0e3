"""
The audit on a real Kafka: a good run passes, and each planted damage is found and named by its offsets.

Kafka cannot change a record, so the topics of one good run are written again into fresh ones, with the damage.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from pipeline import audit
from pipeline.admin import topics as ops_topics
from pipeline.audit.findings import Report
from pipeline.audit.log import Reader
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from tests.harness.load import mixture, write
from tests.harness.recount import eventually, read
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from pipeline.local.kafka import LocalKafka

pytestmark = pytest.mark.timeout(300)

RECORDS = 1000
RAW, ACCEPTED, REJECTED, RATES = "raw", "accepted", "rejected", "failure-rates"


@dataclass(frozen=True)
class Record:
    """A record to be written again."""

    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: tuple[tuple[str, bytes], ...]

    def with_header(self, name: str, value: bytes | None) -> Record:
        """Return it with another value of a header, or without it."""
        headers = [(key, value if key == name else old) for key, old in self.headers]
        return replace(self, headers=tuple((key, new) for key, new in headers if new is not None))

    def with_row(self, **fields: Any) -> Record:
        """Return a failure-rate row with other fields."""
        return replace(self, value=json.dumps({**json.loads(self.value or b""), **fields}).encode())

    @property
    def raw_offset(self) -> int:
        headers = dict(self.headers)
        return int.from_bytes(headers["decision"][:8]) if "decision" in headers else int(headers["raw-offset"])


Logs = dict[str, list[list[Record]]]


@dataclass(frozen=True)
class Run:
    """What a good run left: every topic's records by partition, and the worker's offsets."""

    logs: Logs
    committed: dict[int, Any]


def settings_of(kafka: LocalKafka) -> Settings:
    name = f"test-{uuid.uuid4().hex[:12]}"
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=f"{name}.", partitions=2),
        worker=WorkerSettings(group=name, session_timeout_seconds=6),
    )


@pytest.fixture(scope="module")
def run(kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A good run, which the audit finds good while the worker is at it and when it is done."""
    settings = settings_of(kafka)
    with ops_topics.connect(settings) as client:
        ops_topics.apply(client, ops_topics.plan(client, settings))
    write(settings, mixture(RECORDS, seed=21))
    with WorkerProcess(settings, tmp_path_factory.mktemp("worker")) as worker:
        worker.wait_until_working(records=RECORDS, seconds=120)
        eventually(lambda: unsettled(audit.run(settings)), seconds=60)
        assert worker.terminate() == 0
    topics = settings.kafka.topics
    logs = {
        name: [
            [Record(each.key, each.value, each.timestamp, tuple(each.headers)) for each in records]
            for records in read(settings, topic)
        ]
        for name, topic in (
            (RAW, topics.raw), (ACCEPTED, topics.accepted), (REJECTED, topics.rejected), (RATES, topics.failure_rates)
        )
    }  # fmt: skip
    return Run(logs, Reader(settings).committed(topics.raw, 2))


def unsettled(report: Report) -> list[str]:
    found = [str(finding) for finding in report.findings.kept] + report.notes
    return found + [f"{report.balance.in_flight} in flight"] * bool(report.balance.in_flight + report.windows_pending)


@pytest.fixture
def logs(run: Run) -> Logs:
    """The logs of the run, to be damaged."""
    return {name: [list(records) for records in partitions] for name, partitions in run.logs.items()}


@pytest.fixture
def audited(kafka: LocalKafka, run: Run) -> Callable[[Logs], Report]:
    """Write logs into fresh topics, commit the run's offsets, and audit that."""

    def audited(logs: Logs) -> Report:
        settings = settings_of(kafka)
        copy(settings, logs, run)
        return audit.run(settings, rows_timeout_seconds=0)

    return audited


def copy(settings: Settings, logs: Logs, run: Run) -> None:
    prefix, options = settings.kafka.topic_prefix, settings.kafka.client_options()
    with ops_topics.connect(settings) as client:
        names = {f"{prefix}{name}": len(partitions) for name, partitions in logs.items()} | {
            f"{prefix}partial-counts": 1
        }
        client.create_topics(
            {name: {"num_partitions": number, "replication_factor": 1} for name, number in names.items()}
        )
        client.wait_for_topics(list(names))
        producer = KafkaProducer(**options, acks="all", enable_idempotence=True)
        for name, partitions in logs.items():
            for number, records in enumerate(partitions):
                for record in records:
                    producer.send(
                        f"{prefix}{name}", key=record.key, value=record.value, timestamp_ms=record.timestamp,
                        headers=list(record.headers), partition=number,
                    )  # fmt: skip
        producer.close()
        offsets = {
            TopicPartition(f"{prefix}raw", number): OffsetAndMetadata(found.offset, found.metadata, -1)
            for number, found in run.committed.items()
        }
        client.alter_group_offsets(settings.worker.group, offsets)


def test_a_copy_without_damage_passes(logs: Logs, audited: Callable[[Logs], Report]) -> None:
    report = audited(logs)

    assert unsettled(report) == []
    assert report.agrees
    assert report.balance.received == RECORDS


Found = tuple[str, str, int, int | None, int | None]
Damage = Callable[[Logs], set[Found]]

AT = 30  # The record of partition 0 that is damaged, counted from the log's start.


def found_in(report: Report) -> set[Found]:
    """Return what was found: kind, topic without its prefix, partition, offset, raw offset."""
    return {
        (each.kind.value, each.topic.partition(".")[2], each.partition, each.offset, each.raw_offset)
        for each in report.findings.kept
    }


def deleted(topic: str) -> Damage:
    def damage(logs: Logs) -> set[Found]:
        return {("missing", topic, 0, None, logs[topic][0].pop(2).raw_offset)}

    return damage


def doubled(topic: str, *, to: int) -> Damage:
    """Write a record again: *to* places further on, or at the log's end."""

    def damage(logs: Logs) -> set[Found]:
        records = logs[topic][0]
        place = min(2 + to, len(records))
        records.insert(place, records[2])
        return {("doubled", topic, 0, place, records[2].raw_offset)}

    return damage


def swapped(topic: str) -> Damage:
    def damage(logs: Logs) -> set[Found]:
        records = logs[topic][0]
        records[2], records[3] = records[3], records[2]
        return {("order", topic, 0, 3, records[3].raw_offset)}

    return damage


def moved(topic: str) -> Damage:
    def damage(logs: Logs) -> set[Found]:
        record = logs[topic][0].pop(2)
        logs[topic][1].append(record)
        offset = record.raw_offset
        return {("missing", topic, 0, None, offset), ("unexpected", topic, 1, len(logs[topic][1]) - 1, offset)}

    return damage


def beyond_the_end(logs: Logs) -> set[Found]:
    record = logs[ACCEPTED][0][AT]
    raw_offset = len(logs[RAW][0])
    decision = raw_offset.to_bytes(8) + dict(record.headers)["decision"][8:]
    logs[ACCEPTED][0].append(replace(record, key=b"other").with_header("decision", decision))
    return {("unexpected", ACCEPTED, 0, len(logs[ACCEPTED][0]) - 1, raw_offset)}


def with_decision(change: Callable[[bytes], bytes]) -> Callable[[Record], Record]:
    return lambda record: record.with_header("decision", change(dict(record.headers)["decision"]))


def with_value(old: bytes, new: bytes) -> Callable[[Record], Record]:
    return lambda record: replace(record, value=(record.value or b"").replace(old, new))


MOVES: dict[str, Damage] = {
    **{f"{topic}-deleted": deleted(topic) for topic in (ACCEPTED, REJECTED)},
    **{f"{topic}-doubled": doubled(topic, to=1) for topic in (ACCEPTED, REJECTED)},
    **{f"{topic}-doubled-at-the-end": doubled(topic, to=1000) for topic in (ACCEPTED, REJECTED)},
    **{f"{topic}-swapped": swapped(topic) for topic in (ACCEPTED, REJECTED)},
    **{f"{topic}-moved": moved(topic) for topic in (ACCEPTED, REJECTED)},
    "accepted-beyond-the-end": beyond_the_end,
}


@pytest.mark.parametrize("damage", MOVES.values(), ids=MOVES.keys())
def test_what_is_missing_doubled_or_out_of_place_is_named_and_nothing_else(
    logs: Logs, audited: Callable[[Logs], Report], damage: Damage
) -> None:
    wanted = damage(logs)

    report = audited(logs)

    assert found_in(report) == wanted
    assert not report.agrees


ALTERATIONS: dict[str, dict[str, Callable[[Record], Record]]] = {
    ACCEPTED: {
        "value is not": with_value(b"video", b"image"),
        "key 'other'": lambda record: replace(record, key=b"other"),
        "key null": lambda record: replace(record, key=None),
        "timestamp ": lambda record: replace(record, timestamp=record.timestamp + 1),
        "header source": lambda record: record.with_header("source", b"mns"),
        "headers ['source', 'decision']": lambda record: record.with_header("received-at", None),
        "header decision": with_decision(lambda old: old[:15] + bytes([old[15] ^ 1]) + old[16:]),  # The fingerprint.
        "header decision ": with_decision(lambda old: old + b"x"),  # The ErrorCode.
        "header decision '": with_decision(lambda old: bytes(8) + old[8:]),  # The raw offset: lower, then higher.
        "header decision '\\x01": with_decision(lambda old: b"\1" + old[1:]),
        "headers ['source', 'received-at']": lambda record: record.with_header("decision", None),
    },
    REJECTED: {
        "value is not": lambda record: replace(record, value=b"other"),
        "key '0:1'": lambda record: replace(record, key=b"0:1"),
        "timestamp ": lambda record: replace(record, timestamp=record.timestamp - 1),
        "header source": lambda record: record.with_header("source", b"mns"),
        "header reason 'body_too_large'": lambda record: record.with_header("reason", b"body_too_large"),
        "header raw-offset '0'": lambda record: record.with_header("raw-offset", b"0"),
        "headers ['source', 'received-at', 'reason']": lambda record: record.with_header("raw-offset", None),
        "headers ['source', 'received-at', 'raw-offset'] instead": lambda record: record.with_header("detail", None),
        "header 'detail' instead of a detail of at most 1024": lambda record: record.with_header("detail", b"x" * 1025),
    },
}


@pytest.mark.parametrize("topic", [ACCEPTED, REJECTED])
def test_every_part_of_an_output_is_compared(logs: Logs, audited: Callable[[Logs], Report], topic: str) -> None:
    """Each alteration is made to a record of its own, and is the one thing that is said of that record."""
    records, wanted = logs[topic][0], {}
    for at, (what, alter) in enumerate(ALTERATIONS[topic].items(), start=2):
        before, records[at] = records[at], alter(records[at])
        assert records[at] != before, what
        wanted["changed", topic, 0, at, before.raw_offset] = what

    report = audited(logs)

    assert found_in(report) == wanted.keys()
    said = {finding.offset: finding.what for finding in report.findings.kept}
    for (_, _, _, at, _), what in wanted.items():
        assert said[at].startswith(what)
        assert len(said[at].split("; ")) <= 2  # A missing header can be the detail's place, too.


def unique(logs: Logs) -> tuple[int, int]:
    """Return a record of accepted[0] whose event came once: its offset there and in raw."""
    keys = [record.key for record in logs[RAW][0]]
    at = next(at for at, record in enumerate(logs[ACCEPTED][0]) if at > 20 and keys.count(record.key) == 1)
    return at, logs[ACCEPTED][0][at].raw_offset


def test_an_altered_raw_value_is_seen_in_what_it_led_to(logs: Logs, audited: Callable[[Logs], Report]) -> None:
    at, raw_offset = unique(logs)
    logs[RAW][0][raw_offset] = with_value(b"video", b"image")(logs[RAW][0][raw_offset])

    report = audited(logs)

    assert found_in(report) == {("changed", ACCEPTED, 0, at, raw_offset)}
    assert "value is not the raw record's; header decision" in report.findings.kept[0].what


def test_an_altered_raw_header_is_seen_in_what_it_led_to(logs: Logs, audited: Callable[[Logs], Report]) -> None:
    at, raw_offset = unique(logs)
    logs[RAW][0][raw_offset] = logs[RAW][0][raw_offset].with_header("received-at", b"1")

    assert found_in(audited(logs)) == {("changed", ACCEPTED, 0, at, raw_offset)}


def test_an_altered_raw_timestamp_is_seen_in_a_rejection(logs: Logs, audited: Callable[[Logs], Report]) -> None:
    raw_offset = logs[REJECTED][0][2].raw_offset
    record = logs[RAW][0][raw_offset]
    logs[RAW][0][raw_offset] = replace(record, timestamp=record.timestamp + 1)

    assert found_in(audited(logs)) == {("changed", REJECTED, 0, 2, raw_offset)}


def test_a_raw_record_under_another_partitions_key_is_misplaced(logs: Logs, audited: Callable[[Logs], Report]) -> None:
    at, raw_offset = unique(logs)
    logs[RAW][0][raw_offset] = replace(logs[RAW][0][raw_offset], key=logs[RAW][1][0].key or logs[RAW][1][1].key)

    found = found_in(audited(logs))

    assert found >= {
        ("partition", RAW, 0, raw_offset, raw_offset),
        ("unexpected", ACCEPTED, 0, at, raw_offset),
        ("missing", REJECTED, 0, None, raw_offset),
    }
    assert {topic for _, topic, *_ in found} <= {RAW, ACCEPTED, REJECTED, RATES}


def test_a_deleted_raw_record_is_named_by_its_output(logs: Logs, audited: Callable[[Logs], Report]) -> None:
    """Written again without it, all that follows has other offsets, and the committed one lies beyond the end."""
    at, raw_offset = unique(logs)
    del logs[RAW][0][raw_offset]

    report = audited(logs)

    assert ("offset", RAW, 0, None, None) in found_in(report)
    assert first_of(report, ACCEPTED) == at
    assert not report.agrees


def first_of(report: Report, topic: str) -> int:
    """Return the lowest offset in partition 0 of *topic* that something was found of."""
    return min(
        each for _, name, number, each, _ in found_in(report) if (name, number) == (topic, 0) and each is not None
    )


def test_a_doubled_raw_record_is_named_by_what_follows(logs: Logs, audited: Callable[[Logs], Report]) -> None:
    at, raw_offset = unique(logs)
    logs[RAW][0].insert(raw_offset, logs[RAW][0][raw_offset])

    report = audited(logs)

    assert first_of(report, ACCEPTED) == at + 1
    assert report.balance.in_flight == 1


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
    logs: Logs, audited: Callable[[Logs], Report], name: str
) -> None:
    at = newest(logs, failures=True)
    row = logs[RATES][0][at]
    logs[RATES][0][at] = row.with_row(**ROW_ALTERATIONS[name](json.loads(row.value or b"")))

    report = audited(logs)

    assert at in {finding.offset for finding in report.findings.kept} or name == "complete"
    assert {finding.topic.partition(".")[2] for finding in report.findings.kept} == {RATES}


def test_a_missing_row_is_named_by_the_one_before(logs: Logs, audited: Callable[[Logs], Report]) -> None:
    at = newest(logs, failures=False)
    key = logs[RATES][0].pop(at).key or b""

    report = audited(logs)

    assert any((key.decode() + ":" in str(finding)) for finding in report.findings.kept)
    assert {finding.topic.partition(".")[2] for finding in report.findings.kept} == {RATES}


def test_other_damage_to_rows_is_named(logs: Logs, audited: Callable[[Logs], Report]) -> None:
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

    since = audit.run(settings, since=middle + 1000, rows_timeout_seconds=0)
    between = audit.run(settings, since=middle + 1000, until=middle + 2000, rows_timeout_seconds=0)

    assert unsettled(since) == unsettled(between) == []
    assert since.balance.received == sum(bursts[1:])
    assert between.balance.received == bursts[1]
    assert since.balance.duplicates > between.balance.duplicates > 0
    assert 0 < between.windows <= since.windows


def test_raw_records_that_retention_took_are_remembered_from_accepted(kafka: LocalKafka, run: Run, logs: Logs) -> None:
    """Raw is kept 7 days and accepted 30: the repetition of an event whose raw record is gone is a duplicate."""
    settings = settings_of(kafka)
    copy(settings, logs, run)
    gone = {TopicPartition(settings.kafka.topics.raw, number): len(part) // 2 for number, part in enumerate(logs[RAW])}
    with ops_topics.connect(settings) as client:
        client.delete_records(gone)

    report = audit.run(settings, rows_timeout_seconds=0)

    assert unsettled(report) == []
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
    wanted = deleted(ACCEPTED)(logs)
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
    assert {(finding["kind"], "accepted", 0, finding["offset"], finding["raw_offset"])} == wanted
    assert report["balance"]["accepted"]["recount"] == report["balance"]["accepted"]["topic"] + 1
    assert "They do not agree" in shown.stdout
    assert "missing" in shown.stdout
    assert "yesterday" in misused.stderr
