"""Windows that end where a partition's watermark is unknown, or lies before their end again."""

from __future__ import annotations

import json

from pipeline.core.contract import pack_watermark_key
from pipeline.core.windows import NEVER
from tests.harness.report import MINUTE, NOON, NOW, Record, count, mark, new_state, numbers, report


def test_a_window_that_has_expired_is_complete_though_a_partition_had_no_event() -> None:
    """It had a rejected record only, so its watermark is unknown; the window is dropped, and its row stays as it is."""
    late = NOON + 60 * MINUTE

    rows = report(new_state(2), [count(3), mark(late, expiry=late), mark(NEVER, partition=1, expiry=late)], now=NOW)

    assert numbers(rows) == [(None, 0, 3, True, 0, 0)]


def test_a_window_that_waits_for_its_interval_ends_once_more_where_a_partition_begins_anew() -> None:
    """Its row is written while the watermark lies before its end again."""
    state, end = new_state(), NOON + MINUTE
    began_anew = Record(pack_watermark_key(0), json.dumps({"watermark": NOON, "expiry": NEVER, "anew": True}).encode())

    written = [
        report(state, records, now=NOW + after)
        for records, after in (
            ([count(1)], 0),
            ([count(2), mark(end)], 1),
            ([began_anew], 2),
            ([], 1000),
            ([mark(end)], 2000),
        )
    ]

    assert [numbers(rows) for rows in written] == [
        [(None, 0, 1, False, 0, 0)],
        [],
        [],
        [(None, 0, 2, False, 0, 0)],
        [(None, 0, 2, True, 0, 0)],
    ]
