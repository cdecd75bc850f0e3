"""How far each partition has come, and which of them a window waits for."""

from __future__ import annotations

from bisect import bisect_left
from heapq import heapreplace
from typing import NamedTuple

from pipeline.core.windows import NEVER

WAITING_FOR_MAX = 20  # Partitions that a row names: an operator needs some, and every row of the window repeats them.


class Watermark(NamedTuple):
    """How far a partition has come: `at` as in TimePolicy.watermark, `expiry` as in TimePolicy.final_before. ms."""

    at: int
    expiry: int


class WaitingFor(NamedTuple):
    """
    Which partitions have not passed the end of a window.

    Args:
        partitions: The WAITING_FOR_MAX that are furthest behind, in order of their numbers.
        number: How many there are in all.
    """

    partitions: tuple[int, ...] = ()
    number: int = 0


NOT_WAITING = WaitingFor()


class Watermarks:
    """
    The watermarks of the partitions 0 .. N-1; one without any is at NEVER, and other partitions are left out.

    Each only rises, for one that was decided on late may come behind its successors, until the partition begins anew.
    """

    def __init__(self, partitions: int) -> None:
        self.highest = NEVER
        self._marks = [Watermark(NEVER, NEVER)] * partitions
        # One entry a partition, never above its watermark: only the lowest one has to be right.
        self._by_at = [(NEVER, partition) for partition in range(partitions)]
        self._by_expiry = self._by_at.copy()
        self._order: list[tuple[int, int]] | None = None

    @property
    def lowest(self) -> int:
        """The watermark of the whole: NEVER while a partition has none."""
        return self._lowest(self._by_at, 0)

    @property
    def expiry(self) -> int:
        """Before when no partition can change a count any more; NEVER while one has no watermark."""
        return self._lowest(self._by_expiry, 1)

    def _lowest(self, heap: list[tuple[int, int]], part: int) -> int:
        while heap[0][0] < (at := self._marks[heap[0][1]][part]):
            heapreplace(heap, (at, heap[0][1]))
        return heap[0][0]

    def merge(self, partition: int, mark: Watermark) -> None:
        """Take in what *partition* says of itself."""
        if partition >= len(self._marks):
            return
        known = self._marks[partition]
        self._marks[partition] = Watermark(max(known.at, mark.at), max(known.expiry, mark.expiry))
        self.highest = max(self.highest, mark.at)
        self._order = None

    def begin_anew(self, partition: int, mark: Watermark) -> bool:
        """Take in what *partition* says of itself, lower or not; return whether it was further on."""
        if partition >= len(self._marks):
            return False
        was_further = mark.at < self._marks[partition].at
        self._marks[partition] = mark
        # Rare, for an operator asks for it. An entry of before may be above this watermark, so all are made again.
        self._by_at = sorted((mark.at, number) for number, mark in enumerate(self._marks))
        self._by_expiry = sorted((mark.expiry, number) for number, mark in enumerate(self._marks))
        self.highest = self._by_at[-1][0]
        self._order = None
        return was_further

    def waiting(self, end: int) -> WaitingFor:
        """Return which partitions have not come to *end* (ms)."""
        order = self._ordered()
        number = bisect_left(order, (end, NEVER))
        return WaitingFor(tuple(sorted(partition for _, partition in order[: min(number, WAITING_FOR_MAX)])), number)

    def _ordered(self) -> list[tuple[int, int]]:
        if self._order is None:
            self._order = sorted((mark.at, partition) for partition, mark in enumerate(self._marks))
        return self._order
