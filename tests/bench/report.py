"""
What the report holds in memory and what a row costs: ``python -m tests.bench.report [PARTITIONS [WINDOWS]]``.

Every partition counts 20 codes in each window of a minute. A week is WINDOWS, times what is missing.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from itertools import count as numbers
from pathlib import Path

from pipeline.core.contract import pack_count_key, pack_watermark_key
from pipeline.core.rates import ReportState, merge_counts, report

MINUTE = 60_000
NOON = 1_704_110_400_000
CODES = ("", *(f"InvalidVideo.Code{number:02}" for number in range(19)))
WEEK = 7 * 24 * 60  # Windows of a minute.
CORRECTIONS = 200


@dataclass(slots=True)
class Record:
    """A record of partial-counts."""

    key: bytes
    value: bytes


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def main(partitions: int, windows: int) -> None:
    state, before, began = ReportState(partitions, MINUTE), resident_bytes(), time.perf_counter()
    for window in range(windows):
        at = NOON + window * MINUTE
        counts = (
            Record(pack_count_key(partition, at, code), b"%d" % (1 + partition % 9 if code else 200 + partition % 200))
            for partition in range(partitions)
            for code in CODES
        )
        merge_counts(state, counts)
    merged = time.perf_counter() - began
    mark = b'{"watermark": %d, "expiry": 0}' % (NOON + windows * MINUTE)
    report(state, [Record(pack_watermark_key(partition), mark) for partition in range(partitions)], now=0)
    held = resident_bytes() - before
    written, began, clock = 0, time.perf_counter(), numbers(1000, 1000)
    for number in range(CORRECTIONS):  # Each corrects one settled window, and so writes a row for all and one a code.
        key = pack_count_key(number % partitions, NOON + number % windows * MINUTE, CODES[1])
        written += len(report(state, [Record(key, b"%d" % (100 + number))], now=next(clock)).rows)
    seconds = time.perf_counter() - began
    taken = partitions * len(CODES) * windows
    print(f"{partitions} partitions x {len(CODES)} codes x {windows} windows: {taken:,} counts")
    print(f"  merged     {merged / taken * 1e6:8.2f} us a count")
    print(
        f"  memory     {held / taken:8.2f} bytes a count, {held / windows * WEEK / 1e6:,.0f} MB for a week of windows"
    )
    print(f"  correction {seconds / written * 1e6:8.2f} us a row, {seconds / CORRECTIONS * 1e6:,.0f} us a window")


if __name__ == "__main__":
    main(*(int(value) for value in (*sys.argv[1:], *(("1000", "100")[len(sys.argv) - 1 :]))))
