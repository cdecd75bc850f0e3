"""
What happens to the model, and the laws: a recount in the plainest way, from what was delivered and not from its bytes.

The laws are the audit's: each event once in accepted, every other record rejected or counted, rows equal to a recount,
offsets that never fall; and at every moment what is committed is what a recount up to the committed offset gives.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain

from aiokafka import TopicPartition

from pipeline.core.contract import header, unpack_decision
from pipeline.core.offset_metadata import owner_of, with_owner
from pipeline.core.windows import CLOCK_SKEW, format_time
from tests.harness.stream_time import judged_at
from tests.laws.deliveries import FOREIGN, Delivery
from tests.laws.kafka import Broker
from tests.laws.worker import COUNTS, GROUP, PARTITIONS, POLICY, SOURCES, TOPICS, Worker

START = 1_704_110_400_000  # 2024-01-01T12:00:00Z.
DRAIN_ROUNDS_MAX = 60
STALE_READS_MAX = 3  # So often may a leader of old answer at the end of a run.


@dataclass(slots=True)
class Recount:
    """What a part of one raw partition should have led to."""

    accepted: list[tuple[int, int, int, str]] = field(default_factory=list)
    """Raw offset, media, EventTime and code."""
    rejected: list[tuple[int, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


class World:
    """A broker, what was delivered to it, and what must be true of it."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.broker.now = START
        self.broker.on_commit = self._on_commit
        self.delivered: dict[int, list[Delivery]] = {partition: [] for partition in range(PARTITIONS)}
        self.arrived: dict[int, list[int]] = {partition: [] for partition in range(PARTITIONS)}
        self.jumped: set[int] = set()
        """Partitions with a wrong clock's stamp: read from elsewhere, that may be the first, which is believed."""
        self.lost: dict[int, set[int]] = {partition: set() for partition in range(PARTITIONS)}
        self.begun: dict[int, int] = {}
        """Where a partition's stream time began anew: the raw offset."""
        self.is_replayed: set[int] = set()
        """Partitions whose offset was lost or set back: their totals begin anew, and rejections can come again."""
        self._fallen: list[str] = []
        self._gone_back: dict[int, tuple[int, str]] = {}
        """Where they were, and come back to at once if all goes well."""
        self.has_report_forgotten = False
        """The report may begin, without a committed offset, when windows have expired: those get no rows any more."""

    def wait(self, milliseconds: int) -> None:
        """Let time pass."""
        self.broker.now += milliseconds
        self.note_report()

    def note_report(self) -> None:
        """Note it if the report, opened now, would not know which windows it wrote and which it never saw."""
        has_expired = self.broker.now - START >= POLICY.horizon + CLOCK_SKEW - POLICY.future
        self.has_report_forgotten |= has_expired and (GROUP, COUNTS) not in self.broker.offsets

    def deliver(self, delivery: Delivery, *, ahead: int = 0) -> int:
        """Append to raw, as the bridge does, stamped by a clock that is *ahead* (ms); return the partition."""
        partition, stamp = (delivery.media or 0) % PARTITIONS, self.broker.now + ahead
        key = None if delivery.media is None else b"m%d" % delivery.media
        self.broker.log(TopicPartition(TOPICS.raw, partition)).append(stamp, key, delivery.body)
        self.delivered[partition].append(delivery)
        self.arrived[partition].append(stamp)
        return partition

    def is_clock_right(self, partition: int) -> bool:
        """Whether a worker has read some of *partition*, and will read that its last stamp is not ahead."""
        arrived = self.arrived[partition]
        is_read = bool(self._committed(TopicPartition(TOPICS.raw, partition)))
        return is_read and arrived[-1] <= self.broker.now and len(arrived) - 1 not in self.lost[partition]

    def expire_raw(self, partition: int, unread: int) -> None:
        """Let retention take what is read, and *unread* records more; no one may have those in memory."""
        tp = TopicPartition(TOPICS.raw, partition)
        log, committed = self.broker.log(tp), self._committed(tp)
        begin = log.start if committed is None else committed
        end = min(begin + unread, log.end)
        self.lost[partition] |= set(range(begin, end))
        log.drop_before(end)

    def lose_offset(self, tp: TopicPartition) -> None:
        """Forget what the group committed; all who answer know all, as nothing would tell."""
        self.broker.stale.clear()
        if self.broker.offsets.pop((GROUP, tp), None) is not None and tp != COUNTS:
            self.is_replayed.add(tp.partition)
        self.note_report()

    def set_offset_back(self, partition: int, back: int) -> None:
        """Do what `offsets reset` does, *back* records before the committed offset; all who answer know all."""
        self.broker.stale.clear()
        tp = TopicPartition(TOPICS.raw, partition)
        committed = self._committed(tp)
        if committed is not None:
            self._reset(partition, max(self.broker.log(tp).start, committed - back))
            self.is_replayed.add(partition)

    def begin_anew(self) -> None:
        """Do what `offsets reset --to committed` does to each partition, once all is read."""
        for partition, delivered in self.delivered.items():
            self._reset(partition, len(delivered))
            self.begun[partition] = len(delivered)
            self.is_replayed.add(partition)

    def _reset(self, partition: int, offset: int) -> None:
        """Leave nothing of the metadata but who its owner is."""
        where = GROUP, TopicPartition(TOPICS.raw, partition)
        _, metadata = self.broker.offsets.get(where, (0, ""))
        self.broker.offsets[where] = offset, with_owner("", owner_of(metadata))

    def recount(self, partition: int, until: int) -> Recount:
        """Decide again on what was delivered before the offset *until*."""
        found, seen = Recount(), dict[tuple[int, int], int]()
        offsets = [offset for offset in range(until) if offset not in self.lost[partition]]
        begun = bisect_left(offsets, self.begun.get(partition, 0))
        stamps = [self.arrived[partition][offset] for offset in offsets]
        times = chain(judged_at(stamps[:begun]), judged_at(stamps[begun:]))
        for offset, arrived in zip(offsets, times, strict=True):
            record = self.delivered[partition][offset]
            if record.media is None:
                if record is FOREIGN:
                    found.others["ignored/TranscodeComplete"] += 1
                else:
                    found.rejected.append((offset, "invalid_json"))
            elif record.at > arrived + POLICY.future:
                found.rejected.append((offset, "event_time_in_future"))
            elif record.at < (arrived - POLICY.horizon) // POLICY.window * POLICY.window:
                found.rejected.append((offset, "event_time_expired"))
            elif (record.media, record.at) not in seen:
                seen[record.media, record.at] = record.content
                found.accepted.append((offset, record.media, record.at, record.code))
            elif seen[record.media, record.at] == record.content:
                found.others["duplicate"] += 1
            else:
                found.rejected.append((offset, "conflict"))
        return found

    def check(self) -> None:
        """Compare what is committed now with a recount up to the committed offsets; what hangs is neither."""
        assert not self._fallen
        if self.broker.is_hanging:
            return
        for partition in range(PARTITIONS):
            position = self.broker.offsets.get((GROUP, TopicPartition(TOPICS.raw, partition)))
            if partition in self.is_replayed:
                continue
            expected = self.recount(partition, position[0] if position else 0)
            assert self._accepted(partition) == expected.accepted
            assert self._rejected(partition) == expected.rejected
            totals = Counter(f"rejected/{reason}" for _, reason in expected.rejected) + expected.others
            totals += Counter(accepted=len(expected.accepted))
            assert (json.loads(position[1]).get("totals", {}) if position else {}) == totals

    def drain(self, worker: Worker | None = None) -> None:
        """Let *worker*, or a fresh one, read everything to its end, let all windows end, and check everything."""
        self.broker.deliver_late()
        self.broker.leaderless.clear()
        self.broker.refusals.clear()
        for limits in self.broker.stale.values():
            del limits[STALE_READS_MAX:]
        worker = worker or Worker(self.broker)
        try:
            for wait in (0, 2 * 3_600_000, 1000):
                self.wait(wait)
                self._read_to_the_end(worker)
            worker.settle()
        finally:
            worker.kill()
        self.broker.settle()
        self.check()
        for partition in range(PARTITIONS):
            expected = self.recount(partition, len(self.delivered[partition]))
            assert self._accepted(partition) == expected.accepted
            assert sorted(set(self._rejected(partition))) == expected.rejected
            assert (
                self._committed(TopicPartition(TOPICS.raw, partition)) == len(self.delivered[partition])
                or not (self.delivered[partition])
            )
        if COUNTS not in self.broker.undone:  # See docs/reliability.md, known limits.
            self._check_watermarks()
            self._check_rows()

    def _read_to_the_end(self, worker: Worker) -> None:
        for tp in SOURCES:
            for _ in range(DRAIN_ROUNDS_MAX):
                chunk = worker.fetch(tp, records_max=7)
                while worker.work(tp):
                    continue
                if chunk is not None and chunk.idle and worker.position(tp) == chunk.end:
                    break  # It was not made to go back.
                worker.settle()
                self.broker.settle()
            else:
                raise AssertionError(f"{tp} is never read to its end")
            worker.settle()
            self.broker.settle()

    def _check_watermarks(self) -> None:
        for partition in set(range(PARTITIONS)) - self.is_replayed:
            marks = [
                json.loads(record.value or b"")["watermark"]
                for record in self.broker.log(COUNTS).committed()
                if record.key == b"watermark|%d" % partition
            ]
            # One that hangs, and nothing tells whether it was committed, may come early: the report takes the highest.
            assert marks == sorted(marks) or COUNTS in self.broker.has_forgotten
            position = self.broker.offsets[GROUP, TopicPartition(TOPICS.raw, partition)]
            assert marks[-1] == json.loads(position[1])["watermark"]

    def _check_rows(self) -> None:
        totals: Counter[int] = Counter()
        failures: Counter[tuple[int, str | None]] = Counter()
        for partition in range(PARTITIONS):
            for _, _, at, code in self.recount(partition, len(self.delivered[partition])).accepted:
                window = at - at % POLICY.window
                totals[window] += 1
                failures[window, None] += bool(code)
                if code:
                    failures[window, code] += 1
        expected = {
            f"{format_time(window)}|{code or ''}".encode(): (number, totals[window], True)
            for (window, code), number in failures.items()
        }
        has = self.rows()
        if self.has_report_forgotten:
            assert has.items() <= expected.items()
        else:
            assert has == expected

    def rows(self) -> dict[bytes, tuple[int, int, bool]]:
        """Return failures, total and complete of the newest row of each key of failure-rates."""
        log = self.broker.log(TopicPartition(TOPICS.failure_rates, 0))
        newest = {record.key or b"": json.loads(record.value or b"") for record in log.committed()}
        assert not any(row["complete"] and "waiting_for" in row for row in newest.values())
        return {key: (row["failures"], row["total"], row["complete"]) for key, row in newest.items()}

    def _accepted(self, partition: int) -> list[tuple[int, int, int, str]]:
        found = []
        for record in self.broker.log(TopicPartition(TOPICS.accepted, partition)).committed():
            decision = unpack_decision(header(record.headers, "decision") or b"")
            media = int((record.key or b"")[1:])
            found.append((decision.raw_offset, media, record.timestamp, decision.code))
        return found

    def _rejected(self, partition: int) -> list[tuple[int, str]]:
        return [
            (int((record.key or b"").split(b":")[1]), (header(record.headers, "reason") or b"").decode())
            for record in self.broker.log(TopicPartition(TOPICS.rejected, partition)).committed()
        ]

    def _committed(self, tp: TopicPartition) -> int | None:
        position = self.broker.offsets.get((GROUP, tp))
        return position[0] if position else None

    def _on_commit(self, where: tuple[str, TopicPartition], position: tuple[int, str]) -> None:
        """See that no offset falls, but where what hangs is to be committed: it begins anew unless it is."""
        offset, metadata = self.broker.offsets.get(where, (0, ""))
        begins_anew = json.loads(position[1]).keys() == {"owner"}
        if not begins_anew and offset > position[0]:  # An error here would be a worker's to deal with.
            self._fallen.append(f"{where[1]} fell from {offset} to {position}")
        partition = where[1].partition
        if begins_anew and where[1] != COUNTS and "totals" in metadata and partition not in self.is_replayed:
            self._gone_back[partition] = offset, metadata
            self.is_replayed.add(partition)
            self.broker.stale.clear()  # Nothing would tell.
        elif self._gone_back.get(partition) == position:
            self.is_replayed.discard(partition)
