"""The dashboards as files: as generated, of metrics that exist, laid out and explained."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.generated.grafana import dashboards, internals, overview
from tests.generated.grafana.panels import STEP_SECONDS, catalogue
from tests.harness.grafana import fill_in, panels, targets

CONFIG = Path(__file__).parents[3] / "config"
GRAFANA = CONFIG / "grafana"
FILES = [f"{overview.UID}.json", f"{internals.UID}.json"]
SUFFIXES = ("_total", "_bucket", "_sum", "_count", "")
NOT_OURS = {"up", "ALERTS"}  # Prometheus's own.
ADDED_TO_THE_SDK = ("titleFormat", "textFormat", "step")


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((GRAFANA / "dashboards" / name).read_text())
    return loaded


def queries(dashboard: dict[str, Any]) -> list[str]:
    """All it asks Prometheus: panels, annotations, and the values of the variables."""
    of_panels = [target.expr for target in targets(dashboard)]
    of_annotations = [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
    of_variables = [
        variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"
    ]
    return of_panels + of_annotations + of_variables


def metrics(expr: str) -> set[str]:
    return set(re.findall(r"([A-Za-z_:][\w:]*)\{", expr)) | set(re.findall(r"label_values\((\w+)", expr))


def family(name: str) -> str | None:
    """Return the catalogue's name of what a query names."""
    stems = (name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix))
    return next((stem for stem in stems if stem in catalogue()), None)


def test_every_committed_dashboard_is_one_that_the_code_writes() -> None:
    """What they hold is compared with the other generated files, in tests/unit/docs/test_generated.py."""
    assert sorted(dashboards.dashboards()) == sorted(path.name for path in (GRAFANA / "dashboards").iterdir())


@pytest.mark.parametrize("name", FILES)
def test_grafanas_own_models_read_it_without_a_loss(name: str) -> None:
    """There is no Grafana here; its models, generated from its schemas, are the nearest to it."""
    committed = load(name)

    read = json.loads(json.dumps(Dashboard.from_json(load(name)), cls=JSONEncoder))

    for annotation in committed["annotations"]["list"]:
        for key in ADDED_TO_THE_SDK:
            assert annotation.pop(key)
    assert read == committed


@pytest.mark.parametrize("name", FILES)
def test_every_metric_is_in_the_catalogue(name: str) -> None:
    """A panel of a metric that was renamed stays empty, and looks as if all were well."""
    named = set().union(*map(metrics, queries(load(name))))

    assert {metric for metric in named - NOT_OURS if family(metric) is None} == set()
    assert len(named) > 10


def test_every_metric_of_the_catalogue_is_shown() -> None:
    """A metric that is not shown is not known; process_ and python_ ones are a library's choice."""
    shown = {family(metric) for name in FILES for query in queries(load(name)) for metric in metrics(query)}

    assert {metric for metric in catalogue() if metric.startswith("vod_pipeline_")} - shown == set()


@pytest.mark.parametrize("name", FILES)
def test_panels_lie_side_by_side_on_the_24_columns(name: str) -> None:
    """Grafana moves panels that overlap, each time somewhere else."""
    cells = [(panel["title"], panel["gridPos"]) for panel in load(name)["panels"]]

    overlapping = [
        (one, other)
        for (one, a), (other, b) in combinations(cells, 2)
        if a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
    ]
    assert overlapping == []
    assert [title for title, cell in cells if cell["x"] + cell["w"] > 24 or cell["w"] < 1 or cell["h"] < 1] == []


@pytest.mark.parametrize("name", FILES)
def test_every_panel_has_a_unit_a_sentence_and_a_runbook(name: str) -> None:
    """A number without a unit is a guess, and an engineer at night needs the next step."""
    for panel in panels(load(name)):
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert len(panel["description"]) > 30, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert re.fullmatch(r"\$\{runbooks:raw\}(#[a-z]+)?", panel["links"][0]["url"]), panel["title"]
        assert panel["targets"], panel["title"]


@pytest.mark.parametrize("name", FILES)
def test_runbook_links_lead_to_an_alerts_section(name: str) -> None:
    """Each alert has a section in docs/runbooks.md under its name: test_prometheus.py sees to that."""
    alerts = re.findall(r"- alert: (\w+)", (CONFIG / "prometheus" / "alerts.yml").read_text())
    anchors = {panel["links"][0]["url"].partition("#")[2] for panel in panels(load(name))}

    assert anchors - {""} <= {alert.lower() for alert in alerts}
    assert len(anchors) > 5


@pytest.mark.parametrize("name", FILES)
def test_ids_and_titles_are_each_used_once(name: str) -> None:
    """Links to a panel go by its id; people go by its title."""
    all_panels = load(name)["panels"]

    for key in ("id", "title"):
        assert len({panel[key] for panel in all_panels}) == len(all_panels)


@pytest.mark.parametrize("name", FILES)
def test_every_query_looks_at_the_chosen_jobs_only(name: str) -> None:
    """A Prometheus is shared: process_cpu_seconds_total of everything else it scrapes is none of ours."""
    for target in targets(load(name)):
        selectors = re.findall(r"\{(.*?)\}", target.expr)
        assert selectors
        assert all(s.startswith('job=~"$job", instance=~"$instance"') for s in selectors), target


@pytest.mark.parametrize("name", FILES)
def test_variables_are_declared_before_they_are_used(name: str) -> None:
    """Grafana sends an unknown $name to Prometheus as it is."""
    dashboard = load(name)
    known = {"__rate_interval": "1m", "__range": "1h", "datasource": "d"}

    for variable in dashboard["templating"]["list"]:
        fill_in(json.dumps(variable.get("query", "")), known)
        known[variable["name"]] = "x"
    for query in queries(dashboard):
        assert "$" not in fill_in(query, known)


def test_the_dashboards_find_the_provisioned_scrape_interval() -> None:
    """$__rate_interval is four of it: with fewer, a subquery of that step finds less than two samples."""
    datasource = (GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text()

    assert re.search(rf"timeInterval: {STEP_SECONDS}s\b", datasource)


def test_a_chosen_code_is_matched_as_it_is() -> None:
    """ErrorCodes have dots, and a sender may put anything into one."""
    filled = fill_in('a{c=~"$code"}[$__rate_interval]', {"code": ["a.b", "c|d"], "__rate_interval": "1m"})

    assert filled == r'a{c=~"(a\\.b|c\\|d)"}[1m]'
