"""What the commands of one machine print."""

from __future__ import annotations

from dataclasses import replace

from pipeline.cli.local import _sent
from pipeline.local.load import Summary
from pipeline.local.simulator import CallbackKind

SUMMARY = Summary(
    sent={
        CallbackKind.SUCCESS: 1600,
        CallbackKind.FAILURE: 200,
        CallbackKind.DUPLICATE: 150,
        CallbackKind.CONFLICT: 20,
        CallbackKind.MALFORMED: 30,
    },
    answered={200: 2000},
    unanswered=0,
    retries=0,
    lost={},
    latency_p50_seconds=0.0031,
    latency_p99_seconds=0.0212,
    latency_max_seconds=1.0431,
    wall_seconds=20.0,
)


def test_what_was_sent_and_how_it_was_answered_are_three_lines() -> None:
    assert _sent(SUMMARY).plain.split("\n")[1:4] == [
        "Sent 2,000 callbacks in 20.0 s, 100.0 a second: "
        "20 conflict, 150 duplicate, 200 failure, 30 malformed, 1,600 success.",
        "Answers: 2,000 x 200; 0 without one, 0 retries, 0 lost.",
        "From when a callback is due to its 200: p50 3.1 ms, p99 21 ms, max 1,043 ms.",
    ]


def test_what_was_lost_stands_out() -> None:
    lost = _sent(replace(SUMMARY, answered={200: 1999, 503: 3}, retries=2, lost={CallbackKind.SUCCESS: 1}))

    assert "Answers: 1,999 x 200, 3 x 503; 0 without one, 2 retries, 1 lost." in lost.plain
    assert [lost.plain[span.start : span.end] for span in lost.spans] == ["1 lost"]
