"""The counts of a window are what a plain dict of (partition, code) holds, in far less memory."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import product
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.window_counts import WindowCounts

PARTITIONS = 70  # Three of a code's partitions are packed: both forms, and the change between them, are played.
numbers = st.sampled_from([1, 2, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**40])
said = st.tuples(st.integers(0, PARTITIONS + 3), st.sampled_from(["", "A", "B|é"]), numbers)


@given(st.lists(said, max_size=40))
def test_each_partition_replaces_what_it_said_before(records: list[tuple[int, str, int]]) -> None:
    """In any order, any number of times, up or down: totals are the sums of what was said last."""
    counts, plain = WindowCounts(PARTITIONS), dict[tuple[int, str], int]()
    for partition, code, number in records:
        counts.replace(partition, code, number)
        plain[partition, code] = number

    totals = Counter[str]()
    for (_, code), number in plain.items():
        totals[code] += number
    assert counts.totals == totals
    assert counts.total == totals.total()
    assert {(p, c): n for p, c in product(range(PARTITIONS + 4), ["", "A", "B|é"]) if (n := counts.number(p, c))} == (
        MappingProxyType(plain)
    )


@pytest.mark.parametrize(("number", "bytes_max"), [(200, 1_200), (60_000, 2_400)])
def test_a_thousand_partitions_cost_a_byte_or_two_each(number: int, bytes_max: int) -> None:
    """A dict of them has 36 KB, and there are 10,000 windows in a week and 20 codes in each."""
    counts = WindowCounts(1000)
    for partition in range(1000):
        counts.replace(partition, "A", number)

    assert sys.getsizeof(counts._numbers["A"]) < bytes_max


def test_a_code_of_one_partition_costs_nothing_for_the_others() -> None:
    """ErrorCode is an open set: a thousand rare ones must not cost a thousand partitions each."""
    counts = WindowCounts(1000)
    counts.replace(999, "A", 1)

    assert sys.getsizeof(counts._numbers["A"]) < 400
