"""What the accept transition passes on to the report: counts, and how far its partition has come."""

from __future__ import annotations

import json

import pytest

from pipeline.core.deduplication import tick
from pipeline.core.windows import NEVER
from tests.builders import body
from tests.harness.accept import AT_NOON, NOON, Out, counts_of, new_state, outs, raw, run


def test_counts_are_cumulative_per_window_and_code() -> None:
    """
    A reader replaces, never adds; a success counts under the empty code and a failure without a code as unknown.

    12:00                12:01
    [--a--b(fail X)--c----)[--d(fail)--
    """
    state = new_state()
    run(raw(0, body("a")), raw(1, body("b", Status="fail", ErrorCode="X|é")), state=state)

    decisions = run(
        raw(2, body("c", "2024-01-01T12:00:59Z")),
        raw(3, body("d", "2024-01-01T12:01:00Z", Status="fail")),
        raw(4, body("e", Status="fail", ErrorCode="X|é", MediaType="image")),
        state=state,
    )

    assert counts_of(decisions.partial_counts) == {
        b"3|1704110400000|": b"2",
        b"3|1704110460000|unknown": b"1",
        "3|1704110400000|X|é".encode(): b"2",
    }
    assert state.buckets[NOON].counts == {"": 2, "X|é": 2}


def test_one_code_with_different_contents_has_one_count() -> None:
    """The tally is by content, the key by code: two rows of one key in a chunk would be a wrong intermediate number."""
    contents = ("video", "image", "attached")

    decisions = run(*(raw(n, body(f"m{n}", MediaType=kind)) for n, kind in enumerate(contents)))

    assert [row.key for row in outs(decisions.partial_counts)] == [b"3|1704110400000|", b"watermark|3"]
    assert outs(decisions.partial_counts)[0].value == b"3"
    assert {content.media_type: n for content, n in decisions.deletions.items()} == dict.fromkeys(contents, 1)


@pytest.mark.parametrize(
    ("event_time", "watermark"),
    [
        ("2024-01-01T11:59:00Z", NOON - 90_000),
        (AT_NOON, NOON - 30_000),
        ("2024-01-01T12:10:00Z", NOON - 30_000),  # Ahead of the stream time, which holds it back.
    ],
)
def test_the_watermark_is_30_s_behind_event_time(event_time: str, watermark: int) -> None:
    """It travels with the counts it covers: 12:00 less an hour of horizon and one of skew is where all is final."""
    state = new_state()

    decisions = run(raw(0, body(at=event_time)), state=state)

    row = outs(decisions.partial_counts)[-1]
    assert (row.key, row.timestamp) == (b"watermark|3", -1)
    assert json.loads(row.value or b"") == {"watermark": watermark, "expiry": NOON - 7_200_000}
    assert state.watermark == watermark


def test_a_watermark_that_does_not_move_is_not_written() -> None:
    """An event of the past neither lowers nor repeats it."""
    state = new_state()
    run(raw(0, body()), state=state)

    decisions = run(raw(1, body(at="2024-01-01T11:30:00Z")), state=state)

    assert state.watermark == NOON - 30_000
    assert [row.key for row in outs(decisions.partial_counts)] == [b"3|1704108600000|"]


def test_a_tick_moves_the_watermark_of_an_idle_partition() -> None:
    """Otherwise its windows would stay incomplete for ever; nothing else changes."""
    state = new_state()
    run(raw(0, body()), state=state)

    decisions = tick(state, NOON + 3_630_000)

    assert outs(decisions.partial_counts) == [
        Out(b"watermark|3", b'{"watermark": 1704114000000, "expiry": 1704106800000}', -1, [])
    ]
    assert (decisions.rejected, decisions.outcomes) == ([], {})
    assert (state.watermark, state.stream_time) == (NOON + 3_600_000, NOON)


def test_the_first_batch_after_a_quiet_night_counts_nothing_that_is_final() -> None:
    """
    The report has dropped those windows: one that began anew would have a wrong row.

    S:      12:00   12:00 (record says 20:00, and no other does)
    final:          18:00, as the ticks went on
    event:          18:59   19:00
    """
    state = new_state()
    run(raw(0, body()), state=state)
    (watermark,) = outs(tick(state, NOON + 8 * 3_600_000).partial_counts)

    decisions = run(
        raw(1, body("a", "2024-01-01T18:59:59Z"), NOON + 8 * 3_600_000),
        raw(2, body("b", "2024-01-01T19:00:00Z"), NOON + 8 * 3_600_000),
        state=state,
    )

    assert json.loads(watermark.value or b"")["expiry"] == NOON + 6 * 3_600_000
    assert counts_of(decisions.partial_counts) == {b"3|1704135600000|": b"1"}
    assert state.stream_time == NOON


def test_a_tick_of_a_clock_that_stands_or_falls_writes_nothing() -> None:
    """A worker whose clock is behind takes over: what was promised stays promised."""
    state = new_state()
    tick(state, NOON)

    assert tick(state, NOON).partial_counts == []
    assert tick(state, NOON - 1).partial_counts == []
    assert state.watermark == NOON - 30_000


def test_a_tick_writes_only_where_the_watermark_passes_the_end_of_a_window() -> None:
    """An idle partition costs a transaction a minute; NOON is a window's start, the delay is 30 s."""
    state = new_state()
    written = [bool(tick(state, NOON + second * 1000).partial_counts) for second in range(150)]

    assert [second for second, is_written in enumerate(written) if is_written] == [0, 30, 90]


def test_a_tick_before_the_time_is_known_repeats_the_watermark() -> None:
    """Kafka's stamp on it tells the time; until then no window ends by a clock."""
    state = new_state()
    run(raw(0, body()), state=state)

    (row,) = outs(tick(state, None).partial_counts)
    (first,) = outs(tick(new_state(), None).partial_counts)

    assert json.loads(row.value or b"") == {"watermark": NOON - 30_000, "expiry": NOON - 7_200_000}
    assert json.loads(first.value or b"")["watermark"] == NEVER
    assert state.watermark == NOON - 30_000


def test_a_tick_of_a_partition_that_never_had_a_record_counts_too() -> None:
    """Four partitions and one media: the three empty ones must not hold back the report."""
    assert len(tick(new_state(), NOON).partial_counts) == 1


def test_an_event_behind_the_ticks_watermark_is_accepted() -> None:
    """It is late, which corrects the window; no event is dropped."""
    state = new_state()
    tick(state, NOON + 600_000)

    assert run(raw(0, body()), state=state).outcomes == {"accepted": 1}
    assert state.watermark == NOON + 570_000
