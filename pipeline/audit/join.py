"""
One partition: what its raw records should have led to, beside what `accepted` and `rejected` hold.

All three logs are in raw's order, so they are read side by side, each once, and only the events of the dedupe horizon
are kept in memory. A record that is out of its place is noticed because the log stops being in order there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.audit.findings import Finding, FindingKind, Findings
from pipeline.audit.reference_rules import Expected

UNREADABLE = -1  # Instead of the raw offset of an output that names none.
END = 1 << 64  # The same behind the last output: more than any raw offset.
DETAIL_BYTES_MAX = 1024
MISSING_KEPT_MAX = 100_000  # Beyond that the log is damaged as a whole, and order is no longer known.

_DECISION = struct.Struct(">QQ")

Headers = list[tuple[str, bytes]]


class ExpectedRow(NamedTuple):
    """An output as it should be. Of `headers` a rejection's last one, the detail, is any text up to 1 KiB."""

    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers


@dataclass(slots=True)
class OutputLog:
    """
    A log of outputs of one partition, compared row by row with what it should hold.

    Args:
        raw_offset_of: Reads the raw offset out of a record, or UNREADABLE.
        differs: Names in what a record differs from what it should be.
        on_found: Called with each record that is judged.
        is_known: Whether a record repeats what has come before, as far as its key tells.
    """

    topic: str
    partition: int
    records: Iterator[Any]
    raw_offset_of: Callable[[Any], int]
    differs: Callable[[Any, ExpectedRow], list[str]]
    findings: Findings
    on_found: Callable[[Any], None]
    is_known: Callable[[Any], bool]
    head: Any = field(init=False, default=None)
    raw_offset: int = field(init=False, default=UNREADABLE)
    is_orphan: bool = field(init=False, default=False)  # No raw record has the head's raw offset.
    missing: dict[int, Finding] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.advance()

    def advance(self) -> None:
        """Go on to the next record; `head` is None behind the last one."""
        self.head = next(self.records, None)
        self.raw_offset = END if self.head is None else self.raw_offset_of(self.head)
        self.is_orphan = False

    def skip_until(self, raw_offset: int, take: Callable[[Any], None]) -> None:
        """Pass what raw records before *raw_offset* led to, which is not judged, to *take*."""
        while self.head is not None and self.raw_offset < raw_offset:
            if self.raw_offset == UNREADABLE:
                self._find(FindingKind.CHANGED, "does not name its raw record in its headers")
            else:
                take(self.head)
            self.advance()

    def match(self, raw_offset: int, before: int, wanted: ExpectedRow | None, why: str) -> None:
        """
        Compare what this log holds for one raw record.

        Args:
            before: The raw offset matched before this one.
            wanted: What should be there, or None.
            why: What became of the raw record, in a word.
        """
        if before < self.raw_offset < raw_offset:
            self.is_orphan = True
        if wanted is None:
            if self.raw_offset == raw_offset:
                self.on_found(self.head)
                self._find(FindingKind.UNEXPECTED, f"its raw record is {why}")
                self.advance()
            return  # A record of an earlier raw one may be the next wanted one with another raw offset written on it.
        while self.raw_offset < raw_offset and not self._reads_like(wanted):
            self._stray(before)
        if self.raw_offset == raw_offset or self._reads_like(wanted):
            self.on_found(self.head)
            differences = self.differs(self.head, wanted)
            if differences:
                self._find(FindingKind.CHANGED, "; ".join(differences), raw_offset)
            self.advance()
        else:
            self._miss(raw_offset, why)

    def _miss(self, raw_offset: int, why: str) -> None:
        finding = Finding(
            kind=FindingKind.MISSING, topic=self.topic, partition=self.partition, raw_offset=raw_offset,
            what=f"no record for this raw record, which is {why}",
        )  # fmt: skip
        if len(self.missing) < MISSING_KEPT_MAX:
            self.missing[raw_offset] = finding
        else:
            self.findings.add(finding)

    def finish(self, stop: int, last: int, raw_end: int, take: Callable[[Any], None]) -> None:
        """Judge what is left; what raw records from *stop* on led to is passed to *take*."""
        while self.head is not None:
            if self.raw_offset < stop:
                self.is_orphan |= self.raw_offset > last
                self._stray(last)
                continue
            if self.raw_offset >= raw_end:
                self._find(FindingKind.UNEXPECTED, f"raw ends at {raw_end}")
            else:
                take(self.head)
            self.advance()
        for finding in self.missing.values():
            self.findings.add(finding)

    def _reads_like(self, wanted: ExpectedRow) -> bool:
        head = self.head
        return head is not None and (head.key, head.value, head.timestamp) == wanted[:3]

    def _stray(self, before: int) -> None:
        self.on_found(self.head)
        if self.raw_offset in self.missing:
            del self.missing[self.raw_offset]
            self._find(FindingKind.ORDER, f"stands behind what raw offset {before} led to")
        elif self.raw_offset == UNREADABLE:
            self._find(FindingKind.UNEXPECTED, "names no raw record in its headers, and none reads like it")
        elif self.is_orphan:
            self._find(FindingKind.UNEXPECTED, "raw has no record with this offset")
        elif self.is_known(self.head):
            self._find(FindingKind.DOUBLED, "what this raw record led to has come before")
        else:
            self._find(FindingKind.UNEXPECTED, "no raw record of this partition led to it")
        self.advance()

    def _find(self, kind: FindingKind, what: str, raw_offset: int | None = None) -> None:
        named = raw_offset if raw_offset is not None else self.raw_offset if self.raw_offset != UNREADABLE else None
        self.findings.add(
            Finding(
                kind=kind,
                topic=self.topic,
                partition=self.partition,
                offset=self.head.offset,
                raw_offset=named,
                what=what,
            )
        )


def accepted_raw_offset(record: Any) -> int:
    """Read the raw offset out of the `decision` header of an accepted record."""
    name, value = record.headers[-1] if record.headers else ("", b"")
    is_readable = name == "decision" and value is not None and len(value) >= _DECISION.size
    return int(_DECISION.unpack_from(value)[0]) if is_readable else UNREADABLE


def rejected_raw_offset(record: Any) -> int:
    """Read the `raw-offset` header of a rejected record."""
    value = dict(record.headers).get("raw-offset") or b""
    return int(value) if value.isdigit() and len(value) < 20 else UNREADABLE


def fingerprint_and_code(record: Any) -> tuple[int, str]:
    """Read the rest of an accepted record's `decision` header."""
    value = record.headers[-1][1]
    return _DECISION.unpack_from(value)[1], value[_DECISION.size :].decode(errors="replace")


def accepted_row(record: Any, expected: Expected) -> ExpectedRow:
    """Return the accepted record that *record* leads to."""
    decision = _DECISION.pack(record.offset, expected.fingerprint) + expected.code_bytes
    return ExpectedRow(record.key, record.value, expected.at, [*record.headers, ("decision", decision)])


def rejected_row(record: Any, reason: str) -> ExpectedRow:
    """Return the rejected record that *record* leads to, but for its detail."""
    why = [("raw-offset", b"%d" % record.offset), ("reason", reason.encode())]
    return ExpectedRow(
        b"%d:%d" % (record.partition, record.offset), record.value, record.timestamp, [*record.headers, *why]
    )


def accepted_differs(record: Any, wanted: ExpectedRow) -> list[str]:
    """Name what of an accepted record is not as it should be."""
    if (record.key, record.value, record.timestamp, record.headers) == wanted:
        return []
    return [*_body_differs(record, wanted), *_headers_differ(record.headers, wanted.headers)]


def rejected_differs(record: Any, wanted: ExpectedRow) -> list[str]:
    """Name what of a rejected record is not as it should be."""
    *headers, (name, detail) = record.headers or [("", b"")]
    found = [*_body_differs(record, wanted), *_headers_differ(headers, wanted.headers)]
    if name != "detail" or len(detail or b"") > DETAIL_BYTES_MAX:
        found.append(f"header {name!r} instead of a detail of at most {DETAIL_BYTES_MAX} bytes")
    return found


def _body_differs(record: Any, wanted: ExpectedRow) -> Iterator[str]:
    if record.key != wanted.key:
        yield f"key {shown(record.key)} instead of {shown(wanted.key)}"
    if record.value != wanted.value:
        yield "value is not the raw record's"
    if record.timestamp != wanted.timestamp:
        yield f"timestamp {record.timestamp} instead of {wanted.timestamp}"


def _headers_differ(headers: Headers, wanted: Headers) -> Iterator[str]:
    if [name for name, _ in headers] != [name for name, _ in wanted]:
        yield f"headers {[name for name, _ in headers]} instead of {[name for name, _ in wanted]}"
        return
    for (name, value), (_, other) in zip(headers, wanted, strict=True):
        if value != other:
            yield f"header {name} {shown(value)} instead of {shown(other)}"


def shown(value: bytes | None) -> str:
    return "null" if value is None else repr(value[:80])[1:]
