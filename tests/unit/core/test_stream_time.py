"""The accept transition's time: an event is neither in the future nor expired, by the log alone."""

from __future__ import annotations

import pytest

from pipeline.core.offset_metadata import from_metadata, to_metadata
from tests.builders import body
from tests.harness.accept import ELEVEN, NOON, POLICY, details_of, new_state, outs, raw, reasons_of, run


@pytest.mark.parametrize(
    ("event_time", "outcome"),
    [
        # S = 12:00, up to 12:10 is the present.
        ("2024-01-01T12:09:59Z", "accepted"),
        ("2024-01-01T12:10:00Z", "accepted"),
        ("2024-01-01T12:10:01Z", "rejected/event_time_in_future"),
        ("9999-12-31T23:59:59Z", "rejected/event_time_in_future"),
        # E = 11:00:  10:59 [-----)11:00 [----
        ("2024-01-01T11:00:01Z", "accepted"),
        ("2024-01-01T11:00:00Z", "accepted"),
        ("2024-01-01T10:59:59Z", "rejected/event_time_expired"),
        ("1001-01-01T00:00:00Z", "rejected/event_time_expired"),
    ],
)
def test_an_event_is_neither_in_the_future_nor_expired(event_time: str, outcome: str) -> None:
    """The broker refuses timestamps over an hour ahead; what is expired can no longer be deduplicated."""
    assert run(raw(0, body(at=event_time))).outcomes == {outcome: 1}


def test_the_detail_says_how_far_off_the_time_is() -> None:
    """An operator tells a wrong clock from a late message by it."""
    decisions = run(raw(0, body(at="2024-01-01T12:10:01Z")), raw(1, body(at="2024-01-01T10:59:59Z")))

    assert details_of(decisions) == [
        "2024-01-01T12:10:01Z is 601 s after the record's arrival, more than 600 s",
        "2024-01-01T10:59:59Z is 3,601 s before the record's arrival, more than 3,600 s",
    ]


def test_stream_time_is_the_highest_timestamp_up_to_and_including_the_record() -> None:
    """
    It includes the record itself, and a timestamp that falls back does not turn it back.

    S:      12:00   13:00   13:00 (record says 12:00)
    event:  11:00   11:59   12:00
    """
    decisions = run(
        raw(0, body("a", "2024-01-01T11:00:00Z"), NOON),
        raw(1, body("b", "2024-01-01T11:59:59Z"), NOON + 3_600_000),
        raw(2, body("c", "2024-01-01T11:59:59Z"), NOON),
        raw(3, body("d", "2024-01-01T13:10:00Z"), NOON),
    )

    assert [row.key for row in outs(decisions.accepted)] == [b"a", b"d"]
    assert reasons_of(decisions) == ["event_time_expired", "event_time_expired"]


def test_a_record_that_is_no_event_moves_the_stream_time_too() -> None:
    """All time is the log's; what the body is does not matter for when it arrived."""
    decisions = run(raw(0, b"nope", NOON + 60_000), raw(1, body(at="2024-01-01T11:00:59Z"), NOON))

    assert reasons_of(decisions) == ["invalid_json", "event_time_expired"]


def test_windows_below_the_expiry_are_forgotten_and_no_others() -> None:
    """
    Never earlier, as a duplicate would be accepted again; never later, as memory is bounded.

    10:59          11:00          11:01          12:00
    [--------------)[--a--b-------)[--c--------- ...
    """
    state = new_state()
    times = ["2024-01-01T11:00:00Z", "2024-01-01T11:00:59Z", "2024-01-01T11:01:00Z"]
    run(*(raw(offset, body(at=at)) for offset, at in enumerate(times)), state=state)

    run(raw(3, b"nope", NOON + 59_999), state=state)
    assert (sorted(state.buckets), state.keys) == ([ELEVEN, ELEVEN + 60_000], 3)

    run(raw(4, b"nope", NOON + 60_000), state=state)
    assert (sorted(state.buckets), state.keys) == ([ELEVEN + 60_000], 1)


def test_what_was_forgotten_is_expired_and_never_accepted_again() -> None:
    """Exactly once holds beyond the memory."""
    state = new_state()
    run(raw(0, body(at="2024-01-01T11:00:59Z")), state=state)

    decisions = run(raw(1, body(at="2024-01-01T11:00:59Z"), NOON + 60_000), state=state)

    assert reasons_of(decisions) == ["event_time_expired"]


HOUR = 3_600_000
DAYS_30 = 30 * 24 * HOUR


@pytest.mark.parametrize("ahead", [HOUR + 1, 8 * HOUR, DAYS_30])
def test_one_record_of_a_wrong_clock_changes_nothing_for_the_others(ahead: int) -> None:
    """What came before it is remembered, what comes after is accepted, and the jump is counted."""
    first, other = body("a"), body("b")
    state = new_state()

    decisions = run(raw(0, first), raw(1, b"nope", NOON + ahead), raw(2, first), raw(3, other), state=state)

    assert decisions.outcomes == {"accepted": 2, "duplicate": 1, "rejected/invalid_json": 1}
    assert (state.stream_time, state.clock.newest) == (NOON, NOON + ahead)
    assert state.watermark == NOON - 30_000
    assert decisions.clock_jumps == 1


def test_a_jump_of_an_hour_is_believed_at_once() -> None:
    decisions = run(raw(0, b"nope"), raw(1, b"nope", NOON + HOUR), raw(2, body(at="2024-01-01T11:59:59Z")))

    assert reasons_of(decisions) == ["invalid_json", "invalid_json", "event_time_expired"]
    assert decisions.clock_jumps == 0


def test_a_record_of_a_wrong_clock_is_judged_by_that_clock() -> None:
    """As the first one after a quiet night is: what is so old by it may be final, and its rows written for good."""
    state = new_state()

    decisions = run(raw(0, body("a")), raw(1, body("b"), NOON + DAYS_30), state=state)

    assert reasons_of(decisions) == ["event_time_expired"]
    assert details_of(decisions) == [
        "2024-01-01T12:00:00Z is 2,592,000 s before the record's arrival, more than 3,600 s"
    ]


def test_two_batches_of_a_wrong_clock_are_believed() -> None:
    """Nothing in the log tells them from a quiet month. The records of one batch have one stamp, and are no two."""
    state = new_state()
    ahead = NOON + DAYS_30

    run(raw(0, b"nope"), raw(1, b"nope", ahead), raw(2, b"nope", ahead), state=state)
    assert state.stream_time == NOON

    run(raw(3, b"nope", ahead + 1), state=state)
    assert state.stream_time == ahead + 1


def test_after_a_quiet_night_all_is_accepted() -> None:
    """The first batch, the next one however late, and what comes while no other stamp confirms the last."""
    night = [
        ("20:00:00", 8 * HOUR),
        ("20:00:00", 8 * HOUR),
        ("20:00:01", 8 * HOUR + 1000),
        ("22:00:00", 10 * HOUR),
        ("22:10:00", 10 * HOUR + 600_000),
        ("23:30:00", 11 * HOUR + 1_800_000),
    ]
    records = [raw(0, body())]
    for number, (at, stamp) in enumerate(night, start=1):
        records.append(raw(number, body(f"m{number}", f"2024-01-01T{at}Z"), NOON + stamp))

    decisions = run(*records)

    assert decisions.outcomes == {"accepted": 7}
    assert decisions.clock_jumps == 0


@pytest.mark.parametrize(
    ("third", "stream_time", "reasons"),
    [
        (NOON + DAYS_30 + 1, NOON + DAYS_30 + 1, ["event_time_expired"]),
        (NOON + 1, NOON + 1, []),
    ],
)
def test_a_restart_between_a_jump_and_what_confirms_it_changes_nothing(
    third: int, stream_time: int, reasons: list[str]
) -> None:
    state = new_state()
    run(raw(0, b"nope"), raw(1, b"nope", NOON + DAYS_30), state=state)

    restored = from_metadata(3, POLICY, to_metadata(state))
    decisions = run(raw(2, body(), third), state=restored)

    assert reasons_of(decisions) == reasons
    assert restored.stream_time == stream_time
    assert decisions.clock_jumps == (third == NOON + 1)
