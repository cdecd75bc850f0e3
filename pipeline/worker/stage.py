"""What a stage is to the partition that runs it: how its state is restored, and what a chunk leads to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from pipeline.core.contract import Row
from pipeline.kafka import TopicPartition
from pipeline.kafka.batches import Batches
from pipeline.kafka.reader import LogReader
from pipeline.kafka.requests import Committed
from pipeline.kafka.transactions import Outputs
from pipeline.service.metrics.worker import PauseCause
from pipeline.worker.chunk import Chunk

TICK_SECONDS = 1.0

State = TypeVar("State")


@dataclass(slots=True)
class Output:
    """
    What a chunk led to: rows for each partition, metadata, and what to do once committed.

    `on_committed` gets the seconds it took, and Kafka's time of the rows by partition; see Committer.commit.
    """

    rows: list[Batches]
    metadata: str
    on_committed: Callable[[float, Mapping[TopicPartition, int]], None]
    shared: dict[TopicPartition, Sequence[Row]] = field(default_factory=dict)
    """Rows for what others write to, too: those of a worker's partitions share a batch."""


@dataclass(slots=True)
class Pause:
    """A chunk that must not be committed, and why; the partition stands still from here on."""

    reason: str


class IncompleteError(Exception):
    """
    What was read to restore a state lacks something that was committed; the message says what, and what to do.

    The log lost it, or a broker answered that is cut off from the others and does not know it yet.
    """


@dataclass(slots=True)
class Opened(Generic[State]):
    """A restored state; if nothing was committed, where to go on (None: at the log start), and the body just before."""

    state: State
    resume: int | None = None
    last_body: bytes | None = None


class Stage(Outputs, Protocol[State]):
    """What differs between accept and report."""

    name: str
    source: str
    group: str
    transactional_prefix: str

    async def open(self, log: LogReader, partition: int, committed: Committed | None) -> Opened[State]:
        """
        Restore the state of *partition* as of *committed*.

        Raises:
            IncompleteError: not all of it is there.
        """
        ...

    def newest_source(self, state: State) -> tuple[int, int] | None:
        """Return a timestamp (ms) and an offset: no record read from there on is above it. None: none is known."""
        ...

    def process(self, state: State, chunk: Chunk) -> Output | Pause | None:
        """Take *chunk* into the state; None if that leads to nothing worth a transaction."""
        ...

    def tick_seconds(self, state: State) -> float:
        """Return after how long without records `process` wants an idle chunk."""
        ...

    def on_failed(self) -> None:
        """Kafka failed or fenced an attempt; it will be repeated."""
        ...

    def on_lost(self, partition: int, records: int) -> None:
        """Retention took *records* that were never read."""
        ...

    def on_paused(self, partition: int, cause: PauseCause | None) -> None:
        """The partition stands still; or it does not, or not any more (None)."""
        ...

    def on_opened(self, state: State, partition: int, seconds: float) -> None:
        """The partition is ready."""
        ...

    def on_closed(self, partition: int) -> None:
        """The partition is no longer ours."""
        ...
