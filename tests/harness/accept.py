"""The accept transition, as tests call it: raw records in, rows and outcomes with names out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pipeline.core import deduplication as core
from pipeline.core.contract import header
from pipeline.core.deduplication import AcceptState
from pipeline.core.event import Content, media_id_of
from pipeline.core.windows import TimePolicy
from tests.builders import named

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.core.contract import Headers, Row

POLICY = TimePolicy(window=60_000, horizon=3_600_000, future=600_000, delay=30_000)
NOON = 1_704_110_400_000  # 2024-01-01T12:00:00Z, a window start.
ELEVEN = NOON - 3_600_000  # The expiry while the stream time is 12:00.
AT_NOON = "2024-01-01T12:00:00Z"


@dataclass
class Raw:
    """A raw record as Kafka's client hands it out."""

    offset: int = 0
    timestamp: int = NOON
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = field(default_factory=list)


class Out(NamedTuple):
    """A row, with names."""

    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: list[tuple[str, bytes]]

    @property
    def reason(self) -> str:
        return (header(self.headers, "reason") or b"").decode()

    @property
    def detail(self) -> str:
        return (header(self.headers, "detail") or b"").decode()


def outs(rows: Sequence[Row]) -> list[Out]:
    return [Out(*row) for row in rows]


def raw(offset: int, value: bytes, timestamp: int = NOON) -> Raw:
    return Raw(offset, timestamp, media_id_of(value), value)


def new_state() -> AcceptState:
    return AcceptState(3, POLICY)


@dataclass
class Decisions:
    """All rows of a chunk, those for `accepted` included, and the outcomes by name."""

    rejected: list[Row]
    partial_counts: list[Row]
    outcomes: Counter[str]
    deletions: Counter[Content]
    accepted: list[Row]
    clock_jumps: int


def accept(state: AcceptState, records: Iterable[Raw]) -> Decisions:
    accepted: list[Row] = []
    decided = core.accept(state, records, accepted)
    return Decisions(
        decided.rejected,
        decided.partial_counts,
        named(decided.outcomes),
        decided.deletions,
        accepted,
        decided.clock_jumps,
    )


def run(*records: Raw, state: AcceptState | None = None) -> Decisions:
    return accept(state or new_state(), records)


def reasons_of(decisions: Decisions) -> list[str]:
    return [row.reason for row in outs(decisions.rejected)]


def details_of(decisions: Decisions) -> list[str]:
    return [row.detail for row in outs(decisions.rejected)]


def counts_of(rows: Sequence[Row]) -> dict[bytes, bytes]:
    """What a reader of partial-counts ends with: the last value of each key, watermarks aside."""
    return {row.key or b"": row.value or b"" for row in outs(rows) if not (row.key or b"").startswith(b"watermark")}
