"""The table of failure rates: every cell."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from pipeline.core.rate_rows import FailureRateRow
from pipeline.core.windows import parse_time
from pipeline.local.rates_table import WINDOWS_KEPT_MAX, NewestRows, rates_table

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
    assert r"\x1b[2J[bold]x y" in shown[4]
    assert shown[4].split()[-2:] == ["10", "0.08%"]
    assert shown[5].split() == ["[/red]", "5", "0.04%"]
    assert shown[3].split()[-2:] == ["2", "3"]
