"""The demonstration on a real bridge, worker and Kafka: its last word is the audit's."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from pipeline.kafka.tools.cluster import UnreachableError
from pipeline.local import demo
from pipeline.local.simulator import CallbackKind, Plan
from pipeline.service.settings import BridgeSettings, CallbackSettings, KafkaSettings, Settings, WorkerSettings
from tests.harness.bridge import KEY, URL, BridgeProcess
from tests.harness.ports import free_port
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

CALLBACK = CallbackSettings.model_validate({"url": URL, "auth_keys": [KEY]})
PLAN = Plan(rate=100, seconds=2, duplicates=0.2, failures=0.1, malformed=0.1, conflicts=0.1, seed=5)


def on_port(settings: Settings, port: int) -> Settings:
    return settings.model_copy(update={"bridge": BridgeSettings(port=port)})


async def test_what_was_sent_is_audited(settings: Settings, tmp_path: Path) -> None:
    """Copies are no disagreement: of 200 callbacks, what the bridge did not publish twice is in raw, and in balance."""
    bridge = BridgeProcess(settings, tmp_path)
    screen = io.StringIO()
    console = Console(file=screen)
    await bridge.start()
    try:
        with WorkerProcess(settings, tmp_path):
            summary, report = await asyncio.to_thread(demo.run, on_port(settings, bridge.port), CALLBACK, PLAN, console)
    finally:
        bridge.kill()

    balance = report.balance
    assert (summary.sent_total, summary.answered, summary.lost_total) == (200, {200: 200}, 0)
    assert report.agrees
    assert balance.in_flight == 0
    assert balance.accepted_found == summary.sent[CallbackKind.SUCCESS] + summary.sent[CallbackKind.FAILURE]
    assert balance.rejected_found["conflict"] == summary.sent[CallbackKind.CONFLICT]
    assert 0 < balance.received <= 200
    assert "Failure rates by event time" in screen.getvalue()


def test_without_kafka_it_fails_and_claims_nothing(tmp_path: Path) -> None:
    """The table's thread ended with a traceback, and the command with 0 and a wrong verdict."""
    kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}")
    settings = on_port(Settings(kafka=kafka, worker=WorkerSettings(group="away")), free_port())

    with pytest.raises(UnreachableError):
        demo.run(settings, CALLBACK, PLAN, Console(file=io.StringIO()))


def simulate(bridge: BridgeProcess) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "simulate", "--rate", "20", "--seconds", "0.5"]
    return subprocess.run(command, env=bridge.environ, capture_output=True, text=True, check=False, timeout=60)


async def test_simulate_counts_what_was_answered_and_needs_no_kafka(tmp_path: Path) -> None:
    """The spool has them; what becomes of them is the audit's to tell. Without a bridge they are lost."""
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}"))
    bridge = BridgeProcess(settings, tmp_path)
    await bridge.start()
    try:
        spooled = await asyncio.to_thread(simulate, bridge)
    finally:
        bridge.kill()
    lost = await asyncio.to_thread(simulate, bridge)

    assert spooled.returncode == 0, spooled
    assert "Answers: 10 x 200; 0 without one, 0 retries, 0 lost." in spooled.stdout
    assert lost.returncode == 1, lost
    assert "Answers: none; 30 without one, 20 retries, 10 lost." in lost.stdout
    assert "Traceback" not in spooled.stderr + lost.stderr
