"""What the bridge counts."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from prometheus_client import CollectorRegistry

from pipeline.core.signature import Denial
from pipeline.service.metrics.table import Table, counter, gauge, histogram


class BridgeAnswer(StrEnum):
    """How the bridge answered: the `outcome` label of vod_pipeline_bridge_requests_total."""

    PUBLISHED = "published"
    SPOOLED = "spooled"
    REPEATED = "repeated"
    DENIED = "denied"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    LENGTH_MISSING = "length_missing"
    MALFORMED = "malformed"
    HEAD_TOO_LARGE = "head_too_large"
    BODY_TOO_LARGE = "body_too_large"
    HEAD_TIMEOUT = "head_timeout"
    BODY_TIMEOUT = "body_timeout"
    CLIENT_GONE = "client_gone"
    SPOOL_FAILED = "spool_failed"
    KAFKA_TIMEOUT = "kafka_timeout"
    KAFKA_ERROR = "kafka_error"
    OVERLOADED = "overloaded"


class BridgeMetrics(Table):
    """What the bridge counts."""

    requests = counter(
        "vod_pipeline_bridge_requests",
        "Requests by how they ended, and the entry they were for, if that is known; anything but published is an event "
        "VOD may give up on, or not VOD at all.",
        "outcome",
        "entry",
    )
    denials = counter(
        "vod_pipeline_bridge_denials",
        "Requests answered 403 by reason; a rise after a key change means VOD still signs with a key we dropped.",
        "reason",
        "entry",
    )
    publish_seconds = histogram(
        "vod_pipeline_bridge_publish_seconds",
        "From a batch of callbacks being sent to Kafka to its acks=all; a rise means slow brokers.",
    )
    batch_records = histogram(
        "vod_pipeline_bridge_batch_records",
        "Callbacks sent to Kafka together; grows with load, and with the time Kafka takes.",
        buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096),
    )
    in_flight = gauge(
        "vod_pipeline_bridge_in_flight", "Callbacks waiting for Kafka; at bridge.in_flight_max more are refused."
    )
    kafka_requests = gauge(
        "vod_pipeline_bridge_kafka_requests",
        "Requests to Kafka in flight; at 4 the callbacks that come wait for one of them to end: Kafka is slow.",
    )
    connections = gauge(
        "vod_pipeline_bridge_connections",
        "Open connections to the callback port; at vod_pipeline_bridge_connections_limit more are closed at once.",
    )
    connections_max = gauge(
        "vod_pipeline_bridge_connections_limit", "How many connections the limit of open files leaves room for."
    )
    replay_cache_bytes = gauge(
        "vod_pipeline_bridge_replay_cache_bytes",
        "What is remembered of requests to recognise them; at bridge.replay_cache_bytes the oldest are forgotten.",
    )
    reconnects = counter(
        "vod_pipeline_bridge_reconnects",
        "Connections to Kafka given up after a failure, and made anew; a rise means Kafka fails or refuses.",
    )
    kafka_refusals = counter(
        "vod_pipeline_bridge_kafka_refusals",
        "Times Kafka did not let us in, or we did not trust it; asked again every 15 s until it does.",
    )
    reload_refused = gauge(
        "vod_pipeline_bridge_reload_refused",
        "1 after a SIGHUP whose settings had mistakes, until one without: callbacks and keys are those before it.",
    )
    spooled = counter(
        "vod_pipeline_spool_written_records", "Callbacks that went to disk because Kafka did not take them in time."
    )
    drained = counter("vod_pipeline_spool_drained_records", "Spooled callbacks that Kafka has taken since.")
    spool_failures = counter(
        "vod_pipeline_spool_failures",
        "Batches of callbacks the spool could not take, all answered 503: it is full, or its disk fails.",
        "reason",
    )
    spool_records = gauge(
        "vod_pipeline_spool_records",
        "Callbacks that wait on disk, those in spools that other bridges left behind among them.",
    )
    spools_left_behind = gauge(
        "vod_pipeline_spools_left_behind",
        "Spools that other bridges left behind and that cannot be emptied: in use, damaged, or refused by Kafka.",
    )
    spool_refused = gauge(
        "vod_pipeline_spool_refused_records",
        "Callbacks on disk that Kafka refused each by itself; they stay, and are offered again every minute.",
    )
    spool_waiting = gauge(
        "vod_pipeline_spool_waiting_records",
        "Callbacks on disk whose partition took none, as one without a leader; they are offered again every 10 s.",
    )
    spool_bytes = gauge(
        "vod_pipeline_spool_bytes",
        "The size of what waits in the bridge's own spool; at bridge.spool_bytes_max callbacks are refused.",
    )
    spool_bytes_max = gauge("vod_pipeline_spool_limit_bytes", "bridge.spool_bytes_max; 0 without a spool.")
    spool_oldest = gauge(
        "vod_pipeline_spool_oldest_timestamp_seconds", "When the oldest callback on disk was received; 0 if none waits."
    )
    bursts = counter(
        "vod_pipeline_bridge_signature_bursts",
        "Signatures that came with more than bridge.bodies_per_signature_max bodies in a second: stolen, perhaps.",
        "entry",
    )

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self._spools: dict[Path, tuple[int, int | None]] = {}
        for reason in ("full", "disk"):
            self.spool_failures.labels(reason)
        self.show_entries(("",))

    def show_entries(self, entries: Iterable[str]) -> None:
        """Show 0 for all that comes by *entries*, until something does; "" is what no entry is known of."""
        for entry in entries:
            for answer in BridgeAnswer:
                self.requests.labels(answer.value, entry)
            for denial in Denial:
                self.denials.labels(denial.value, entry)
            self.bursts.labels(entry)

    def show_spool(self, directory: Path, *, records: int, oldest_ms: int | None) -> None:
        """Show what waits in the spool in *directory*, together with what waits in all others."""
        self._spools[directory] = records, oldest_ms
        self.spool_records.set(sum(number for number, _ in self._spools.values()))
        self.spool_oldest.set(min((oldest for _, oldest in self._spools.values() if oldest), default=0) / 1000)
