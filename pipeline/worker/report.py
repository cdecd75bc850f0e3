"""The report stage: core.rates, fed from `partial-counts` and restored from it and its own last rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.core import rates
from pipeline.core.contract import Topics, transactional_prefix
from pipeline.core.rates import ReportState, WindowRate
from pipeline.core.watermarks import WaitingFor
from pipeline.kafka import ConsumerRecord, TopicPartition
from pipeline.kafka.reader import LogReader
from pipeline.kafka.requests import Committed
from pipeline.kafka.transactions import output
from pipeline.service.metrics.worker import PauseCause, WorkerMetrics
from pipeline.worker.chunk import Chunk
from pipeline.worker.clock import monotonic_ms
from pipeline.worker.stage import TICK_SECONDS, Opened, Output

# Between two commits of positions alone: what is read again meanwhile changes nothing, and each is a transaction.
OFFSET_INTERVAL = 500  # ms


@dataclass(slots=True)
class Reporting:
    """The state of the report, and what was read since the last commit."""

    rates: ReportState
    records: int = 0
    committed_at: int = -OFFSET_INTERVAL


class ReportStage:
    """Merges the partitions' counts into the rows of `failure-rates`."""

    name = "report"

    def __init__(
        self,
        *,
        topics: Topics,
        group: str,
        partitions: int,
        window_ms: int,
        metrics: WorkerMetrics,
        now_ms: Callable[[], int] = monotonic_ms,
    ) -> None:
        """
        Args:
            now_ms: The clock by which rows wait for their interval.
        """
        self.source = topics.partial_counts
        self.group = group
        self.transactional_prefix = transactional_prefix(topics.raw, group, self.name)
        self._rates = TopicPartition(topics.failure_rates, 0)
        self._partitions = partitions
        self._window_ms = window_ms
        self._metrics = metrics
        self._now_ms = now_ms

    async def open(self, log: LogReader, partition: int, committed: Committed | None) -> Opened[Reporting]:
        """Restore from both topics. Without a committed offset all of the input is read, and rows follow from that."""
        state = ReportState(self._partitions, self._window_ms)
        source = TopicPartition(self.source, partition)
        _, end = await log.bounds(source)
        until = committed.offset if committed else end
        async for records in log.read(self._rates):
            for record in records:
                rates.restore_row(state, record.value)
        async for records in log.read(source, until=until):
            rates.merge_counts(state, records)
        rates.finish_restore(state)
        return Opened(Reporting(state), resume=until)

    def exclusive_outputs(self, partition: int) -> tuple[TopicPartition, ...]:
        """Return the partition of failure-rates."""
        return (self._rates,)

    def shared_outputs(self, partition: int) -> tuple[TopicPartition, ...]:
        """Return nothing: one agent writes the rows."""
        return ()

    async def reached(self, log: LogReader, partition: int) -> Committed | None:
        """Return None: a row does not say what it was made from."""
        return None

    def is_own(self, record: ConsumerRecord, partition: int) -> bool:
        """Return True: one agent writes the rows."""
        return True

    def source_offset(self, record: ConsumerRecord) -> int | None:
        """Return None: a row does not say it."""
        return None

    def is_committed(self, record: ConsumerRecord, partition: int, committed: Committed | None) -> bool | None:
        """Return False: rows follow from the counts, so that those that are aborted are written anew."""
        return False

    def newest_source(self, state: Reporting) -> tuple[int, int] | None:
        """Return None: what is compacted keeps no order that could be asked for."""
        return None

    def process(self, state: Reporting, chunk: Chunk) -> Output | None:
        """Merge the chunk; an empty one lets windows be written that had to wait for their interval."""
        records, now = list(chunk.records()), self._now_ms()
        rows, late = rates.report(state.rates, records, now=now)
        state.records += len(records)
        if not rows and (state.records == 0 or now - state.committed_at < OFFSET_INTERVAL):
            return None
        sizes = state.records, len(rows), late
        state.records, state.committed_at = 0, now
        shown = state.rates.last_complete, state.rates.held_back  # Of this chunk: the next may come before its commit.
        return Output(
            [output(self._rates, rows)],
            "",
            lambda seconds, _: self._on_committed(shown, chunk, sizes, seconds),
        )

    def _on_committed(
        self,
        shown: tuple[tuple[int, WindowRate] | None, tuple[WaitingFor, int]],
        chunk: Chunk,
        sizes: tuple[int, int, int],
        seconds: float,
    ) -> None:
        metrics, (records, rows, late) = self._metrics, sizes
        metrics.of_chunk(self.name, chunk.partition, records=records, seconds=seconds, behind=chunk.behind)
        metrics.rows.inc(rows)
        metrics.late.inc(late)
        last_complete, held_back = shown
        metrics.show_rates(last_complete)
        metrics.show_waiting(*held_back)

    def tick_seconds(self, state: Reporting) -> float:
        """Return less while rows wait for their interval, or positions to be committed."""
        is_waiting = state.rates.dirty or state.records
        return rates.ROW_INTERVAL / 1000 if is_waiting else TICK_SECONDS

    def on_failed(self) -> None:
        """Count an attempt that has to be repeated."""
        self._metrics.failed_transactions.labels(self.name).inc()

    def on_lost(self, partition: int, records: int) -> None:
        """Count partial counts that retention took; later ones are cumulative, so they make up for these."""

    def on_paused(self, partition: int, cause: PauseCause | None) -> None:
        """Raise the alert, or end it."""
        self._metrics.show_paused(self.name, partition, cause)

    def on_opened(self, state: Reporting, partition: int, seconds: float) -> None:
        """Show what was rebuilt."""
        self._metrics.rebuild_seconds.labels(self.name).observe(seconds)
        self._metrics.show_rates(state.rates.last_complete)
        self._metrics.show_waiting(*state.rates.held_back)

    def on_closed(self, partition: int) -> None:
        """Stop showing what another worker shows from now on."""
        self._metrics.forget(self.name, partition)
        self._metrics.show_rates(None)
        self._metrics.show_waiting()
