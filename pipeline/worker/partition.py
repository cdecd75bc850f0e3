"""
One partition of one stage: open it, take its chunks through transactions, survive whatever Kafka does, let go of it.

The promise rests on two rules alone. Fencing: a partition has one live producer that commits it, and the committed
offset is read after all others were fenced. Continuity: a chunk is processed only if it begins where the state ends.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

import structlog

from pipeline.kafka import OffsetAndMetadata, TopicPartition
from pipeline.kafka.batches import RefusedError
from pipeline.kafka.reader import LogReader
from pipeline.kafka.takeover import Takeovers
from pipeline.service.metrics.worker import PauseCause
from pipeline.worker.chunk import Chunk
from pipeline.worker.committer import FAILURES, Commit, Committer
from pipeline.worker.exits import Crash, ExitCode
from pipeline.worker.opening import Opening, Session
from pipeline.worker.stage import TICK_SECONDS, IncompleteError, Output, Pause, Stage
from pipeline.worker.traces import forget_failure, forget_trace

FAILURES_MAX = 20
BACKOFF_SECONDS = 0.2
BACKOFF_SECONDS_MAX = 5.0
INCOMPLETE_FAILURES = 10  # In some 35 s a broker that is cut off learns of it.
PAUSED_SECONDS = 5.0  # Until what cannot go on is tried again; twice as long each time, as the state is restored.
PAUSED_SECONDS_MAX = 300.0
HANDOVER_SECONDS = 3.0  # How long what is in flight may take to finish once the partition is taken away.

# What a client can raise when Kafka fails, refuses or fences; anything else is a bug of ours and ends the process.
KAFKA_FAILURES = (RefusedError, IncompleteError, *FAILURES)

State = TypeVar("State")

logger = structlog.get_logger()


class Partition(Generic[State]):
    """Takes the chunks of one partition of *stage*, one after the other."""

    def __init__(
        self,
        stage: Stage[State],
        number: int,
        *,
        reader: LogReader,
        takeovers: Takeovers,
        committer: Committer,
        seek: Callable[[TopicPartition, int], Awaitable[None]],
        crash: Crash,
    ) -> None:
        self._stage = stage
        self._number = number
        self._tp = TopicPartition(stage.source, number)
        self._opening = Opening(stage, self._tp, reader=reader, takeovers=takeovers, committer=committer, crash=crash)
        self._committer = committer
        self._seek = seek
        self._crash = crash
        self._session: Session[State] | None = None
        self._revoked_at: float | None = None
        self._revoked = asyncio.Event()
        self._failures = self._pauses = 0
        self.paused = ""
        self._logger = logger.bind(stage=stage.name, topic=stage.source, partition=number)
        stage.on_paused(number, None)

    @property
    def is_open(self) -> bool:
        """Whether its state is restored and its producer works; while it is `paused`, that says why not."""
        return self._session is not None

    def committing(self) -> asyncio.Task[None] | None:
        """Return the commit of the last chunk, while it lasts."""
        commit = self._session.committing if self._session else None
        return None if commit is None or commit.done() else commit

    def tick_seconds(self) -> float:
        """Return after how long without records an idle chunk is wanted."""
        return self._stage.tick_seconds(self._session.state) if self._session else TICK_SECONDS

    async def handle(self, chunk: Chunk) -> None:
        """
        Take *chunk* in, or have it fetched again, however often Kafka fails meanwhile; whatever it raises is a bug.

        It is committed while the next one is decided on. Should that fail, the next one finds out, and both are fetched
        again: the state is restored.

        A cancellation (rebalance, SIGTERM) lets a transaction in flight finish, for HANDOVER_SECONDS at most, and is
        raised then. Nothing depends on that: a successor fences this producer.
        """
        task = asyncio.create_task(self._handle(chunk))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                self._crash(ExitCode.KAFKA_UNUSABLE, f"{self._tp}: a Kafka client let a cancellation of its own out")
            seconds = self._handover_seconds()
            if self._session is None:
                task.cancel()  # What is being opened is useless now, and partitions are taken away one after the other.
            try:
                await asyncio.wait([task], timeout=seconds)
            finally:
                task.cancel()
            if task.done() and not task.cancelled() and (bug := task.exception()) is not None:
                raise bug from None
            raise

    async def close(self) -> None:
        """Let go of the partition, once what is being committed is done or HANDOVER_SECONDS are over."""
        seconds = self._handover_seconds()
        if self._session is not None:
            releasing = asyncio.create_task(self._release(self._session))
            await asyncio.wait([releasing], timeout=seconds)
            releasing.cancel()
            await asyncio.wait([releasing])
            forget_failure(releasing)
        self._drop()
        self._stage.on_closed(self._number)

    async def _release(self, session: Session[State]) -> None:
        """Name no owner any more: who takes the partition over need not fence us then, and we may have others."""
        if session.committing is not None:
            await session.committing
        offset, metadata = session.committed
        await self._committer.commit(Commit(self._tp, offset, metadata, session.owner, is_release=True))

    def _handover_seconds(self) -> float:
        """Return how long what is in flight may still take; the first call starts the clock."""
        if self._revoked_at is None:
            self._revoked_at = time.monotonic()
            self._revoked.set()
        return max(0.0, self._revoked_at + HANDOVER_SECONDS - time.monotonic())

    async def _handle(self, chunk: Chunk) -> None:
        is_read = False
        while self._revoked_at is None:
            try:
                if self._session is not None and not self._committer.is_named(self._session.owner):
                    self._drop()  # It was fenced, or given up, with a transaction of other partitions.
                if self._session is None:
                    self._session = await self._opening.open()
                if self._revoked_at is not None:
                    self._drop()
                elif is_read:  # By the attempt that failed: fetch it again.
                    await self._seek(self._tp, self._session.next)
                elif (pause := await self._process(self._session, chunk)) is not None:
                    self._drop()
                    await self._pause(PauseCause.REJECTIONS, pause.reason, chunk, is_final=True)
            except Exception as error:
                if not isinstance(error, KAFKA_FAILURES):
                    error.add_note(f"{self._tp}, chunk at {chunk.begin}")
                    raise
                is_read = True
                self._drop()
                forget_trace(error)
                if isinstance(error, RefusedError):
                    await self._pause(PauseCause.REFUSED, _why_refused(error), chunk)
                elif isinstance(error, IncompleteError) and self._failures >= INCOMPLETE_FAILURES:
                    await self._pause(PauseCause.INCOMPLETE, str(error), chunk)
                else:
                    await self._back_off(error, chunk)
            else:
                return

    async def _back_off(self, error: BaseException, chunk: Chunk) -> None:
        """Wait before the next attempt, longer each time until a commit succeeds; give up after FAILURES_MAX."""
        self._failures += 1
        self._stage.on_failed()
        self._logger.warning("transaction_failed", offset=chunk.begin, error=repr(error), failures=self._failures)
        if self._failures >= FAILURES_MAX:
            self._crash(ExitCode.KAFKA_UNUSABLE, f"{self._tp}: {self._failures} failures in a row, the last {error!r}")
        backoff = min(BACKOFF_SECONDS * 2**self._failures, BACKOFF_SECONDS_MAX)
        await asyncio.sleep(backoff * random.uniform(0.5, 1))  # noqa: S311  # Jitter is no secret.

    async def _pause(self, cause: PauseCause, reason: str, chunk: Chunk, *, is_final: bool = False) -> None:
        """
        Stand still until the partition is taken away, or, if that is not *is_final*, for a while.

        It is `paused` until something is committed. Nothing is open meanwhile, and no one takes further chunks.
        """
        self.paused = reason
        self._stage.on_paused(self._number, cause)
        self._logger.critical("partition_paused", offset=chunk.begin, cause=cause.value, reason=reason)
        seconds = min(PAUSED_SECONDS * 2**self._pauses, PAUSED_SECONDS_MAX)
        self._pauses += 1
        with suppress(TimeoutError):
            await asyncio.wait_for(self._revoked.wait(), None if is_final else seconds)

    async def _process(self, session: Session[State], chunk: Chunk) -> Pause | None:
        """
        Take *chunk* in, if it is next; what it leads to is committed while the next one is decided on.

        With a Pause the chunk must not be committed; what came before it is. The state has taken it in, and has to go.
        """
        if chunk.begin != session.next:
            await self._go_back(session, chunk)
            return None
        began = time.perf_counter()
        output = self._stage.process(session.state, chunk)
        if session.committing is not None:
            await session.committing
            session.committing = None
        if isinstance(output, Pause):
            return output
        session.next = chunk.end
        if output is not None:
            session.committing = asyncio.create_task(self._commit(session, chunk.end, output, began))
            # The last one of a session that is dropped is not waited for: its failure is what dropped it.
            session.committing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return None

    async def _commit(self, session: Session[State], end: int, output: Output, began: float) -> None:
        is_alone = bool(self._failures or self._pauses)
        commit = Commit(self._tp, end, output.metadata, session.owner, output.rows, output.shared, is_alone)
        written_at = await self._committer.commit(commit)
        session.committed = OffsetAndMetadata(end, output.metadata)
        output.on_committed(time.perf_counter() - began, written_at)
        self._failures = self._pauses = 0
        if self.paused:
            self.paused = ""
            self._stage.on_paused(self._number, None)
            self._logger.info("partition_resumed", next=end)

    async def _go_back(self, session: Session[State], chunk: Chunk) -> None:
        """Make the consumer read on where the state ends, if the log still has that: it may have lost either end."""
        session.next = await self._opening.start_of(session.next, session.state)
        self._logger.info("seek", offset=chunk.begin, next=session.next)
        await self._seek(self._tp, session.next)

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        if session.committing is not None:
            session.committing.cancel()
            session.committing.add_done_callback(forget_failure)


def _why_refused(error: RefusedError) -> str:
    return (
        f"Kafka refuses for good what is to be written to {error}. Nothing of it is committed. See what "
        f"`vod-pipeline topics plan` says; it is tried again within {PAUSED_SECONDS_MAX / 60:.0f} minutes"
    )
