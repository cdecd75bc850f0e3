"""The accept transition: what every record becomes, and that nothing but the log decides it."""

from __future__ import annotations

import json

import pytest

from pipeline.core.contract import header, unpack_decision
from pipeline.core.outcome import Outcome, OutcomeKey, Reason
from pipeline.core.windows import NEVER
from tests.builders import body
from tests.harness.accept import NOON, Out, Raw, details_of, new_state, outs, raw, reasons_of, run

# --- One record.


def test_a_valid_event_is_accepted_as_it_came() -> None:
    """Downstream gets VOD's own bytes, keyed by MediaId, at event time; ours is one header behind the sender's."""
    value = body(at="2024-01-01T11:59:59Z")
    record = Raw(42, NOON, b"m", value, [("source", b"http"), ("decision", b"forged")])

    decisions = run(record)

    (row,) = outs(decisions.accepted)
    assert (row.key, row.value, row.timestamp) == (b"m", value, NOON - 1000)
    assert row.headers[:2] == [("source", b"http"), ("decision", b"forged")]
    assert [name for name, _ in row.headers[2:]] == ["decision"]
    assert unpack_decision(header(row.headers, "decision") or b"").raw_offset == 42
    assert decisions.rejected == []
    assert decisions.outcomes == {"accepted": 1}


def test_the_decision_header_holds_the_fingerprint_and_the_code() -> None:
    """The restore reads nothing else; the fingerprint is that of tests/unit/core/test_event.py's documented failure."""
    value = body(Status="fail", ErrorCode="InvalidVideo.NotFound", ErrorMessage="The video does not exist.")

    (row,) = outs(run(raw(7, value)).accepted)

    assert unpack_decision(header(row.headers, "decision") or b"") == (
        7, 16776715926900260005, "InvalidVideo.NotFound",
    )  # fmt: skip


def test_a_rejected_record_is_kept_as_it_came_with_why() -> None:
    """An operator lists, repairs and replays it: raw's timestamp, and the key names the raw record."""
    record = Raw(42, NOON + 1, b"anything", b"nope", [("source", b"mns"), ("reason", b"forged")])

    (row,) = outs(run(record).rejected)

    assert (row.key, row.value, row.timestamp) == (b"3:42", b"nope", NOON + 1)
    assert row.headers[:3] == [("source", b"mns"), ("reason", b"forged"), ("raw-offset", b"42")]
    assert [name for name, _ in row.headers[3:]] == ["reason", "detail"]
    assert header(row.headers, "reason") == b"invalid_json"
    assert header(row.headers, "detail")


@pytest.mark.parametrize(
    ("record", "reason", "detail"),
    [
        (Raw(0, NOON, b"m", None), "invalid_json", "the record has no body"),
        (Raw(0, NOON, None, b"{}"), "invalid_field", "EventType: Field required"),
        (Raw(0, NOON, None, b"[]"), "not_an_object", "the body is a JSON list"),
        (Raw(0, NOON, b"n", body()), "invalid_field", "MediaId: not the record's key"),
        (Raw(0, NOON, None, body()), "invalid_field", "MediaId: not the record's key"),
        (Raw(0, NOON, b"", body()), "invalid_field", "MediaId: not the record's key"),
        (
            Raw(0, NOON, b"m", body(at="2024-01-01 12:00:00")),
            "invalid_field",
            "EventTime: not of the form yyyy-MM-ddTHH:mm:ssZ",
        ),
        (Raw(0, NOON, b"m", body(at="2024-13-01T12:00:00Z")), "invalid_field", "EventTime: month must be in 1..12"),
        (
            Raw(0, NOON, b"m", body()[:-1] + b',"x":1e99999}'),
            "invalid_json",
            "Out of range float values are not JSON compliant",
        ),
    ],
)
def test_bad_data_is_rejected_with_a_reason(record: Raw, reason: str, detail: str) -> None:
    """A tombstone, a wrong key (its partition may be wrong, which breaks deduplication), a wrong time: all are kept."""
    decisions = run(record)

    assert reasons_of(decisions) == [reason]
    assert [found.removesuffix(": inf") for found in details_of(decisions)] == [detail]  # Python 3.13 names it.
    assert decisions.outcomes == {f"rejected/{reason}": 1}
    assert (decisions.accepted, decisions.partial_counts) == ([], [])


@pytest.mark.parametrize(("size", "reasons"), [(65_535, []), (65_536, []), (65_537, ["body_too_large"])])
def test_a_body_has_at_most_64_kib(size: int, reasons: list[str]) -> None:
    """What MNS can carry, too. It is kept whole."""
    padded = body(x="")[:-2] + b"p" * (size - len(body(x=""))) + b'"}'
    assert len(padded) == size

    decisions = run(Raw(0, NOON, b"m", padded))

    assert reasons_of(decisions) == reasons
    assert [row.value for row in outs(decisions.accepted + decisions.rejected)] == [padded]


def test_an_oversized_body_is_not_even_parsed() -> None:
    """The reason is its size, whatever is in it."""
    assert reasons_of(run(Raw(0, NOON, None, b"[" * 65_537))) == ["body_too_large"]


@pytest.mark.parametrize(("event_type", "label"), [("TranscodeComplete", "TranscodeComplete"), ("Nonsense", "other")])
def test_another_event_type_is_counted_and_leaves_no_row(event_type: str, label: str) -> None:
    """One URL gets every event: they are no errors, but they do not vanish either."""
    decisions = run(Raw(0, NOON, b"m", body(EventType=event_type)))

    assert decisions.outcomes == {f"ignored/{label}": 1}
    assert (decisions.accepted, decisions.rejected, decisions.partial_counts) == ([], [], [])


def test_totals_are_named_by_outcome_and_reason() -> None:
    """The names are committed with the offset and split again by the metrics."""
    assert str(OutcomeKey(Outcome.ACCEPTED)) == "accepted"
    assert str(OutcomeKey(Outcome.REJECTED, Reason.CONFLICT)) == "rejected/conflict"


# --- The same event again.


def test_the_same_content_again_is_a_duplicate() -> None:
    """VOD tries three times; a duplicate leaves a number and no row."""
    again = json.dumps(dict(reversed(json.loads(body()).items())), indent=1).encode()

    decisions = run(raw(0, body()), raw(1, again), raw(2, body()))

    assert len(decisions.accepted) == 1
    assert decisions.rejected == []
    assert decisions.outcomes == {"accepted": 1, "duplicate": 2}
    assert outs(decisions.partial_counts) == [
        Out(b"3|1704110400000|", b"1", -1, []),
        Out(b"watermark|3", b'{"watermark": 1704110370000, "expiry": 1704103200000}', -1, []),
    ]


def test_other_content_under_the_same_key_is_a_conflict() -> None:
    """EventTime has one second: two real events can collide, and none may vanish. The first stays the known one."""
    decisions = run(raw(0, body()), raw(1, body(Status="fail")), raw(2, body()), raw(3, body(Status="fail")))

    assert [row.value for row in outs(decisions.accepted)] == [body()]
    assert reasons_of(decisions) == ["conflict", "conflict"]
    assert details_of(decisions)[0] == "another event of this MediaId at 2024-01-01T12:00:00Z is known"
    assert decisions.outcomes == {"accepted": 1, "duplicate": 1, "rejected/conflict": 2}


@pytest.mark.parametrize("other", [body("n"), body(at="2024-01-01T12:00:01Z"), body(at="2024-01-01T11:59:59Z")])
def test_another_media_or_another_second_is_another_event(other: bytes) -> None:
    """The key is both, or deletions of one media would swallow each other."""
    assert run(raw(0, body()), raw(1, other)).outcomes == {"accepted": 2}


def test_a_duplicate_in_a_later_chunk_is_one_too() -> None:
    """The memory is the state's, not the chunk's."""
    state = new_state()
    run(raw(0, body()), state=state)

    decisions = run(raw(9, body(), NOON + 3_540_000), state=state)

    assert decisions.outcomes == {"duplicate": 1}
    assert decisions.accepted == []


def test_an_empty_chunk_leads_to_nothing() -> None:
    """A fetch can bring control records only."""
    state = new_state()

    decisions = run(state=state)

    assert (decisions.accepted, decisions.rejected, decisions.partial_counts) == ([], [], [])
    assert (state.stream_time, state.watermark) == (NEVER, NEVER)
