"""What a worker shows. Series of a partition end when the partition moves on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import StrEnum

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from pipeline.core.event import Content
from pipeline.core.outcome import Outcome, OutcomeKey, Reason
from pipeline.core.rates import WindowRate
from pipeline.core.watermarks import NOT_WAITING, WaitingFor
from pipeline.service.metrics.table import Table, counter, gauge, histogram

ERROR_CODES_MAX = 50


OTHER_CODE = "other"


ALL_CODES = "all"


class CodeLabels:
    """Bounds the error_code label: the first 50 codes seen keep their name; later ones, and `all`, are `other`."""

    def __init__(self, *, limit: int = ERROR_CODES_MAX) -> None:
        self._limit = limit
        self._known: dict[str, str] = {}

    def label(self, code: str) -> str:
        """Return the label value of an ErrorCode: printable, and itself only while there is room for it."""
        known = self._known.get(code)
        if known is None:
            if code == ALL_CODES or len(self._known) >= self._limit:
                return OTHER_CODE
            known = self._known[code] = "".join(c if c.isprintable() else "?" for c in code)
        return known


class PauseCause(StrEnum):
    """Why a partition stands still: the `cause` label of vod_pipeline_partition_paused."""

    REJECTIONS = "rejections"
    REFUSED = "refused"
    INCOMPLETE = "incomplete"


class RecordTotals(Collector):
    """
    Records by outcome, straight from the committed state of the partitions this worker owns.

    The totals are committed in the transaction that wrote the records, so this number is exactly once, too: a killed
    worker's successor goes on where it ended.
    """

    def __init__(self) -> None:
        self._totals: dict[int, dict[OutcomeKey, int]] = {}
        self._received: dict[int, int] = {}

    def begin(self, partition: int, totals: Mapping[OutcomeKey, int]) -> None:
        """Show *partition*, which was opened with *totals*; what was received before is taken to be their sum."""
        self.update(partition, totals)
        self._received[partition] = sum(totals.values())

    def commit(self, partition: int, records: int, totals: Mapping[OutcomeKey, int]) -> None:
        """
        Count a committed chunk of *records*, a number that was known before they were decoded, and show *totals*.

        Of a partition that was forgotten meanwhile, as by its owner before within this process, it begins anew.
        """
        if partition in self._received:
            self._received[partition] += records
            self.update(partition, totals)
        else:
            self.begin(partition, totals)

    def update(self, partition: int, totals: Mapping[OutcomeKey, int]) -> None:
        """Show *totals* for *partition*."""
        self._totals[partition] = dict(totals)

    def forget(self, partition: int) -> None:
        """Stop showing *partition*: its series end here and go on at its next owner."""
        self._totals.pop(partition, None)
        self._received.pop(partition, None)

    def collect(self) -> Iterable[CounterMetricFamily]:
        received = CounterMetricFamily(
            "vod_pipeline_received_records",
            "Raw records taken in, by offsets. One vanished if vod_pipeline_records_total has another sum.",
            labels=["partition"],
        )
        for partition, number in sorted(self._received.items()):
            received.add_metric([str(partition)], number)
        yield received
        family = CounterMetricFamily(
            "vod_pipeline_records",
            "Raw records by what became of them. Exactly once, as committed with the records.",
            labels=["partition", "outcome", "reason"],
        )
        known = {OutcomeKey(outcome): 0 for outcome in Outcome if outcome is not Outcome.REJECTED}
        known |= {OutcomeKey(Outcome.REJECTED, reason): 0 for reason in Reason}
        for partition, totals in sorted(dict(self._totals).items()):
            for (outcome, reason), number in (known | totals).items():
                family.add_metric([str(partition), outcome, reason], number)
        yield family


class WorkerMetrics(Table):
    """What a worker shows. Series of a partition end when the partition moves on."""

    deletions = counter(
        "vod_pipeline_deletions",
        "Accepted deletions since this worker started; a rise of status=fail is what the product is for.",
        "status",
        "media_type",
        "delete_type",
        "error_code",
    )
    failure_ratio = gauge(
        "vod_pipeline_window_failure_ratio",
        "Failures with this code among all deletions of the last complete window; error_code=all is every failure.",
        "error_code",
    )
    failures = gauge("vod_pipeline_window_failures", "Failures in the last complete window.", "error_code")
    window_total = gauge("vod_pipeline_window_deletions", "All deletions of the last complete window.")
    window_start = gauge(
        "vod_pipeline_window_start_timestamp_seconds",
        "Start of the last complete window; it stands still when a partition's watermark does.",
    )
    waited_for = gauge(
        "vod_pipeline_waited_for_partitions",
        "Partitions that the oldest incomplete window waits for, from two minutes after the first has passed its end.",
    )
    waited_for_seconds = gauge(
        "vod_pipeline_waited_for_seconds",
        "By how much the first partition has passed the end of that window, for the 20 furthest behind at most.",
        "partition",
    )
    rows = counter("vod_pipeline_failure_rate_rows", "Rows written to failure-rates.")
    late = counter(
        "vod_pipeline_late_events",
        "Deletions that came after their window was complete; a rise means allowed_delay_seconds is too short.",
    )
    accepted_seconds = histogram(
        "vod_pipeline_accepted_seconds",
        "From received by the bridge to committed in accepted, for the oldest event of each chunk.",
    )
    chunk_records = histogram(
        "vod_pipeline_chunk_records",
        "Records a transaction took in; grows with the lag.",
        "stage",
        buckets=(0, 1, 10, 100, 500, 1000, 2500, 5000, 10_000),
    )
    transaction_seconds = histogram(
        "vod_pipeline_transaction_seconds", "A chunk from decision to commit; a rise means slow brokers.", "stage"
    )
    rebuild_seconds = histogram(
        "vod_pipeline_rebuild_seconds",
        "Opening a partition: fencing, and restoring its state; it bounds how fast a restart is.",
        "stage",
    )
    failed_transactions = counter(
        "vod_pipeline_failed_transactions",
        "Attempts that Kafka failed or fenced, each retried from the committed offset.",
        "stage",
    )
    state_keys = gauge("vod_pipeline_state_keys", "Events remembered for deduplication.", "partition")
    watermark = gauge(
        "vod_pipeline_watermark_timestamp_seconds",
        "Up to when event time is complete; behind the clock by more than a minute means late or no input.",
        "partition",
    )
    lag = gauge("vod_pipeline_lag_offsets", "Offsets between position and log end.", "stage", "partition")
    partitions = gauge("vod_pipeline_partitions", "kafka.partitions: how many partitions all workers together own.")
    paused = gauge(
        "vod_pipeline_partition_paused",
        "1: the stage stands still: it rejects too much, Kafka refuses its rows, or memory is lost; see /readyz.",
        "stage",
        "partition",
        "cause",
    )
    lost = counter(
        "vod_pipeline_lost_records",
        "Raw records that retention took before they were read: these are gone.",
        "partition",
    )
    clock_jumps = counter(
        "vod_pipeline_clock_jumps",
        "Raw timestamps over an hour ahead that the next one did not confirm: a rise means a broker's clock is wrong.",
        "partition",
    )

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self._codes = CodeLabels()
        self.totals = RecordTotals()
        registry.register(self.totals)
        for stage in ("accept", "report"):
            for metric in (
                self.chunk_records, self.transaction_seconds, self.rebuild_seconds, self.failed_transactions,
            ):  # fmt: skip
                metric.labels(stage)

    def expect(self, partitions: int) -> None:
        """Show the partitions 0 .. *partitions* - 1 as those there are; a loss or a jump is then a rise from 0."""
        self.partitions.set(partitions)
        for partition in range(partitions):
            self.lost.labels(partition)
            self.clock_jumps.labels(partition)

    def count_deletions(self, deletions: Mapping[Content, int]) -> None:
        """Count what a committed chunk accepted."""
        for content, number in deletions.items():
            code = self._codes.label(content.code) if content.code else ""
            self.deletions.labels(content.status, content.media_type, content.delete_type, code).inc(number)

    def of_chunk(self, stage: str, partition: int, *, records: int, seconds: float, behind: int) -> None:
        """Observe a committed chunk."""
        self.chunk_records.labels(stage).observe(records)
        self.transaction_seconds.labels(stage).observe(seconds)
        self.lag.labels(stage, partition).set(behind)

    def show_paused(self, stage: str, partition: int, cause: PauseCause | None) -> None:
        """Show for what *cause* a partition stands still, if it does."""
        for each in PauseCause:
            self.paused.labels(stage, partition, each.value).set(each is cause)

    def show_rates(self, last: tuple[int, WindowRate] | None) -> None:
        """Show the last complete window, or nothing when this worker does not own the report."""
        self.failure_ratio.clear()
        self.failures.clear()
        if last is None:
            self.window_total.set(0)
            self.window_start.set(0)
            return
        start, rate = last
        failures: dict[str, int] = {ALL_CODES: sum(rate.failures.values())}
        for code, number in rate.failures.items():
            label = self._codes.label(code)
            failures[label] = failures.get(label, 0) + number
        for label, number in failures.items():
            self.failures.labels(label).set(number)
            self.failure_ratio.labels(label).set(number / rate.total)
        self.window_total.set(rate.total)
        self.window_start.set(start / 1000)

    def show_waiting(self, waiting: WaitingFor = NOT_WAITING, waited_ms: int = 0) -> None:
        """Show whom the oldest incomplete window waits for, or none when this worker does not own the report."""
        self.waited_for.set(waiting.number)
        self.waited_for_seconds.clear()
        for partition in waiting.partitions:
            self.waited_for_seconds.labels(partition).set(waited_ms / 1000)

    def forget(self, stage: str, partition: int) -> None:
        """End the series of a partition that moved on."""
        series: list[tuple[Gauge, tuple[str, ...]]] = [(self.lag, (stage, str(partition)))]
        series += [(self.paused, (stage, str(partition), cause.value)) for cause in PauseCause]
        if stage == "accept":
            self.totals.forget(partition)
            series += [(metric, (str(partition),)) for metric in (self.state_keys, self.watermark)]
        for metric, labels in series:
            with suppress(KeyError):
                metric.remove(*labels)
