"""Which stamps of raw the stream time follows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.log_clock import LogClock
from pipeline.core.windows import CLOCK_SKEW
from tests.harness.stream_time import HOUR, judged_at

NOON = 1_704_110_400_000
DAYS_30 = 30 * 24 * HOUR
stamps = st.lists(
    st.sampled_from([0, 1, HOUR, HOUR + 1, 2 * HOUR, 8 * HOUR, DAYS_30, DAYS_30 + HOUR]).flatmap(
        lambda at: st.sampled_from([NOON + at, NOON + at + 1, NOON - at])
    ),
    max_size=12,
)


@pytest.mark.parametrize(
    ("ahead", "stream_time", "jumps"),
    [
        ([HOUR], HOUR, 0),
        ([HOUR, 0], HOUR, 0),
        ([HOUR + 1], 0, 0),
        ([HOUR + 1, HOUR + 1], 0, 0),
        ([HOUR + 1, HOUR], HOUR, 1),
        ([HOUR + 1, 0], 0, 1),
        ([HOUR + 1, -HOUR], 0, 1),
        ([8 * HOUR, 0], 0, 1),
        ([DAYS_30, 0], 0, 1),
        # The next one is above, too: the lower is believed, and the higher if it is near that.
        ([8 * HOUR, 8 * HOUR + 1], 8 * HOUR + 1, 0),
        ([8 * HOUR + 1, 8 * HOUR], 8 * HOUR + 1, 0),
        ([8 * HOUR, 9 * HOUR], 9 * HOUR, 0),
        ([8 * HOUR, 9 * HOUR + 1], 8 * HOUR, 0),
        # A clock is wrong just after, or before, a quiet night.
        ([8 * HOUR, DAYS_30, 8 * HOUR + 1], 8 * HOUR + 1, 1),
        ([DAYS_30, 8 * HOUR], 8 * HOUR, 1),
        # Twice alone is not twice in succession.
        ([DAYS_30, 0, DAYS_30, 0], 0, 2),
        ([DAYS_30, 8 * HOUR, DAYS_30], 8 * HOUR, 1),
        ([DAYS_30, DAYS_30 + 1, 0], DAYS_30 + 1, 0),
    ],
)
def test_a_stamp_over_an_hour_ahead_needs_another(ahead: list[int], stream_time: int, jumps: int) -> None:
    clock = LogClock()
    clock.take(NOON)

    for by in ahead:
        clock.take(NOON + by)

    assert (clock.stream_time - NOON, clock.jumps) == (stream_time, jumps)
    assert clock.newest == NOON + max(0, *ahead)


def test_the_first_stamp_is_believed() -> None:
    """There is nothing that it could be compared with."""
    clock = LogClock()

    assert clock.take(NOON) == clock.stream_time == NOON


@given(stamps)
def test_a_record_is_judged_by_the_time_of_a_recount(taken: list[int]) -> None:
    clock = LogClock()

    assert [clock.take(stamp) for stamp in taken] == list(judged_at(taken))


@given(stamps)
def test_the_stream_time_never_falls_and_is_no_lie(taken: list[int]) -> None:
    """It is one of the stamps, and rises by more than an hour only where two in succession say so."""
    clock, times = LogClock(), []
    for stamp in taken:
        clock.take(stamp)
        times.append(clock.stream_time)

    assert times == sorted(times)
    assert set(times) <= set(taken)
    for number in range(1, len(times)):
        if times[number] > times[number - 1] + CLOCK_SKEW:
            assert min(taken[number - 1 : number + 1]) > times[number - 1] + CLOCK_SKEW


@given(stamps)
def test_where_no_jump_is_counted_every_record_is_judged_by_the_highest_stamp(taken: list[int]) -> None:
    """A log of right clocks, however quiet, is decided on as if every stamp were believed at once."""
    clock = LogClock()

    judged = [clock.take(stamp) for stamp in taken]

    if clock.jumps == 0:
        assert judged == [max(taken[: number + 1]) for number in range(len(taken))]
