"""
A small model of Kafka's transactions: what pipeline/worker relies on, and nothing else.

Logs with gaps (control records, compaction) and a last stable offset; transactional ids with epochs, fencing, sequence
numbers, and requests that come too late, but still in their epoch (transaction protocol 1); committed offsets with
metadata, which appear some time after the commit was answered; retention; offsets by time; and markers that are
forgotten, so that the next ones of that producer decide.
Sources: KIP-98 (transactions), KIP-360 (epochs), and tests/integration/worker/test_traps.py for what was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidTimestampError,
    InvalidTxnState,
    KafkaError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
)

from pipeline.kafka.clients import UnstableOffsetError
from tests.laws.log import PartitionLog

Who = tuple[str, int]  # A transactional id and an epoch.


@dataclass(slots=True)
class Transaction:
    """What gets its markers."""

    touched: set[TopicPartition] = field(default_factory=set)
    has_group: bool = False


@dataclass(slots=True)
class KnownProducer:
    """What brokers know of a transactional id."""

    id: int
    epoch: int = -1
    epoch_before: int | None = None
    """Whose owner asked for the present one."""
    transaction: Transaction | None = None
    completing: Transaction | None = None
    """Committed and answered so, but without markers yet: a reader of offsets may still get the old ones."""
    verdict: bool | None = None
    """On the last transaction of this epoch."""
    appended: dict[TopicPartition, dict[tuple[int, int], int]] = field(default_factory=dict)
    """Batches by epoch and first sequence number, and their sizes."""
    positions: dict[tuple[str, TopicPartition], tuple[int, str]] = field(default_factory=dict)
    """Undecided ones. The group's coordinator takes them in any state of the transaction."""
    positions_epoch: int = -1

    @property
    def marking(self) -> set[TopicPartition]:
        """What is going to get a marker."""
        return {tp for each in (self.transaction, self.completing) if each for tp in each.touched}


class Broker:
    """All of Kafka. Nothing here suspends: a request takes effect as a whole, or not at all."""

    def __init__(self) -> None:
        self.now = 0
        self.logs: dict[TopicPartition, PartitionLog] = {}
        self.offsets: dict[tuple[str, TopicPartition], tuple[int, str]] = {}
        self.late: list[Callable[[], object]] = []
        """Requests that are still on their way, though no one waits for their answer any more."""
        self.leaderless: set[TopicPartition] = set()
        """Where the next markers are forgotten, once."""
        self.has_forgotten: set[TopicPartition] = set()
        self.undone: set[TopicPartition] = set()
        """Where something was aborted whose transaction had been committed, as its marker was forgotten."""
        self.stale: dict[TopicPartition, list[int]] = {}
        """Where the log ends for its next readers, who ask a leader of old: it is cut off, and does not know it."""
        self.refusals: dict[TopicPartition, int] = {}
        """How many more batches are refused for what is in them."""
        self.on_commit: Callable[[tuple[str, TopicPartition], tuple[int, str]], None] = lambda *_: None
        self.names = 0
        """How many names were given away."""
        self._producers: dict[str, KnownProducer] = {}

    def log(self, tp: TopicPartition) -> PartitionLog:
        return self.logs.setdefault(tp, PartitionLog())

    def shown_end(self, tp: TopicPartition) -> int:
        """Return where the log ends for one more reader."""
        stale = self.stale.get(tp)
        return min(stale.pop(0), self.log(tp).end) if stale else self.log(tp).end

    def init_producer(self, transactional_id: str, known: int | None = None) -> int:
        """End what the predecessor had open, fence it, and return the new epoch; *known*: who asks has that one."""
        producer = self._producers.setdefault(transactional_id, KnownProducer(len(self._producers)))
        if known is not None and known != producer.epoch:
            if known != producer.epoch_before:
                raise ProducerFenced
            if producer.transaction is None:
                return producer.epoch  # It asks again.
            known = None
        self._abort(transactional_id, producer.epoch + 1)
        producer.epoch, producer.epoch_before, producer.verdict = producer.epoch + 1, known, None
        return producer.epoch

    @property
    def epochs(self) -> int:
        """How many were begun: one for each producer that was opened, fenced or had to begin anew."""
        return sum(producer.epoch + 1 for producer in self._producers.values())

    def id_of(self, transactional_id: str) -> int:
        return self._producers[transactional_id].id

    def transactional_ids(self, producer_id: int, *, is_over: bool) -> list[str]:
        return [
            name
            for name, producer in self._producers.items()
            if producer.id == producer_id and not (is_over and (producer.transaction or producer.completing))
        ]

    def fence(self) -> None:
        """Fence every producer there is, as successors do."""
        for transactional_id in self._producers:
            self.init_producer(transactional_id)

    def add_partitions(self, who: Who, tps: Iterable[TopicPartition]) -> None:
        """Begin a transaction, unless one is open: one of this epoch, for all that the coordinator knows."""
        self._begun(who).touched |= set(tps)

    def add_group(self, who: Who) -> None:
        self._begun(who).has_group = True

    def produce(self, who: Who, tp: TopicPartition, batch: Sequence[Any], sequence: int) -> None:
        (name, epoch), producer = who, self._current(who)
        appended = producer.appended.setdefault(tp, {})
        if (epoch, sequence) in appended:
            return
        if producer.transaction is None or tp not in producer.transaction.touched:
            raise InvalidTxnState
        if sequence != sum(size for (at, _), size in appended.items() if at == epoch):
            raise OutOfOrderSequenceNumber
        if self.refusals.get(tp, 0) > 0:
            self.refusals[tp] -= 1
            raise InvalidTimestampError
        appended[epoch, sequence] = len(batch)
        for record in batch:
            self.log(tp).append(
                record.timestamp,
                record.key,
                record.value,
                record.headers,
                topic=tp.topic,
                producer=name,
                is_open=True,
            )

    def commit_offsets(self, who: Who, positions: dict[tuple[str, TopicPartition], tuple[int, str]]) -> None:
        producer, epoch = self._producers[who[0]], who[1]
        if epoch < producer.positions_epoch:
            raise InvalidProducerEpoch
        producer.positions_epoch = epoch
        producer.positions |= positions

    def end(self, who: Who, *, commit: bool) -> None:
        """Decide on the open transaction; markers of a commit follow, at the latest when needed."""
        producer = self._current(who)
        if producer.transaction is None:
            if commit is not producer.verdict:
                raise InvalidTxnState
            return
        producer.verdict = commit
        if commit:
            producer.transaction, producer.completing = None, producer.transaction
        else:
            self._abort(*who)

    def open_transactions(self, tps: Iterable[TopicPartition]) -> set[tuple[TopicPartition, int]]:
        """Return where something is open, and of which producer ids; markers that are due are written before."""
        self.settle()
        return {(tp, self.id_of(record.producer or "")) for tp in tps for record in self.log(tp).undecided()}

    def committed(self, where: tuple[str, TopicPartition], *, is_stable: bool) -> tuple[int, str] | None:
        """Return what was committed; a stable answer is refused while another is undecided, or has no marker yet."""
        if is_stable and any(where in producer.positions for producer in self._producers.values()):
            self.settle()
            raise UnstableOffsetError
        return self.offsets.get(where)

    @property
    def is_hanging(self) -> bool:
        """Whether something is open of a transaction that is over."""
        return any(
            tp not in self._producers[record.producer or ""].marking
            for tp, log in self.logs.items()
            for record in log.undecided()
        )

    def settle(self) -> None:
        """Write all markers that are due."""
        for transactional_id in self._producers:
            self._complete(transactional_id)

    def time_out(self) -> None:
        """End all open transactions as the coordinator does after transaction.timeout.ms: it fences their producers."""
        for transactional_id, producer in self._producers.items():
            if producer.transaction is not None:
                self._abort(transactional_id, producer.epoch + 1)
                producer.epoch, producer.epoch_before, producer.verdict = producer.epoch + 1, None, None

    def deliver_late(self) -> None:
        """Let what is still on its way arrive."""
        while self.late:
            try:
                self.late.pop(0)()
            except KafkaError:
                continue

    def _current(self, who: Who) -> KnownProducer:
        producer = self._producers[who[0]]
        if producer.epoch != who[1]:
            raise ProducerFenced
        return producer

    def _begun(self, who: Who) -> Transaction:
        producer = self._current(who)
        self._complete(who[0])
        if producer.transaction is None:
            producer.transaction = Transaction()
        return producer.transaction

    def _complete(self, transactional_id: str) -> None:
        producer = self._producers[transactional_id]
        transaction, producer.completing = producer.completing, None
        if transaction is None:
            return
        self._mark(transactional_id, transaction, commit=True)
        if transaction.has_group:
            for where, position in producer.positions.items():
                self.on_commit(where, position)
                self.offsets[where] = position
            self._mark_positions(producer, producer.epoch)

    def _abort(self, transactional_id: str, epoch: int) -> None:
        """Abort what is open, by markers of *epoch*."""
        self._complete(transactional_id)
        producer = self._producers[transactional_id]
        transaction, producer.transaction = producer.transaction, None
        if transaction is not None:
            self._mark(transactional_id, transaction, commit=False)
            if transaction.has_group:
                self._mark_positions(producer, epoch)

    @staticmethod
    def _mark_positions(producer: KnownProducer, epoch: int) -> None:
        """From then on the group's coordinator takes none of an earlier epoch."""
        producer.positions.clear()
        producer.positions_epoch = max(producer.positions_epoch, epoch)

    def _mark(self, transactional_id: str, transaction: Transaction, *, commit: bool) -> None:
        for tp in transaction.touched - self.leaderless:
            if not commit and any(r.was_committed and r.producer == transactional_id for r in self.log(tp).undecided()):
                self.undone.add(tp)
            self.log(tp).mark(transactional_id, self.now, commit=commit)
        for tp in transaction.touched & self.leaderless:
            for record in self.log(tp).undecided():
                record.was_committed |= commit and record.producer == transactional_id
        if transaction.touched:
            self.has_forgotten |= transaction.touched & self.leaderless
            self.leaderless.clear()
