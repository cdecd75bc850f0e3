"""
What the audit writes down for itself, beside the contract's own: the audit shares no code, so that one mistake does
not hide in both, and a number that changes in one place alone would make every report wrong.
"""

from __future__ import annotations

import pytest

from pipeline.audit import join, rates, reference_rules, windows
from pipeline.audit.reference_rules import ACCEPTED, DUPLICATE, IGNORED, Expected, ReferenceRules
from pipeline.core import contract
from pipeline.core.contract import pack_decision, rejected_key
from pipeline.core.outcome import Outcome
from pipeline.core.windows import CLOCK_SKEW, TimePolicy
from pipeline.kafka.murmur2 import partitions_of
from pipeline.service.settings import WorkerSettings
from tests.builders import ClientRecord

HEADERS = [("source", b"http"), (contract.HEADER_ENTRY, b"shanghai")]


def record(headers: object = HEADERS, *, key: bytes = b"m") -> ClientRecord:
    """Return a raw record, or with other headers one that it led to."""
    return ClientRecord(key, b"{}", 1_704_110_400_000, offset=42, partition=3, headers=headers)


def test_the_audits_times_are_the_contracts() -> None:
    assert (TimePolicy().future, CLOCK_SKEW) == (reference_rules.FUTURE_MS, reference_rules.HOUR_MS)
    assert contract.OUTPUT_RETENTION_SECONDS * 1000 == windows.KEPT_MS


@pytest.mark.parametrize("stream_time", [0, 1_704_110_429_999, 1_704_110_430_000, 1_704_110_430_001])
def test_the_audit_expires_events_when_the_worker_does(stream_time: int) -> None:
    """At the edge of a window and on either side: E is 8 d and 30 s before 12:00:30."""
    worker = WorkerSettings(window_seconds=60, dedupe_horizon_seconds=691_230)
    rules = ReferenceRules.of(worker)
    rules.advance(stream_time)

    assert rules.expiry == worker.policy.expiry(stream_time)


def test_the_audits_outcomes_are_the_contracts() -> None:
    assert (ACCEPTED, DUPLICATE, IGNORED) == (Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.IGNORED)
    assert contract.SUCCESS == rates.SUCCESS


def test_the_audits_accepted_record_is_the_contracts() -> None:
    expected = Expected(ACCEPTED, at=1000, fingerprint=7, code="a|é", code_bytes="a|é".encode())

    row = join.accepted_row(record(), expected)

    decision = pack_decision(42, 7) + "a|é".encode()
    assert tuple(row) == (b"m", b"{}", 1000, [*HEADERS, (contract.HEADER_DECISION, decision)])
    assert join.accepted_raw_offset(record(row.headers)) == contract.unpack_decision(decision).raw_offset
    assert join.fingerprint_and_code(record(row.headers)) == contract.unpack_decision(decision)[1:]


def test_the_audits_rejected_record_is_the_contracts() -> None:
    row = join.rejected_row(record(), "conflict")

    why = [(contract.HEADER_RAW_OFFSET, b"42"), (contract.HEADER_REASON, b"conflict")]
    assert tuple(row) == (rejected_key(3, 42), b"{}", 1_704_110_400_000, [*HEADERS, *why])
    assert join.rejected_raw_offset(record(row.headers)) == 42


@pytest.mark.parametrize(("size", "problems"), [(contract.DETAIL_BYTES_MAX, 0), (contract.DETAIL_BYTES_MAX + 1, 1)])
def test_the_audit_takes_a_detail_of_the_contracts_size(size: int, problems: int) -> None:
    row = join.rejected_row(record(), "conflict")
    rejected = record([*row.headers, (contract.HEADER_DETAIL, b"x" * size)], key=rejected_key(3, 42))

    assert len(join.rejected_differs(rejected, row)) == problems


@pytest.mark.parametrize("length", range(12))
def test_the_audits_partitions_are_the_bridges(length: int) -> None:
    """Every remainder of four, and bytes of 128 and more."""
    keys = [bytes((number * 37 + place * 91) % 256 for place in range(length)) for number in range(50)]

    assert [reference_rules.partition_of(key, 7) for key in keys] == partitions_of(keys, 7)
