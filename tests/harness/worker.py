"""A worker as production runs it: a process of its own, to be killed, paused, and started again."""

from __future__ import annotations

import signal
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pipeline.service.probe import ask, url_of
from pipeline.service.settings import Settings
from tests.harness.ports import free_port
from tests.harness.process import ServiceProcess
from tests.waiting import SECONDS_MAX, eventually


class WorkerProcess(ServiceProcess):
    """One `vod-pipeline worker`; its log goes to *directory*."""

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        *,
        name: str = "worker",
        instance_id: str | None = None,
        checkout: Path | None = None,
    ) -> None:
        self.port = free_port()
        environ = {
            "VOD_PIPELINE_KAFKA__PARTITIONS": str(settings.kafka.partitions),
            "VOD_PIPELINE_WORKER__GROUP": settings.worker.group,
            "VOD_PIPELINE_WORKER__SESSION_TIMEOUT_SECONDS": str(settings.worker.session_timeout_seconds),
            "VOD_PIPELINE_WORKER__WINDOW_SECONDS": str(settings.worker.window_seconds),
            "VOD_PIPELINE_WORKER__ALLOWED_DELAY_SECONDS": str(settings.worker.allowed_delay_seconds),
            "VOD_PIPELINE_WORKER__REJECTED_SHARE_MAX": str(settings.worker.rejected_share_max),
            "VOD_PIPELINE_WORKER__REJECTED_SHARE_RECORDS_MIN": str(settings.worker.rejected_share_records_min),
            "VOD_PIPELINE_WORKER__METRICS_PORT": str(self.port),
            **({"VOD_PIPELINE_WORKER__INSTANCE_ID": instance_id} if instance_id else {}),
        }
        log = directory / f"{name}.log"
        super().__init__("worker", settings=settings, log=log, environ=environ, checkout=checkout)

    def __enter__(self) -> WorkerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the process; `readiness` says when it is ready."""
        self.launch()

    def pause(self) -> None:
        """Freeze it: its connections stay open, its session runs out."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on where it was."""
        self.signal(signal.SIGCONT)

    def records(self) -> dict[str, int]:
        """Return vod_pipeline_records_total by outcome, over the partitions it owns; empty if it does not answer."""
        found: dict[str, int] = {}
        for family in self._metrics():
            if family.name == "vod_pipeline_records":
                for sample in family.samples:
                    outcome = sample.labels["outcome"]
                    found[outcome] = found.get(outcome, 0) + int(sample.value)
        return found

    def by_partition(self) -> dict[str, tuple[float, float]]:
        """Return, for each partition it shows, how many records it received and how many have an outcome."""
        received: dict[str, float] = {}
        decided: dict[str, float] = {}
        for family in self._metrics():
            for sample in family.samples:
                if sample.name in ("vod_pipeline_received_records_total", "vod_pipeline_records_total"):
                    shown = received if sample.name == "vod_pipeline_received_records_total" else decided
                    partition = sample.labels["partition"]
                    shown[partition] = shown.get(partition, 0.0) + sample.value
        assert received.keys() == decided.keys()
        return {partition: (received[partition], decided[partition]) for partition in received}

    def owns_report(self) -> bool:
        """Whether the report agent's partition is this worker's."""
        return any(
            sample.labels.get("stage") == "report"
            for family in self._metrics()
            if family.name == "vod_pipeline_lag_offsets"
            for sample in family.samples
        )

    def lost_to_retention(self) -> int:
        """Return vod_pipeline_lost_records_total over its partitions."""
        return self._total("vod_pipeline_lost_records")

    def failed_transactions(self) -> int:
        """Return how many attempts to commit failed."""
        return self._total("vod_pipeline_failed_transactions")

    def readiness(self) -> str:
        """Return what /readyz says: "" if it does not answer."""
        try:
            return ask(url_of("127.0.0.1", self.port, "/readyz"), seconds=10)[1]
        except OSError:
            return ""

    def wait_until_working(self, *, records: int = 1, seconds: float = SECONDS_MAX) -> None:
        """Wait until the partitions it owns have taken in *records* in all."""
        eventually(
            lambda: [] if sum(self.records().values()) >= records else [f"{self.records()}; {self.tail()}"],
            seconds=seconds,
        )

    def tail(self) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def metrics(self) -> str:
        """Return what /metrics shows: "" if it does not answer."""
        try:
            is_success, text = ask(url_of("127.0.0.1", self.port, "/metrics"), seconds=10)
        except OSError:
            return ""
        return text if is_success else ""

    def _total(self, name: str) -> int:
        """Return the sum of a gauge or counter over its labels; 0 if it does not answer."""
        return sum(
            int(sample.value)
            for family in self._metrics()
            if family.name == name
            for sample in family.samples
            if not sample.name.endswith("_created")
        )

    def _metrics(self) -> list[Metric]:
        return list(text_string_to_metric_families(self.metrics()))
