"""What the tests of the audit share: one good run, whose records each of them damages in its own way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pipeline import audit
from pipeline.admin.topics.apply import reconcile
from pipeline.audit.findings import AuditReport
from pipeline.kafka.tools.cluster import connect
from tests.harness.load import mixture, write
from tests.harness.recorded import (
    ACCEPTED,
    RATES,
    RAW,
    RECORDS,
    REJECTED,
    Logs,
    Record,
    Run,
    copy,
    disagreements,
    settings_of,
)
from tests.harness.recount import read
from tests.harness.worker import WorkerProcess
from tests.waiting import eventually

if TYPE_CHECKING:
    from pipeline.local.kafka import LocalKafka


@pytest.fixture(scope="session")
def run(kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A good run, which the audit finds good while the worker is at it and when it is done."""
    settings = settings_of(kafka)
    reconcile(settings)
    write(settings, mixture(RECORDS, seed=21))
    with WorkerProcess(settings, tmp_path_factory.mktemp("worker")) as worker:
        worker.wait_until_working(records=RECORDS, seconds=120)
        eventually(lambda: disagreements(audit.run(settings)))
        assert worker.terminate() == 0
    topics = settings.kafka.topics
    logs = {
        name: [
            [Record(each.key, each.value, each.timestamp, tuple(each.headers)) for each in records]
            for records in read(settings, topic)
        ]
        for name, topic in (
            (RAW, topics.raw), (ACCEPTED, topics.accepted), (REJECTED, topics.rejected), (RATES, topics.failure_rates)
        )
    }  # fmt: skip
    with connect(settings.kafka) as cluster:
        return Run(logs, cluster.committed(settings.worker.group, topics.raw, 2))


@pytest.fixture
def logs(run: Run) -> Logs:
    """The logs of the run, to be damaged."""
    return {name: [list(records) for records in partitions] for name, partitions in run.logs.items()}


@pytest.fixture
def audited(kafka: LocalKafka, run: Run) -> Callable[[Logs], AuditReport]:
    """Write logs into fresh topics, commit the run's offsets, and audit that."""

    def audited(logs: Logs) -> AuditReport:
        settings = settings_of(kafka)
        copy(settings, logs, run)
        return audit.run(settings, rows_timeout_seconds=0)

    return audited
