"""The pipeline's insides: what the bridge, the stages and the processes do. For those who look for a cause."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel

from pipeline.service.settings import BridgeSettings
from tests.generated.grafana import bridge
from tests.generated.grafana.panels import (
    lines,
    mean,
    meaning,
    number,
    of,
    q,
    quantiles,
    rate,
    spread,
    states,
    thresholds,
    warn,
)

TITLE = "vod-pipeline: internals"
UID = "vod-pipeline-internals"

KEY_BYTES = 135  # Memory an event remembered for deduplication takes. Source: docs/performance.md.

_bridge = BridgeSettings()


def rows() -> list[tuple[str, list[Builder[Panel]]]]:
    """Return the panels, by the titles they stand under; thresholds follow the default settings."""
    return [
        ("Bridge: batches sent to Kafka", bridge.batches()),
        ("Bridge: spool and copies", bridge.spool()),
        ("MNS queues", bridge.mns()),
        ("Worker: chunks and transactions", _chunks()),
        ("Worker: partitions", _partitions()),
        ("Processes", _processes()),
        ("Starts, keys, certificates and losses", _upkeep()),
    ]


def _chunks() -> list[Builder[Panel]]:
    return [
        lines(
            "Transactions a second", q(rate("vod_pipeline_transaction_seconds_count", by="stage"), "{{stage}}"),
            unit="ops", span=8, anchor="laggrowing",
            says="Chunks committed. An idle accept partition commits its watermark once a second; none means no owner.",
        ),
        lines(
            "Commit seconds", *quantiles("vod_pipeline_transaction_seconds", by="stage"),
            unit="s", limits=warn(0.5, 5), span=8, anchor="publishslow",
            says=meaning("vod_pipeline_transaction_seconds"),
        ),
        spread(
            "Commit seconds of accept, all chunks", "vod_pipeline_transaction_seconds", 'stage="accept"',
            unit="s", span=8, anchor="publishslow", says=meaning("vod_pipeline_transaction_seconds"),
        ),
        lines(
            "Records a chunk, on average", q(mean("vod_pipeline_chunk_records", by="stage"), "{{stage}}"),
            unit="short", span=8, anchor="laggrowing", says=meaning("vod_pipeline_chunk_records", "Ticks hold none."),
        ),
        spread(
            "Records a chunk of accept, all chunks", "vod_pipeline_chunk_records", 'stage="accept"',
            unit="short", span=8, anchor="laggrowing", says=meaning("vod_pipeline_chunk_records"),
        ),
        lines(
            "Failed transactions a second", q(rate("vod_pipeline_failed_transactions_total", by="stage"), "{{stage}}"),
            unit="ops", limits=warn(0.01), span=8, anchor="partitionreopened",
            says=meaning("vod_pipeline_failed_transactions"),
        ),
    ]  # fmt: skip


def _partitions() -> list[Builder[Panel]]:
    by_partition, opening = "max by (partition)", "vod_pipeline_rebuild_seconds"
    by_cause = "max by (stage, partition, cause)"
    keys = f"{by_partition} ({of('vod_pipeline_state_keys')})"
    return [
        lines(
            "Partitions opened since each process began",
            q(f"sum by (instance, stage) ({of(f'{opening}_count')})", "{{instance}} {{stage}}"),
            unit="short", span=8, anchor="partitionreopened",
            says="After a start, a rebalance, or a failed transaction. Many without a deployment mean workers that "
            "come and go, or a Kafka that fails. Not a rate: most happen before a process is first scraped.",
        ),
        lines(
            "Opening seconds, mean since each process began",
            q(f"sum by (stage) ({of(f'{opening}_sum')}) / sum by (stage) ({of(f'{opening}_count')})", "{{stage}}"),
            unit="s", limits=warn(10, 60), span=8, anchor="partitionreopened", says=meaning(opening),
        ),
        lines(
            "Watermark",
            q(f"1000 * ({by_partition} ({of('vod_pipeline_watermark_timestamp_seconds')}) > 0)", "{{partition}}"),
            unit="dateTimeAsIso", span=8, anchor="watermarkstuck",
            says=meaning("vod_pipeline_watermark_timestamp_seconds"), from_zero=False,
        ),
        lines(
            "Dedupe memory", q(f"{KEY_BYTES} * {keys}", "{{partition}}"), unit="bytes", stacked=True, span=8, anchor="",
            says=meaning("vod_pipeline_state_keys", f"At {KEY_BYTES} bytes each. Full after dedupe_horizon_seconds."),
        ),
        lines(
            "Paused",
            q(f"{by_cause} ({of('vod_pipeline_partition_paused')})", "{{stage}} {{partition}}: {{cause}}"),
            unit="short", limits=warn(1), span=8, anchor="partitionpaused",
            says=meaning("vod_pipeline_partition_paused"),
        ),
        lines(
            "Records not read yet, by partition",
            q(f"max by (stage, partition) ({of('vod_pipeline_lag_offsets')})", "{{stage}} {{partition}}"),
            unit="short", limits=warn(10_000, 100_000), span=8, anchor="laggrowing",
            says=meaning("vod_pipeline_lag_offsets", "One partition alone: a hot MediaId, or its worker is stuck."),
        ),
        lines(
            "Rows written a second", q(rate("vod_pipeline_failure_rate_rows_total"), "rows"),
            unit="ops", span=8, anchor="watermarkstuck",
            says=meaning("vod_pipeline_failure_rate_rows", "None with deletions coming in: no worker has the report."),
        ),
        lines(
            "Clock jumps", q(f"sum by (partition) ({of('vod_pipeline_clock_jumps_total')})", "{{partition}}"),
            unit="short", limits=warn(1), span=8, anchor="manyrejected", says=meaning("vod_pipeline_clock_jumps"),
        ),
    ]  # fmt: skip


def _processes() -> list[Builder[Panel]]:
    name = "{{job}} {{instance}}"
    return [
        lines(
            "CPU", q(rate("process_cpu_seconds_total", by="job, instance"), name),
            unit="percentunit", limits=warn(0.8, 0.95), ratio=True, span=6, anchor="laggrowing",
            says="Of one core, which is all that a worker, or each process of a bridge, can use. At 100% add workers "
            "(up to one a partition), or processes.",
        ),
        lines(
            "Memory", q(f"sum by (job, instance) ({of('process_resident_memory_bytes')})", name),
            unit="bytes", span=6, anchor="",
            says="Resident. A worker's follows its dedupe memory, a bridge's its in-flight callbacks; anything else "
            "that rises for days is a leak.",
        ),
        lines(
            "Open files",
            q(f"sum by (job, instance) ({of('process_open_fds')}) / "
              f"sum by (job, instance) ({of('process_max_fds')})", name),
            unit="percentunit", limits=warn(0.5, 0.9), ratio=True, span=6, anchor="callbacksrefused",
            says="Of those the process may have. A bridge keeps 64 back and takes no more connections then.",
        ),
        lines(
            "Garbage collections a second",
            q(rate("python_gc_collections_total", by="job, instance, generation"), f"{name} gen {{{{generation}}}}"),
            unit="ops", span=6, anchor="",
            says="Of Python's cyclic collector, by generation. Rare by design: frequent ones of generation 2 cost CPU.",
        ),
        lines(
            "Open connections", q(f"sum by (instance) ({of('vod_pipeline_bridge_connections')})", "{{instance}}"),
            q(f"sum by (instance) ({of('vod_pipeline_bridge_connections_limit')})", "{{instance}}: limit"),
            q(f"sum by (job, instance) ({of('vod_pipeline_monitoring_connections')})", f"{name}: monitoring"),
            q(rate("vod_pipeline_monitoring_connections_cut_total", by="job, instance"), f"{name}: cut off a second"),
            unit="short", span=24, anchor="callbacksrefused", says=meaning("vod_pipeline_bridge_connections"),
        ),
    ]  # fmt: skip


def _upkeep() -> list[Builder[Panel]]:
    end = f"min by (use, subject) ({of('vod_pipeline_certificate_not_after_timestamp_seconds')}) - time()"
    began = f"max by (job, instance) ({of('vod_pipeline_started_timestamp_seconds')})"
    version = f"max by (job, instance, version) ({of('vod_pipeline_build_info')})"
    return [
        lines(
            "Running for",
            q(f"(time() - {began}) * on (job, instance) group_left (version) {version}",
              "{{job}} {{instance}} {{version}}"),
            unit="s", span=6, anchor="processrestarting", says=meaning("vod_pipeline_started_timestamp_seconds"),
        ),
        states(
            "Keys and callbacks, last reload",
            q(f"max by (instance) ({of('vod_pipeline_bridge_reload_refused')})", "{{instance}}"),
            names=(("as in the settings", "green"), ("refused", "red")), span=6, anchor="reloadrefused",
            says=meaning("vod_pipeline_bridge_reload_refused"),
        ),
        lines(
            "Certificates are valid for", q(end, "{{use}} {{subject}}"), unit="s", span=6, anchor="certificateexpiring",
            says=meaning("vod_pipeline_certificate_not_after_timestamp_seconds", "Empty without TLS."), from_zero=False,
        ),
        number(
            "Raw records lost since the workers began",
            q(f"sum({of('vod_pipeline_lost_records_total')}) or vector(0)", "lost"),
            unit="short", limits=thresholds((1, "red")), span=6, anchor="recordslost",
            says=meaning("vod_pipeline_lost_records"),
        ),
    ]  # fmt: skip
