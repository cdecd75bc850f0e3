"""The cumulative counts of one window by ErrorCode and partition, and their totals, at about a byte a count."""

from __future__ import annotations

from array import array
from collections import defaultdict
from typing import TYPE_CHECKING

# What an entry of a dict costs in bytes; of an array each partition costs one. Measured: tests/bench/report.py.
_ENTRY_BYTES = 32
_TYPES = (("B", 0xFF), ("H", 0xFFFF), ("I", 0xFFFF_FFFF), ("Q", 2**64 - 1))

if TYPE_CHECKING:
    Numbers = dict[int, int] | array[int]  # By partition. Few partitions have a rare code, all have the usual ones.


class WindowCounts:
    """
    What the partitions say of a window: each replaces what it said of an ErrorCode before, whenever it comes.

    A row needs `totals` (by ErrorCode, SUCCESS included) and `total`, which cost the same for any number of partitions.
    """

    __slots__ = ("_numbers", "_partitions", "total", "totals")

    def __init__(self, partitions: int) -> None:
        """
        Args:
            partitions: How many are expected; a higher one costs more, and counts all the same.
        """
        self.total = 0
        self.totals: dict[str, int] = defaultdict(int)
        self._numbers: dict[str, Numbers] = {}
        self._partitions = partitions

    def number(self, partition: int, code: str) -> int:
        """Return what *partition* says of *code*: 0 if nothing."""
        numbers = self._numbers.get(code, {})
        if isinstance(numbers, dict):
            return numbers.get(partition, 0)
        return numbers[partition] if partition < len(numbers) else 0

    def replace(self, partition: int, code: str, number: int) -> None:
        """Take in that *partition* counts *number* deletions of *code* in all."""
        change = number - self.number(partition, code)
        self.total += change
        self.totals[code] += change
        numbers = self._numbers.get(code, {})
        if isinstance(numbers, dict):
            numbers[partition] = number
            if len(numbers) * _ENTRY_BYTES >= self._partitions:
                numbers = _packed(numbers)
        else:
            numbers = _put(numbers, partition, number)
        self._numbers[code] = numbers


def _packed(numbers: dict[int, int]) -> array[int]:
    packed = array("B")
    for partition, number in numbers.items():
        packed = _put(packed, partition, number)
    return packed


def _put(numbers: array[int], partition: int, number: int) -> array[int]:
    """Return *numbers* with one of them replaced: the same array, or a wider one that *number* fits into."""
    if number >= 1 << 8 * numbers.itemsize:
        numbers = array(next(code for code, most in _TYPES if number <= most), numbers)
    missing = partition + 1 - len(numbers)
    if missing > 0:
        numbers.frombytes(bytes(missing * numbers.itemsize))
    numbers[partition] = number
    return numbers
