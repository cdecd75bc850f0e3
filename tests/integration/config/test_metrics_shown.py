"""What Prometheus gets to read: pages without fault, and each partition once, no matter who owns it."""

from __future__ import annotations

import subprocess
import urllib.request
from pathlib import Path

import pytest

from pipeline.service.settings import Settings, WorkerSettings
from tests.harness.bridge import BridgeProcess
from tests.harness.load import mixture, write
from tests.harness.tools import PROMTOOL
from tests.harness.worker import WorkerProcess
from tests.waiting import eventually

RECORDS = 400


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The shortest session Kafka allows, so that a lost worker is noticed soon."""
    worker = WorkerSettings(group=settings.worker.group, session_timeout_seconds=6)
    return settings.model_copy(update={"worker": worker})


def page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return str(answer.read().decode())


def lint(port: int) -> str:
    """Return what promtool finds wrong with a page of metrics."""
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=page(port), text=True, capture_output=True, timeout=30, check=False
    )
    return checked.stdout + checked.stderr


def shown_once(workers: list[WorkerProcess], *, each: int) -> list[str]:
    """Say what is wrong with the partitions *workers* show: each owns *each*, all of them once, and all add up."""
    shown = [worker.by_partition() for worker in workers]
    partitions = sorted(partition for pages in shown for partition in pages)
    sums = [sum(page[side] for pages in shown for page in pages.values()) for side in (0, 1)]
    is_right = [len(pages) for pages in shown] == [each] * len(workers) and partitions == ["0", "1", "2", "3"]
    return [] if is_right and sums == [RECORDS, RECORDS] else [f"{shown}"]


def test_a_partition_that_moves_is_shown_by_its_owner_alone(settings: Settings, tmp_path: Path) -> None:
    """A worker that went on showing what it lost would double every sum, and its lag would page someone for ever."""
    first, second = (WorkerProcess(settings, tmp_path, name=name) for name in ("first", "second"))
    with first:
        write(settings, mixture(RECORDS, seed=6))
        first.wait_until_working(records=RECORDS)
        assert shown_once([first], each=4) == []

        with second:
            eventually(lambda: shown_once([first, second], each=2))
            second.terminate()
        eventually(lambda: shown_once([first], each=4))
        assert lint(first.port) == ""


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_bridges_page_is_without_fault(settings: Settings, tmp_path: Path, workers: int) -> None:
    """One bridge's, and the sums of several."""
    bridge = BridgeProcess(settings, tmp_path, workers=workers)
    await bridge.start()
    try:
        eventually(
            lambda: [] if "vod_pipeline_spool_limit_bytes" in page(bridge.metrics_port) else ["not up"], seconds=60
        )
        assert lint(bridge.metrics_port) == ""
    finally:
        bridge.kill()
