"""
The accept transition: raw records of one partition in, decisions out.

Pure: the state it changes is given to it, and all time it knows is in the records. Its state is
restored from its own output (`restore`), so it needs no store: what is not in `accepted` was not accepted.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pipeline.core.body_shapes import BodyReader, RecordRefusedError, refusal, suffix_of
from pipeline.core.contract import (
    DETAIL_BYTES_MAX,
    HEADER_DECISION,
    HEADER_DETAIL,
    HEADER_RAW_OFFSET,
    HEADER_REASON,
    NO_TIMESTAMP,
    Decision,
    Headers,
    Row,
    Rows,
    pack_count_key,
    pack_decision,
    pack_watermark_key,
    rejected_key,
)
from pipeline.core.event import Content
from pipeline.core.log_clock import LogClock
from pipeline.core.outcome import Ignored, Outcome, OutcomeKey, Reason, Rejected
from pipeline.core.rejection_limit import NO_REJECTION_LIMIT, RejectionLimit
from pipeline.core.windows import NEVER, TimePolicy, format_time


class FetchedRecord(Protocol):
    """A raw record as Kafka's client hands it out; `timestamp` is the broker's, in ms."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(slots=True)
class Bucket:
    """
    What is remembered of one window of event time.

    `seen` maps MediaId and EventTime, as one bytes object, to the fingerprint of the content: bytes and ints only, so
    the cyclic garbage collector never walks it. `counts` maps ErrorCode (SUCCESS for none) to deletions so far.
    """

    start: int
    seen: dict[bytes, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


class LastAccepted(NamedTuple):
    """The record that was accepted last: its offset in raw, and its EventTime in ms."""

    raw_offset: int
    at: int


UNKNOWN = LastAccepted(NEVER, NEVER)


@dataclass(slots=True)
class AcceptState:
    """
    What one partition remembers; `clock` has its stream time.

    `totals` counts records by outcome and reason since the partition's first record: it is committed with the offset.
    So is `last`: a memory that was restored without that record lacks others, too.
    `is_anew`: nothing was committed with the offset, so what the report knows of this partition may be of another one.
    `begun` is that offset: of what lies before it no time is known.
    """

    partition: int
    policy: TimePolicy
    rejection_limit: RejectionLimit = field(default_factory=lambda: RejectionLimit(NO_REJECTION_LIMIT))
    clock: LogClock = field(default_factory=LogClock)
    highest: int = NEVER
    watermark: int = NEVER
    last: LastAccepted = UNKNOWN
    is_anew: bool = False
    begun: int = 0
    buckets: dict[int, Bucket] = field(default_factory=dict)
    totals: Counter[OutcomeKey] = field(default_factory=Counter)
    reader: BodyReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = BodyReader(self.policy)

    @property
    def stream_time(self) -> int:
        """The stream time S, ms; NEVER before the first record."""
        return self.clock.stream_time

    @property
    def keys(self) -> int:
        """How many events are remembered."""
        return sum(len(bucket.seen) for bucket in self.buckets.values())

    def bucket_of(self, window: int) -> Bucket:
        """Return the bucket of the window that starts at *window*, made on first use."""
        bucket = self.buckets.get(window)
        if bucket is None:
            bucket = self.buckets[window] = Bucket(window)
        return bucket

    def forget(self, expiry: int) -> None:
        """Drop every window that starts before *expiry*."""
        for start in [start for start in self.buckets if start < expiry]:
            del self.buckets[start]


@dataclass(slots=True)
class Decisions:
    """What a chunk led to beside accepted rows: the other topics' rows, and what is counted once they are committed."""

    rejected: list[Row] = field(default_factory=list)
    partial_counts: list[Row] = field(default_factory=list)
    outcomes: Counter[OutcomeKey] = field(default_factory=Counter)
    deletions: Counter[Content] = field(default_factory=Counter)
    clock_jumps: int = 0


def restore(state: AcceptState, media_id: bytes, at: int, decision: Decision) -> None:
    """Take one record of `accepted` back into the state: its key, its timestamp and its `decision` header."""
    bucket = state.bucket_of(state.policy.window_of(at))
    bucket.seen[media_id + suffix_of(at)] = decision.fingerprint
    bucket.counts[decision.code] = bucket.counts.get(decision.code, 0) + 1
    state.highest = max(state.highest, at)


def tick(state: AcceptState, now: int | None) -> Decisions:
    """
    Advance the watermark of an idle partition that was read to its end; *now* enters as input and is logged.

    It is worth a transaction only where it passes the end of a window: nothing else of it can change a row.

    None: what time it is will be known by what is written. So the watermark is, where it stands.
    """
    decisions = Decisions()
    if now is None:
        _write_watermark(state, decisions)
    else:
        watermark = now - state.policy.delay
        if state.watermark == NEVER or state.policy.window_of(watermark) > state.policy.window_of(state.watermark):
            _advance(state, watermark, decisions)
    return decisions


def accept(state: AcceptState, records: Iterable[FetchedRecord], accepted: Rows) -> Decisions:
    """
    Decide on every record of a chunk, in order.

    Args:
        state: The partition's memory up to the first record; changed to that after the last.
        records: Raw records of this partition with ascending offsets. Gaps are fine.
        accepted: Takes the rows for `accepted`, while the records are still in the processor's cache.

    Returns:
        The other rows to write, and what to count. Every record is in exactly one of the outcomes.
        If that made `state.rejection_limit.tripped`, nothing of it may be committed, and the state is of no more use.
    """
    policy, buckets, clock = state.policy, state.buckets, state.clock
    read, accept_row = state.reader.read, accepted.append
    highest, stamp, now, expiry, future = state.highest, None, NEVER, NEVER, NEVER
    tally: defaultdict[tuple[int, Content], int] = defaultdict(int)
    last_offset, last_at = state.last
    decisions, duplicates = Decisions(), 0

    for record in state.rejection_limit.watch(records):
        if record.timestamp != stamp:  # All records of a batch have one.
            stamp = record.timestamp
            now = clock.take(stamp)
            expiry, future = policy.expiry(now), policy.latest(now)
        try:
            media_id, (at, suffix, window), content = read(record.key, record.value)
            if at > future or at < expiry:
                raise _out_of_time(at, now, policy)
            seen = (buckets.get(window) or state.bucket_of(window)).seen
            event, fingerprint = media_id + suffix, content.fingerprint
            known = seen.get(event)
            if known is None:
                seen[event] = fingerprint
                last_offset, last_at = record.offset, at
                decision = pack_decision(last_offset, fingerprint) + content.code_bytes
                accept_row((media_id, record.value, at, [*record.headers, (HEADER_DECISION, decision)]))
                tally[window, content] += 1
                if at > highest:  # noqa: PLR1730  # max() is a call, and this is the hot path.
                    highest = at
            elif known == fingerprint:
                duplicates += 1
            else:
                raise refusal(Reason.CONFLICT, f"another event of this MediaId at {format_time(at)} is known")
        except RecordRefusedError as refused:
            _refuse(state, decisions, record, refused.outcome)

    state.highest, state.last = highest, LastAccepted(last_offset, last_at)
    _conclude(state, decisions, tally, duplicates)
    return decisions


def _conclude(state: AcceptState, decisions: Decisions, tally: dict[tuple[int, Content], int], duplicates: int) -> None:
    """Do what is done once a chunk, from the times that its last record led to."""
    _count(state, decisions, tally, duplicates)
    decisions.clock_jumps, state.clock.jumps = state.clock.jumps, 0
    state.forget(state.policy.expiry(state.stream_time))
    _advance(state, state.policy.watermark(state.highest, state.stream_time), decisions)


def _out_of_time(at: int, now: int, policy: TimePolicy) -> RecordRefusedError:
    if at > now:
        reason, where, by, limit = Reason.EVENT_TIME_IN_FUTURE, "after", at - now, policy.future
    else:
        reason, where, by, limit = Reason.EVENT_TIME_EXPIRED, "before", now - at, policy.horizon
    seconds = f"{-(-by // 1000):,} s {where} the record's arrival, more than {limit // 1000:,} s"
    return refusal(reason, f"{format_time(at)} is {seconds}")


def _refuse(state: AcceptState, decisions: Decisions, record: FetchedRecord, outcome: Ignored | Rejected) -> None:
    if isinstance(outcome, Ignored):
        decisions.outcomes[OutcomeKey(Outcome.IGNORED, outcome.event_type)] += 1
        return
    decisions.outcomes[OutcomeKey(Outcome.REJECTED, outcome.reason)] += 1
    if state.rejection_limit.policy.is_on:
        state.rejection_limit.reject()
    why: Headers = (
        (HEADER_RAW_OFFSET, b"%d" % record.offset),
        (HEADER_REASON, outcome.reason.encode()),
        (HEADER_DETAIL, outcome.detail.encode(errors="replace")[:DETAIL_BYTES_MAX]),
    )
    key = rejected_key(state.partition, record.offset)
    decisions.rejected.append((key, record.value, record.timestamp, [*record.headers, *why]))


def _count(state: AcceptState, decisions: Decisions, tally: dict[tuple[int, Content], int], duplicates: int) -> None:
    """Add a chunk's tally to the counts, and write those that changed, cumulative: a reader replaces, never adds."""
    changed: dict[tuple[int, str], int] = {}
    for (window, content), number in tally.items():
        counts = state.buckets[window].counts
        changed[window, content.code] = counts[content.code] = counts.get(content.code, 0) + number
        decisions.deletions[content] += number
    for (window, code), number in changed.items():
        decisions.partial_counts.append(_count_row(state, window, code, number))
    if tally:
        decisions.outcomes[OutcomeKey(Outcome.ACCEPTED)] += sum(tally.values())
    if duplicates:
        decisions.outcomes[OutcomeKey(Outcome.DUPLICATE)] += duplicates
    state.totals.update(decisions.outcomes)


def _count_row(state: AcceptState, window: int, code: str, number: int) -> Row:
    return pack_count_key(state.partition, window, code), b"%d" % number, NO_TIMESTAMP, []


def _advance(state: AcceptState, watermark: int, decisions: Decisions) -> None:
    """Move the watermark forward, if it does move, and write it."""
    if watermark > state.watermark:
        state.watermark = watermark
        _write_watermark(state, decisions)


def _write_watermark(state: AcceptState, decisions: Decisions) -> None:
    """Write the watermark together with the time before which all is expired; anew, with all counts there are."""
    value = {"watermark": state.watermark, "expiry": state.policy.final_before(state.stream_time, state.watermark)}
    if state.is_anew:
        state.is_anew = False
        value["anew"] = True
        decisions.partial_counts += [
            _count_row(state, window, code, count)
            for window, bucket in state.buckets.items()
            for code, count in bucket.counts.items()
        ]
    key = pack_watermark_key(state.partition)
    decisions.partial_counts.append((key, json.dumps(value).encode(), NO_TIMESTAMP, []))
