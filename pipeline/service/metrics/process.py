"""What every process shows of itself."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from prometheus_client import CollectorRegistry, Gauge, GCCollector, ProcessCollector

from pipeline import __version__
from pipeline.service.metrics.table import Table, counter, gauge

READY = "vod_pipeline_ready"


class CertificateUse(StrEnum):
    """What a certificate is for: the `use` label of vod_pipeline_certificate_not_after_timestamp_seconds."""

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
            "vod_pipeline_started_timestamp_seconds",
            "When the process started; one that changes again and again is one that keeps ending itself.",
            registry=registry,
        ).set(started_at)
        Gauge(
            "vod_pipeline_build_info",
            "1; which version runs, and on which Python. Two versions at a time are a rollout, or a forgotten one.",
            ["version", "python"],
            registry=registry,
        ).labels(__version__, platform.python_version()).set(1)
        not_after = Gauge(
            "vod_pipeline_certificate_not_after_timestamp_seconds",
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


class PortMetrics(Table):
    """What the monitoring port shows of itself."""

    connections = gauge(
        "vod_pipeline_monitoring_connections", "Open connections to the monitoring port; 16 at most, the newest stay."
    )
    cut = counter(
        "vod_pipeline_monitoring_connections_cut",
        "Connections to the monitoring port that were cut off, as silent, one too many, or with too long a request.",
    )


def show_process(registry: CollectorRegistry) -> None:
    """Show in *registry* what this process uses: CPU, memory, files, garbage collections, and since when it runs."""
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
