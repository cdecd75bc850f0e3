"""Queries on partitions that move between workers, evaluated by Prometheus itself on series written by hand."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.generated.grafana.dashboards import dashboards, to_json
from tests.harness.grafana import fill_in, targets
from tests.harness.tools import PROMTOOL

if TYPE_CHECKING:
    from pathlib import Path

QUERIES = {
    target.panel: target.expr
    for dashboard in dashboards().values()
    for target in targets(json.loads(to_json(dashboard)))
}
CHOSEN = {"job": "worker", "instance": ["a:1", "b:1"], "error_code": ".*", "__rate_interval": "1m", "__range": "5m"}


def series(name: str, instance: str, values: str, **labels: str) -> dict[str, str]:
    """Write a series of a worker; *values* in promtool's notation."""
    selector = ", ".join(f"{key}={json.dumps(value)}" for key, value in ({"instance": instance} | labels).items())
    return {"series": f'{name}{{job="worker", {selector}}}', "values": values}


def check(directory: Path, given: list[dict[str, str]], panel: str, at: str, expected: dict[str, float]) -> None:
    """Have promtool compare; *expected*: values by the labels as PromQL writes them."""
    test = {
        "rule_files": [],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": given,
                "promql_expr_test": [
                    {
                        "expr": fill_in(QUERIES[panel], CHOSEN),
                        "eval_time": at,
                        "exp_samples": [{"labels": labels, "value": value} for labels, value in expected.items()],
                    }
                ],
            }
        ],
    }
    path = directory / "test.yml"
    path.write_text(json.dumps(test))
    done = subprocess.run([PROMTOOL, "test", "rules", path], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


# Every 15 s. A partition moves from a to b after the fourth scrape; a does not know that yet and shows it three times
# more. It took in 150 records a scrape, and b 450 before its first one.
#            0s  15s   30s   45s     60s     75s     90s
MOVED = [
    ("a:1", "0    150   300   450     450     450     450    _x14"),
    ("b:1", "_    _     _     _       900     1050    1200   1350 1500 1650 1800+150x20"),
]


def moved(name: str, **labels: str) -> list[dict[str, str]]:
    return [series(name, instance, values, partition="0", **labels) for instance, values in MOVED]


@pytest.mark.parametrize(("at", "total"), [("45s", 450), ("60s", 900), ("90s", 1200), ("2m", 1500)])
def test_a_partition_two_workers_show_is_in_the_totals_once(tmp_path: Path, at: str, total: float) -> None:
    """The old owner's total is frozen, the new one's goes on from it: the sum of both would be double."""
    given = moved("vod_pipeline_records_total", outcome="accepted", reason="")

    check(tmp_path, given, "Records since the beginning", at, {'{outcome="accepted"}': total})


def test_what_a_new_owner_took_in_before_its_first_scrape_is_in_the_rate(tmp_path: Path) -> None:
    """
    From 30 s to 90 s the partition went from 300 to 1200.

    Series by series it would be 150 of a and 300 of b: the 450 between them are in neither.
    """
    given = moved("vod_pipeline_records_total", outcome="accepted", reason="")

    check(tmp_path, given, "Records a second, by outcome", "90s", {'{outcome="accepted"}': 15})


def test_a_restart_under_the_same_name_is_no_fall(tmp_path: Path) -> None:
    """Deletions are counted from 0 by every process: 10 a second before and after the restart at 2 minutes."""
    given = [series("vod_pipeline_deletions_total", "a:1", "0+150x7 0+150x20", status="fail", error_code="X")]

    check(tmp_path, given, "Failures a second", "4m", {'{error_code="X"}': 10})


def test_a_lag_two_workers_show_is_counted_once(tmp_path: Path) -> None:
    given = [series("vod_pipeline_lag_offsets", name, "7x20", stage="accept", partition="0") for name in ("a:1", "b:1")]
    given += [series("vod_pipeline_lag_offsets", "b:1", "5x20", stage="accept", partition="1")]

    check(tmp_path, given, "Records not read yet", "1m", {'{stage="accept"}': 12})


@pytest.mark.parametrize(("up", "ready", "expected"), [("1", "1", 2), ("1", "0", 1), ("0", "_", 0)])
def test_a_process_is_ready_or_not_or_down(tmp_path: Path, up: str, ready: str, expected: float) -> None:
    given = [series("up", "a:1", up), series("vod_pipeline_ready", "a:1", ready)]

    check(tmp_path, given, "Ready", "0s", {'{instance="a:1", job="worker"}': expected})
    check(tmp_path, given, "Processes not ready", "0s", {"{}": 0 if expected == 2 else 1})


def test_the_oldest_callback_has_an_age_only_while_one_waits(tmp_path: Path) -> None:
    given = [
        series("vod_pipeline_spool_oldest_timestamp_seconds", "a:1", "0 10 10"),
        series("vod_pipeline_spool_records", "a:1", "0 1 1"),
    ]

    check(tmp_path, given, "Oldest callback on disk", "0s", {'{instance="a:1"}': 0})
    check(tmp_path, given, "Oldest callback on disk", "30s", {'{instance="a:1"}': 20})


def test_a_partition_without_an_owner_is_counted(tmp_path: Path) -> None:
    given = [
        series("vod_pipeline_partitions", "a:1", "4x9"),
        series("vod_pipeline_state_keys", "a:1", "1x9", partition="2"),
    ]

    check(tmp_path, given, "Partitions without an owner", "1m", {"{}": 3})
