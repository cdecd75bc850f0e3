"""The accept stage: core.deduplication, fed from `raw` and restored from `accepted`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from pipeline.core import deduplication
from pipeline.core.contract import (
    HEADER_DECISION,
    HEADER_DETAIL,
    HEADER_RAW_OFFSET,
    HEADER_REASON,
    REJECTED_BATCH_BYTES_MAX,
    Row,
    Topics,
    WatermarkKey,
    header,
    received_at_of,
    transactional_prefix,
    unpack_decision,
    unpack_partial_key,
)
from pipeline.core.deduplication import UNKNOWN, AcceptState, Decisions
from pipeline.core.offset_metadata import from_metadata, to_metadata
from pipeline.core.outcome import OutcomeKey
from pipeline.core.rejection_limit import NO_REJECTION_LIMIT, RejectionLimit, RejectionLimitPolicy
from pipeline.core.windows import NEVER, TimePolicy
from pipeline.kafka import ConsumerRecord, TopicPartition
from pipeline.kafka.reader import LogReader
from pipeline.kafka.requests import Committed
from pipeline.kafka.transactions import output
from pipeline.service.metrics.worker import PauseCause, WorkerMetrics
from pipeline.worker.chunk import Chunk
from pipeline.worker.clock import KafkaClock
from pipeline.worker.stage import TICK_SECONDS, IncompleteError, Opened, Output, Pause


class AcceptStage:
    """Validates, deduplicates and counts the records of `raw`."""

    name = "accept"

    def __init__(
        self,
        *,
        topics: Topics,
        group: str,
        policy: TimePolicy,
        metrics: WorkerMetrics,
        clock: KafkaClock,
        rejection_limit: RejectionLimitPolicy = NO_REJECTION_LIMIT,
    ) -> None:
        self.source = topics.raw
        self.group = group
        self.transactional_prefix = transactional_prefix(topics.raw, group, self.name)
        self._topics = topics
        self._policy = policy
        self._rejection_limit = rejection_limit
        self._metrics = metrics
        self._clock = clock

    async def open(self, log: LogReader, partition: int, committed: Committed | None) -> Opened[AcceptState]:
        """Restore the state; without a committed offset, find out how far the output goes."""
        state = from_metadata(partition, self._policy, committed.metadata if committed else "")
        state.rejection_limit = RejectionLimit(self._rejection_limit)
        last, body = await self._restore(log, state)
        if committed is not None:
            state.begun = committed.offset if state.is_anew else state.begun
            return Opened(state)
        async for records in log.read(TopicPartition(self._topics.rejected, partition)):
            for record in records:
                offset = int(header(record.headers, HEADER_RAW_OFFSET) or -1)
                if offset > last:
                    last, body = offset, record.value
        state.begun = last + 1
        return Opened(state, resume=last + 1, last_body=body) if last >= 0 else Opened(state)

    async def _restore(self, log: LogReader, state: AcceptState) -> tuple[int, bytes | None]:
        """
        Read `accepted` into *state*: all of it, or from what was accepted last and is not expired on.

        Returns:
            The highest raw offset that was accepted, and that record's body; -1: none was read.
        """
        tp = TopicPartition(self._topics.accepted, state.partition)
        expiry, wanted = self._policy.expiry(state.stream_time), state.last
        since = None if state.stream_time == NEVER else expiry if wanted == UNKNOWN else min(expiry, wanted.at)
        last, body, is_complete = -1, None, wanted == UNKNOWN
        async for records in log.read(tp, since=since):
            for record in records:
                decision = unpack_decision(header(record.headers, HEADER_DECISION) or b"")
                is_complete |= decision.raw_offset == wanted.raw_offset
                if decision.raw_offset > last:
                    last, body = decision.raw_offset, record.value
                if record.timestamp >= expiry:
                    deduplication.restore(state, record.key, record.timestamp, decision)
        if not is_complete:
            start, end = await log.bounds(tp)
            # Retention may have taken it with all before it, if it need not be remembered any more.
            if not (wanted.at < expiry and 0 < start == end):
                raise IncompleteError(
                    f"raw offset {wanted.raw_offset} was accepted, but {tp.topic}[{tp.partition}] ends with {last}: a "
                    f"broker that is cut off answered, or records were lost. If they were, stop all workers and run "
                    f"`vod-pipeline offsets reset --partition {tp.partition} --to earliest`, which accepts again what "
                    f"{self.source} still has of them"
                )
        return last, body

    def exclusive_outputs(self, partition: int) -> tuple[TopicPartition, ...]:
        """Return accepted and rejected of this partition."""
        return TopicPartition(self._topics.accepted, partition), TopicPartition(self._topics.rejected, partition)

    def shared_outputs(self, partition: int) -> tuple[TopicPartition, ...]:
        """Return the partition of partial-counts."""
        return (TopicPartition(self._topics.partial_counts, 0),)

    async def reached(self, log: LogReader, partition: int) -> Committed | None:
        """Return what lies behind the highest raw offset of accepted and rejected."""
        last = -1
        for tp in self.exclusive_outputs(partition):
            undecided = await log.undecided(tp)
            async for records in log.read(tp, until=undecided[0].offset if undecided else None):
                last = max(last, *map(self._raw_offset_of, records))
        return Committed(last + 1, "") if last >= 0 else None

    def is_own(self, record: ConsumerRecord, partition: int) -> bool:
        """Return whether a count or a watermark is of *partition*; the other topics have one for each."""
        return record.topic != self._topics.partial_counts or unpack_partial_key(record.key).partition == partition

    def source_offset(self, record: ConsumerRecord) -> int | None:
        """
        Return the raw offset, which accepted and rejected have in different headers; None for a count.

        A rejected record may carry that of the other topic, too, as it has all those of its raw record.
        """
        if record.topic == self._topics.partial_counts:
            return None
        return self._raw_offset_of(record)

    def _raw_offset_of(self, record: ConsumerRecord) -> int:
        if record.topic == self._topics.accepted:
            return unpack_decision(header(record.headers, HEADER_DECISION) or b"").raw_offset
        return int(header(record.headers, HEADER_RAW_OFFSET) or b"")

    def is_committed(self, record: ConsumerRecord, partition: int, committed: Committed | None) -> bool | None:
        """Return whether *committed* is behind the record's raw offset, or not before its watermark."""
        if record.topic != self._topics.partial_counts:
            return self._raw_offset_of(record) < (committed.offset if committed else 0)
        known = from_metadata(partition, self._policy, committed.metadata if committed else "").watermark
        if not isinstance(unpack_partial_key(record.key), WatermarkKey) or known == NEVER:
            return None
        return int(json.loads(record.value)["watermark"]) <= known

    def newest_source(self, state: AcceptState) -> tuple[int, int] | None:
        """Return the highest stamp that was read, whether or not the stream time followed it, and since where."""
        return None if state.clock.newest == NEVER else (state.clock.newest, state.begun)

    def process(self, state: AcceptState, chunk: Chunk) -> Output | Pause | None:
        """Decide on the chunk's records; an idle one is a tick."""
        partition = state.partition
        accepted = output(TopicPartition(self._topics.accepted, partition))
        if chunk.batches:
            decisions = deduplication.accept(state, chunk.records(), accepted)
        elif chunk.idle:
            decisions = deduplication.tick(state, chunk.now)
            if not decisions.partial_counts:
                return None
        else:
            return None
        if state.rejection_limit.tripped is not None:
            return Pause(
                f"{state.rejection_limit.tripped} were rejected, the last for {_last_reason(decisions)}: more than "
                f"worker.rejected_share_max = {self._rejection_limit.share_max}. Nothing of this chunk is "
                f"committed. Fix what rejects them, or raise the limit, and restart the worker"
            )
        rejected, counts = TopicPartition(self._topics.rejected, partition), self.shared_outputs(partition)[0]
        rows = [accepted, output(rejected, decisions.rejected, bytes_max=REJECTED_BATCH_BYTES_MAX)]
        totals = dict(state.totals)  # As of this chunk: the next one is decided on before this one is committed.

        def on_committed(seconds: float, written_at: Mapping[TopicPartition, int]) -> None:
            if counts in written_at:
                self._clock.observe(written_at[counts])
            self._show(state, chunk, decisions, totals=totals, first=accepted.first, seconds=seconds)

        return Output(rows, to_metadata(state), on_committed, {counts: decisions.partial_counts})

    def _show(
        self,
        state: AcceptState,
        chunk: Chunk,
        decisions: Decisions,
        *,
        totals: dict[OutcomeKey, int],
        first: Row | None,
        seconds: float,
    ) -> None:
        metrics, partition = self._metrics, state.partition
        metrics.totals.commit(partition, chunk.count, totals)
        metrics.count_deletions(decisions.deletions)
        metrics.clock_jumps.labels(partition).inc(decisions.clock_jumps)
        metrics.of_chunk(self.name, partition, records=decisions.outcomes.total(), seconds=seconds, behind=chunk.behind)
        metrics.state_keys.labels(partition).set(state.keys)
        if state.watermark != NEVER:
            metrics.watermark.labels(partition).set(state.watermark / 1000)
        received_at_ms = received_at_of(first[3]) if first else None
        if received_at_ms is not None:
            metrics.accepted_seconds.observe(max(0.0, time.time() - received_at_ms / 1000))

    def tick_seconds(self, state: AcceptState) -> float:
        """Return what tells the end of a window soon enough."""
        return TICK_SECONDS

    def on_failed(self) -> None:
        """Count an attempt that has to be repeated."""
        self._metrics.failed_transactions.labels(self.name).inc()

    def on_lost(self, partition: int, records: int) -> None:
        """Count raw records that retention took before they were read."""
        self._metrics.lost.labels(partition).inc(records)

    def on_paused(self, partition: int, cause: PauseCause | None) -> None:
        """Raise the alert, or end it."""
        self._metrics.show_paused(self.name, partition, cause)

    def on_opened(self, state: AcceptState, partition: int, seconds: float) -> None:
        """Show what was rebuilt."""
        self._metrics.rebuild_seconds.labels(self.name).observe(seconds)
        self._metrics.totals.begin(partition, state.totals)
        self._metrics.state_keys.labels(partition).set(state.keys)
        if state.watermark != NEVER:
            self._metrics.watermark.labels(partition).set(state.watermark / 1000)

    def on_closed(self, partition: int) -> None:
        """Stop showing what another worker shows from now on."""
        self._metrics.forget(self.name, partition)


def _last_reason(decisions: Decisions) -> str:
    headers = decisions.rejected[-1][3]
    return f"{(header(headers, HEADER_REASON) or b'').decode()} ({(header(headers, HEADER_DETAIL) or b'').decode()})"
