"""Deletions that fail, and records that are rejected, lost or miscounted."""

from __future__ import annotations

from tests.harness.alert_stories.healthy import (
    ACCEPTED,
    ACCEPTED_2,
    CONFLICT,
    CONFLICT_2,
    INVALID,
    LOST,
    LOST_2,
    RECEIVED,
    RECEIVED_2,
    STARTED,
    STARTED_2,
    SUCCESSES,
    UP_WORKER,
    W2,
    WORKER,
    Story,
    failures,
    fires,
)

FAILURES = [
    Story(
        "15% fail with one code for an hour, after hours without",
        370,
        {failures("Forbidden"): "0x28 300+300x8", SUCCESSES: "0+1690x37"},
        fires("DeletionsFail", "15.07% of all deletions fail with Forbidden.", error_code="Forbidden"),
        also=frozenset({"DeletionsFailSlowly"}),
        step_minutes=10,
    ),
    Story(
        "14% fail with one code for an hour, after hours without",
        370,
        {failures("Forbidden"): "0x28 275+275x8", SUCCESSES: "0+1690x37"},
        also=frozenset({"DeletionsFailSlowly"}),
        step_minutes=10,
    ),
    Story(
        "7% fail with one code for two hours: 6 times the objective, but not 14",
        120,
        {failures("Forbidden"): "0+140x13", SUCCESSES: "0+1860x13"},
        fires("DeletionsFail", "6.997% of all deletions fail with Forbidden.", error_code="Forbidden"),
        also=frozenset({"DeletionsFailSlowly"}),
        step_minutes=10,
    ),
    Story(
        "a new code: its first failures came all at once, before its series was seen",
        10,
        {failures("Forbidden"): "_x5 900x10", SUCCESSES: "0+170x20"},
        fires("DeletionsFail", "34.48% of all deletions fail with Forbidden.", error_code="Forbidden"),
    ),
    Story(
        "the same at once, but only 9 failures: no trend", 10, {failures("Forbidden"): "_x5 9x10", SUCCESSES: "0+1x20"}
    ),
    Story(
        "a worker that is older than Prometheus' first look shows what failed long ago",
        10,
        {
            UP_WORKER: "_x5 1x20",
            STARTED: "_x5 -7200x20",
            SUCCESSES: "_x5 1000+199x20",
            failures("Forbidden"): "_x5 900x20",
        },
    ),
    Story(
        "a worker that is new to Prometheus has failed from its start",
        10,
        {f"up{{{W2}}}": "_x5 1x20", STARTED_2: "_x5 240x20", failures("Forbidden", worker=W2): "_x5 900x20"},
        fires("DeletionsFail", "31.03% of all deletions fail with Forbidden.", error_code="Forbidden"),
    ),
    Story(
        "a worker starts anew: what it counted before is not counted again",
        30,
        {SUCCESSES: "0+199x15 0+199x15", failures("Forbidden"): "2x15 2x15"},
    ),
    Story(
        "15% failed for an hour and then no more: only the day's share is still too high",
        110,
        {failures("Forbidden"): "0+350x6 2100x60", SUCCESSES: "0+1990x11"},
        also=frozenset({"DeletionsFailSlowly"}),
        step_minutes=10,
    ),
    Story(
        "4% fail with one code for hours",
        160,
        {failures("Forbidden"): "0+90x17", SUCCESSES: "0+1990x17"},
        fires(
            "DeletionsFailSlowly", "4.325% of the last day's deletions failed with Forbidden.", error_code="Forbidden"
        ),
        step_minutes=10,
    ),
    Story(
        "2.5% fail with one code for hours",
        160,
        {failures("Forbidden"): "0+50x17", SUCCESSES: "0+1990x17"},
        step_minutes=10,
    ),
    Story(
        "a code beyond the first 50",
        12,
        {failures("other"): "_x5 1x20"},
        fires(
            "ErrorCodesOverflow",
            "1 failures of the last hour have a code beyond a worker's first 50 and show as `other`.",
        ),
    ),
    Story("it came more than an hour ago", 75, {failures("other"): "_x5 1x80"}),
    Story("it came before Prometheus looked", 80, {failures("other"): "3x90"}, step_minutes=10),
]

RECORDS = [
    Story(
        "a record has no outcome",
        10,
        {RECEIVED: "1010+60x5 1371+60x20"},
        fires("BalanceBroken", "Received less outcomes is 1 in partition 0; it must be 0.", **WORKER, partition="0"),
    ),
    Story(
        "the partition moves to another worker, and the old one does not know yet",
        12,
        {
            ACCEPTED_2: "_x6 1420+60x20",
            RECEIVED_2: "_x6 1420+60x20",
            ACCEPTED: "1000+60x5 1300x20",
            RECEIVED: "1010+60x5 1310x20",
        },
    ),
    Story(
        "retention was faster than the worker",
        10,
        {LOST: "0x5 12x20"},
        fires("RecordsLost", "12 records of partition 0 are gone.", partition="0"),
    ),
    Story(
        "a new worker found that before it was first looked at",
        10,
        {LOST_2: "_x5 12x20"},
        fires("RecordsLost", "12 records of partition 0 are gone.", partition="0"),
    ),
    Story("it is more than an hour ago", 80, {LOST: "0 12x90"}, step_minutes=10),
    Story(
        "an event conflicts with another",
        10,
        {CONFLICT: "5x5 6x20", RECEIVED: "1010+60x5 1371+60x20"},
        fires("Conflicts", "1 conflicts in the last hour."),
    ),
    Story(
        "the conflicts are old, and the partition moves",
        10,
        {CONFLICT: "5x5 stale", RECEIVED: "1010+60x5 1365+60x20", CONFLICT_2: "_x6 5x20", RECEIVED_2: "_x6 5x20"},
    ),
    Story(
        "2% are rejected",
        25,
        {ACCEPTED: "1000+98x30", INVALID: "5+2x30", RECEIVED: "1010+100x30"},
        fires("ManyRejected", "2% of the records of the last 10 minutes were rejected."),
    ),
    Story("0.9% are rejected", 25, {ACCEPTED: "1000+991x30", INVALID: "5+9x30", RECEIVED: "1010+1000x30"}),
    Story(
        "half are rejected, but they are few",
        25,
        {ACCEPTED: "1000+1x30", INVALID: "5+1x30", RECEIVED: "1010+2x30"},
    ),
]
