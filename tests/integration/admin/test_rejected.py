"""The operator's commands for rejected records, on what a real worker rejected."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaProducer
from typer.testing import CliRunner

from pipeline.admin import rejected
from pipeline.cli import app
from pipeline.core.outcome import Reason
from tests.builders import body
from tests.harness.recount import differences, read
from tests.harness.wire import Wire, pack, write_batches
from tests.harness.worker import WorkerProcess
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.service.settings import Settings

AT = "2026-11-22T20:24:00Z"


BODIES = {
    b"good": body("good", AT),
    b"conflict": body("good", AT, DeleteType="mezzanine"),
    b"no-json": b"\x1b[31m[red]no json",
    b"no-status": body("other", AT, Status="perhaps"),
}


@pytest.fixture
def judged(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """One event accepted, three records rejected; the horizon reaches back to AT."""
    worker = settings.worker.model_copy(update={"dedupe_horizon_seconds": 30 * 86_400})
    settings = settings.model_copy(update={"worker": worker})
    write(settings, list(BODIES.values()))
    with WorkerProcess(settings, tmp_path):
        eventually(lambda: [] if len(_rejected(settings)) == 3 else ["not yet decided"])
        yield settings


def write(settings: Settings, bodies: list[bytes]) -> None:
    producer = KafkaProducer(**settings.kafka.client_options())
    for value in bodies:
        media_id = json.loads(value)["MediaId"].encode() if value.startswith(b'{"') else b"none"
        headers = [("source", b"mns"), ("received-at", b"1700000000000"), ("entry", b"shanghai")]
        producer.send(settings.kafka.topics.raw, value=value, key=media_id, headers=headers)
    producer.flush()
    producer.close()


def _rejected(settings: Settings) -> list[rejected.RejectedRecord]:
    return list(rejected.read(settings.kafka, since_ms=0))


def _missing(settings: Settings, total: int) -> list[str]:
    found = len(_rejected(settings))
    return [] if found == total else [f"{found} of {total} are rejected"]


def test_what_was_rejected_is_listed_shown_and_replayed(judged: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replayed record is decided on again: what was wrong is rejected once more, under its new offset."""
    for key, value in (
        ("KAFKA__BOOTSTRAP_SERVERS", judged.kafka.bootstrap_servers),
        ("KAFKA__TOPIC_PREFIX", judged.kafka.topic_prefix),
    ):
        monkeypatch.setenv(f"VOD_PIPELINE_{key}", value)
    cli = CliRunner()
    found = {record.reason: record for record in _rejected(judged)}
    conflict = found[Reason.CONFLICT]

    listed = cli.invoke(app, ["rejected", "list", "--reason", "invalid_json"], env={"COLUMNS": "300"})
    shown = cli.invoke(app, ["rejected", "show", conflict.id])
    replayed = cli.invoke(app, ["rejected", "replay", conflict.id, "--yes"])
    by_reason = cli.invoke(app, ["rejected", "replay", "--reason", "invalid_field"], input="y\n")

    assert set(found) == {Reason.CONFLICT, Reason.INVALID_JSON, Reason.INVALID_FIELD}
    assert f"│ {found[Reason.INVALID_JSON].id} │" in listed.stdout
    assert f"│ {conflict.id} │" not in listed.stdout
    assert "│ mns  │ shanghai │ invalid_json │" in listed.stdout
    assert "shanghai" in shown.stderr
    assert "1 rejected in the last 24 hours" in listed.stdout
    assert BODIES[b"conflict"].decode() in shown.stdout
    assert "1 are in" in replayed.stdout
    assert "1 are in" in by_reason.stdout
    eventually(lambda: [] if len(_rejected(judged)) == 5 else ["not yet decided again"])
    again = [record for record in _rejected(judged) if record.reason == Reason.CONFLICT]
    assert [(record.body, record.source, record.entry, record.received_at_ms) for record in again] == [
        (BODIES[b"conflict"], "mns", "shanghai", 1_700_000_000_000)
    ] * 2
    assert again[0].id != again[1].id
    assert differences(judged) == []


def test_what_a_stranger_wrote_to_raw_is_listed_and_replayed(settings: Settings, tmp_path: Path) -> None:
    """Neither a time without sense, nor a header or a record without a value, ends a command."""
    senseless = [(b"received-at", b"9" * digits) for digits in (13, 14, 15, 4301)]
    strange = [
        *(Wire(b"k", b"{", [header, (b"source", None)]) for header in senseless),
        Wire(None, None, [(b"received-at", None)]),
    ]
    asyncio.run(write_batches(settings, pack(strange)))

    with WorkerProcess(settings, tmp_path):
        eventually(lambda: [] if len(_rejected(settings)) == 5 else ["not yet decided"])
        found = _rejected(settings)
        assert [record.received_at_ms for record in found] == [9_999_999_999_999, None, None, None, None]
        assert rejected.replay(settings.kafka, found, lambda: None) == 5
        eventually(lambda: [] if len(_rejected(settings)) == 10 else ["not yet decided again"])


def test_a_replay_never_meets_what_it_caused(judged: Settings) -> None:
    """Replaying reads and writes at the same time; its own records are rejected before it has read to the end."""
    records = rejected.read(judged.kafka, since_ms=0)
    first = next(records)

    assert rejected.replay(judged.kafka, iter([first]), lambda: None) == 1
    eventually(lambda: [] if len(_rejected(judged)) == 4 else ["not yet decided again"])

    assert len(list(records)) == 2


def test_replaying_a_reason_again_and_again_does_not_double_it(
    judged: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replayed record that is still wrong is rejected once more, of the same reason: 10 became 20, 40, 80, 160."""
    monkeypatch.setenv("VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS", judged.kafka.bootstrap_servers)
    monkeypatch.setenv("VOD_PIPELINE_KAFKA__TOPIC_PREFIX", judged.kafka.topic_prefix)
    write(judged, [BODIES[b"no-json"], b"{no json, too"])
    eventually(lambda: [] if len(_rejected(judged)) == 5 else ["not yet decided"])
    counts = []

    for total in (7, 9, 11):
        replayed = CliRunner().invoke(app, ["rejected", "replay", "--reason", "invalid_json", "--yes"])
        counts.append(replayed.stdout.split()[0])
        eventually(partial(_missing, judged, total))

    assert counts == ["2", "2", "2"]


def test_only_what_raw_took_since_then_is_read(judged: Settings) -> None:
    assert list(rejected.read(judged.kafka, since_ms=int(time.time() * 1000) + 60_000)) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0:99999", "no such record"),
        ("9:1", r"there is no partition 9; there are 0 to 3"),
        ("nonsense", "not an id"),
        ("1:-1", "not an id"),
    ],
)
def test_an_id_that_is_none_is_named(settings: Settings, name: str, message: str) -> None:
    with pytest.raises(rejected.RejectedError, match=message):
        rejected.find(settings.kafka, [name])


def test_replayed_records_keep_their_key_and_so_their_partition(judged: Settings) -> None:
    """The worker's memory is a partition's: on another one the record would be accepted a second time."""
    (conflict,) = rejected.find(judged.kafka, [r.id for r in _rejected(judged) if r.reason == Reason.CONFLICT])

    rejected.replay(judged.kafka, iter([conflict]), lambda: None)

    of_good = [
        record for records in read(judged, judged.kafka.topics.raw) for record in records if record.key == b"good"
    ]
    assert [record.value for record in of_good] == [BODIES[b"good"], BODIES[b"conflict"], BODIES[b"conflict"]]
    assert len({record.partition for record in of_good}) == 1
