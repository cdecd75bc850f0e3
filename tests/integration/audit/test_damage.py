"""Damage to accepted, rejected and raw: all of it is found and named by its offsets, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline.audit.findings import AuditReport
from tests.harness.recorded import ACCEPTED, RATES, RAW, REJECTED, Found, Logs, Record, found_in, unique, with_value

Damage = Callable[[Logs], set[Found]]

AT = 30  # The record of partition 0 that is damaged, counted from the log's start.


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
    logs: Logs, audited: Callable[[Logs], AuditReport], damage: Damage
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
def test_every_part_of_an_output_is_compared(logs: Logs, audited: Callable[[Logs], AuditReport], topic: str) -> None:
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


def test_an_altered_raw_value_is_seen_in_what_it_led_to(logs: Logs, audited: Callable[[Logs], AuditReport]) -> None:
    at, raw_offset = unique(logs)
    logs[RAW][0][raw_offset] = with_value(b"video", b"image")(logs[RAW][0][raw_offset])

    report = audited(logs)

    assert found_in(report) == {("changed", ACCEPTED, 0, at, raw_offset)}
    assert "value is not the raw record's; header decision" in report.findings.kept[0].what


def test_an_altered_raw_header_is_seen_in_what_it_led_to(logs: Logs, audited: Callable[[Logs], AuditReport]) -> None:
    at, raw_offset = unique(logs)
    logs[RAW][0][raw_offset] = logs[RAW][0][raw_offset].with_header("received-at", b"1")

    assert found_in(audited(logs)) == {("changed", ACCEPTED, 0, at, raw_offset)}


def test_an_altered_raw_timestamp_is_seen_in_a_rejection(logs: Logs, audited: Callable[[Logs], AuditReport]) -> None:
    raw_offset = logs[REJECTED][0][2].raw_offset
    record = logs[RAW][0][raw_offset]
    logs[RAW][0][raw_offset] = replace(record, timestamp=record.timestamp + 1)

    assert found_in(audited(logs)) == {("changed", REJECTED, 0, 2, raw_offset)}


def test_a_raw_record_under_another_partitions_key_is_misplaced(
    logs: Logs, audited: Callable[[Logs], AuditReport]
) -> None:
    at, raw_offset = unique(logs)
    logs[RAW][0][raw_offset] = replace(logs[RAW][0][raw_offset], key=logs[RAW][1][0].key or logs[RAW][1][1].key)

    found = found_in(audited(logs))

    assert found >= {
        ("partition", RAW, 0, raw_offset, raw_offset),
        ("unexpected", ACCEPTED, 0, at, raw_offset),
        ("missing", REJECTED, 0, None, raw_offset),
    }
    assert {topic for _, topic, *_ in found} <= {RAW, ACCEPTED, REJECTED, RATES}


def test_a_deleted_raw_record_is_named_by_its_output(logs: Logs, audited: Callable[[Logs], AuditReport]) -> None:
    """Written again without it, all that follows has other offsets, and the committed one lies beyond the end."""
    at, raw_offset = unique(logs)
    del logs[RAW][0][raw_offset]

    report = audited(logs)

    assert ("offset", RAW, 0, None, None) in found_in(report)
    assert first_of(report, ACCEPTED) == at
    assert not report.agrees


def first_of(report: AuditReport, topic: str) -> int:
    """Return the lowest offset in partition 0 of *topic* that something was found of."""
    return min(
        each for _, name, number, each, _ in found_in(report) if (name, number) == (topic, 0) and each is not None
    )


def test_a_doubled_raw_record_is_named_by_what_follows(logs: Logs, audited: Callable[[Logs], AuditReport]) -> None:
    at, raw_offset = unique(logs)
    logs[RAW][0].insert(raw_offset, logs[RAW][0][raw_offset])

    report = audited(logs)

    assert first_of(report, ACCEPTED) == at + 1
    assert report.balance.in_flight == 1
