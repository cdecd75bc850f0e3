"""The overview: how often deletions fail, and whether callbacks still become rows. For an engineer at night."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel

from pipeline.service.settings import WorkerSettings
from tests.generated.grafana.panels import (
    lines,
    meaning,
    number,
    of,
    q,
    quantile,
    ranking,
    rate,
    records,
    records_rate,
    states,
    thresholds,
    warn,
)

TITLE = "vod-pipeline: overview"
UID = "vod-pipeline-overview"

_worker = WorkerSettings()
# A window is complete one delay after its end, and the newest complete one until the next is: so old it gets in health.
WINDOW_AGE_SECONDS = 2 * _worker.window_seconds + _worker.allowed_delay_seconds
TAKEN = 'outcome=~"published|spooled|repeated"'
ALL_TOGETHER = 'error_code="all"'
OF_A_CODE = ('error_code=~"$error_code"', 'error_code!="all"')


def rows() -> list[tuple[str, list[Builder[Panel]]]]:
    """Return the panels, by the titles they stand under; thresholds follow the default settings."""
    return [
        ("Now", _now() + _alarms()),
        ("Failures by ErrorCode", _failures()),
        ("What became of the records", _outcomes()),
        ("Callbacks coming in", _callbacks()),
        ("How far behind", _delays()),
        ("Waiting on disk, and who is ready", _safety()),
    ]


def _now() -> list[Builder[Panel]]:
    window_start = f"max({of('vod_pipeline_window_start_timestamp_seconds')})"
    return [
        number(
            "Failed, last complete window",
            q(f"max({of('vod_pipeline_window_failure_ratio', ALL_TOGETHER)})", "failed"),
            unit="percentunit", limits=warn(0.05, 0.2), anchor="deletionsfail",
            says=meaning("vod_pipeline_window_failure_ratio", "A rise is what the product is there to tell."),
        ),
        number(
            "Deletions in it", q(f"max({of('vod_pipeline_window_deletions')})", "deletions"),
            unit="short", anchor="nocallbacks",
            says=meaning("vod_pipeline_window_deletions", "The failure ratio of a few deletions says little."),
        ),
        number(
            "It began", q(f"time() - ({window_start} > 0)", "ago"),
            unit="s", limits=warn(WINDOW_AGE_SECONDS + 60, WINDOW_AGE_SECONDS + 300), anchor="watermarkstuck",
            says=meaning("vod_pipeline_window_start_timestamp_seconds",
                f"Up to {WINDOW_AGE_SECONDS} s is as it should be."),
        ),
        number(
            "Callbacks taken", q(rate("vod_pipeline_bridge_requests_total", TAKEN), "taken"),
            unit="reqps", anchor="nocallbacks",
            says="Callbacks answered 200, a second, by all bridges; MNS not included. None: VOD does not reach us.",
        ),
        number(
            "Records behind", q(f"sum(max by (stage, partition) ({of('vod_pipeline_lag_offsets')}))", "behind"),
            unit="short", limits=warn(10_000, 100_000), anchor="laggrowing",
            says=meaning("vod_pipeline_lag_offsets", "A rise means the workers are too slow, or gone."),
        ),
        number(
            "Callbacks on disk", q(f"sum({of('vod_pipeline_spool_records')})", "spooled"),
            unit="short", limits=warn(1, 100_000), anchor="spoolgrowing",
            says=meaning("vod_pipeline_spool_records", "A rise means Kafka does not take them."),
        ),
    ]  # fmt: skip


def _alarms() -> list[Builder[Panel]]:
    up, ready = of("up"), of("vod_pipeline_ready")
    owned = f"count(max by (partition) ({of('vod_pipeline_state_keys')}))"
    received, decided = of("vod_pipeline_received_records_total"), of("vod_pipeline_records_total")
    of_owner = "sum by (job, instance, partition)"
    return [
        number(
            "Processes not ready",
            q(f"sum(1 - ({up} * on (job, instance) {ready} or on (job, instance) {up}))", "not ready"),
            unit="short", limits=warn(1), span=6, anchor="processdown",
            says=meaning("vod_pipeline_ready", "One that does not answer is counted, too."),
        ),
        number(
            "Partitions without an owner",
            q(f"max({of('vod_pipeline_partitions')}) - ({owned} or vector(0))", "without owner"),
            unit="short", limits=warn(1), span=6, anchor="partitionwithoutowner",
            says="Partitions of raw that no worker shows. Nothing is read of them, and all windows stay incomplete. "
            "One scrape with some is a rebalance.",
        ),
        number(
            "Records not accounted for",
            q(f"max(abs({of_owner} ({received}) - {of_owner} ({decided})))", "not accounted for"),
            unit="short", limits=thresholds((1, "red")), span=6, anchor="balancebroken",
            says=meaning("vod_pipeline_received_records", "Of the worst partition. Anything but 0 is a bug of ours."),
        ),
        number(
            "Fullest spool",
            q(f"max({of('vod_pipeline_spool_bytes')} / ({of('vod_pipeline_spool_limit_bytes')} > 0))", "full"),
            unit="percentunit", limits=warn(0.5, 0.9), span=6, anchor="spoolnearlyfull",
            says=meaning("vod_pipeline_spool_bytes", "As a share of that."),
        ),
    ]  # fmt: skip


def _failures() -> list[Builder[Panel]]:
    failed = 'status="fail"', 'error_code=~"$error_code"'
    deletions = "vod_pipeline_deletions_total"
    return [
        lines(
            "Failure ratio of the last complete window",
            q(f"max({of('vod_pipeline_window_failure_ratio', ALL_TOGETHER)})", "all"),
            q(f"max by (error_code) ({of('vod_pipeline_window_failure_ratio', *OF_A_CODE)})", "{{error_code}}"),
            unit="percentunit", span=16, windows=True, limits=warn(0.05, 0.2), anchor="deletionsfail",
            says=meaning("vod_pipeline_window_failure_ratio", "By event time. No point: no failure."),
        ),
        ranking(
            "Top codes in the time shown",
            q(f"topk(10, sum by (error_code) (increase({of(deletions, *failed)}[$__range])))", "{{error_code}}"),
            unit="short", anchor="deletionsfail",
            says="Failures of the ten most frequent codes. A code's first scrape after a start of its worker is its "
            "zero, so a code with a single failure can be missing here; the ratio on the left has it.",
        ),
        lines(
            "Failures a second", q(rate(deletions, *failed, by="error_code"), "{{error_code}}"),
            unit="ops", stacked=True, span=8, anchor="deletionsfail",
            says=meaning("vod_pipeline_deletions", "When the worker saw them, so a backlog shows as a peak."),
        ),
        lines(
            "Deletions a second", q(rate(deletions, by="status"), "{{status}}"),
            unit="ops", stacked=True, span=8, anchor="nocallbacks",
            says=meaning("vod_pipeline_deletions",
                "Where both fall to nothing, no callbacks come, or none is decided on."),
        ),
        lines(
            "Failures in the last complete window",
            q(f"max by (error_code) ({of('vod_pipeline_window_failures', *OF_A_CODE)})", "{{error_code}}"),
            unit="short", span=8, windows=True, anchor="deletionsfail",
            says=meaning("vod_pipeline_window_failures", "By event time; the numerator of the ratio above."),
        ),
    ]  # fmt: skip


def _outcomes() -> list[Builder[Panel]]:
    rejected = 'outcome="rejected"'
    return [
        lines(
            "Records a second, by outcome", q(records_rate(by="outcome"), "{{outcome}}"),
            unit="ops", stacked=True, span=8, anchor="balancebroken",
            says=meaning("vod_pipeline_records", "A partition is counted once, also while it moves between workers."),
        ),
        lines(
            "Rejected a second, by reason", q(records_rate(rejected, by="reason"), "{{reason}}"),
            unit="ops", stacked=True, span=8, anchor="manyrejected",
            says="Records no event could be read from, or that contradict one: see the topic rejected. A rise means a "
            "sender changed its format, or a clock is wrong; conflict: two events of one MediaId in one second.",
        ),
        lines(
            "Rejected share", q(f"{records_rate(rejected)} / {records_rate()}", "rejected"),
            unit="percentunit", limits=warn(0.01, 0.05), span=8, anchor="manyrejected",
            says="Rejected records among all records decided on. A rise means events are missing from the rates.",
        ),
        ranking(
            "Records since the beginning", q(f"sum by (outcome) ({records()})", "{{outcome}}"),
            unit="short", span=12, anchor="balancebroken",
            says=meaning("vod_pipeline_records", "These totals survive restarts; they begin with the topic."),
        ),
        lines(
            "Late deletions a second", q(rate("vod_pipeline_late_events_total"), "late"),
            unit="ops", span=12, anchor="",
            says=meaning("vod_pipeline_late_events", "Their rows are corrected."),
        ),
    ]  # fmt: skip


def _callbacks() -> list[Builder[Panel]]:
    requests = "vod_pipeline_bridge_requests_total"
    return [
        lines(
            "Answers 200 a second", q(rate(requests, TAKEN, by="outcome"), "{{outcome}}"),
            unit="reqps", stacked=True, span=6, anchor="nocallbacks",
            says="published: Kafka has it. spooled: our disk has it. repeated: a copy of a request answered before.",
        ),
        lines(
            "Answers 200 a second, by entry", q(rate(requests, f'{TAKEN}, entry!=""', by="entry"), "{{entry}}"),
            unit="reqps", stacked=True, span=6, anchor="nocallbacks",
            says="By the names in bridge.callbacks. One that falls to 0 beside others is a region or an app that does "
            "not call, which sets off no alert.",
        ),
        lines(
            "Other answers a second", q(rate(requests, TAKEN.replace("=~", "!~"), by="outcome"), "{{outcome}}"),
            unit="reqps", stacked=True, span=6, anchor="callbacksrefused",
            says=meaning("vod_pipeline_bridge_requests", "VOD gives up after three attempts."),
        ),
        lines(
            "Answers 403 a second, by reason", q(rate("vod_pipeline_bridge_denials_total", by="reason"), "{{reason}}"),
            unit="reqps", stacked=True, span=6, anchor="signaturesdenied", says=meaning("vod_pipeline_bridge_denials"),
        ),
    ]  # fmt: skip


def _delays() -> list[Builder[Panel]]:
    delay = f"time() - (max by (partition) ({of('vod_pipeline_watermark_timestamp_seconds')}) > 0)"
    usual = _worker.allowed_delay_seconds
    return [
        lines(
            "From the bridge to accepted",
            *(q(quantile(share, "vod_pipeline_accepted_seconds"), name)
              for share, name in ((0.5, "p50"), (0.99, "p99"))),
            unit="s", limits=warn(1, 10), span=8, anchor="laggrowing",
            says=meaning("vod_pipeline_accepted_seconds", "A rise means lag, slow brokers, or a spool being emptied."),
        ),
        lines(
            "Records not read yet",
            q(f"sum by (stage) (max by (stage, partition) ({of('vod_pipeline_lag_offsets')}))", "{{stage}}"),
            unit="short", limits=warn(10_000, 100_000), span=8, anchor="laggrowing",
            says=meaning("vod_pipeline_lag_offsets", "A rise means the workers are too slow, or gone."),
        ),
        lines(
            "Watermark behind the clock", q(delay, "partition {{partition}}"),
            unit="s", limits=warn(usual + 60, usual + 300), span=8, anchor="watermarkstuck",
            says=meaning("vod_pipeline_watermark_timestamp_seconds",
                "One partition that stands still keeps all windows incomplete."),
        ),
        lines(
            "Windows wait for",
            q(f"max by (partition) ({of('vod_pipeline_waited_for_seconds')})", "partition {{partition}}"),
            unit="s", limits=warn(300), span=12, anchor="windowsheldback",
            says=meaning("vod_pipeline_waited_for_seconds"),
        ),
        lines(
            "Partitions waited for", q(f"max({of('vod_pipeline_waited_for_partitions')})", "partitions"),
            unit="short", limits=warn(1), span=12, anchor="windowsheldback",
            says=meaning("vod_pipeline_waited_for_partitions"),
        ),
    ]  # fmt: skip


def _safety() -> list[Builder[Panel]]:
    up, ready = of("up"), of("vod_pipeline_ready")
    oldest = f"time() - (min by (instance) ({of('vod_pipeline_spool_oldest_timestamp_seconds')} > 0))"
    return [
        lines(
            "Spool",
            q(f"sum by (instance) ({of('vod_pipeline_spool_bytes')})", "{{instance}}"),
            q(f"sum by (instance) ({of('vod_pipeline_spool_limit_bytes')})", "{{instance}}: full"),
            unit="bytes", span=8, anchor="spoolnearlyfull", says=meaning("vod_pipeline_spool_bytes"),
        ),
        lines(
            "Oldest callback on disk",
            q(f"{oldest} or 0 * sum by (instance) ({of('vod_pipeline_spool_records')})", "{{instance}}"),
            unit="s", limits=warn(60, 3600), span=8, anchor="spoolgrowing",
            says=meaning("vod_pipeline_spool_oldest_timestamp_seconds",
                "Its age: so long has Kafka not taken everything."),
        ),
        states(
            "Ready", q(f"max by (job, instance) ({up} + on (job, instance) {ready} or on (job, instance) {up})",
                       "{{job}} {{instance}}"),
            names=(("down", "red"), ("not ready", "orange"), ("ready", "green")), span=8, anchor="processdown",
            says=meaning("vod_pipeline_ready", "Down: Prometheus gets no answer at all."),
        ),
    ]  # fmt: skip
