"""
What each alert is told, as time series: a story on which it fires, and neighbours on which it must not.

A story is a healthy system in which something is different. Values are promtool's notation: `0+5x20` begins at 0 and
rises by 5 a minute, twenty times; `_` is a missing sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field

B = 'job="bridge",instance="bridge:8081"'
W = 'job="worker",instance="worker:8082"'
W2 = 'job="worker",instance="worker-2:8082"'
Q = f'{B},queue="q"'

UP_BRIDGE, UP_WORKER = f"up{{{B}}}", f"up{{{W}}}"
STARTED = f"pipeline_started_timestamp_seconds{{{W}}}"
PUBLISHED = f'pipeline_bridge_requests_total{{{B},outcome="published"}}'
OVERLOADED = f'pipeline_bridge_requests_total{{{B},outcome="overloaded"}}'
DENIALS = f'pipeline_bridge_denials_total{{{B},reason="signature_wrong"}}'
SPOOL = f"pipeline_spool_records{{{B}}}"
SPOOL_BYTES = f"pipeline_spool_bytes{{{B}}}"
ACCEPTED = f'pipeline_records_total{{{W},partition="0",outcome="accepted",reason=""}}'
CONFLICT = f'pipeline_records_total{{{W},partition="0",outcome="rejected",reason="conflict"}}'
INVALID = f'pipeline_records_total{{{W},partition="0",outcome="rejected",reason="invalid_json"}}'
RECEIVED = f'pipeline_received_records_total{{{W},partition="0"}}'
LOST = f'pipeline_lost_records_total{{{W},partition="0"}}'
KEYS = f'pipeline_state_keys{{{W},partition="0"}}'
WATERMARK = f'pipeline_watermark_seconds{{{W},partition="0"}}'
LAG = f'pipeline_lag_offsets{{{W},stage="accept",partition="0"}}'
REOPENED = f'pipeline_failed_transactions_total{{{W},stage="accept"}}'
SUCCESSES = f'pipeline_deletions_total{{{W},status="success",error_code=""}}'


def failures(code: str, *, worker: str = W) -> str:
    return f'pipeline_deletions_total{{{worker},status="fail",error_code="{code}"}}'


def spool_failures(reason: str) -> str:
    return f'pipeline_spool_failures_total{{{B},reason="{reason}"}}'


def certificate(use: str) -> str:
    return f'pipeline_certificate_not_after_timestamp_seconds{{{B},use="{use}",subject="CN=a"}}'


def mns_errors(reason: str) -> str:
    return f'pipeline_mns_errors_total{{{Q},reason="{reason}"}}'


def mns_messages(step: str) -> str:
    return f'pipeline_mns_messages_total{{{Q},step="{step}"}}'


def publish_bucket(le: str) -> str:
    return f'pipeline_bridge_publish_seconds_bucket{{{B},le="{le}"}}'


# 60 callbacks a minute, all of them accepted, 1 in 200 a failure; the clock is 0 when a story begins.
HEALTHY = {
    UP_BRIDGE: "1x{n}",
    UP_WORKER: "1x{n}",
    STARTED: "-7200x{n}",
    PUBLISHED: "0+60x{n}",
    OVERLOADED: "0x{n}",
    f'pipeline_bridge_requests_total{{{B},outcome="denied"}}': "0x{n}",
    DENIALS: "0x{n}",
    f"pipeline_bridge_signature_bursts_total{{{B}}}": "0x{n}",
    f"pipeline_bridge_reload_refused{{{B}}}": "0x{n}",
    f"pipeline_bridge_producer_restarts_total{{{B}}}": "0x{n}",
    f"pipeline_bridge_kafka_refusals_total{{{B}}}": "0x{n}",
    publish_bucket("0.25"): "0+99.5x{n}",
    publish_bucket("2.5"): "0+100x{n}",
    publish_bucket("+Inf"): "0+100x{n}",
    certificate("bridge"): "9000000x{n}",
    SPOOL: "0x{n}",
    SPOOL_BYTES: "0x{n}",
    f"pipeline_spool_limit_bytes{{{B}}}": "1000000x{n}",
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
    f"pipeline_partitions{{{W}}}": "1x{n}",
    KEYS: "1000+60x{n}",
    WATERMARK: "-30+60x{n}",
    LAG: "3x{n}",
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
    """Alerts that this trouble sets off as well, told about in stories of their own."""
    step_minutes: int = 1


BRIDGE = {"job": "bridge", "instance": "bridge:8081"}
WORKER = {"job": "worker", "instance": "worker:8082"}


def fires(alert: str, says: str, **labels: str) -> dict[str, tuple[dict[str, str], str]]:
    return {alert: (labels, says)}


PROCESSES = [
    Story("all is well", 60),
    Story(
        "the worker does not answer",
        7,
        {UP_WORKER: "1x5 0x5"},
        fires("ProcessDown", "worker at worker:8082 has not answered for a minute.", **WORKER),
    ),
    Story("one scrape fails", 6, {UP_WORKER: "1x5 0 1x5"}),
    Story(
        "the bridge's name is not known",
        3,
        {UP_BRIDGE: None},
        fires("ServiceMissing", "There is no bridge to ask: 1 service without a single process.", job="bridge"),
    ),
    Story("one of two workers is taken away", 9, {f"up{{{W2}}}": "1x3 stale"}),
    Story(
        "a worker ends itself every three minutes",
        14,
        {STARTED: "0x2 180x2 360x2 540x9"},
        fires("ProcessRestarting", "worker at worker:8082 started 3 times in 15 minutes.", **WORKER),
    ),
    Story("a worker was started twice", 14, {STARTED: "0x2 180x2 360x12"}),
]

FAILURES = [
    Story(
        "15% fail with one code for an hour",
        62,
        {failures("Forbidden"): "0+30x70", SUCCESSES: "0+170x70"},
        fires("DeletionsFail", "14.93% of all deletions fail with Forbidden.", error_code="Forbidden"),
        also=frozenset({"DeletionsFailSlowly"}),
    ),
    Story(
        "7% fail with one code for two hours: 6 times the objective, but not 14",
        120,
        {failures("Forbidden"): "0+14x130", SUCCESSES: "0+186x130"},
        fires("DeletionsFail", "6.965% of all deletions fail with Forbidden.", error_code="Forbidden"),
        also=frozenset({"DeletionsFailSlowly"}),
    ),
    Story(
        "a new code: its first failures came all at once, before its series was seen",
        10,
        {failures("Forbidden"): "_x5 900x10", SUCCESSES: "0+170x20"},
        fires("DeletionsFail", "34.5% of all deletions fail with Forbidden.", error_code="Forbidden"),
    ),
]
