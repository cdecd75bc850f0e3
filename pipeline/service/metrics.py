"""
The metric catalogue: every metric of the product, with its meaning for an operator.

Base units, own registry, labels out of closed sets only. What can be 0 is shown as 0 from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from pipeline.core.event import Content
from pipeline.core.outcome import Outcome, OutcomeKey, Reason
from pipeline.core.rates import WindowRate
from pipeline.core.signature import Denial

ERROR_CODES_MAX = 50
OTHER_CODE = "other"
ALL_CODES = "all"
READY = "pipeline_ready"
SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

WAITED_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 3600, 21_600, 86_400, 345_600, 604_800)  # MNS: 7 days.


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


class CertificateUse(StrEnum):
    """What a certificate is for: the `use` label of pipeline_certificate_not_after_timestamp_seconds."""

    BRIDGE = "bridge"
    KAFKA_CLIENT = "kafka_client"
    KAFKA_CA = "kafka_ca"


class ProcessMetrics:
    """What every service shows of itself."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        started_at: float,
        certificates: Mapping[tuple[CertificateUse, str], float],
    ) -> None:
        """
        Args:
            registry: Gets the metrics.
            started_at: When the process started, in seconds since the epoch.
            certificates: Until when each certificate in use is valid, by use and subject, in seconds since the epoch.
        """
        Gauge(
            "pipeline_started_timestamp_seconds",
            "When the process started; one that changes again and again is one that keeps ending itself.",
            registry=registry,
        ).set(started_at)
        not_after = Gauge(
            "pipeline_certificate_not_after_timestamp_seconds",
            "Until when the certificates are valid that were read at the start; after that no client connects.",
            ["use", "subject"],
            registry=registry,
        )
        for (use, subject), at in certificates.items():
            not_after.labels(use.value, subject).set(at)


def show_ready(registry: CollectorRegistry, problems: Callable[[], Sequence[str]]) -> None:
    """Show in *registry* whether *problems*, asked at each scrape, finds none."""
    ready = Gauge(READY, "1 while /readyz answers 200; at 0 it says there in words what is missing.", registry=registry)
    ready.set_function(lambda: float(not problems()))


def show_process(registry: CollectorRegistry) -> None:
    """Show in *registry* what this process uses: CPU, memory, files, garbage collections, and since when it runs."""
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)


class BridgeAnswer(StrEnum):
    """How the bridge answered: the `outcome` label of pipeline_bridge_requests_total."""

    PUBLISHED = "published"
    SPOOLED = "spooled"
    REPLAYED = "replayed"
    DENIED = "denied"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    LENGTH_MISSING = "length_missing"
    MALFORMED = "malformed"
    HEAD_TOO_LARGE = "head_too_large"
    BODY_TOO_LARGE = "body_too_large"
    HEAD_TIMEOUT = "head_timeout"
    BODY_TIMEOUT = "body_timeout"
    UPGRADE_REFUSED = "upgrade_refused"
    CLIENT_GONE = "client_gone"
    SPOOL_FAILED = "spool_failed"
    KAFKA_TIMEOUT = "kafka_timeout"
    KAFKA_ERROR = "kafka_error"
    OVERLOADED = "overloaded"


class BridgeMetrics:
    """What the bridge counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "pipeline_bridge_requests",
            "Requests by how they ended; anything but published is an event VOD may give up on, or not VOD at all.",
            ["outcome"],
            registry=registry,
        )
        self.denials = Counter(
            "pipeline_bridge_denials",
            "Requests answered 403 by reason; a rise after a key change means VOD still signs with a key we dropped.",
            ["reason"],
            registry=registry,
        )
        self.publish_seconds = Histogram(
            "pipeline_bridge_publish_seconds",
            "From a batch of callbacks being sent to Kafka to its acks=all; a rise means slow brokers.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.group_records = Histogram(
            "pipeline_bridge_group_records",
            "Callbacks sent to Kafka together; grows with load, and with the time Kafka takes.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096),
            registry=registry,
        )
        self.in_flight = Gauge(
            "pipeline_bridge_in_flight",
            "Callbacks waiting for Kafka; at bridge.in_flight_max more are refused.",
            registry=registry,
        )
        self.reconnects = Counter(
            "pipeline_bridge_reconnects",
            "Connections to Kafka given up after a failure, and made anew; a rise means Kafka fails or refuses.",
            registry=registry,
        )
        self.kafka_refusals = Counter(
            "pipeline_bridge_kafka_refusals",
            "Times Kafka did not let us in, or we did not trust it; asked again every 15 s until it does.",
            registry=registry,
        )
        self.reload_refused = Gauge(
            "pipeline_bridge_reload_refused",
            "1 after a SIGHUP whose settings had mistakes, until one without: callbacks and keys are those before it.",
            registry=registry,
        )
        self.spooled = Counter(
            "pipeline_spool_written_records",
            "Callbacks that went to disk because Kafka did not take them in time.",
            registry=registry,
        )
        self.replayed = Counter(
            "pipeline_spool_replayed_records", "Spooled callbacks that Kafka has taken since.", registry=registry
        )
        self.spool_failures = Counter(
            "pipeline_spool_failures",
            "Batches of callbacks the spool could not take, all answered 503: it is full, or its disk fails.",
            ["reason"],
            registry=registry,
        )
        self.spool_records = Gauge("pipeline_spool_records", "Callbacks that wait on disk.", registry=registry)
        self.spool_bytes = Gauge(
            "pipeline_spool_bytes", "Their size; at bridge.spool_bytes_max callbacks are refused.", registry=registry
        )
        self.spool_bytes_max = Gauge(
            "pipeline_spool_limit_bytes", "bridge.spool_bytes_max; 0 without a spool.", registry=registry
        )
        self.spool_oldest = Gauge(
            "pipeline_spool_oldest_timestamp_seconds",
            "When the oldest callback on disk was received; 0 if none waits.",
            registry=registry,
        )
        self.bursts = Counter(
            "pipeline_bridge_signature_bursts",
            "Signatures that came with more than bridge.bodies_per_signature_max bodies in a second: stolen, perhaps.",
            registry=registry,
        )
        for reason in ("full", "disk"):
            self.spool_failures.labels(reason)
        for answer in BridgeAnswer:
            self.requests.labels(answer.value)
        for denial in Denial:
            self.denials.labels(denial.value)


class MnsStep(StrEnum):
    """What became of a message: the `step` label of pipeline_mns_messages_total."""

    RECEIVED = "received"
    PUBLISHED = "published"
    SPOOLED = "spooled"
    REPLAYED = "replayed"
    NOT_PUBLISHED = "not_published"
    DELETED = "deleted"
    NOT_DELETED = "not_deleted"


class MnsProblem(StrEnum):
    """Why a request to MNS failed: the `reason` label of pipeline_mns_errors_total."""

    TIMEOUT = "timeout"
    NETWORK = "network"
    DENIED = "denied"
    NO_QUEUE = "no_queue"
    THROTTLED = "throttled"
    DAMAGED = "damaged"
    OTHER = "other"


class MnsMetrics:
    """What the bridge counts of the queues it polls."""

    def __init__(self, registry: CollectorRegistry, queues: Iterable[str]) -> None:
        self.messages = Counter(
            "pipeline_mns_messages",
            "Messages by step; received is the sum of published, spooled, replayed (came again, although safe, and are "
            "only deleted) and not_published (come again); not_deleted: safe, but come again, too.",
            ["queue", "step"],
            registry=registry,
        )
        self.errors = Counter(
            "pipeline_mns_errors",
            "Requests to MNS that failed; denied and no_queue last: compare the settings.",
            ["queue", "reason"],
            registry=registry,
        )
        self.early = Counter(
            "pipeline_mns_early_answers",
            "Long polls that MNS ended at once without a message; a rise means others poll the queue as well.",
            ["queue"],
            registry=registry,
        )
        self.waited_seconds = Histogram(
            "pipeline_mns_waited_seconds",
            "From a message entering its queue to its record being safe; a rise means the bridge was away, or Kafka.",
            ["queue"],
            buckets=WAITED_BUCKETS,
            registry=registry,
        )
        for queue in queues:
            for step in MnsStep:
                self.messages.labels(queue, step.value)
            for problem in MnsProblem:
                self.errors.labels(queue, problem.value)
            self.early.labels(queue)
            self.waited_seconds.labels(queue)


class RecordTotals(Collector):
    """
    Records by outcome, straight from the committed state of the partitions this worker owns.

    The totals are committed in the transaction that wrote the records, so this figure is exactly once, too: a killed
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
            "pipeline_received_records",
            "Raw records taken in, by Kafka's offsets; not the sum of pipeline_records_total means that one vanished.",
            labels=["partition"],
        )
        for partition, number in sorted(self._received.items()):
            received.add_metric([str(partition)], number)
        yield received
        family = CounterMetricFamily(
            "pipeline_records",
            "Raw records by what became of them; received is their sum. Exactly once, as committed with the records.",
            labels=["partition", "outcome", "reason"],
        )
        known = {OutcomeKey(outcome): 0 for outcome in Outcome if outcome is not Outcome.REJECTED}
        known |= {OutcomeKey(Outcome.REJECTED, reason): 0 for reason in Reason}
        for partition, totals in sorted(dict(self._totals).items()):
            for (outcome, reason), number in (known | totals).items():
                family.add_metric([str(partition), outcome, reason], number)
        yield family


class WorkerMetrics:
    """What a worker shows. Series of a partition end when the partition moves on."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._codes = CodeLabels()
        self.totals = RecordTotals()
        registry.register(self.totals)
        self.deletions = Counter(
            "pipeline_deletions",
            "Accepted deletions since this worker started; a rise of status=fail is what the product is for.",
            ["status", "media_type", "delete_type", "error_code"],
            registry=registry,
        )
        self.failure_ratio = Gauge(
            "pipeline_window_failure_ratio",
            "Failures with this code among all deletions of the last complete window; error_code=all is every failure.",
            ["error_code"],
            registry=registry,
        )
        self.failures = Gauge(
            "pipeline_window_failures", "Failures in the last complete window.", ["error_code"], registry=registry
        )
        self.window_total = Gauge(
            "pipeline_window_deletions", "All deletions of the last complete window.", registry=registry
        )
        self.window_start = Gauge(
            "pipeline_window_start_seconds",
            "Start of the last complete window; it stands still when a partition's watermark does.",
            registry=registry,
        )
        self.rows = Counter("pipeline_failure_rate_rows", "Rows written to failure-rates.", registry=registry)
        self.late = Counter(
            "pipeline_late_events",
            "Deletions that came after their window was complete; a rise means allowed_delay_seconds is too short.",
            registry=registry,
        )
        self.accepted_seconds = Histogram(
            "pipeline_accepted_seconds",
            "From received by the bridge to committed in accepted, for the oldest event of each chunk.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.chunk_records = Histogram(
            "pipeline_chunk_records",
            "Records a transaction took in; grows with the lag.",
            ["stage"],
            buckets=(0, 1, 10, 100, 500, 1000, 2500, 5000, 10_000),
            registry=registry,
        )
        self.transaction_seconds = Histogram(
            "pipeline_transaction_seconds",
            "A chunk from decision to commit; a rise means slow brokers.",
            ["stage"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.rebuild_seconds = Histogram(
            "pipeline_rebuild_seconds",
            "Opening a partition: fencing, and restoring its state; it bounds how fast a restart is.",
            ["stage"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.failed_transactions = Counter(
            "pipeline_failed_transactions",
            "Attempts that Kafka failed or fenced, each retried from the committed offset.",
            ["stage"],
            registry=registry,
        )
        self.state_keys = Gauge(
            "pipeline_state_keys", "Events remembered for deduplication.", ["partition"], registry=registry
        )
        self.watermark = Gauge(
            "pipeline_watermark_seconds",
            "Up to when event time is complete; behind the clock by more than a minute means late or no input.",
            ["partition"],
            registry=registry,
        )
        self.lag = Gauge(
            "pipeline_lag_offsets", "Offsets between position and log end.", ["stage", "partition"], registry=registry
        )
        self.partitions = Gauge(
            "pipeline_partitions", "kafka.partitions: how many partitions all workers together own.", registry=registry
        )
        self.paused = Gauge(
            "pipeline_partition_paused",
            "1: the partition stands still, as rejections went over worker.rejected_share_max; /readyz says more.",
            ["partition"],
            registry=registry,
        )
        self.lost = Counter(
            "pipeline_lost_records",
            "Raw records that retention took before they were read: these are gone.",
            ["partition"],
            registry=registry,
        )
        for stage in ("accept", "report"):
            for metric in (
                self.chunk_records, self.transaction_seconds, self.rebuild_seconds, self.failed_transactions,
            ):  # fmt: skip
                metric.labels(stage)

    def expect(self, partitions: int) -> None:
        """Show the partitions 0 .. *partitions* - 1 as those there are; a loss is then a rise from 0."""
        self.partitions.set(partitions)
        for partition in range(partitions):
            self.lost.labels(partition)

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

    def forget(self, stage: str, partition: int) -> None:
        """End the series of a partition that moved on."""
        series: list[tuple[Gauge, tuple[str, ...]]] = [(self.lag, (stage, str(partition)))]
        if stage == "accept":
            self.totals.forget(partition)
            series += [(gauge, (str(partition),)) for gauge in (self.state_keys, self.watermark, self.paused)]
        for gauge, labels in series:
            with suppress(KeyError):
                gauge.remove(*labels)
