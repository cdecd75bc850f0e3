"""The insides of the bridge: what it sends, what it keeps on disk, and the MNS queues."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel

from pipeline.service.settings import BridgeSettings
from tests.generated.grafana.panels import (
    lines,
    mean,
    meaning,
    of,
    q,
    quantiles,
    rate,
    spread,
    warn,
)

_bridge = BridgeSettings()


def batches() -> list[Builder[Panel]]:
    return [
        lines(
            "Publish seconds", *quantiles("vod_pipeline_bridge_publish_seconds"),
            unit="s", limits=warn(0.5, _bridge.ack_timeout_seconds), span=8, anchor="publishslow",
            says=meaning("vod_pipeline_bridge_publish_seconds", "From the red line on they are spooled."),
        ),
        spread(
            "Publish seconds, all batches", "vod_pipeline_bridge_publish_seconds",
            unit="s", span=8, anchor="publishslow", says=meaning("vod_pipeline_bridge_publish_seconds"),
        ),
        lines(
            "Callbacks a batch, on average", q(mean("vod_pipeline_bridge_batch_records"), "callbacks"),
            unit="short", span=8, anchor="publishslow", says=meaning("vod_pipeline_bridge_batch_records"),
        ),
        lines(
            "Batches a second", q(rate("vod_pipeline_bridge_publish_seconds_count", by="instance"), "{{instance}}"),
            unit="ops", span=8, anchor="publishslow",
            says="Batches that Kafka took, up to four in flight at a time. A fall at equal load means slow brokers.",
        ),
        lines(
            "Waiting for Kafka",
            q(f"sum by (instance) ({of('vod_pipeline_bridge_in_flight')})", "{{instance}}"),
            q(f"sum by (instance) ({of('vod_pipeline_bridge_kafka_requests')})", "{{instance}}: requests"),
            unit="short", limits=warn(_bridge.in_flight_max // 2, _bridge.in_flight_max), span=8, anchor="publishslow",
            says=meaning("vod_pipeline_bridge_in_flight", "The red line is the default; each worker process has one."),
        ),
        lines(
            "Connections lost a second",
            q(rate("vod_pipeline_bridge_reconnects_total", by="instance"), "{{instance}}"),
            q(rate("vod_pipeline_bridge_kafka_refusals_total", by="instance"), "{{instance}}: refused"),
            unit="ops", span=8, anchor="kafkaunstable",
            says=meaning("vod_pipeline_bridge_reconnects", "Refused: wrong credentials or certificates."),
        ),
    ]  # fmt: skip


def spool() -> list[Builder[Panel]]:
    repeated = rate("vod_pipeline_bridge_requests_total", 'outcome="repeated"')
    return [
        lines(
            "Spool written and drained",
            q(rate("vod_pipeline_spool_written_records_total"), "written"),
            q(rate("vod_pipeline_spool_drained_records_total"), "drained"),
            unit="ops", span=8, anchor="spoolgrowing",
            says=meaning("vod_pipeline_spool_written_records", "Drained: Kafka has taken them since."),
        ),
        lines(
            "Spool failures", q(rate("vod_pipeline_spool_failures_total", by="reason"), "{{reason}}"),
            unit="ops", limits=warn(0.001), span=8, anchor="spoolfailing", says=meaning("vod_pipeline_spool_failures"),
        ),
        lines(
            "Spooled callbacks that Kafka refuses, and spools left behind",
            q(f"sum by (instance) ({of('vod_pipeline_spool_refused_records')})", "{{instance}}: refused"),
            q(f"sum by (instance) ({of('vod_pipeline_spool_waiting_records')})", "{{instance}}: without a leader"),
            q(f"sum by (instance) ({of('vod_pipeline_spools_left_behind')})", "{{instance}}: left behind"),
            unit="none", limits=warn(1), span=8, anchor="spoolleftbehind",
            says=meaning("vod_pipeline_spools_left_behind"),
        ),
        lines(
            "Repeated requests, answered like the first",
            q(f"{repeated} / {rate('vod_pipeline_bridge_requests_total')}", "repeated"),
            unit="percentunit", span=8, anchor="callbacksrefused",
            says="Share of requests that came before and were answered like the first, without Kafka. A rise means VOD "
            "repeats: it did not get our 200 in 5 s; or someone uses a signature again.",
        ),
        lines(
            "Signature bursts", q(rate("vod_pipeline_bridge_signature_bursts_total", by="instance"), "{{instance}}"),
            unit="ops", limits=warn(0.001), span=8, anchor="signatureburst",
            says=meaning("vod_pipeline_bridge_signature_bursts"),
        ),
        lines(
            "Replay cache",
            q(f"sum by (instance) ({of('vod_pipeline_bridge_replay_cache_bytes')})", "{{instance}}"),
            unit="bytes", span=8, anchor="", says=meaning("vod_pipeline_bridge_replay_cache_bytes"),
        ),
    ]  # fmt: skip


def mns() -> list[Builder[Panel]]:
    return [
        lines(
            "Messages a second, by step",
            q(rate("vod_pipeline_mns_messages_total", by="entry, step"), "{{entry}} {{step}}"),
            unit="ops", span=5, anchor="queuefailing", says=meaning("vod_pipeline_mns_messages"),
        ),
        lines(
            "Failed requests a second",
            q(rate("vod_pipeline_mns_errors_total", by="entry, reason"), "{{entry}} {{reason}}"),
            unit="reqps", limits=warn(0.1), span=5, anchor="queuefailing", says=meaning("vod_pipeline_mns_errors"),
        ),
        lines(
            "Time in the queue", *quantiles("vod_pipeline_mns_waited_seconds", by="entry"),
            unit="s", limits=warn(60, 3600), span=5, anchor="messageskept",
            says=meaning("vod_pipeline_mns_waited_seconds"),
        ),
        lines(
            "Polls answered early", q(rate("vod_pipeline_mns_early_answers_total", by="entry"), "{{entry}}"),
            unit="ops", span=5, anchor="queuefailing", says=meaning("vod_pipeline_mns_early_answers"),
        ),
        lines(
            "Safe, not deleted", q(f"sum by (entry) ({of('vod_pipeline_mns_remembered_messages')})", "{{entry}}"),
            unit="short", limits=warn(2048, 4096), span=4, anchor="messageskept",
            says=meaning("vod_pipeline_mns_remembered_messages"),
        ),
    ]  # fmt: skip
