"""
The failure rates in a terminal, as they change.

The table is pure; only `follow` reads Kafka. It knows the rows of failure-rates, not how they come about.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.core.rate_rows import FailureRateRow
from pipeline.core.windows import format_time
from pipeline.kafka.tools.cluster import connect
from pipeline.kafka.tools.reader import Reader
from pipeline.service.plain_text import plain

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Mapping

    from rich.console import Console, RenderableType

    from pipeline.service.settings import KafkaSettings

WINDOWS_SHOWN_MAX = 3
CODES_SHOWN_MAX = 4  # Three windows then just fit into a terminal of 24 lines.
WINDOWS_KEPT_MAX = 100


class NewestRows:
    """The newest row of each window and ErrorCode, for the newest WINDOWS_KEPT_MAX windows."""

    def __init__(self) -> None:
        self._windows: dict[int, dict[str | None, FailureRateRow]] = {}

    def add(self, row: FailureRateRow) -> None:
        """Take a row in the topic's order: it replaces an earlier one with the same key."""
        self._windows.setdefault(row.window_start, {})[row.error_code] = row
        if len(self._windows) > WINDOWS_KEPT_MAX:
            del self._windows[min(self._windows)]

    def rows(self) -> list[FailureRateRow]:
        return [row for window in self._windows.values() for row in window.values()]


def rates_table(
    rows: Iterable[FailureRateRow], *, windows_max: int = WINDOWS_SHOWN_MAX, codes_max: int = CODES_SHOWN_MAX
) -> Table:
    """
    Return the table of the newest windows, the most recent first.

    Args:
        rows: At most one for each window and ErrorCode.
        windows_max: How many windows.
        codes_max: How many ErrorCodes of a window, those with the most failures first; one line counts the others.
    """
    windows: dict[int, dict[str | None, FailureRateRow]] = {}
    for row in rows:
        windows.setdefault(row.window_start, {})[row.error_code] = row
    shown = sorted(windows, reverse=True)[:windows_max]
    day = format_time(shown[0])[:10] if shown else ""
    table = Table(
        title=f"Failure rates by event time, {day} UTC" if shown else "Failure rates",
        title_justify="left",
        title_style="bold",
        caption=None if shown else "No window yet.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("window", no_wrap=True)
    table.add_column("ErrorCode")  # The only column that may shrink; its texts are cut, never wrapped.
    for name in ("failures", "total", "rate"):
        table.add_column(name, justify="right", min_width=7, no_wrap=True)
    table.add_column("complete", justify="right", no_wrap=True)
    table.add_column("revision", justify="right", no_wrap=True)
    table.add_column("late", justify="right", no_wrap=True)
    for start in shown:
        _add_window(table, windows[start], day, codes_max)
    return table


def _add_window(table: Table, window: Mapping[str | None, FailureRateRow], day: str, codes_max: int) -> None:
    of_all = window.get(None)
    codes = sorted(
        (row for code, row in window.items() if code is not None), key=lambda row: (-row.failures, row.error_code)
    )
    if of_all is not None:
        start = format_time(of_all.window_start)
        table.add_row(
            Text(start[11:19] if start.startswith(day) else f"{start[5:10]} {start[11:19]}"),
            Text("all"),
            f"{of_all.failures:,}",
            f"{of_all.total:,}",
            f"{of_all.rate:.2%}",
            Text("yes", style="green") if of_all.complete else Text("not yet", style="yellow"),
            f"{of_all.revision:,}",
            f"{of_all.late:,}",
            style="bold",
            end_section=not codes,
        )
    for row in codes[:codes_max]:
        table.add_row("", _printable(row.error_code or ""), f"{row.failures:,}", "", f"{row.rate:.2%}")
    others = codes[codes_max:]
    if others:
        failures, rate = sum(row.failures for row in others), sum(row.rate for row in others)
        table.add_row("", Text(f"{len(others)} more", style="italic"), f"{failures:,}", "", f"{rate:.2%}")
    if codes:
        table.add_section()


def _printable(code: str) -> Text:
    """Return an ErrorCode that can't steer the terminal: it is any string of at most 128 characters."""
    return Text(plain(code), no_wrap=True, overflow="ellipsis")


def follow(kafka: KafkaSettings, *, since_ms: int = 0, is_once: bool = False) -> Iterator[list[FailureRateRow]]:
    """
    Yield the rows of failure-rates as they come, in lists that may be empty.

    Args:
        kafka: Where failure-rates is.
        since_ms: Windows that start earlier are left out; ms since the epoch.
        is_once: End with the last row that is there now.

    Raises:
        ClusterError: no Kafka answers, there is no such topic, or it cannot be read.
    """
    topic = kafka.topics.failure_rates
    with connect(kafka) as cluster:
        reader = Reader(cluster)
        # A record's timestamp is its window's start.
        lists = [list(reader.read_since(topic, since_ms))] if is_once else reader.follow(topic, since_ms=since_ms)
        for records in lists:
            yield [FailureRateRow.decode(record.value) for record in records if record.timestamp >= since_ms]


def show(
    lists: Iterable[list[FailureRateRow]],
    console: Console,
    *,
    stop: threading.Event | None = None,
    above: RenderableType | None = None,
) -> None:
    """
    Show the table of what *lists* bring (see `follow`): on a terminal in place, elsewhere anew whenever it changed.

    Args:
        lists: Rows as they come.
        console: Where to show it; what it shows last stays there.
        stop: Ends it, after one more list.
        above: Shown over the table, such as a rich Progress that was not started itself: a terminal has one Live.
    """
    newest = NewestRows()

    def view() -> RenderableType:
        table = rates_table(newest.rows())
        return table if above is None else Group(above, "", table)

    with Live(view(), console=console) if console.is_terminal else nullcontext() as live:
        is_last = is_printed = False
        for rows in lists:
            for row in rows:
                newest.add(row)
            if live is not None:
                live.update(view())
            elif rows:
                console.print(view())
                is_printed = True
            if is_last:
                return
            is_last = stop is not None and stop.is_set()  # What is there by now is read once more.
        if live is None and not is_printed:
            console.print(view())
