"""A worker of the model: the real stages and partitions, fed by a reader that fetches as the transport does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from pipeline.core.contract import Topics
from pipeline.core.rejection_limit import NO_REJECTION_LIMIT, RejectionLimitPolicy
from pipeline.core.windows import TimePolicy
from pipeline.kafka.takeover import Takeovers
from pipeline.service.metrics.worker import WorkerMetrics
from pipeline.worker.accept import AcceptStage
from pipeline.worker.chunk import Batch, Chunk
from pipeline.worker.clock import KafkaClock
from pipeline.worker.committer import Committer
from pipeline.worker.exits import ExitCode
from pipeline.worker.partition import Partition
from pipeline.worker.report import ReportStage
from tests.laws.client import Fault, ModelClient, ModelReader, Network, open_producer
from tests.laws.kafka import Broker
from tests.laws.loop import StepLoop, StoppedError

PARTITIONS = 2
GROUP = "group"
TOPICS = Topics.with_prefix("")
POLICY = TimePolicy(window=60_000, horizon=600_000, future=120_000, delay=30_000)
COUNTS = TopicPartition(TOPICS.partial_counts, 0)
SOURCES = [*(TopicPartition(TOPICS.raw, partition) for partition in range(PARTITIONS)), COUNTS]
OUTPUTS = [
    TopicPartition(topic, partition) for topic in (TOPICS.accepted, TOPICS.rejected) for partition in range(PARTITIONS)
] + [COUNTS, TopicPartition(TOPICS.failure_rates, 0)]
METRICS = WorkerMetrics(CollectorRegistry())  # Shared: no law is about them, and making them takes longer than a run.


class DiedError(BaseException):
    """A worker ended itself, which nothing in this model gives it a reason for."""


def crash(code: ExitCode, message: str) -> NoReturn:
    raise DiedError(f"{code.name}: {message}")


@dataclass(slots=True)
class _Reader:
    """Where the consumer is in a partition, and what it has fetched but not handed over yet."""

    position: int
    fetched: list[Chunk] = field(default_factory=list)


class Worker:
    """One process. It may believe to own any partition, whatever others do: fencing has to be enough."""

    def __init__(self, broker: Broker, *, rejection_limit: RejectionLimitPolicy = NO_REJECTION_LIMIT) -> None:
        self.broker = broker
        self.loop = StepLoop()
        self.network = Network(broker)
        self._log_reader = ModelReader(self.network)
        client = ModelClient(self.network)
        self._committer = Committer(GROUP, partial(open_producer, client))
        self._takeovers = Takeovers(client, self._log_reader, GROUP)
        self._clock = KafkaClock()
        self._accept = AcceptStage(
            topics=TOPICS,
            group=GROUP,
            policy=POLICY,
            metrics=METRICS,
            clock=self._clock,
            rejection_limit=rejection_limit,
        )
        self._report = ReportStage(
            topics=TOPICS,
            group=GROUP,
            partitions=PARTITIONS,
            window_ms=POLICY.window,
            metrics=METRICS,
            now_ms=lambda: broker.now,
        )
        self._readers: dict[TopicPartition, _Reader] = {}
        self._partitions: dict[TopicPartition, Partition[Any]] = {}
        self._stopped: asyncio.Task[None] | None = None

    def fetch(self, tp: TopicPartition, *, records_max: int) -> Chunk | None:
        """Fetch a chunk ahead, if something is there: of an idle partition, a tick."""
        reader, log = self._reader(tp), self.broker.log(tp)
        if not log.start <= reader.position <= log.end:
            reader.position = log.start  # auto.offset.reset
        begin = reader.position
        records = log.committed(begin)
        is_cut = len(records) > records_max
        end = records[records_max - 1].offset + 1 if is_cut else max(begin, log.stable_end)
        taken = records[:records_max]
        is_idle = begin == end == log.end
        if begin == end and not is_idle:
            return None
        reader.position = end
        # Each is read once, like the real ones.
        batches = [Batch(iter(part), len(part), end) for part in (taken[:1], taken[1:])] if taken else []
        now = None if self._clock.now() is None else self.broker.now
        chunk = Chunk(tp.topic, tp.partition, begin, end, batches, is_idle, now, log.end - end)
        reader.fetched.append(chunk)
        return chunk

    def position(self, tp: TopicPartition) -> int:
        """Return where the consumer fetches next."""
        return self._reader(tp).position

    def next_chunk(self, tp: TopicPartition) -> Chunk | None:
        """Take the oldest chunk out of the buffer."""
        fetched = self._reader(tp).fetched
        return fetched.pop(0) if fetched else None

    async def handle(self, tp: TopicPartition, chunk: Chunk) -> None:
        """Hand *chunk* to the partition, as the agent does."""
        if tp not in self._partitions:
            stage: Any = self._report if tp == COUNTS else self._accept
            self._partitions[tp] = Partition(
                stage,
                tp.partition,
                reader=self._log_reader,
                takeovers=self._takeovers,
                committer=self._committer,
                seek=self._seek,
                crash=crash,
            )
        await self._partitions[tp].handle(chunk)

    def paused(self, tp: TopicPartition) -> str:
        """Return why the partition stands still; empty if it does not."""
        return self._partitions[tp].paused

    def work(self, tp: TopicPartition, *, steps: int | None = None, faults: dict[int, Fault] | None = None) -> bool:
        """Have the oldest chunk handled, see `play`; whether there was one."""
        chunk = self.next_chunk(tp)
        if chunk is not None:
            self.play(self.handle(tp, chunk), steps=steps, faults=faults)
        return chunk is not None

    def play(
        self, coroutine: Coroutine[Any, Any, None], *, steps: int | None = None, faults: dict[int, Fault] | None = None
    ) -> None:
        """
        Run *coroutine* on this worker.

        Args:
            faults: What goes wrong, by the number of the request from here on.

        Raises:
            StoppedError: after *steps* the worker stands still. It goes on with `resume`, or is killed.
        """
        self.resume()
        self.network.requests, self.network.faults = 0, faults or {}
        self._run(coroutine, steps)

    def play_for(self, seconds: float, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run *coroutine* for so long; what is left of it goes on with whatever is played next."""
        self.resume()
        self._run(asyncio.wait([self.loop.create_task(coroutine)], timeout=seconds), None)

    def settle(self, *, steps: int | None = None) -> None:
        """Let what is being committed come to its end."""
        self.resume()
        self._run(asyncio.sleep(100), steps)

    def resume(self) -> None:
        """Go on where the worker was stopped."""
        if self._stopped is not None:
            task, self._stopped = self._stopped, None
            self._run(task, None)

    def close(self, tp: TopicPartition, *, steps: int | None = None) -> None:
        """Give the partition up, as in a rebalance."""
        self.resume()
        self._readers.pop(tp, None)
        partition = self._partitions.pop(tp, None)
        if partition is not None:
            self._run(partition.close(), steps)

    def cancel(self) -> None:
        """Cancel what stands still, as Faust does when a partition is revoked, and let it end."""
        if self._stopped is not None:
            self._stopped.cancel()
            with suppress(asyncio.CancelledError):
                self.resume()

    def kill(self) -> None:
        """End the process: nothing it still does reaches the broker, and its memory is free."""
        self.network.is_cut = True
        self.loop.abandon()
        self._readers.clear()
        self._partitions.clear()

    def _run(self, coroutine: Any, steps: int | None) -> None:
        task = coroutine if isinstance(coroutine, asyncio.Task) else self.loop.create_task(coroutine)
        try:
            self.loop.run(task, steps=steps)
        except StoppedError:
            self._stopped = task
            raise

    async def _seek(self, tp: TopicPartition, offset: int) -> None:
        # What was fetched before stays in Faust's buffer, and is handed over first.
        await asyncio.sleep(0)
        self._reader(tp).position = offset

    def _reader(self, tp: TopicPartition) -> _Reader:
        if tp not in self._readers:
            committed = self.broker.offsets.get((GROUP, tp))
            self._readers[tp] = _Reader(committed[0] if committed else self.broker.log(tp).start)
        return self._readers[tp]
