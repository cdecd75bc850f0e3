"""The metric catalogue: names, meanings, and zeros from the start."""

from __future__ import annotations

import platform

import pytest
from prometheus_client import CollectorRegistry

from pipeline import __version__
from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.metrics.mns import MnsMetrics, MnsProblem, MnsStep
from pipeline.service.metrics.process import ProcessMetrics, show_process, show_ready
from pipeline.service.metrics.worker import WorkerMetrics


def test_every_process_says_which_version_it_is() -> None:
    """A rollout that stopped half way is seen, and which numbers are of which version."""
    registry = CollectorRegistry()
    ProcessMetrics(registry, started_at=0, certificates={})

    labels = {"version": __version__, "python": platform.python_version()}
    assert registry.get_sample_value("vod_pipeline_build_info", labels) == 1


def test_every_metric_has_our_prefix_and_says_what_it_means(registry: CollectorRegistry) -> None:
    """The help text is the operator's documentation; bridge and worker fit into one registry."""
    ProcessMetrics(registry, started_at=0, certificates={})
    BridgeMetrics(registry)
    MnsMetrics(registry, [])
    WorkerMetrics(registry)

    families = list(registry.collect())

    assert {"vod_pipeline_records", "vod_pipeline_deletions", "vod_pipeline_bridge_requests"} <= {
        family.name for family in families
    }
    for family in families:
        assert family.name.startswith("vod_pipeline_")
        assert len(family.documentation) > 20
        assert family.documentation.endswith(".")


def test_two_programs_fit_into_one_process() -> None:
    """No module-level registry: everything can be built twice."""
    WorkerMetrics(CollectorRegistry())
    WorkerMetrics(CollectorRegistry())
    BridgeMetrics(CollectorRegistry())
    BridgeMetrics(CollectorRegistry())


@pytest.mark.parametrize("answer", ["published", "denied", "kafka_timeout", "overloaded"])
def test_the_bridges_answers_are_shown_as_0(registry: CollectorRegistry, answer: str) -> None:
    """As for the records: the first failure must be visible as a rise."""
    BridgeMetrics(registry)

    assert registry.get_sample_value("vod_pipeline_bridge_requests_total", {"outcome": answer, "entry": ""}) == 0.0


def test_every_queue_shows_its_zeros_from_the_start() -> None:
    """An alert on a rise needs the 0 before it."""
    registry = CollectorRegistry()
    MnsMetrics(registry, [("a", "one"), ("b", "two")])

    for entry, queue in (("a", "one"), ("b", "two")):
        of = {"entry": entry, "queue": queue}
        for step in MnsStep:
            assert registry.get_sample_value("vod_pipeline_mns_messages_total", {**of, "step": step.value}) == 0
        for problem in MnsProblem:
            assert registry.get_sample_value("vod_pipeline_mns_errors_total", {**of, "reason": problem.value}) == 0
        assert registry.get_sample_value("vod_pipeline_mns_early_answers_total", of) == 0
        assert registry.get_sample_value("vod_pipeline_mns_waited_seconds_count", of) == 0


def test_readiness_is_asked_for_at_each_scrape(registry: CollectorRegistry) -> None:
    problems = ["Kafka is away"]
    show_ready(registry, lambda: problems)

    before = registry.get_sample_value("vod_pipeline_ready")
    problems.clear()

    assert (before, registry.get_sample_value("vod_pipeline_ready")) == (0.0, 1.0)


def test_a_process_shows_what_it_uses(registry: CollectorRegistry) -> None:
    """CPU, memory and the time of the start are what tells a busy process from a restarted one."""
    show_process(registry)

    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"):
        assert (registry.get_sample_value(name) or 0) > 0
    assert registry.get_sample_value("python_gc_collections_total", {"generation": "2"}) is not None
