"""Event time: windows partition it, borders belong to one side, and what is final stays so."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.windows import CLOCK_SKEW, NEVER, TimePolicy, format_time, parse_time

POLICY = TimePolicy()
NOON = 1_704_110_400_000  # 2024-01-01T12:00:00Z, a window start.
MINUTE = 60_000

seconds = st.integers(-62_135_596_800, 253_402_300_799)  # All that yyyy can write: years 1 to 9999.
instants = st.integers(-(2**45), 2**45)
policies = st.builds(
    TimePolicy,
    window=st.integers(1, 86_400).map(lambda value: value * 1000),
    horizon=st.integers(60, 30 * 86_400).map(lambda value: value * 1000),
    delay=st.integers(0, 86_400).map(lambda value: value * 1000),
)


@pytest.mark.parametrize(
    ("at", "start"),
    [
        # 11:59         12:00         12:01
        # [-------------)[------------)[-----
        #              x
        (NOON - 1, NOON - MINUTE),
        #                x
        (NOON, NOON),
        #                           x
        (NOON + MINUTE - 1, NOON),
        #                             x
        (NOON + MINUTE, NOON + MINUTE),
    ],
)
def test_a_border_belongs_to_the_later_window(at: int, start: int) -> None:
    """Half-open: an event on the full minute must not count twice."""
    assert POLICY.window_of(at) == start


@pytest.mark.parametrize(("at", "start"), [(-1, -MINUTE), (0, 0), (-MINUTE, -MINUTE), (-MINUTE - 1, -2 * MINUTE)])
def test_windows_before_the_epoch_open_downwards_too(at: int, start: int) -> None:
    """Truncation towards zero would make the window at the epoch twice as wide."""
    assert POLICY.window_of(at) == start


@settings(max_examples=100, deadline=None)
@given(policies, instants)
def test_windows_partition_time(policy: TimePolicy, at: int) -> None:
    """Every instant is in exactly one window, aligned to the epoch; the window's own instants name it, no others."""
    start = policy.window_of(at)

    assert start <= at < start + policy.window
    assert start % policy.window == 0
    assert policy.window_of(start) == policy.window_of(start + policy.window - 1) == start
    assert policy.window_of(start - 1) == start - policy.window
    assert policy.window_of(start + policy.window) == start + policy.window


@pytest.mark.parametrize(
    ("stream_time", "expiry"),
    [
        # Horizon 1 h:   10:59          11:00          11:01
        #                [--------------)[-------------)[---
        #                               E: everything in a window that began before it is forgotten
        (NOON - 1, NOON - 61 * MINUTE),
        (NOON, NOON - 60 * MINUTE),
        (NOON + MINUTE - 1, NOON - 60 * MINUTE),
        (NOON + MINUTE, NOON - 59 * MINUTE),
    ],
)
def test_the_expiry_is_the_start_of_the_window_at_the_horizon(stream_time: int, expiry: int) -> None:
    """E in the middle of a window would leave half of its events remembered, and a recount could not match."""
    assert TimePolicy(horizon=3_600_000).expiry(stream_time) == expiry


def test_the_latest_instant_is_ten_minutes_ahead() -> None:
    """The broker refuses timestamps over an hour ahead, and one such record would stop the partition."""
    assert POLICY.latest(NOON) == NOON + 600_000


@settings(max_examples=100, deadline=None)
@given(policies, instants, instants)
def test_the_expiry_never_falls(policy: TimePolicy, one: int, other: int) -> None:
    """What was forgotten must stay expired, as it would be accepted again."""
    low, high = sorted((one, other))

    assert policy.expiry(low) <= policy.expiry(high)
    assert policy.expiry(high) % policy.window == 0
    assert high - policy.horizon - policy.window < policy.expiry(high) <= high - policy.horizon


@pytest.mark.parametrize(
    ("highest", "watermark"),
    [(NOON - 1000, NOON - 31_000), (NOON, NOON - 30_000), (NOON + 1000, NOON - 30_000), (NEVER, NEVER - 30_000)],
)
def test_the_watermark_is_the_delay_behind_the_lower_of_event_and_stream_time(highest: int, watermark: int) -> None:
    """An event 10 minutes ahead is accepted, but must not declare the minutes before it complete."""
    assert POLICY.watermark(highest, NOON) == watermark


def test_final_follows_the_clock_of_an_idle_partition() -> None:
    """Stream time stands still without records, the tick's watermark does not: 12:00 - 8 d - 1 h of skew."""
    final = NOON - 8 * 86_400_000 - CLOCK_SKEW

    assert POLICY.final_before(NOON, NEVER) == final
    assert POLICY.final_before(NEVER, NOON - 30_000) == final
    assert POLICY.final_before(NOON - MINUTE, NOON - 30_000) == final


@settings(max_examples=100, deadline=None)
@given(policies, instants, st.integers(0, 2**45), st.integers(0, CLOCK_SKEW), st.integers(0, 2**40))
def test_what_is_final_is_expired_for_any_later_record(
    policy: TimePolicy, stream_time: int, idle: int, ahead: int, later: int
) -> None:
    """
    The report forgets what is final, so no count may change after.

    The clock of the tick may run up to an hour ahead of the broker's, whose time the next record carries.
    """
    broker_now = stream_time + idle
    final = policy.final_before(stream_time, broker_now + ahead - policy.delay)

    assert final <= policy.expiry(max(stream_time, broker_now + later))


@settings(max_examples=100, deadline=None)
@given(policies, instants, instants, instants, instants)
def test_final_never_falls(policy: TimePolicy, one: int, other: int, mark: int, other_mark: int) -> None:
    """As both times only rise, a window the report dropped stays dropped."""
    (low, high), (low_mark, high_mark) = sorted((one, other)), sorted((mark, other_mark))

    assert policy.final_before(low, low_mark) <= policy.final_before(high, high_mark)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01Z", 1000),
        ("1969-12-31T23:59:59Z", -1000),
        ("2017-03-20T07:49:17Z", 1_489_996_157_000),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ("9999-12-31T23:59:59Z", 253_402_300_799_000),
    ],
)
def test_event_times_are_utc_milliseconds_and_written_back_the_same(text: str, at: int) -> None:
    """Kafka's unit; the row's window_start is how the report finds its window again."""
    assert parse_time(text) == at
    assert format_time(at) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2017-03-20T07:49:17",
        "2017-03-20T07:49:17z",
        "2017-03-20t07:49:17Z",
        "2017-03-20 07:49:17Z",
        "2017-03-20T07:49:17+00:00",
        "2017-03-20T07:49:17.0Z",
        "2017-03-20T07:49Z",
        "2017-3-20T07:49:17Z",
        "20170320T074917Z",
        "2017-03-20T07:49:17Z\n",
        " 2017-03-20T07:49:17Z",
        "12017-03-20T07:49:17Z",
        "-017-03-20T07:49:17Z",
        "2017-03-20T07:49:1\u0667Z",  # An Arabic digit seven, which \d would take.
        "\uff12017-03-20T07:49:17Z",
    ],
)
def test_a_time_just_off_the_form_is_refused(text: str) -> None:
    """One form, one instant, one key: another spelling of the same second would be another event."""
    with pytest.raises(ValueError, match="not of the form"):
        parse_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "0000-01-01T00:00:00Z",
        "2017-00-20T07:49:17Z",
        "2017-13-20T07:49:17Z",
        "2017-03-00T07:49:17Z",
        "2017-03-32T07:49:17Z",
        "2017-02-29T07:49:17Z",
        "2017-03-20T24:00:00Z",
        "2017-03-20T07:60:17Z",
        "2016-12-31T23:59:60Z",
    ],
)
def test_a_time_just_off_the_calendar_is_refused(text: str) -> None:
    """Right in form, but no such day, hour or second: 24:00:00 would be a second name for midnight."""
    with pytest.raises(ValueError, match=r"range|must be in"):
        parse_time(text)


@settings(max_examples=100, deadline=None)
@given(seconds)
def test_every_second_is_read_back_as_it_was_written(second: int) -> None:
    """format_time says it is the inverse of parse_time; datetime's own arithmetic is the witness."""
    text = format_time(second * 1000)

    assert parse_time(text) == second * 1000
    assert datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).year >= 1


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=25) | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", fullmatch=True))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    """The accept stage catches ValueError alone."""
    try:
        at = parse_time(text)
    except ValueError:
        return
    assert format_time(at) == text
