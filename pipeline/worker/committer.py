"""
What a worker commits: all that its partitions have ready while one transaction is under way is the next one.

A transaction costs about as much for one event as for hundreds, so it is shared; a large one gains nothing by that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import structlog

from pipeline.core.contract import Row
from pipeline.core.offset_metadata import with_owner
from pipeline.kafka import KafkaError, OffsetAndMetadata, TopicPartition
from pipeline.kafka.batches import Batches, RefusedError
from pipeline.kafka.transactions import TransactionalProducer, output
from pipeline.worker.traces import forget_trace

GROUP_BYTES_MAX = 1 << 20  # Once so much is together, the next transaction takes the rest.
ATTEMPTS_MAX = 2

# What a client can raise when Kafka fails, refuses or fences; anything else is a bug of ours.
FAILURES = (KafkaError, OSError, TimeoutError, AssertionError)

WrittenAt = Mapping[TopicPartition, int]

logger: structlog.stdlib.BoundLogger = structlog.get_logger()


class CommitError(KafkaError):  # type: ignore[misc]  # aiokafka is untyped.
    """A transaction failed, or nothing is known of its outcome; the message says why."""


@dataclass(slots=True, eq=False)
class Commit:
    """
    What a partition has to commit.

    Args:
        tp: The source partition.
        offset: Where it goes on.
        metadata: What is committed with that.
        owner: Under which name it was claimed, and goes on to be committed.
        rows: What only this partition writes to.
        shared: Rows for what others write to, too.
        is_alone: In a transaction of its own: what failed may fail again, and the others would with it.
        is_release: Names no owner any more.
    """

    tp: TopicPartition
    offset: int
    metadata: str
    owner: str
    rows: Sequence[Batches] = ()
    shared: Mapping[TopicPartition, Sequence[Row]] = field(default_factory=dict)
    is_alone: bool = False
    is_release: bool = False
    done: asyncio.Future[WrittenAt] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    attempts: int = 0
    """That failed."""
    position: OffsetAndMetadata | None = None
    """As it was to be committed last."""

    @property
    def size(self) -> int:
        """How many bytes the rows of its own take."""
        return sum(rows.size for rows in self.rows)

    def begin(self, transaction: int) -> OffsetAndMetadata:
        """Return the position, as no other transaction commits it."""
        owner = "" if self.is_release else self.owner
        self.position = OffsetAndMetadata(self.offset, with_owner(self.metadata, owner, transaction=transaction))
        return self.position

    def may_be_repeated(self, error: Exception) -> bool:
        """Return whether it can be tried again as it is, by itself."""
        self.is_alone = True
        self.attempts += 1
        is_innocent = isinstance(error, RefusedError) and not self._writes(error.tp)
        return self.attempts < ATTEMPTS_MAX and (is_innocent or isinstance(error, TimeoutError))

    def succeed(self, written_at: WrittenAt) -> None:
        """Say that it was committed, unless the partition was taken away meanwhile."""
        if not self.done.done():
            self.done.set_result(written_at)

    def fail(self, error: Exception) -> None:
        """Say that it was not committed, or that nothing is known. Each partition gets an error of its own."""
        if self.done.done():
            return
        if isinstance(error, RefusedError) and self._writes(error.tp):
            error = RefusedError(error.tp, error.why)
        elif isinstance(error, (RefusedError, *FAILURES)):
            error = CommitError(repr(error))
        self.done.set_exception(error)

    def _writes(self, tp: TopicPartition) -> bool:
        return tp in (*self.shared, *(rows.tp for rows in self.rows))


class Committer:
    """The transactions of a worker, one after the other."""

    def __init__(self, group: str, open_producer: Callable[[], Awaitable[TransactionalProducer]]) -> None:
        """
        Args:
            group: The consumer group.
            open_producer: Opens a producer under a name that no other has had.
        """
        self._group = group
        self._open_producer = open_producer
        self._producer: TransactionalProducer | None = None
        self._opening = asyncio.Lock()
        self._transactions = 0
        self._unsure: set[TopicPartition] | None = None
        """Where the transaction that failed last may have left something."""
        self._waiting: list[Commit] = []
        self._under_way: list[Commit] = []
        self._over = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def owner(self, tp: TopicPartition) -> str:
        """
        Return the name to claim *tp* under, once nothing of it is under way; what was not begun is dropped.

        Raises:
            KafkaError, OSError, TimeoutError: no transaction can be made now.
        """
        self._waiting = [commit for commit in self._waiting if commit.tp != tp]
        while any(commit.tp == tp for commit in self._under_way):
            await self._over.wait()
        return (await self._usable()).transactional_id

    def is_named(self, owner: str) -> bool:
        """Return whether that is the name that is committed under now."""
        return self._producer is not None and self._producer.transactional_id == owner

    async def commit(self, commit: Commit) -> WrittenAt:
        """
        Commit it, and return Kafka's time of the rows by partition: see TransactionalProducer.commit.

        Raises:
            RefusedError: Kafka refuses for good what this is to write.
            CommitError: it may be tried again, once the partition was taken over again.
        """
        self._waiting.append(commit)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await commit.done

    async def close(self) -> None:
        """Leave what is under way to who takes over."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        while self._waiting:
            self._under_way = self._take()
            self._over.clear()
            try:
                await self._commit(self._under_way)
            finally:
                self._under_way = []
                self._over.set()

    def _take(self) -> list[Commit]:
        """Take the next ones, at least one; of a partition that was taken away none."""
        waiting = [commit for commit in self._waiting if not commit.done.done()]
        taken, size = waiting[:1], 0
        for commit in waiting[1:]:
            size += taken[-1].size
            if commit.is_alone or taken[0].is_alone or size >= GROUP_BYTES_MAX:
                break
            taken.append(commit)
        self._waiting = waiting[len(taken) :]
        return taken

    async def _commit(self, group: Sequence[Commit]) -> None:
        touched: set[TopicPartition] | None = None
        try:
            producer = await self._usable()
            group = await self._still_open(producer, self._still_ours(group, producer.transactional_id))
            if not group:
                return
            outputs = _joined(group)
            touched = {output.tp for output in outputs if output.batches}
            self._transactions += 1
            positions = {commit.tp: commit.begin(self._transactions) for commit in group}
            written_at = await producer.commit(outputs, positions, self._group)
        except Exception as error:  # noqa: BLE001  # A bug, too, is the partitions' to raise.
            forget_trace(error)
            self._unsure = self._unsure if touched is None else touched
            self._take_back(group, error)
            return
        for commit in group:
            commit.succeed(written_at)
        try:
            await producer.until_marked(touched)
        except FAILURES:
            self._producer = None  # It may not begin another one. Those who take over end what hangs, under its name.

    def _take_back(self, group: Sequence[Commit], error: Exception) -> None:
        """Have what can be repeated tried again, each alone, and fail the others."""
        again = []
        for commit in group:
            if commit.may_be_repeated(error):
                again.append(commit)
            else:
                commit.fail(error)
        self._waiting = [*again, *self._waiting]
        logger.warning("transaction_taken_back", error=repr(error), partitions=len(group), repeated=len(again))

    async def _still_open(self, producer: TransactionalProducer, group: Iterable[Commit]) -> list[Commit]:
        """Return those that are not committed: of what is repeated, a transaction may have been, unanswered."""
        found = []
        for commit in group:
            if commit.position is not None:
                position = await producer.position(self._group, commit.tp)
                if position == commit.position:
                    commit.succeed({})
                    continue
            found.append(commit)
        return found

    @staticmethod
    def _still_ours(group: Sequence[Commit], name: str) -> list[Commit]:
        """Fail those that were claimed under another name: it was fenced, or given up."""
        for commit in group:
            if commit.owner != name:
                commit.fail(CommitError(f"{commit.owner} was fenced"))
        return [commit for commit in group if not commit.done.done()]

    async def _usable(self) -> TransactionalProducer:
        """Return a producer of which nothing is open: another one if the last was fenced, or left something hanging."""
        async with self._opening:
            if self._producer is not None and self._unsure is not None and not await self._is_sure(self._producer):
                self._producer = None
            self._unsure = None
            if self._producer is None:
                self._producer = await self._open_producer()
            return self._producer

    async def _is_sure(self, producer: TransactionalProducer) -> bool:
        """End what *producer* has open. Not if it was fenced, or if that cannot be seen to be marked."""
        try:
            await producer.renew(self._group)
        except KafkaError:  # One that may pass was tried again until the time was over.
            return False
        try:
            await producer.until_marked(self._unsure or ())
        except FAILURES:
            return False
        return True


def _joined(group: Iterable[Commit]) -> list[Batches]:
    """Return what a group writes, one to each partition."""
    shared: dict[TopicPartition, list[Row]] = {}
    for commit in group:
        for tp, rows in commit.shared.items():
            shared.setdefault(tp, []).extend(rows)
    own = chain.from_iterable(commit.rows for commit in group)
    return [*own, *(output(tp, rows) for tp, rows in shared.items())]
