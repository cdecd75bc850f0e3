"""
How a partition of a stage is opened: taken over, restored, seen to be the log that was read, and claimed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

import structlog

from pipeline.kafka import OffsetAndMetadata, TopicPartition
from pipeline.kafka.reader import LogReader
from pipeline.kafka.takeover import Takeovers
from pipeline.worker.committer import Committer
from pipeline.worker.exits import Crash, ExitCode
from pipeline.worker.stage import Stage

State = TypeVar("State")

logger = structlog.get_logger()


@dataclass(slots=True)
class Session(Generic[State]):
    """An open partition: dropped as a whole after any failure, as its state may be ahead of what is committed."""

    owner: str
    """The name of the producer that commits it."""
    committed: OffsetAndMetadata
    state: State
    next: int
    """Where the state ends: after the last chunk taken in, whether or not that is committed yet."""
    committing: asyncio.Task[None] | None = None


class Opening(Generic[State]):
    """Opens one partition of *stage*, as often as it is to be opened."""

    def __init__(
        self,
        stage: Stage[State],
        tp: TopicPartition,
        *,
        reader: LogReader,
        takeovers: Takeovers,
        committer: Committer,
        crash: Crash,
    ) -> None:
        self._stage = stage
        self._tp = tp
        self._reader = reader
        self._takeovers = takeovers
        self._committer = committer
        self._crash = crash
        self._logger = logger.bind(stage=stage.name, topic=stage.source, partition=tp.partition)

    async def open(self) -> Session[State]:
        """Fence any predecessor, and only then read how far it came: a read without that can be stale."""
        began = time.perf_counter()
        owner = await self._committer.owner(self._tp)
        name = f"{self._stage.transactional_prefix}{self._tp.partition}"
        claim, committed = await self._takeovers.begin(self._tp, name, self._stage, owner=owner)
        opened = await self._stage.open(self._reader, self._tp.partition, committed)
        position = committed.offset if committed else opened.resume
        start = await self.start_of(position, opened.state)
        if committed is None and opened.resume is not None and opened.last_body is not None:
            await self._require_same(opened.resume, opened.last_body)
        at = OffsetAndMetadata(start, committed.metadata if committed else "")
        claimed = await claim.make(self._tp, at, owner)
        seconds = time.perf_counter() - began
        self._logger.info("partition_opened", offset=start, seconds=round(seconds, 3))
        self._stage.on_opened(opened.state, self._tp.partition, seconds)
        return Session(owner, claimed, opened.state, start)

    async def start_of(self, position: int | None, state: State) -> int:
        """Return the offset to go on at, given where *state* ends."""
        start, end = await self._reader.bounds(self._tp)
        if position is None:
            return start
        if position > end:
            self._stop_before_other_log(f"ends at {end}", position)
        newest = self._stage.newest_source(state)
        if newest is not None and await self._reader.has_newer(self._tp, *newest, until=position):
            self._stop_before_other_log("holds records that were written later than all that was read", position)
        if position < start:
            self._logger.error("raw_records_lost_to_retention", offset=position, records=start - position)
            self._stage.on_lost(self._tp.partition, start - position)
        return max(start, position)

    async def _require_same(self, resume: int, last_body: bytes) -> None:
        """A deleted topic takes the group's offset with it: then the output alone says which log was read."""
        body = await self._reader.value_at(self._tp, resume - 1)
        if body is not None and body != last_body:
            self._stop_before_other_log(f"holds another record at {resume - 1} than the one that was read", resume)

    def _stop_before_other_log(self, what: str, position: int) -> NoReturn:
        """End the process: the log is not the one that was read, and may have grown past where that was left."""
        self._crash(
            ExitCode.OFFSET_AHEAD_OF_LOG,
            f"{self._tp.topic}[{self._tp.partition}] {what}, but group {self._stage.group} committed {position}: "
            f"the topic was recreated or lost data. Stop all workers, then decide where to go on: "
            f"vod-pipeline offsets reset --partition {self._tp.partition} --to earliest",
        )
