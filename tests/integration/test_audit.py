"""The audit on a real Kafka: a good run passes, and each planted damage is found and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.ops import audit
from pipeline.settings import Settings
from tests.harness.load import mixture, write
from tests.harness.worker import WorkerProcess

pytestmark = pytest.mark.timeout(120)


def test_a_good_run_passes(settings: Settings, tmp_path: Path) -> None:
    """Nothing to find while the worker still runs: what it has not committed is in flight."""
    write(settings, mixture(2000, seed=21))
    with WorkerProcess(settings, tmp_path) as worker:
        worker.wait_until_working(records=2000)
        report = audit.run(settings)
    assert report.findings.kept == []
    assert report.notes == []
    assert report.balance.received + report.balance.in_flight == 2000
