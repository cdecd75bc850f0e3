"""What an audit found: findings with their offsets, the balance, and the shape both have as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

FINDINGS_KEPT_MAX = 1000  # A topic that was recreated differs in every record: the first ones tell the story.


class FindingKind(StrEnum):
    """In what way a record is wrong."""

    MISSING = "missing"  # Should be there and is not; `offset` is None.
    DOUBLED = "doubled"  # Is there once more than it should be.
    UNEXPECTED = "unexpected"  # Should not be there at all.
    CHANGED = "changed"  # Is there, but its key, value, headers or timestamp are other ones.
    ORDER = "order"  # Stands behind the output of a later raw record.
    PARTITION = "partition"  # A raw record on another partition than its key's.
    COUNT = "count"  # A failure-rate row that a recount does not give.
    OFFSET = "offset"  # The committed offset does not fit the log.


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong. `offset` is the record's own, `raw_offset` that of the raw record it goes back to."""

    kind: FindingKind
    topic: str
    partition: int
    offset: int | None = None
    raw_offset: int | None = None
    what: str

    def __str__(self) -> str:
        offset = "" if self.offset is None else f"@{self.offset}"
        raw = "" if self.raw_offset is None else f" (raw offset {self.raw_offset})"
        return f"{self.kind}: {self.topic}[{self.partition}]{offset}{raw}: {self.what}"


@dataclass(slots=True)
class Findings:
    """All findings are counted, by kind; the first FINDINGS_KEPT_MAX are kept."""

    kept: list[Finding] = field(default_factory=list)
    counts: Counter[FindingKind] = field(default_factory=Counter)

    def add(self, finding: Finding) -> None:
        self.counts[finding.kind] += 1
        if len(self.kept) < FINDINGS_KEPT_MAX:
            self.kept.append(finding)

    def merge(self, other: Findings) -> None:
        """Take in what was found elsewhere."""
        self.counts.update(other.counts)
        self.kept += other.kept[: FINDINGS_KEPT_MAX - len(self.kept)]


@dataclass(slots=True)
class Balance:
    """
    What became of the raw records that were judged: as the recount has it, and as the topics have it.

    `in_flight` are raw offsets that the worker has not committed yet: they are not judged and not received here.
    """

    received: int = 0
    duplicates: int = 0
    ignored: int = 0
    accepted_wanted: int = 0
    accepted_found: int = 0
    rejected_wanted: Counter[str] = field(default_factory=Counter)
    rejected_found: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0

    def merge(self, other: Balance) -> None:
        """Add another partition's."""
        for name in ("received", "duplicates", "ignored", "accepted_wanted", "accepted_found", "in_flight"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.rejected_wanted.update(other.rejected_wanted)
        self.rejected_found.update(other.rejected_found)

    @property
    def accounted_for(self) -> int:
        """How many raw records the topics, and the duplicates and other event types of the recount, explain."""
        return self.accepted_found + self.rejected_found.total() + self.duplicates + self.ignored


@dataclass(slots=True)
class AuditReport:
    """
    What `run` returns.

    Args:
        windows: How many windows were compared with a recount of their deletions.
        windows_pending: How many of them the report agent has not caught up with: neither right nor wrong yet.
        notes: What an operator may want to know and what is no damage.
        records: How many records were read, over all topics, in `seconds`.
    """

    balance: Balance = field(default_factory=Balance)
    findings: Findings = field(default_factory=Findings)
    windows: int = 0
    windows_pending: int = 0
    notes: list[str] = field(default_factory=list)
    records: int = 0
    seconds: float = 0.0

    @property
    def agrees(self) -> bool:
        return not self.findings.counts and self.balance.accounted_for == self.balance.received

    def to_json(self) -> dict[str, Any]:
        """Return the report in the shape that docs/audit.md documents."""
        balance = self.balance
        return {
            "agrees": self.agrees,
            "balance": {
                "received": balance.received,
                "accepted": {"recount": balance.accepted_wanted, "topic": balance.accepted_found},
                "rejected": {
                    reason: {"recount": balance.rejected_wanted[reason], "topic": balance.rejected_found[reason]}
                    for reason in sorted(balance.rejected_wanted.keys() | balance.rejected_found.keys())
                },
                "duplicate": balance.duplicates,
                "ignored": balance.ignored,
                "in_flight": balance.in_flight,
            },
            "windows": {"compared": self.windows, "pending": self.windows_pending},
            "findings_total": self.findings.counts.total(),
            "findings_by_kind": {kind.value: self.findings.counts[kind] for kind in FindingKind},
            "findings": [asdict(finding) for finding in self.findings.kept],
            "notes": list(self.notes),
            "records_read": self.records,
            "seconds": round(self.seconds, 3),
        }
