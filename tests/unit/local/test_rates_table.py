"""The tables of `make demo`: every cell, and when the closing summary says that all is well."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console, RenderableType

from pipeline.core.rates import FailureRateRow
from pipeline.core.windows import parse_time
from pipeline.local.closing import Outcomes, closing, read_outcomes, verdict
from pipeline.local.load import Summary
from pipeline.local.rates_table import WINDOWS_KEPT_MAX, NewestRows, rates_table
from pipeline.local.simulator import Kind
from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.metrics.worker import RecordTotals
from tests.builders import keyed

ROW = FailureRateRow(
    window_start=parse_time("2026-11-22T19:38:00Z"),
    window_end=parse_time("2026-11-22T19:39:00Z"),
    error_code=None,
    failures=15,
    total=12_041,
    complete=True,
    revision=2,
    late=3,
)
SUMMARY = Summary(
    sent={Kind.SUCCESS: 1600, Kind.FAILURE: 200, Kind.DUPLICATE: 150, Kind.CONFLICT: 20, Kind.MALFORMED: 30},
    answered={200: 2000},
    unanswered=0,
    retries=0,
    lost={},
    latency_p50_seconds=0.0031,
    latency_p99_seconds=0.0212,
    latency_max_seconds=1.0431,
    wall_seconds=20.0,
)
OUTCOMES = Outcomes(accepted=1800, duplicate=150, rejected={"conflict": 20, "invalid_json": 10, "invalid_field": 20})


def code_row(code: str, failures: int, *, of: FailureRateRow = ROW) -> FailureRateRow:
    return replace(of, error_code=code, failures=failures)


def lines(renderable: RenderableType, *, width: int = 80) -> list[str]:
    """Render as a terminal does, and drop the empty lines."""
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(renderable)
    return [line.rstrip() for line in console.export_text().splitlines() if line.strip()]


def test_the_newest_row_of_a_key_replaces_the_others() -> None:
    """failure-rates is a changelog: adding rows up would count deletions twice."""
    newest = NewestRows()
    newest.add(ROW)
    newest.add(code_row("InternalError", 15))
    newest.add(replace(ROW, failures=16, revision=3))

    assert newest.rows() == [replace(ROW, failures=16, revision=3), code_row("InternalError", 15)]


def test_windows_beyond_the_limit_are_forgotten_oldest_first() -> None:
    """A table left open for days must not grow."""
    newest = NewestRows()
    for number in range(WINDOWS_KEPT_MAX + 1):
        newest.add(replace(ROW, window_start=parse_time(f"2026-11-22T{number // 60:02}:{number % 60:02}:00Z")))

    starts = [row.window_start for row in newest.rows()]
    assert len(starts) == WINDOWS_KEPT_MAX
    assert min(starts) == parse_time("2026-11-22T00:01:00Z")


def test_a_window_shows_all_codes_first_then_each_code_by_failures() -> None:
    """What repeats in every row of a window is written once."""
    rows = [code_row("InternalError", 5), code_row("DeleteVideoFailed", 10), ROW]

    shown = [line.split() for line in lines(rates_table(rows))]

    assert shown[0] == ["Failure", "rates", "by", "event", "time,", "2026-11-22", "UTC"]
    assert shown[1] == ["window", "ErrorCode", "failures", "total", "rate", "complete", "revision", "late"]
    assert shown[3:] == [
        ["19:38:00", "all", "15", "12,041", "0.12%", "yes", "2", "3"],
        ["DeleteVideoFailed", "10", "0.08%"],
        ["InternalError", "5", "0.04%"],
    ]


def test_the_most_recent_windows_come_first_and_older_ones_are_left_out() -> None:
    """[18:00)[19:00)[20:00): two are asked for. Complete or not is said of each."""
    rows = [
        replace(ROW, window_start=parse_time("2026-11-22T18:00:00Z")),
        replace(ROW, window_start=parse_time("2026-11-22T20:00:00Z"), complete=False),
        replace(ROW, window_start=parse_time("2026-11-22T19:00:00Z")),
    ]

    shown = lines(rates_table(rows, windows_max=2))[3:]

    assert [(line.split()[0], "not yet" in line) for line in shown] == [("20:00:00", True), ("19:00:00", False)]


def test_codes_beyond_the_limit_share_one_line() -> None:
    """ErrorCode is an open set; what is not named is counted."""
    rows = [ROW, code_row("A", 8), code_row("B", 4), code_row("C", 2), code_row("D", 1)]

    shown = [line.split() for line in lines(rates_table(rows, codes_max=2))[4:]]

    assert shown == [["A", "8", "0.07%"], ["B", "4", "0.03%"], ["2", "more", "3", "0.02%"]]


def test_a_window_of_another_day_says_so() -> None:
    """The title names the day of the newest window only."""
    rows = [ROW, replace(ROW, window_start=parse_time("2026-11-21T23:59:00Z"))]

    assert lines(rates_table(rows))[-1].startswith("11-21 23:59:00")


def test_before_the_first_row_the_table_says_that_there_is_none() -> None:
    """An empty frame looks like an error."""
    assert lines(rates_table([]))[-1] == "No window yet."


@pytest.mark.parametrize("width", [80, 120])
def test_a_hostile_error_code_neither_steers_nor_widens_the_terminal(width: int) -> None:
    """ErrorCode is any string: an escape sequence, rich's own markup, 128 characters."""
    rows = [ROW, code_row("\x1b[2J[bold]" + "x y " * 29, 10), code_row("[/red]", 5)]

    shown = lines(rates_table(rows), width=width)

    assert max(map(len, shown)) <= width
    assert "?[2J[bold]x y" in shown[4]
    assert shown[4].split()[-2:] == ["10", "0.08%"]
    assert shown[5].split() == ["[/red]", "5", "0.04%"]
    assert shown[3].split()[-2:] == ["2", "3"]


def test_outcomes_are_read_from_what_the_worker_exposes() -> None:
    """The real collector, both partitions summed; metrics of other names are not looked at."""
    registry = CollectorRegistry()
    totals = RecordTotals()
    registry.register(totals)
    totals.update(0, keyed({"accepted": 5, "rejected/conflict": 1, "ignored/TranscodeComplete": 2}))
    totals.update(1, keyed({"accepted": 7, "duplicate": 3, "rejected/conflict": 1, "ignored/other": 1}))

    outcomes = read_outcomes(generate_latest(registry).decode())

    assert (outcomes.accepted, outcomes.duplicate, outcomes.ignored) == (12, 3, 3)
    assert {reason: n for reason, n in outcomes.rejected.items() if n} == {"conflict": 2}
    assert outcomes.received == 20


def test_what_was_decided_before_the_load_does_not_count() -> None:
    """The totals are committed and go back to the first record ever, so a second demo starts above 0."""
    before = Outcomes(accepted=100, duplicate=10, ignored=1, rejected={"conflict": 2})
    after = Outcomes(accepted=150, duplicate=15, ignored=1, rejected={"conflict": 2, "invalid_json": 4})

    assert after.since(before) == Outcomes(accepted=50, duplicate=5, rejected={"conflict": 0, "invalid_json": 4})


@pytest.mark.parametrize("width", [80, 120])
def test_the_closing_summary_sets_sent_against_decided(width: int) -> None:
    """Every figure is there, in either width."""
    shown = lines(closing(SUMMARY, OUTCOMES), width=width)

    assert shown[0] == "Sent 2,000 callbacks in 20.0 s, 100.0 a second."
    assert shown[1] == "Answers: 2,000 x 200; 0 without one, 0 retries, 0 lost."
    assert shown[2] == "From due to 200: p50 3.1 ms, p99 21 ms, max 1,043 ms."
    assert [line.split() for line in shown[5:-1]] == [
        ["success", "1,600", "accepted", "1,800"],
        ["failure", "200"],
        ["duplicate", "150", "duplicate", "150"],
        ["conflict", "20", "rejected:", "conflict", "20"],
        ["malformed", "30", "rejected:", "invalid_field", "20"],
        ["rejected:", "invalid_json", "10"],
        ["ignored", "0"],
        ["same", "request", "again", "0"],
        ["all", "2,000", "all", "2,000"],
    ]
    assert shown[-1] == "They agree: every delivered callback was decided on exactly once."


def test_without_failed_attempts_one_record_off_is_a_disagreement() -> None:
    """No retry can explain it."""
    assert verdict(SUMMARY, replace(OUTCOMES, accepted=1799)).plain.startswith("They do not agree: accepted -1 ")
    assert verdict(SUMMARY, replace(OUTCOMES, duplicate=151)).plain.startswith("They do not agree: duplicate +1 ")
    assert verdict(SUMMARY, replace(OUTCOMES, ignored=1)).plain.startswith("They do not agree: ignored +1 ")
    assert verdict(SUMMARY, replace(OUTCOMES, rejected={"conflict": 49})).plain.startswith(
        "They do not agree: rejected -1 "
    )


def test_an_equal_request_that_the_bridge_answered_alone_is_no_loss() -> None:
    """The same body within the same second: of a duplicate, or of a malformed callback."""
    rejected = {**OUTCOMES.rejected, "invalid_json": 9}

    assert verdict(SUMMARY, replace(OUTCOMES, duplicate=146, replayed=4)).plain.startswith("They agree: ")
    assert verdict(SUMMARY, replace(OUTCOMES, duplicate=149, rejected=rejected, replayed=2)).plain.startswith(
        "They agree: "
    )
    assert verdict(SUMMARY, replace(OUTCOMES, replayed=1)).plain.startswith("They do not agree: duplicate +1 ")
    assert verdict(SUMMARY, replace(OUTCOMES, accepted=1799, replayed=1)).plain.startswith(
        "They do not agree: accepted -1, duplicate +1 "
    )


def test_the_bridges_replays_are_read_out_of_its_metrics() -> None:
    registry = CollectorRegistry()
    requests = BridgeMetrics(registry).requests
    requests.labels("replayed").inc(3)
    requests.labels("published").inc(5)

    assert read_outcomes(generate_latest(registry).decode()) == Outcomes(replayed=3)


def test_a_retried_callback_may_have_arrived_twice() -> None:
    """Two attempts were answered 503, Kafka may have had both; a third extra record has no such excuse."""
    retried = replace(SUMMARY, answered={200: 2000, 503: 2}, retries=2)

    assert verdict(retried, OUTCOMES).plain.startswith("They agree: ")
    assert verdict(retried, replace(OUTCOMES, duplicate=152)).plain.startswith("They agree but for duplicate +2: 2 ")
    assert verdict(retried, replace(OUTCOMES, duplicate=153)).plain.startswith("They do not agree: duplicate +3 ")


def test_a_missing_record_is_never_explained_by_retries() -> None:
    """An answer of 200 is a promise: fewer records than those is a loss."""
    retried = replace(SUMMARY, answered={200: 2000, 503: 2}, retries=2)

    assert verdict(retried, replace(OUTCOMES, accepted=1799)).plain.startswith("They do not agree: accepted -1 ")


def test_a_lost_callback_is_not_expected_but_may_have_arrived() -> None:
    """One success got no 200 in three attempts."""
    lost = replace(SUMMARY, answered={200: 1999, 503: 3}, retries=2, lost={Kind.SUCCESS: 1})

    assert verdict(lost, replace(OUTCOMES, accepted=1799)).plain.startswith("They agree: ")
    assert verdict(lost, OUTCOMES).plain.startswith("They agree but for accepted +1: 3 ")
    assert "1 lost" in lines(closing(lost, OUTCOMES))[1]
