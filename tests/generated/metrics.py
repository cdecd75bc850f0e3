"""docs/metrics.md: every metric, from the catalogue in pipeline/service/metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.metrics.mns import MnsMetrics
from pipeline.service.metrics.process import CertificateUse, PortMetrics, ProcessMetrics, show_process, show_ready
from pipeline.service.metrics.worker import WorkerMetrics
from tests.generated.markdown import code, joined, notice, prose, table

INTRODUCTION = """
Each service has a monitoring port with `/metrics`: the bridge 8081, the worker 8082 ([settings](configuration.md)).
Alerts, recording rules, dashboards and logs are in [operating](operating.md#watching).

A counter is shown with `_total`, a histogram as `_bucket`, `_sum` and `_count`. Every value that a label can have is
listed where the set is closed, and each such series is shown as 0 from the start. `error_code` is closed by number:
the first 50 codes that a worker sees keep their name, and later ones are `other`. `entry` is the `name` of an entry of
`bridge.callbacks` or `bridge.mns`, and empty where none is known: a path that is not served, a head that is no HTTP.
Series of a partition end when it moves to another worker.

`vod_pipeline_records_total` is exactly once, as the records are: it is committed in the transaction that writes them,
and a worker's successor goes on where it ended. The balance is `vod_pipeline_received_records_total` = the sum of
`vod_pipeline_records_total` over its outcomes, per partition.

`vod-pipeline bridge --workers N` shows the sum of its processes: of a timestamp the oldest, of a start the newest.
"""

SUFFIXES = {"counter": "_total"}
OPEN_LABELS = frozenset({"partition", "entry", "queue", "subject", "generation", "python"})  # Others' values.


class _Recording(CollectorRegistry):
    """A registry that keeps its collectors in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        """Keep *collector*, too."""
        self.collectors.append(collector)
        super().register(collector)


def page() -> str:
    """Return the page."""
    sections = (part for title, show in _SECTIONS.items() for part in (f"## {title}", _section(show)))
    return joined(notice("pipeline/service/metrics"), "# Metrics", INTRODUCTION, *sections)


def _process(registry: CollectorRegistry) -> None:
    certificates = {(use, "CN=subject"): 0.0 for use in CertificateUse}
    ProcessMetrics(registry, started_at=0, certificates=certificates)
    show_ready(registry, list)
    PortMetrics(registry)


def _worker(registry: CollectorRegistry) -> None:
    WorkerMetrics(registry).totals.begin(0, {})


_SECTIONS: dict[str, Callable[[CollectorRegistry], object]] = {
    "Every service": _process,
    "Bridge": BridgeMetrics,
    "MNS queues": lambda registry: MnsMetrics(registry, [("entry", "queue")]),
    "Worker": _worker,
    "Python and the process": show_process,
}


def _section(show: Callable[[CollectorRegistry], object]) -> str:
    registry = _Recording()
    show(registry)
    return table(("metric", "kind", "labels", "meaning"), _rows(registry.collectors))


def _rows(collectors: Iterable[Collector]) -> Iterator[tuple[str, ...]]:
    for collector in collectors:
        for family in collector.collect():
            names = collector._labelnames if isinstance(collector, MetricWrapperBase) else _names(family)
            labels = "; ".join(_label(name, family) for name in names)
            yield code(family.name + SUFFIXES.get(family.type, "")), family.type, labels, prose(family.documentation)


def _names(family: Metric) -> list[str]:
    """Return the label names of *family*, which a collector of its own makes with all of them."""
    return list(family.samples[0].labels)


def _label(name: str, family: Metric) -> str:
    """Return a label, and its values where they are known from the start."""
    values = [] if name in OPEN_LABELS else [s.labels[name] for s in family.samples if s.labels.get(name)]
    known = ", ".join(code(value) for value in dict.fromkeys(values))
    return code(name) + (f": {known}" if known else "")
