"""The closing summary of a demo: what was sent beside what the worker decided, and whether the two agree."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline.core.outcome import Outcome, Reason
from pipeline.local.load import DELIVERED, Summary
from pipeline.local.simulator import Kind
from pipeline.service.metrics.bridge import BridgeAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

RECORDS_METRIC = "vod_pipeline_records_total"
REQUESTS_METRIC = "vod_pipeline_bridge_requests_total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """
    How many records a worker decided on, by outcome; `rejected` by reason.

    `replayed`: callbacks that the bridge answered without publishing them, as an equal request had come before.
    """

    accepted: int = 0
    duplicate: int = 0
    ignored: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    replayed: int = 0

    @property
    def rejected_total(self) -> int:
        return sum(self.rejected.values())

    @property
    def received(self) -> int:
        return self.accepted + self.duplicate + self.ignored + self.rejected_total + self.replayed

    def since(self, before: Outcomes) -> Outcomes:
        """Return what was decided after *before*: the worker's totals go back to the first record ever."""
        return Outcomes(
            accepted=self.accepted - before.accepted,
            duplicate=self.duplicate - before.duplicate,
            ignored=self.ignored - before.ignored,
            rejected={reason: n - before.rejected.get(reason, 0) for reason, n in self.rejected.items()},
            replayed=self.replayed - before.replayed,
        )


def read_outcomes(metrics: str) -> Outcomes:
    """Read the totals of all partitions, and the bridge's replays, out of the texts of both /metrics."""
    totals: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    replayed = 0
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == REQUESTS_METRIC and sample.labels["outcome"] == BridgeAnswer.REPLAYED:
                replayed += int(sample.value)
            if sample.name != RECORDS_METRIC:
                continue
            outcome = sample.labels["outcome"]
            if outcome == Outcome.REJECTED:
                rejected[sample.labels["reason"]] += int(sample.value)
            else:
                totals[outcome] += int(sample.value)
    return Outcomes(
        accepted=totals[Outcome.ACCEPTED],
        duplicate=totals[Outcome.DUPLICATE],
        ignored=totals[Outcome.IGNORED],
        rejected=dict(rejected),
        replayed=replayed,
    )


def closing(summary: Summary, outcomes: Outcomes) -> RenderableType:
    """
    Return the closing summary: what was sent next to what the worker decided, and whether the two agree.

    Args:
        outcomes: What the worker decided since just before the load began, read once it has caught up.
    """
    answered = ", ".join(f"{n:,} x {status}" for status, n in summary.answered.items()) or "none"
    facts = Text.assemble(
        f"Sent {summary.sent_total:,} callbacks in {summary.wall_seconds:.1f} s, {summary.rate:,.1f} a second.\n",
        f"Answers: {answered}; {summary.unanswered:,} without one, {summary.retries:,} retries, ",
        (f"{summary.lost_total:,} lost", "bold red" if summary.lost_total else ""),
        ".\n",
        f"From due to 200: p50 {_milliseconds(summary.latency_p50_seconds)}, "
        f"p99 {_milliseconds(summary.latency_p99_seconds)}, max {_milliseconds(summary.latency_max_seconds)}.",
    )
    return Group("", facts, "", _ledger(summary, outcomes), verdict(summary, outcomes))


def _ledger(summary: Summary, outcomes: Outcomes) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("sent by the simulator", "all")
    table.add_column("callbacks", f"{summary.sent_total:,}", justify="right")
    table.add_column("decided by the worker", "all")
    table.add_column("records", f"{outcomes.received:,}", justify="right")
    sent = [(kind.value, summary.sent.get(kind, 0)) for kind in (Kind.SUCCESS, Kind.FAILURE)]
    table.add_row(*_cells(*sent[0]), *_cells("accepted", outcomes.accepted))
    table.add_row(*_cells(*sent[1]), "", "")
    table.add_row(
        *_cells(Kind.DUPLICATE.value, summary.sent.get(Kind.DUPLICATE, 0)), *_cells("duplicate", outcomes.duplicate)
    )
    conflicts = outcomes.rejected.get(Reason.CONFLICT, 0)
    table.add_row(
        *_cells(Kind.CONFLICT.value, summary.sent.get(Kind.CONFLICT, 0)), *_cells("rejected: conflict", conflicts)
    )
    others = [(f"rejected: {reason}", n) for reason, n in sorted(outcomes.rejected.items()) if n]
    others = [row for row in others if row[0] != f"rejected: {Reason.CONFLICT}"] or [("rejected: malformed", 0)]
    table.add_row(*_cells(Kind.MALFORMED.value, summary.sent.get(Kind.MALFORMED, 0)), *_cells(*others[0]))
    for name, number in [*others[1:], ("ignored", outcomes.ignored), ("same request again", outcomes.replayed)]:
        table.add_row("", "", *_cells(name, number))
    return table


def _cells(name: str, number: int) -> tuple[str, str]:
    return name, f"{number:,}"


def verdict(summary: Summary, outcomes: Outcomes) -> Text:
    """
    Say whether what was decided is what was sent.

    Every attempt that was not answered 200 may have reached Kafka all the same, and its retry then is a duplicate, or
    refused once more: so each figure may differ by as many as there were such attempts, and without any by nothing.
    """
    delivered = {kind: summary.sent.get(kind, 0) - summary.lost.get(kind, 0) for kind in Kind}
    expected = {
        "accepted": delivered[Kind.SUCCESS] + delivered[Kind.FAILURE],
        "duplicate": delivered[Kind.DUPLICATE],
        "rejected": delivered[Kind.CONFLICT] + delivered[Kind.MALFORMED],
        "ignored": 0,
    }
    decided = {
        "accepted": outcomes.accepted,
        "duplicate": outcomes.duplicate,
        "rejected": outcomes.rejected_total,
        "ignored": outcomes.ignored,
    }
    # An equal request within its second is answered by the bridge alone: a duplicate, or a malformed body once more.
    replayed = outcomes.replayed
    for name in ("rejected", "duplicate"):
        taken = min(replayed, max(0, expected[name] - decided[name]))
        decided[name] += taken
        replayed -= taken
    decided["duplicate"] += replayed
    differences = {name: decided[name] - number for name, number in expected.items() if decided[name] != number}
    doubtful = summary.failed_attempts
    if not differences:
        return Text("They agree: every delivered callback was decided on exactly once.", style="bold green")
    listed = ", ".join(f"{name} {difference:+,}" for name, difference in differences.items())
    missing = sum(differences.values()) < 0  # Fewer records than answers of 200: no retry explains that.
    if not missing and all(abs(difference) <= doubtful for difference in differences.values()):
        return Text(
            f"They agree but for {listed}: {doubtful:,} attempts were not answered {DELIVERED} and may have arrived"
            " all the same.",
            style="bold yellow",
        )
    return Text(
        f"They do not agree: {listed} against what was delivered. Either the worker is behind, or another sender was"
        " active, or records are wrong.",
        style="bold red",
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
