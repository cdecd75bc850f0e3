"""
The audit's speed: raw records judged a second, on a real Kafka.

``python -m tests.bench.audit`` fills `raw` as the worker's benchmark does, lets a worker decide on it, and audits that.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import uuid
from pathlib import Path

from pipeline import audit
from pipeline.admin import offsets
from pipeline.admin.topics.apply import reconcile
from pipeline.local.kafka import LocalKafka
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from tests.bench.worker import EVENTS, JARS, fill, validation_microseconds
from tests.harness.ports import free_port
from tests.harness.worker import WorkerProcess
from tests.waiting import eventually

WORKING_SECONDS_MAX = 300


def decide(settings: Settings, directory: Path, events: int) -> None:
    """Let a worker take in all of raw, and commit it."""
    with WorkerProcess(settings, directory) as worker:
        worker.wait_until_working(records=events, seconds=WORKING_SECONDS_MAX)
        eventually(lambda: in_flight(settings), seconds=WORKING_SECONDS_MAX)
        worker.terminate()


def in_flight(settings: Settings) -> list[str]:
    """Return which partitions the worker has not committed to their ends."""
    return [f"raw[{at.partition}]" for at in offsets.positions(settings) if (at.committed or 0) < at.end]


def main() -> None:
    """Fill, decide, audit, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--rounds", type=int, default=1, help="how often the same records are audited")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        kafka = LocalKafka(jars=JARS, directory=directory / "kafka", port=free_port(), controller_port=free_port())
        with kafka:
            settings = Settings(
                kafka=KafkaSettings(
                    bootstrap_servers=kafka.bootstrap_servers, topic_prefix=f"bench-{uuid.uuid4().hex[:8]}."
                ),
                worker=WorkerSettings(group="bench"),
            )
            reconcile(settings)
            asyncio.run(fill(settings, arguments.events))
            decide(settings, directory, arguments.events)
            for _ in range(arguments.rounds):
                yardstick = validation_microseconds()
                report = audit.run(settings)
                print(
                    f"audit: {report.balance.received / report.seconds:,.0f} raw records/s,"
                    f" {report.records / report.seconds:,.0f} records/s of all topics, {report.seconds:.1f} s"
                    f" (validating one body: {yardstick:.2f} us)",
                    flush=True,
                )
                if not report.agrees:
                    sys.exit(f"the audit does not agree: {report.findings.kept[0]}")


if __name__ == "__main__":
    main()
