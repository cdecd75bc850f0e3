"""The hostile records of tests/vectors/poison.py through the accept transition: each has the reason beside it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pipeline.audit.reference_rules import ReferenceRules
from pipeline.core.contract import DETAIL_BYTES_MAX, header
from pipeline.core.deduplication import AcceptState, Decisions, accept
from pipeline.core.offset_metadata import from_metadata, to_metadata
from pipeline.core.windows import TimePolicy
from pipeline.service.settings import WorkerSettings
from tests.builders import ClientRecord, named
from tests.vectors.poison import Poison, corpus, honest

if TYPE_CHECKING:
    from pipeline.core.contract import Row

NOW = datetime(2024, 1, 1, 12, tzinfo=UTC)
NOW_MS = 1_704_110_400_000
CORPUS = corpus(NOW)


def raw(offset: int, record: Poison) -> ClientRecord:
    timestamp = NOW_MS if record.timestamp is None else record.timestamp
    return ClientRecord(record.key, record.value, timestamp, offset, headers=record.headers)


def outcome_of(record: Poison) -> str:
    return record.outcome if record.outcome.startswith("ignored/") else f"rejected/{record.outcome}"


def good(offset: int, media_id: str = "poison") -> ClientRecord:
    key, value = honest(NOW, media_id)
    return ClientRecord(key, value, NOW_MS, offset)


def decide(state: AcceptState, *records: ClientRecord) -> tuple[Decisions, list[Row]]:
    accepted: list[Row] = []
    return accept(state, records, accepted), accepted


def new_state() -> AcceptState:
    return AcceptState(0, TimePolicy())


def test_the_corpus_is_large_and_every_reason_is_in_it() -> None:
    """A case that was written twice proves nothing twice."""
    outcomes = Counter(record.outcome.split("/")[0] for record in CORPUS)

    assert len({record.name for record in CORPUS}) == len(CORPUS) >= 200
    assert set(outcomes) == {
        "invalid_json", "not_an_object", "invalid_field", "body_too_large", "event_time_in_future",
        "event_time_expired", "conflict", "ignored",
    }  # fmt: skip


def test_a_hostile_record_has_its_outcome_from_worker_and_audit_alike() -> None:
    """Whatever it is, it is kept as it came or counted, and the audit finds the same with code of its own."""
    for record in CORPUS:
        state, rules = new_state(), ReferenceRules.of(WorkerSettings())
        if record.timestamp is None:
            decide(state, good(0))
            rules.decide(good(0))

        decisions, accepted = decide(state, raw(7, record))

        assert named(decisions.outcomes) == {outcome_of(record): 1}, record.name
        assert rules.decide(raw(7, record)).outcome == record.outcome.split("/")[0], record.name
        assert accepted == [], record.name
        assert [said_of(record, row) for row in decisions.rejected] == (
            [] if record.outcome.startswith("ignored/") else [(b"7", record.outcome.encode())]
        ), record.name
        assert from_metadata(0, TimePolicy(), to_metadata(state)).totals == state.totals, record.name


def said_of(record: Poison, row: Row) -> tuple[bytes | None, bytes | None]:
    """Return the raw offset and the reason in a row of rejected, which is otherwise as the record came."""
    key, value, timestamp, headers = row
    assert (key, value, timestamp) == (b"0:7", record.value, raw(7, record).timestamp), record.name
    assert headers[: len(record.headers)] == record.headers, record.name
    assert 0 < len(header(headers, "detail") or b"") <= DETAIL_BYTES_MAX, record.name
    return header(headers, "raw-offset"), header(headers, "reason")


@pytest.mark.parametrize("again", [1, 2, 3])
def test_poison_changes_no_verdict_on_what_follows(again: int) -> None:
    """All of it in one chunk, more than once so that every cache has seen it: the good events are accepted, once."""
    state, rules = new_state(), ReferenceRules.of(WorkerSettings())
    poisons = [record for record in CORPUS if record.timestamp is None or record.timestamp > NOW_MS] * again
    records = [good(0)]
    for index, record in enumerate(poisons):
        records += [raw(2 * index + 1, record), good(2 * index + 2, f"good{index}")]

    decisions, accepted = decide(state, *records)

    outcomes = Counter(map(outcome_of, poisons))
    assert named(decisions.outcomes) == outcomes | {"accepted": len(poisons) + 1}
    assert [row[0] for row in accepted] == [b"poison", *(b"good%d" % index for index in range(len(poisons)))]
    judged = Counter(rules.decide(record).outcome for record in records)
    assert judged == Counter(record.outcome.split("/")[0] for record in poisons) + Counter(accepted=len(poisons) + 1)
