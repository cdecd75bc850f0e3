"""What the accept transition commits beside its offset, and what becomes of another's metadata."""

from __future__ import annotations

import pytest

from pipeline.core.contract import transactional_prefix
from pipeline.core.deduplication import UNKNOWN, AcceptState, LastAccepted
from pipeline.core.event import OTHER_EVENT_TYPES
from pipeline.core.log_clock import LogClock
from pipeline.core.offset_metadata import from_metadata, is_owned, owner_of, to_metadata, with_owner
from pipeline.core.outcome import Outcome, OutcomeKey, Reason
from pipeline.core.windows import NEVER
from tests.builders import body, named
from tests.harness.accept import ELEVEN, NOON, POLICY, new_state, raw, run


def test_metadata_is_read_back() -> None:
    """Stream time, watermark and totals are not in accepted: duplicates left nothing. Nor is where it must end."""
    state = new_state()
    run(raw(0, body()), raw(1, body("n", "2024-01-01T11:00:00Z")), raw(2, body()), raw(3, b"nope"), state=state)
    state.clock.take(NOON + 3_600_001)

    read = from_metadata(3, POLICY, to_metadata(state))

    assert read.last == (1, ELEVEN)
    assert read.clock == LogClock(NOON, NOON + 3_600_001, NOON + 3_600_001)
    assert (read.partition, read.stream_time, read.watermark) == (3, NOON, NOON - 30_000)
    assert named(read.totals) == {"accepted": 2, "duplicate": 1, "rejected/invalid_json": 1}


def test_metadata_of_the_version_before_names_neither_stamps_nor_a_last_record() -> None:
    read = from_metadata(3, POLICY, '{"stream_time":5,"watermark":4,"totals":{"accepted":1}}')

    assert (read.clock, read.watermark) == (LogClock(5), 4)
    assert (named(read.totals), read.last) == ({"accepted": 1}, UNKNOWN)


def test_metadata_stays_under_4_kb() -> None:
    """Kafka's limit (offset.metadata.max.bytes): above it no offset could be committed any more."""
    state = AcceptState(999, POLICY, clock=LogClock(2**63 - 1, 2**63 - 1, 2**63 - 1), watermark=2**63 - 1)
    state.last = LastAccepted(2**63 - 1, 2**63 - 1)
    for reason in Reason:
        state.totals[OutcomeKey(Outcome.REJECTED, reason)] = 2**63 - 1
    for event_type in [*OTHER_EVENT_TYPES, "other"]:
        state.totals[OutcomeKey(Outcome.IGNORED, event_type)] = 2**63 - 1
    state.totals.update({OutcomeKey(Outcome.ACCEPTED): 2**63 - 1, OutcomeKey(Outcome.DUPLICATE): 2**63 - 1})

    longest = transactional_prefix("r" * 249, "g" * 200, "worker") + "f" * 32
    assert len(with_owner(to_metadata(state), longest).encode()) < 4096


def test_an_owner_is_named_and_its_state_kept() -> None:
    named, released = with_owner('{"stream_time":5}', "worker-1"), with_owner('{"owner":"worker-1","watermark":4}', "")

    assert (named, owner_of(named)) == ('{"stream_time":5,"owner":"worker-1"}', "worker-1")
    assert (released, owner_of(released), is_owned(released)) == ('{"owner":"","watermark":4}', "", True)


@pytest.mark.parametrize("metadata", ["", "nope", "5", "[]", "[" * 4096, '{"owner":5}', '{"stream_time":5}'])
def test_foreign_metadata_names_no_owner(metadata: str) -> None:
    """What it says besides may be of the version before, and is kept."""
    assert owner_of(metadata) == ""
    assert owner_of(with_owner(metadata, "worker-1")) == "worker-1"


def test_a_state_is_restored_from_metadata_with_an_owner() -> None:
    state = new_state()
    run(raw(0, body()), state=state)

    read = from_metadata(3, POLICY, with_owner(to_metadata(state), "worker-1"))

    assert (read.last, read.is_anew) == (state.last, False)
    assert from_metadata(3, POLICY, with_owner("", "worker-1")).is_anew


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "nope",
        "null",
        "5",
        "[]",
        "{}",
        '"stream_time"',
        "\x00",
        "[" * 4096,
        '{"stream_time":1,"watermark":1}',
        '{"stream_time":null,"watermark":1,"totals":{}}',
        '{"stream_time":1,"watermark":"x","totals":{}}',
        '{"stream_time":NaN,"watermark":1,"totals":{}}',
        '{"stream_time":Infinity,"watermark":1,"totals":{}}',
        '{"stream_time":1,"watermark":1,"totals":5}',
        '{"stream_time":1,"watermark":1,"totals":"accepted"}',
        '{"stream_time":1,"watermark":1,"totals":["accepted"]}',
        '{"stream_time":1,"watermark":1,"totals":{"accepted":"x"}}',
        '{"stream_time":1,"watermark":1,"totals":{"accepted":null}}',
        '{"stream_time":1,"watermark":1,"totals":{},"stamps":5}',
        '{"stream_time":1,"watermark":1,"totals":{},"stamps":[1,2,3,4]}',
        '{"stream_time":1,"watermark":1,"totals":{},"last_accepted":5}',
        '{"stream_time":1,"watermark":1,"totals":{},"last_accepted":[5]}',
        '{"stream_time":1,"watermark":1,"totals":{},"last_accepted":["x",5]}',
    ],
)
def test_foreign_metadata_gives_a_state_that_has_seen_no_time(metadata: str) -> None:
    """An operator set the offset by hand, with whatever tool: the worker starts, and restores from all of accepted."""
    state = from_metadata(3, POLICY, metadata)

    assert (state.stream_time, state.watermark, state.totals) == (NEVER, NEVER, {})
    assert run(raw(0, body()), state=state).outcomes == {"accepted": 1}
