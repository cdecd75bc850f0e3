"""The Prometheus configuration: every alert fires on its story and is quiet on its neighbours, and has a runbook."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from pipeline.bridge.sums import Sums
from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.metrics.mns import MnsMetrics
from pipeline.service.metrics.process import ProcessMetrics
from pipeline.service.metrics.worker import WorkerMetrics
from tests.harness.alert_stories import HEALTHY, STORIES, Story
from tests.harness.alert_stories.healthy import DENIALS, DENIED, OVERLOADED
from tests.harness.tools import PROMTOOL

ROOT = Path(__file__).parents[3]
DIRECTORY = ROOT / "config" / "prometheus"
RULE_FILES = ("rules.yml", "alerts.yml")
CONFIGURATIONS = ("prometheus.yml", "local.yml")
TOOL_SECONDS_MAX = 200  # It takes 5 s on an idle machine.
RUNBOOKS = ROOT / "docs" / "runbooks.md"


GROUPS = [group for name in RULE_FILES for group in yaml.safe_load((DIRECTORY / name).read_text())["groups"]]


def rules() -> Iterator[dict[str, Any]]:
    for group in GROUPS:
        yield from group["rules"]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDS = [rule["record"] for rule in rules() if "record" in rule]


def promtool(*arguments: str | Path) -> str:
    """Run promtool; returns what it says, and fails with that if it is not content."""
    environ = {**os.environ, "GOGC": "800"}  # It ends soon: collecting its garbage took a third of its time.
    run = subprocess.run(
        [PROMTOOL, *arguments], env=environ, capture_output=True, text=True, timeout=TOOL_SECONDS_MAX, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def unit_of(story: Story) -> dict[str, Any]:
    """Write *story* as promtool has it: what fires in all, and of each what it says."""
    samples, step_seconds = story.at // story.step_minutes, 60 * story.step_minutes
    series = {**HEALTHY, **story.series}
    expected = [
        {
            "alertname": alert,
            "eval_time": f"{story.at}m",
            "exp_alerts": [
                {
                    "exp_labels": {**labels, **ALERTS[alert]["labels"]},
                    "exp_annotations": {**ALERTS[alert]["annotations"], "description": says},
                }
            ],
        }
        for alert, (labels, says) in story.fires.items()
    ]
    firing = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{story.at}m",
        "exp_samples": [
            {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(story.fires.keys() | story.also)
        ],
    }
    return {
        "name": story.name,
        "interval": f"{story.step_minutes}m",
        "input_series": [
            {"series": name, "values": values.replace("{n}", str(samples)).replace("{step}", str(step_seconds))}
            for name, values in series.items()
            if values
        ],
        "alert_rule_test": expected,
        "promql_expr_test": [firing],
    }


def run(stories: list[Story], directory: Path) -> None:
    """Have promtool run *stories*."""
    for step_minutes in {story.step_minutes for story in stories}:
        tests = [unit_of(story) for story in stories if story.step_minutes == step_minutes]
        content = {
            "rule_files": [str(DIRECTORY / name) for name in RULE_FILES],
            "evaluation_interval": f"{step_minutes}m",
            "group_eval_order": [group["name"] for group in GROUPS],  # promtool's own is any.
            "tests": tests,
        }
        path = directory / f"stories-{step_minutes}m.json"  # JSON is YAML.
        path.write_text(json.dumps(content, indent=1))
        promtool("test", "rules", path)


@pytest.mark.timeout(2 * TOOL_SECONDS_MAX)
def test_each_alert_fires_on_its_story_alone(tmp_path: Path) -> None:
    """In every story exactly the alerts it names fire, with the labels and the sentence it gives."""
    run(STORIES, tmp_path)


def counted_by_two(minutes: int, *, ends_at: int) -> dict[str, str | None]:
    """Return what two bridge processes behind one port show together, of which one ends; what they counted is old."""
    sums = Sums()
    shown: dict[str, list[str]] = {OVERLOADED: [], DENIALS: [], DENIED: []}
    for minute in range(minutes):
        for number in (1, 2):
            registry = CollectorRegistry()
            is_new = number == 1 and minute >= ends_at
            ProcessMetrics(registry, started_at=ends_at if is_new else 0, certificates={})
            metrics = BridgeMetrics(registry)
            if not is_new:
                metrics.requests.labels("overloaded", "a").inc(20)
                metrics.requests.labels("denied", "a").inc(200)
                metrics.denials.labels("signature_wrong", "a").inc(200)
            sums.take(number, generate_latest(registry).decode())
        total = {
            (sample.name, *sample.labels.values()): sample.value for each in sums.page() for sample in each.samples
        }
        for name, values in shown.items():
            metric, label = name.partition("{")[0], name.rpartition("=")[2].strip('"}')
            values.append(f"{total[metric, 'a', label]:.0f}")
    return {name: " ".join(values) for name, values in shown.items()}


def test_one_of_several_bridge_processes_that_ends_sets_off_no_alert(tmp_path: Path) -> None:
    """Prometheus takes a counter that falls for one that began anew: all that is left of it would count as new."""
    series = counted_by_two(80, ends_at=60)

    run([Story(f"{at - 60} minutes after it ended", at, series) for at in (62, 64, 67, 70)], tmp_path)


def test_each_alert_has_a_story() -> None:
    """And there is more than one story in which it does not fire: all of the others."""
    assert {alert for story in STORIES for alert in story.fires} == ALERTS.keys()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_prometheus_takes_the_configuration_and_its_rules(name: str) -> None:
    said = promtool("check", "config", DIRECTORY / name)

    assert f"{len(RULE_FILES)} rule files found" in said


def test_the_configurations_differ_in_their_targets_alone() -> None:
    """What is alerted on in the one place is alerted on in the other."""
    both = [yaml.safe_load((DIRECTORY / name).read_text()) for name in CONFIGURATIONS]
    for each in both:
        each["scrape_configs"] = [job["job_name"] for job in each["scrape_configs"]]

    assert both[0] == both[1]
    assert both[0]["scrape_configs"] == ["bridge", "worker"]


def catalogue() -> set[str]:
    """The names of all samples our services can show, as the real registry writes them."""
    registry = CollectorRegistry()
    ProcessMetrics(registry, started_at=0, certificates={})
    BridgeMetrics(registry)
    MnsMetrics(registry, [("a", "q")])
    WorkerMetrics(registry)
    suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
    return {family.name + suffix for family in registry.collect() for suffix in suffixes[family.type]}


def test_every_metric_in_the_rules_exists() -> None:
    """A misspelt name is a rule that never says anything."""
    recorded = set(RECORDS)
    for rule in rules():
        named = set(re.findall(r"[a-z0-9_]+:[a-z0-9_]+:[a-z0-9_]+|\bvod_pipeline_\w+", rule["expr"]))
        assert named <= catalogue() | recorded, (rule.get("alert") or rule["record"], named - catalogue() - recorded)


def test_every_metric_in_the_stories_exists() -> None:
    named = {name.partition("{")[0] for story in STORIES for name in {**HEALTHY, **story.series}}

    assert named - {"up"} <= catalogue()


def test_recording_rules_are_named_level_metric_operations() -> None:
    assert [name for name in RECORDS if not re.fullmatch(r"[a-z]+:[a-z_]+:[a-z0-9_]+", name)] == []
    assert len(RECORDS) == len(set(RECORDS))


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_an_engineer_on_call_needs(alert: str) -> None:
    rule = ALERTS[alert]

    assert rule["labels"]["severity"] in ("critical", "warning")
    assert re.fullmatch(r"\d+m", rule["for"])
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert "{{ $value" in rule["annotations"]["description"] or alert in ("ProcessDown", "PartitionPaused")
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{alert.lower()}"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    """Each says what it means, what to look at and what to do, in the order of the alerts."""
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOKS.read_text(), re.MULTILINE | re.DOTALL))

    assert list(sections) == list(ALERTS)
    for name, text in sections.items():
        parts = re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE)
        assert parts == ["Means.", "Look at.", "Do."], name


def test_every_metric_in_the_runbooks_exists() -> None:
    names = set(re.findall(r"[a-z]+:[a-z_]+:[a-z0-9_]+|\bvod_pipeline_[a-z_]+", RUNBOOKS.read_text()))

    assert names <= catalogue() | set(RECORDS), names - catalogue() - set(RECORDS)
