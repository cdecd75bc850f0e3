"""What several bridge processes show, added up: counters never fall, whichever of them ends or falls silent."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from pipeline.bridge.sums import Page, Sums, add_up
from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.metrics.process import CertificateUse, ProcessMetrics


def page(count: int, *, oldest: float = 0.0) -> str:
    registry = CollectorRegistry()
    requests = Counter("requests", "Help.", ["outcome"], registry=registry)
    requests.labels("published").inc(count)
    requests.labels(f"only-{count}").inc()
    Histogram("seconds", "Help.", buckets=(1, 2), registry=registry).observe(1.5)
    Gauge("vod_pipeline_spool_oldest_timestamp_seconds", "Help.", registry=registry).set(oldest)
    return generate_latest(registry).decode()


def samples(page: Page) -> dict[str, float]:
    """Return what Prometheus would read."""

    class Shown(Collector):
        def collect(self) -> Page:
            return page

    registry = CollectorRegistry()
    registry.register(Shown())
    lines = generate_latest(registry).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def added_up(*pages: str) -> dict[str, float]:
    return samples(add_up([list(text_string_to_metric_families(page)) for page in pages]))


class Process:
    """A bridge process, as far as it counts."""

    def __init__(self, started_at: float) -> None:
        self.registry = CollectorRegistry()
        ProcessMetrics(self.registry, started_at=started_at, certificates={})
        self.metrics = BridgeMetrics(self.registry)

    def page(self) -> str:
        return generate_latest(self.registry).decode()


def test_samples_of_one_name_and_labels_are_added() -> None:
    found = added_up(page(3), page(4))

    assert found['requests_total{outcome="published"}'] == 7
    assert found['requests_total{outcome="only-3"}'] == 1
    assert (found['seconds_bucket{le="1.0"}'], found['seconds_bucket{le="2.0"}'], found["seconds_sum"]) == (0, 2, 3)


def test_of_timestamps_the_oldest_counts_and_none_is_no_timestamp() -> None:
    name = "vod_pipeline_spool_oldest_timestamp_seconds"

    assert added_up(page(1, oldest=30), page(1, oldest=20), page(1))[name] == 20
    assert added_up(page(1), page(1, oldest=30))[name] == 30
    assert added_up(page(1), page(1))[name] == 0


def test_of_starts_the_newest_counts() -> None:
    """A process that keeps ending itself must be seen beside those that run on."""

    def started(at: float) -> str:
        registry = CollectorRegistry()
        ProcessMetrics(registry, started_at=at, certificates={(CertificateUse.BRIDGE, "CN=a"): at})
        return generate_latest(registry).decode()

    found = added_up(started(30), started(20))

    assert found["vod_pipeline_started_timestamp_seconds"] == 30
    assert found['vod_pipeline_certificate_not_after_timestamp_seconds{subject="CN=a",use="bridge"}'] == 20


def test_the_newest_start_counts_so_that_the_restart_of_one_process_is_seen() -> None:
    pages = (f"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {at}\n" for at in (30, 50, 40))

    assert added_up(*pages)["process_start_time_seconds"] == 50


def test_what_is_said_in_labels_is_not_added_up() -> None:
    """Two processes of one version are no version 2."""
    page = '# TYPE vod_pipeline_build_info gauge\nvod_pipeline_build_info{version="1"} 1.0\n'

    assert added_up(page, page) == {'vod_pipeline_build_info{version="1"}': 1}


def test_readiness_is_not_added_up() -> None:
    """Four ready processes would be a readiness of 4; the bridge says itself whether it is ready."""
    ready = "# TYPE vod_pipeline_ready gauge\nvod_pipeline_ready 1.0\n"

    assert added_up(ready, ready) == {}


def test_no_page_is_no_metric() -> None:
    assert added_up() == {}
    assert samples(Sums().page()) == {}


DENIED = 'vod_pipeline_bridge_requests_total{entry="a",outcome="denied"}'
BATCHES = "vod_pipeline_bridge_batch_records_count"
IN_FLIGHT = "vod_pipeline_bridge_in_flight"


def test_what_an_ended_process_counted_stays() -> None:
    sums, one, two = Sums(), Process(1), Process(2)
    one.metrics.requests.labels("denied", "a").inc(30)
    one.metrics.batch_records.observe(8)
    one.metrics.in_flight.set(5)
    two.metrics.requests.labels("denied", "a").inc(40)
    sums.take(1, one.page())
    sums.take(2, two.page())

    for started_at in (3, 4):  # Ended, started again; and once more.
        one = Process(started_at)
        one.metrics.requests.labels("denied", "a").inc()
        sums.take(1, one.page())

    found = samples(sums.page())
    assert found[DENIED] == 30 + 40 + 1 + 1
    assert found[BATCHES] == 1
    assert found[IN_FLIGHT] == 0
    assert found["vod_pipeline_started_timestamp_seconds"] == 4


def test_a_process_that_says_nothing_shows_what_it_said_last() -> None:
    sums, one, two = Sums(), Process(1), Process(2)
    for process in (one, two):
        process.metrics.requests.labels("denied", "a").inc(7)
    sums.take(1, one.page())
    sums.take(2, two.page())

    one.metrics.requests.labels("denied", "a").inc()
    sums.take(1, one.page())

    assert samples(sums.page())[DENIED] == 8 + 7
