"""
What each alert sees, as time series: a story on which it fires, and neighbours on which it must not.

A story is a healthy system in which something is different. Values are promtool's notation: `0+5x20` begins at 0 and
rises by 5 a step (a minute, mostly), twenty times; `_` is a missing sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field

B = 'job="bridge",instance="bridge:8081"'
W = 'job="worker",instance="worker:8082"'
W2 = 'job="worker",instance="worker-2:8082"'
A = f'{B},entry="a"'
Q = f'{A},queue="q"'

UP_BRIDGE, UP_WORKER = f"up{{{B}}}", f"up{{{W}}}"
STARTED = f"vod_pipeline_started_timestamp_seconds{{{W}}}"
PUBLISHED = f'vod_pipeline_bridge_requests_total{{{A},outcome="published"}}'
OVERLOADED = f'vod_pipeline_bridge_requests_total{{{A},outcome="overloaded"}}'
DENIALS = f'vod_pipeline_bridge_denials_total{{{A},reason="signature_wrong"}}'
SPOOL = f"vod_pipeline_spool_records{{{B}}}"
SPOOL_BYTES = f"vod_pipeline_spool_bytes{{{B}}}"
LEFT_BEHIND = f"vod_pipeline_spools_left_behind{{{B}}}"
ACCEPTED = f'vod_pipeline_records_total{{{W},partition="0",outcome="accepted",reason=""}}'
CONFLICT = f'vod_pipeline_records_total{{{W},partition="0",outcome="rejected",reason="conflict"}}'
INVALID = f'vod_pipeline_records_total{{{W},partition="0",outcome="rejected",reason="invalid_json"}}'
RECEIVED = f'vod_pipeline_received_records_total{{{W},partition="0"}}'
LOST = f'vod_pipeline_lost_records_total{{{W},partition="0"}}'
KEYS = f'vod_pipeline_state_keys{{{W},partition="0"}}'
WATERMARK = f'vod_pipeline_watermark_timestamp_seconds{{{W},partition="0"}}'
WAITED_FOR = f'vod_pipeline_waited_for_seconds{{{W},partition="3"}}'
LAG = f'vod_pipeline_lag_offsets{{{W},stage="accept",partition="0"}}'
PAUSED, REFUSED = (
    f'vod_pipeline_partition_paused{{{W},stage="accept",partition="0",cause="{cause}"}}'
    for cause in ("rejections", "refused")
)
REOPENED = f'vod_pipeline_failed_transactions_total{{{W},stage="accept"}}'
SUCCESSES = f'vod_pipeline_deletions_total{{{W},status="success",error_code=""}}'


DENIED = f'vod_pipeline_bridge_requests_total{{{A},outcome="denied"}}'
NOT_FOUND = f'vod_pipeline_bridge_requests_total{{{A},outcome="not_found"}}'
BURSTS = f"vod_pipeline_bridge_signature_bursts_total{{{A}}}"
RELOAD = f"vod_pipeline_bridge_reload_refused{{{B}}}"
RECONNECTS = f"vod_pipeline_bridge_reconnects_total{{{B}}}"
REFUSALS = f"vod_pipeline_bridge_kafka_refusals_total{{{B}}}"
ACCEPTED_2, CONFLICT_2, RECEIVED_2, LOST_2, KEYS_2, STARTED_2 = (
    series.replace(W, W2) for series in (ACCEPTED, CONFLICT, RECEIVED, LOST, KEYS, STARTED)
)


def failures(code: str, *, worker: str = W) -> str:
    return f'vod_pipeline_deletions_total{{{worker},status="fail",error_code="{code}"}}'


def spool_failures(reason: str) -> str:
    return f'vod_pipeline_spool_failures_total{{{B},reason="{reason}"}}'


def certificate(use: str) -> str:
    return f'vod_pipeline_certificate_not_after_timestamp_seconds{{{B},use="{use}",subject="CN=a"}}'


def mns_errors(reason: str) -> str:
    return f'vod_pipeline_mns_errors_total{{{Q},reason="{reason}"}}'


def mns_messages(step: str) -> str:
    return f'vod_pipeline_mns_messages_total{{{Q},step="{step}"}}'


def publish_bucket(le: str) -> str:
    return f'vod_pipeline_bridge_publish_seconds_bucket{{{B},le="{le}"}}'


# 60 callbacks a minute, all of them accepted, 1 in 200 a failure; the clock is 0 when a story begins.
HEALTHY = {
    UP_BRIDGE: "1x{n}",
    UP_WORKER: "1x{n}",
    STARTED: "-7200x{n}",
    PUBLISHED: "0+60x{n}",
    OVERLOADED: "0x{n}",
    DENIED: "0x{n}",
    NOT_FOUND: "0x{n}",
    DENIALS: "0x{n}",
    BURSTS: "0x{n}",
    RELOAD: "0x{n}",
    RECONNECTS: "0x{n}",
    REFUSALS: "0x{n}",
    publish_bucket("0.25"): "0+99.5x{n}",
    publish_bucket("2.5"): "0+100x{n}",
    publish_bucket("+Inf"): "0+100x{n}",
    certificate("bridge"): "9000000x{n}",
    SPOOL: "0x{n}",
    SPOOL_BYTES: "0x{n}",
    LEFT_BEHIND: "0x{n}",
    f"vod_pipeline_spool_limit_bytes{{{B}}}": "1000000x{n}",
    spool_failures("full"): "0x{n}",
    spool_failures("disk"): "0x{n}",
    mns_errors("denied"): "0x{n}",
    mns_errors("network"): "0x{n}",
    mns_messages("received"): "0x{n}",
    mns_messages("not_published"): "0x{n}",
    ACCEPTED: "1000+60x{n}",
    CONFLICT: "5x{n}",
    INVALID: "5x{n}",
    RECEIVED: "1010+60x{n}",
    LOST: "0x{n}",
    f"vod_pipeline_partitions{{{W}}}": "1x{n}",
    KEYS: "1000+60x{n}",
    WATERMARK: "-30+{step}x{n}",
    LAG: "3x{n}",
    PAUSED: "0x{n}",
    REFUSED: "0x{n}",
    REOPENED: "0x{n}",
    SUCCESSES: "1000+199x{n}",
    failures("NotFound"): "5+1x{n}",
}


@dataclass(frozen=True, slots=True)
class Story:
    """`fires`: the alerts that fire `at` that minute and no others, each with its labels and its description."""

    name: str
    at: int
    series: dict[str, str | None] = field(default_factory=dict)
    fires: dict[str, tuple[dict[str, str], str]] = field(default_factory=dict)
    also: frozenset[str] = frozenset()
    """Alerts that this trouble sets off as well, with stories of their own."""
    step_minutes: int = 1


BRIDGE = {"job": "bridge", "instance": "bridge:8081"}
WORKER = {"job": "worker", "instance": "worker:8082"}


def fires(alert: str, says: str, **labels: str) -> dict[str, tuple[dict[str, str], str]]:
    return {alert: (labels, says)}
