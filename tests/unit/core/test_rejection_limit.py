"""The limit of rejections: by minutes of raw's timestamps, over the share and not at it, never of a few records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pipeline.core.deduplication import AcceptState, accept
from pipeline.core.rejection_limit import NO_REJECTION_LIMIT, RejectionLimit, RejectionLimitPolicy, Trip
from pipeline.core.windows import TimePolicy
from tests.builders import ClientRecord, body

if TYPE_CHECKING:
    from pipeline.core.contract import Row

NOON = 1_704_110_400_000  # 2024-01-01T12:00:00Z.
MINUTE, HOUR = 60_000, 3_600_000


def bad(number: int, at: int = NOON) -> list[Any]:
    return [ClientRecord(b"m", b"{", at)] * number


def good(number: int, at: int = NOON) -> list[Any]:
    return [ClientRecord(b"m", body(), at)] * number


def tripped(policy: RejectionLimitPolicy, *chunks: list[Any]) -> Trip | None:
    """What the rejection limit says after those chunks."""
    state = AcceptState(0, TimePolicy(), RejectionLimit(policy))
    for chunk in chunks:
        accepted: list[Row] = []
        accept(state, chunk, accepted)
    return state.rejection_limit.tripped


HALF_OF_TEN = RejectionLimitPolicy(share_max=0.5, records_min=10)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([good(5) + bad(5)], None),
        ([good(5) + bad(6)], Trip(NOON, 11, 6)),
        ([good(5), bad(3), bad(3)], Trip(NOON, 11, 6)),
        ([bad(9)], None),
        ([bad(10)], Trip(NOON, 10, 10)),
        ([bad(9), good(1)], None),  # Only a rejection raises a share.
        ([bad(9), good(1), bad(1)], Trip(NOON, 11, 10)),
        ([bad(9, NOON - 1), bad(9, NOON)], None),
        ([bad(9, NOON), bad(1, NOON + MINUTE - 1)], Trip(NOON, 10, 10)),
        ([bad(9, NOON), bad(1, NOON - MINUTE)], Trip(NOON, 10, 10)),
        ([bad(9, NOON), bad(1, NOON - HOUR)], Trip(NOON, 10, 10)),
        ([good(1000, NOON + HOUR + MINUTE), bad(10, NOON)], Trip(NOON, 10, 10)),
        ([good(1000, NOON), bad(10, NOON + MINUTE)], Trip(NOON + MINUTE, 10, 10)),
        ([bad(20), good(1000)], Trip(NOON, 10, 10)),
    ],
    ids=[
        "at the rejection limit", "just above", "over several chunks", "too few", "just enough", "the tenth is good",
        "the eleventh is bad", "either side of a minute", "the last of its minute", "a clock that was set back",
        "a clock that was set back an hour", "a clock that was ahead",
        "a minute has no share in the next", "tripped once is tripped",
    ],
)  # fmt: skip
def test_a_share_above_the_limit_crosses_it(chunks: list[list[Any]], expected: Trip | None) -> None:
    assert tripped(HALF_OF_TEN, *chunks) == expected


def test_a_limit_of_1_is_none() -> None:
    """The default: nothing is counted, so it costs nothing."""
    assert not NO_REJECTION_LIMIT.is_on
    assert tripped(NO_REJECTION_LIMIT, bad(2000)) is None


def test_ignored_and_duplicate_records_are_received_but_not_rejected() -> None:
    """Most deletions come with an event of another type; both keep the share down."""
    foreign = ClientRecord(b"m", b'{"EventType":"TranscodeComplete"}', NOON)

    assert tripped(HALF_OF_TEN, [foreign] * 20 + good(20) + bad(20)) is None


def test_a_crossing_is_a_sentence() -> None:
    assert str(Trip(NOON, 1200, 900)) == "900 of 1200 records (75%) of the minute 2024-01-01T12:00:00Z"
