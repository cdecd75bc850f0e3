"""
A bound for log lines that repeat: so many of a kind in an interval, then one line that says how many there were.

What fails fails again, often thousands of times a second: a disk full of one line says less than the line. Knows no
clock and no logging library: time and what is done with a report are arguments.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

LINES_MAX = 20  # Enough to see every partition of a usual topic once.
INTERVAL_SECONDS = 60.0
KINDS_MAX = 256  # We have some 30; what libraries say is the rest.
KIND_CHARACTERS_MAX = 200


class LineKind(NamedTuple):
    """What makes two lines the same: the event's name (not its fields) and its level."""

    event: str
    level: str


@dataclass(slots=True)
class _Window:
    ends_at: float
    admitted: int = 0
    suppressed: int = 0


class RateLimit:
    """
    Counts lines by kind in windows that begin with a kind's first line. Safe to use from several threads.

    It holds *kinds_max* windows at most: for one more kind, the oldest window is closed early.
    """

    def __init__(
        self,
        report: Callable[[LineKind, int], None],
        *,
        call_later: Callable[[float, Callable[[], None]], object],
        clock: Callable[[], float],
        lines_max: int = LINES_MAX,
        interval_seconds: float = INTERVAL_SECONDS,
        kinds_max: int = KINDS_MAX,
    ) -> None:
        """
        Args:
            report: Called with a kind and how many of its lines were suppressed, once its window is over.
            call_later: Calls a function after so many seconds: the window's end, should no further line come.
            clock: Seconds, from any beginning, never falling.
            lines_max: Lines of a kind in a window.
            interval_seconds: Width of a window.
            kinds_max: Windows held at a time.
        """
        self._report = report
        self._call_later = call_later
        self._clock = clock
        self._lines_max = lines_max
        self._interval_seconds = interval_seconds
        self._kinds_max = kinds_max
        self._windows: OrderedDict[LineKind, _Window] = OrderedDict()  # The oldest first: they all have one width.
        self._is_waiting = False
        self._lock = threading.Lock()

    def admit(self, kind: LineKind) -> bool:
        """Return whether a line of *kind* may be written now; what may not is counted."""
        with self._lock:
            now = self._clock()
            ended = self._close(lambda window: window.ends_at <= now)
            window = self._windows.get(kind)
            if window is None:
                if len(self._windows) >= self._kinds_max:
                    ended.append(self._windows.popitem(last=False))
                window = self._windows[kind] = _Window(now + self._interval_seconds)
            is_admitted = window.admitted < self._lines_max
            if is_admitted:
                window.admitted += 1
            else:
                window.suppressed += 1
                self._wait(window.ends_at - now)
        self._report_all(ended)
        return is_admitted

    def flush(self) -> None:
        """Report all that was suppressed so far, as the process ends."""
        with self._lock:
            ended = self._close(lambda _: True)
        self._report_all(ended)

    def _close(self, is_over: Callable[[_Window], bool]) -> list[tuple[LineKind, _Window]]:
        ended = []
        while self._windows:
            kind, window = next(iter(self._windows.items()))
            if not is_over(window):
                break
            del self._windows[kind]
            ended.append((kind, window))
        return ended

    def _wait(self, seconds: float) -> None:
        """Have the windows looked at once the one that ends in *seconds* is over; one such call is enough for all."""
        if not self._is_waiting:
            self._is_waiting = True
            self._call_later(seconds, self._look)

    def _look(self) -> None:
        with self._lock:
            self._is_waiting = False
            now = self._clock()
            ended = self._close(lambda window: window.ends_at <= now)
            waiting = [window.ends_at for window in self._windows.values() if window.suppressed]
            if waiting:
                self._wait(max(0.0, min(waiting) - now))
        self._report_all(ended)

    def _report_all(self, ended: list[tuple[LineKind, _Window]]) -> None:
        for kind, window in ended:
            if window.suppressed:
                self._report(kind, window.suppressed)
