"""Watermarks of partitions: the lowest of all, and whom a window waits for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.watermarks import NOT_WAITING, WaitingFor, Watermark, Watermarks
from pipeline.core.windows import NEVER

PARTITIONS = 4


def at(*marks: int) -> Watermarks:
    """Partitions 0, 1, ... at these times."""
    watermarks = Watermarks(len(marks))
    for partition, mark in enumerate(marks):
        watermarks.merge(partition, Watermark(mark, NEVER))
    return watermarks


def furthest_behind(watermarks: Watermarks) -> int:
    """Return the partition with the lowest watermark, of several the lowest number."""
    return watermarks.waiting(watermarks.lowest + 1).partitions[0]


@given(
    st.lists(
        st.tuples(st.integers(0, PARTITIONS), st.integers(0, 9), st.integers(0, 9), st.sampled_from((0, 0, 0, 1))),
        max_size=30,
    )
)
def test_the_lowest_is_the_lowest_after_any_history(said: list[tuple[int, int, int, int]]) -> None:
    """
    Asked after each record, or only now and then; the partition N is one of before and none of 0 .. N-1.

    Some of what is said begins anew: it replaces what was said before, and says whether that was further on.
    """
    watermarks, marks, expiries = Watermarks(PARTITIONS), [NEVER] * PARTITIONS, [NEVER] * PARTITIONS
    for partition, mark, expiry, is_anew in said:
        if is_anew:
            was_further = partition < PARTITIONS and marks[partition] > mark
            assert watermarks.begin_anew(partition, Watermark(mark, expiry)) == was_further
        else:
            watermarks.merge(partition, Watermark(mark, expiry))
        if partition < PARTITIONS and is_anew:
            marks[partition], expiries[partition] = mark, expiry
        elif partition < PARTITIONS:
            marks[partition], expiries[partition] = max(marks[partition], mark), max(expiries[partition], expiry)
        if mark % 2:
            assert (watermarks.lowest, watermarks.expiry) == (min(marks), min(expiries))

    assert (watermarks.lowest, watermarks.expiry, watermarks.highest) == (min(marks), min(expiries), max(marks))
    assert furthest_behind(watermarks) == marks.index(min(marks))
    for end in range(10):
        behind = tuple(partition for partition, mark in enumerate(marks) if mark < end)
        assert watermarks.waiting(end) == WaitingFor(behind, len(behind))


def test_a_window_waits_for_those_that_have_not_come_to_its_end() -> None:
    """At the end is past it: windows are half-open."""
    watermarks = at(60, 59, 61, NEVER)

    assert watermarks.waiting(60) == WaitingFor((1, 3), 2)
    assert watermarks.waiting(NEVER) == NOT_WAITING
    assert furthest_behind(watermarks) == 3


def test_at_most_twenty_are_named_and_all_are_counted() -> None:
    """30 wait: named are those furthest behind, 10 to 29, in the order of their numbers."""
    watermarks = at(*range(100, 70, -1))

    assert watermarks.waiting(101) == WaitingFor(tuple(range(10, 30)), 30)
