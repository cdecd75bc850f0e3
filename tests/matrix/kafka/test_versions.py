"""
The flow on older Kafkas, from what 2.8 has: callbacks, kill -9 of worker and broker, the audit.

`make test-long` runs it, as each version's jars are 80 MB.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from pipeline import audit
from pipeline.admin.doctor import Level
from pipeline.admin.doctor import kafka as doctor
from pipeline.admin.topics.apply import plan, reconcile
from pipeline.core.windows import format_time
from pipeline.kafka.tools.cluster import connect
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from tests.builders import body
from tests.harness.bridge import BridgeProcess, Sent, send
from tests.harness.old_kafka import OldKafka
from tests.harness.recount import differences
from tests.harness.worker import WorkerProcess
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSIONS = ("2.8.2", "3.3.2", "3.9.1", "4.0.0")
EVENTS = 300

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=VERSIONS)
def kafka(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OldKafka]:
    kafka = OldKafka(request.param, tmp_path / "kafka")
    with kafka:
        yield kafka


async def test_exactly_once_through_kill_9_of_worker_and_broker(kafka: OldKafka, tmp_path: Path) -> None:
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix="old."),
        worker=WorkerSettings(group="old", session_timeout_seconds=6),
    )
    reconcile(settings)
    sent = Sent()
    bridge = BridgeProcess(settings, tmp_path)
    await bridge.start()
    try:
        with WorkerProcess(settings, tmp_path, instance_id="one") as worker:
            for round_ in range(3):
                await send(
                    bridge.port,
                    [body(uuid.uuid4().hex, format_time(int(time.time() * 1000))) for _ in range(EVENTS)],
                    sent,
                )
                worker.wait_until_working(records=round_ * EVENTS + 1, seconds=60)
                match round_:
                    case 0:
                        worker.kill()
                        worker.start()
                    case 1:
                        kafka.kill()
                        kafka.start()
            eventually(lambda: differences(settings), seconds=90)
    finally:
        bridge.kill()

    assert (len(sent.taken), sent.refused) == (3 * EVENTS, [])
    with connect(settings.kafka) as cluster:
        assert plan(cluster, settings) == ()
    found = await asyncio.to_thread(lambda: list(doctor.examine(settings)))
    assert [finding for finding in found if finding.level is Level.FAIL] == []
    assert audit.run(settings).agrees
