"""Every query of every panel, asked of a real Prometheus that scrapes the real pipeline under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

import pytest

from pipeline.admin.topics.apply import reconcile
from pipeline.core.signature import Callback
from pipeline.local.load import Target as Receiver
from pipeline.local.load import simulate
from pipeline.local.simulator import Plan
from pipeline.service.settings import Settings
from tests.builders import own_settings
from tests.generated.grafana import internals, overview
from tests.generated.grafana.dashboards import dashboards, to_json
from tests.harness.bridge import KEY, URL, BridgeProcess, Sent, send
from tests.harness.grafana import Target, fill_in, targets
from tests.harness.load import deletion
from tests.harness.mns import MnsEmulator
from tests.harness.prometheus import Prometheus, Series
from tests.harness.recount import differences, read
from tests.harness.worker import WorkerProcess
from tests.waiting import eventually, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.local.kafka import LocalKafka

pytestmark = pytest.mark.timeout(600)  # The first test's share is the load: a minute where the machine is not busy.

DASHBOARDS = {dashboard.title: json.loads(to_json(dashboard)) for dashboard in dashboards().values()}
TARGETS = [target for dashboard in DASHBOARDS.values() for target in targets(dashboard)]
SCRAPE_SECONDS = 15  # What the provisioned data source has; here it is done more often.
RATE_SECONDS = 4 * SCRAPE_SECONDS  # Grafana's $__rate_interval for it, in any graph of less than 12 hours.
LOAD_SECONDS_MIN = 40.0  # For a rate over samples 15 s apart, two of which must fall into it.
LOAD_SECONDS_MAX = 500.0
WAIT_SECONDS = 120
RULES = json.dumps(
    {"groups": [{"name": "test", "rules": [{
        "alert": "Always", "expr": "vector(1)", "labels": {"severity": "page"}
    }]}]}
)  # fmt: skip
EMPTY = {
    "Certificates are valid for": "nothing speaks TLS here; test_metrics_shown.py has the metric itself",
    "Windows wait for": "each partition has an owner; tests/unit/core/test_watermarks.py has what is shown",
}
# What the load has, so that these are more than zero at some time: by panel, a label's values.
SEEN: dict[str, tuple[str, set[str]]] = {
    "Records a second, by outcome": ("outcome", {"accepted", "duplicate", "rejected"}),
    "Records since the beginning": ("outcome", {"accepted", "duplicate", "rejected", "ignored"}),
    "Rejected a second, by reason": ("reason", {"invalid_json", "not_an_object", "invalid_field", "conflict"}),
    "Failures a second": ("error_code", {"InvalidVideo.NotFound", "DeleteVideoFailed", "unknown"}),
    "Top codes in the time shown": ("error_code", {"InvalidVideo.NotFound", "DeleteVideoFailed", "unknown"}),
    "Failure ratio of the last complete window": ("error_code", {"InvalidVideo.NotFound", "DeleteVideoFailed"}),
    "Deletions a second": ("status", {"success", "fail"}),
    "Answers 200 a second": ("outcome", {"published", "spooled"}),
    "Other answers a second": ("outcome", {"denied"}),
    "Answers 403 a second, by reason": ("reason", {"signature_wrong"}),
    "Messages a second, by step": ("step", {"received", "published", "deleted"}),
    "Transactions a second": ("stage", {"accept", "report"}),
    "Ready": ("job", {"bridge", "worker"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The pipeline after its load, and who watched it."""

    prometheus: Prometheus
    settings: Settings
    bridge: BridgeProcess
    began: float
    ended: float

    def ask(self, target: Target, chosen: Mapping[str, str | Sequence[str]] | None = None) -> list[Series]:
        """Return what a panel shows of the whole load, with *chosen* at the top of the dashboard, or all."""
        seconds = round(self.ended - self.began)
        expr = fill_in(target.expr, {**self.everything(), "__range": f"{seconds}s", **(chosen or {})})
        if target.is_instant:
            return self.prometheus.query(expr)
        return self.prometheus.query_range(expr, start=self.began, end=self.ended, step=SCRAPE_SECONDS / 3)

    def everything(self) -> dict[str, str | Sequence[str]]:
        """Choose as a freshly opened dashboard does."""
        chosen: dict[str, str | Sequence[str]] = {"__rate_interval": f"{RATE_SECONDS}s"}
        for variable in DASHBOARDS[overview.TITLE]["templating"]["list"]:
            if variable["type"] != "query":
                continue
            selector, label = fill_in(variable["query"]["query"], chosen)[len("label_values(") : -1].rsplit(", ", 1)
            values = self.prometheus.label_values(label, selector)
            assert values, variable["name"]
            chosen[variable["name"]] = variable.get("allValue") or values
        return chosen


@pytest.fixture(scope="module")
def settings(kafka: LocalKafka) -> Settings:
    """Windows of 5 s, so that some are complete before the load ends."""
    built = own_settings(kafka.bootstrap_servers, window_seconds=5, allowed_delay_seconds=1)
    reconcile(built)
    return built


@pytest.fixture(scope="module")
def observed(settings: Settings, kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """A bridge with a queue and two workers; partitions move twice and a worker restarts while the load comes in."""
    directory = tmp_path_factory.mktemp("observed")
    with contextlib.ExitStack() as stack:
        emulator = stack.enter_context(MnsEmulator("vod-events"))
        credentials = {"access_key_id": "LTAI5t", "access_key_secret": "s3cret"}
        queue = {"endpoint": emulator.endpoint, "queue": "vod-events", **credentials}
        bridge = BridgeProcess(settings, directory, mns=json.dumps([queue]))
        one, two = (WorkerProcess(settings, directory, name=name) for name in ("one", "two"))
        jobs = {"bridge": [bridge.metrics_port], "worker": [one.port, two.port]}
        prometheus = stack.enter_context(Prometheus(directory / "prometheus", jobs, rules=[RULES]))
        for process in (bridge, one, two):
            stack.callback(process.kill)
        asyncio.run(bridge.start())
        one.start()
        eventually(lambda: [] if one.records() else [one.tail()], seconds=WAIT_SECONDS)
        began = time.time()
        asyncio.run(_load(bridge, kafka, emulator, one, two))
        eventually(lambda: differences(settings), seconds=WAIT_SECONDS)
        eventually(lambda: _unseen(prometheus, settings), seconds=WAIT_SECONDS)
        yield Observed(prometheus=prometheus, settings=settings, bridge=bridge, began=began, ended=time.time())


async def _load(
    bridge: BridgeProcess, kafka: LocalKafka, emulator: MnsEmulator, one: WorkerProcess, two: WorkerProcess
) -> None:
    """Send until all that is to happen meanwhile has happened, however long this machine takes for it."""
    shares = {"duplicates": 0.1, "failures": 0.3, "malformed": 0.1, "conflicts": 0.05}
    plan = Plan(rate=100, seconds=LOAD_SECONDS_MAX, seed=1, **shares)
    receiver = Receiver(
        base_url=f"http://127.0.0.1:{bridge.port}", path="/callback", callback=Callback(url=URL, auth_keys=(KEY,))
    )
    until = time.monotonic() + LOAD_SECONDS_MIN
    async with asyncio.TaskGroup() as group:
        loads = [group.create_task(simulate(plan, receiver)), group.create_task(_beside(bridge, emulator))]
        await _trouble(bridge, kafka, one, two)
        await asyncio.sleep(until - time.monotonic())
        for load in loads:
            load.cancel()


async def _trouble(bridge: BridgeProcess, kafka: LocalKafka, one: WorkerProcess, two: WorkerProcess) -> None:
    """Partitions move to a second worker, Kafka stands still until callbacks are spooled, the first worker restarts."""
    two.start()
    await asyncio.to_thread(two.wait_until_working, seconds=WAIT_SECONDS)

    async def is_spooling() -> bool:
        return await bridge.metric("vod_pipeline_spool_written_records_total") >= 20

    kafka.pause()
    try:
        await until(is_spooling, seconds=WAIT_SECONDS, pause_seconds=0.1)
    finally:
        kafka.resume()
    one.terminate()
    one.start()
    await asyncio.to_thread(one.wait_until_working, seconds=WAIT_SECONDS)


async def _beside(bridge: BridgeProcess, emulator: MnsEmulator) -> None:
    """What a simulated load lacks: wrong signatures, a request that comes again, a late event, and messages."""
    sent = Sent()
    late = deletion("late", datetime.now(UTC) - timedelta(minutes=5), code="Forbidden").value
    for number in count():
        emulator.put("vod-events", deletion(f"mns-{number}", datetime.now(UTC), code="InternalError").value.decode())
        await send(bridge.port, [late, late], sent)
        await send(bridge.port, [late], sent, key="WrongKey1")
        await asyncio.sleep(2)  # Spreads them over the load, so that there is a rate to see.


def _unseen(prometheus: Prometheus, settings: Settings) -> list[str]:
    """Say what a scrape has not brought yet: of the records in raw, or of the time that a rate needs."""
    written = sum(len(records) for records in read(settings, settings.kafka.topics.raw))
    total = "sum(max by (partition, outcome, reason) (vod_pipeline_records_total))"
    found, rate = prometheus.query(total), prometheus.query(f"rate({total}[{RATE_SECONDS}s:{SCRAPE_SECONDS}s])")
    return [] if found and rate and found[0].points[0][1] == written else [f"{found} of {written}, {rate}"]


def target(panel: str) -> Target:
    return next(target for target in TARGETS if target.panel == panel)


@pytest.mark.parametrize("asked", TARGETS, ids=[f"{number} {asked.panel}" for number, asked in enumerate(TARGETS)])
def test_a_panel_shows_numbers_under_the_labels_of_its_legend(observed: Observed, asked: Target) -> None:
    """No series with labels beyond the legend: two of them would have one name. No gaps but where nothing happened."""
    found = observed.ask(asked)

    assert bool(found) is (asked.panel not in EMPTY), asked
    for series in found:
        assert set(series.labels) == asked.legend, asked
        values = [value for _, value in series.points]
        assert not any(map(math.isinf, values)), asked
        assert any(map(math.isfinite, values)), asked
        assert min(value for value in values if math.isfinite(value)) >= 0, asked


@pytest.mark.parametrize("panel", SEEN)
def test_a_panel_shows_what_the_load_was(observed: Observed, panel: str) -> None:
    label, expected = SEEN[panel]

    above_zero = {
        series.labels.get(label)
        for asked in TARGETS
        if asked.panel == panel
        for series in observed.ask(asked)
        if max(value for _, value in series.points) > 0 or panel == "Records since the beginning"
    }

    assert expected <= above_zero


def test_totals_are_the_topics_own_after_partitions_moved(observed: Observed) -> None:
    """Exactly once up to the dashboard: two workers, two moves and a restart later, the sum is what raw has."""
    shown = observed.ask(target("Records since the beginning"))

    written = sum(len(records) for records in read(observed.settings, observed.settings.kafka.topics.raw))
    assert sum(series.points[-1][1] for series in shown) == written


@pytest.mark.parametrize("panel", ["Failures a second", "Failures in the last complete window"])
def test_a_chosen_code_is_the_only_one_shown(observed: Observed, panel: str) -> None:
    shown = observed.ask(target(panel), {"error_code": ["InvalidVideo.NotFound"]})

    assert {series.labels["error_code"] for series in shown} == {"InvalidVideo.NotFound"}


def test_a_chosen_instance_is_the_only_one_shown(observed: Observed) -> None:
    instance = f"127.0.0.1:{observed.bridge.metrics_port}"

    shown = observed.ask(target("CPU"), {"instance": [instance]})

    assert [series.labels for series in shown] == [{"job": "bridge", "instance": instance}]


@pytest.mark.parametrize(("name", "labels"), [("Restarts", {"job": "worker"}), ("Alerts", {"severity": "page"})])
def test_annotations_mark_a_restart_and_an_alert(observed: Observed, name: str, labels: dict[str, str]) -> None:
    annotations = DASHBOARDS[internals.TITLE]["annotations"]["list"]
    expr = next(annotation["expr"] for annotation in annotations if annotation["name"] == name)

    found = observed.prometheus.query_range(
        fill_in(expr, observed.everything()), start=observed.began, end=observed.ended, step=5
    )

    assert any(labels.items() <= series.labels.items() for series in found)
