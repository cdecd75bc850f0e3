"""What all commands share: where they print, how they end, and the options that many have."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from typer import rich_utils

from pipeline.core.windows import format_time
from pipeline.service.plain_text import plain

USAGE_EXIT_CODE = 2
FAILURE_EXIT_CODE = 1
WIDTH_UNLIMITED = 10_000

_AGO = re.compile(r"-?(\d+)([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

# No style at all where NO_COLOR is set, whereas rich alone keeps bold and dim. Source: no-color.org.
COLOR_SYSTEM: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
rich_utils.COLOR_SYSTEM = COLOR_SYSTEM  # Help pages and usage errors.


class PlainConsole(Console):
    """
    A console for which no text is a command: what did not go through `plain` before is escaped here.

    Its own styles are none of the text. In a pipe or a file lines are as long as they are.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"color_system": COLOR_SYSTEM} | options)
        if not (self.is_terminal or "width" in options or "COLUMNS" in os.environ):
            self.width = WIDTH_UNLIMITED

    def show_cursor(self, show: bool = True) -> bool:
        """Leave the cursor where a terminal has it: a command that Ctrl-C ends has no time to bring it back."""
        return super().show_cursor(show) if show else False

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, with the text made plain; its line ends are ours."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment("\n".join(map(plain, segment.text.split("\n"))), segment.style)


out = PlainConsole()
err = PlainConsole(stderr=True, highlight=False, soft_wrap=True)


class Bar:
    """How far a command is, on standard error, and only if that is a terminal: for a `with` block."""

    def __init__(self, what: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        # Without redirection: what is written to standard output goes there, and not above the bar.
        self._progress = Progress(
            *columns, console=err, transient=True, disable=not err.is_terminal, redirect_stdout=False
        )
        self._task = self._progress.add_task(what, total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, done: int, total: int) -> None:
        """Show that *done* of *total* is done."""
        self._progress.update(self._task, completed=done, total=total)

    def print_lines(self, lines: Iterable[str]) -> int:
        """
        Print each line as it comes, made plain, and return how many there were.

        On a terminal the bar ends with the first one: they would be drawn over each other.
        """
        count = 0
        for count, line in enumerate(lines, 1):  # noqa: B007  # The last number is returned.
            if out.is_terminal:
                self._progress.stop()
            sys.stdout.write(f"{plain(line)}\n")
        sys.stdout.flush()  # So that a reader that has ended is noticed here, and not when the interpreter ends.
        return count


def time_of(text: str | None, option: str) -> int | None:
    """Read a time as ISO 8601, UTC if it does not say otherwise, or as a distance from now such as -90m; in ms."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    if ago:
        return int((time.time() - int(ago[1]) * _UNIT_SECONDS[ago[2]]) * 1000)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{option} {text}: neither a time such as 2026-11-22T20:24:00Z nor a distance such as -2h (s, m, h, d)"
        ) from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def second_of(ms: int) -> str:
    """Write a time, in ms since the epoch, by the second that it is in."""
    return format_time(ms // 1000 * 1000)


class LastingOutput:
    """
    Standard output for as long as it is there, then nowhere: its terminal was closed, or the reader of its pipe ended.

    For a command that has more to do than to print, such as stopping what it started.
    """

    @property
    def encoding(self) -> str:
        return sys.stdout.encoding

    def write(self, text: str) -> int:
        """Write *text*, if that is still possible."""
        try:
            sys.stdout.write(text)
        except OSError:
            self._give_up()
        return len(text)

    def flush(self) -> None:
        """Flush what was written, if that is still possible."""
        try:
            sys.stdout.flush()
        except OSError:
            self._give_up()

    def isatty(self) -> bool:
        return sys.stdout.isatty()

    def fileno(self) -> int:
        return sys.stdout.fileno()

    def _give_up(self) -> None:
        """Put nothing in its place: what is buffered would fail again, and once more when the interpreter ends."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


class LogFormat(StrEnum):
    """How log lines look."""

    CONSOLE = "console"
    JSON = "json"


Config = Annotated[Path | None, typer.Option("--config", help="TOML file; default: config/pipeline.toml.")]
Format = Annotated[LogFormat, typer.Option("--log-format", help="Log lines for people or for machines.")]
