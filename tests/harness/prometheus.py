"""A real Prometheus that scrapes what a test runs, and answers its queries; gone with the test."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.ports import free_port
from tests.harness.tools import PROMETHEUS

SCRAPE_SECONDS = 1
START_SECONDS = 60
STOP_SECONDS = 60
POLL_SECONDS = 0.05


class QueryError(Exception):
    """Prometheus refused a query; the message is its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A series of an answer: its labels, and (time in seconds since the epoch, value)."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


class Prometheus:
    """
    One server on a free port.

    Args:
        directory: Its data, configuration and log.
        jobs: The ports to scrape on loopback, by job.
        rules: Text of rule files to load.
    """

    def __init__(self, directory: Path, jobs: Mapping[str, Sequence[int]], *, rules: Sequence[str] = ()) -> None:
        self.port = free_port()
        self._directory = directory
        self._jobs = jobs
        self._rules = rules
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        self._write_configuration()
        with (self._directory / "prometheus.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    PROMETHEUS,
                    f"--config.file={self._directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def query(self, expr: str) -> list[Series]:
        """Evaluate *expr* now."""
        found = self._api("query", query=expr)
        return [Series(labels=each["metric"], points=[_point(each["value"])]) for each in found["result"]]

    def query_range(self, expr: str, *, start: float, end: float, step: float) -> list[Series]:
        """Evaluate *expr* at each *step* from *start* to *end*, in seconds (since the epoch)."""
        found = self._api("query_range", query=expr, start=start, end=end, step=step)
        return [Series(labels=each["metric"], points=[_point(p) for p in each["values"]]) for each in found["result"]]

    def label_values(self, label: str, selector: str) -> list[str]:
        """Return the values *label* has in the series of *selector*."""
        values: list[str] = self._api(f"label/{label}/values", **{"match[]": selector})
        return values

    def _api(self, path: str, **parameters: object) -> Any:
        data = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{data}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise QueryError(json.load(error)["error"]) from error

    def _write_configuration(self) -> None:
        """Write it as JSON, which is YAML, too."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for number, rules in enumerate(self._rules):
            (self._directory / f"rules-{number}.yml").write_text(rules)
        configuration = {
            "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
            "rule_files": [f"rules-{number}.yml" for number in range(len(self._rules))],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
                for job, ports in self._jobs.items()
            ],
        }
        (self._directory / "prometheus.yml").write_text(json.dumps(configuration))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=30):
                    return
            except OSError:
                time.sleep(POLL_SECONDS)
            if self._process is not None and self._process.poll() is not None:
                break
        raise AssertionError((self._directory / "prometheus.log").read_text())


def _point(pair: Sequence[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])
