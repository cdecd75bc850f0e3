"""The accept transition's time: an event is neither in the future nor expired, by the log alone."""

from __future__ import annotations

import pytest

from tests.builders import body
from tests.harness.accept import ELEVEN, NOON, details_of, new_state, outs, raw, reasons_of, run


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
        "2024-01-01T12:10:01Z is +601 s from the record's arrival",
        "2024-01-01T10:59:59Z is -3601 s from the record's arrival",
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
