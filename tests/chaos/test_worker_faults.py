"""Exactly once, whatever happens to a worker: each fault under load, judged by the independent recount."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipeline.ops.kafka import LocalKafka
from pipeline.settings import Settings, WorkerSettings
from tests.harness.load import Load, mixture
from tests.harness.recount import differences, eventually
from tests.harness.worker import WorkerProcess

RECORDS = 12_000
PER_SECOND = 3000
BROKER_PAUSE_SECONDS = 30

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The shortest session Kafka allows, so that a lost worker is noticed soon."""
    worker = WorkerSettings(group=settings.worker.group, session_timeout_seconds=6)
    return settings.model_copy(update={"worker": worker})


def all_is_accounted_for(settings: Settings, *, seconds: float = 60) -> None:
    eventually(lambda: differences(settings), seconds=seconds)


def test_killing_the_worker_again_and_again_loses_and_doubles_nothing(settings: Settings, tmp_path: Path) -> None:
    """A static member goes on at once, so five kills fit into one load."""
    worker = WorkerProcess(settings, tmp_path, instance_id="one")
    with worker, Load(settings, mixture(RECORDS, seed=1), per_second=PER_SECOND) as load:
        for kill in range(1, 6):
            worker.wait_until_working(records=load.written - PER_SECOND if kill > 1 else 1)
            worker.kill()
            worker.start()
        load.join()

        all_is_accounted_for(settings)


def test_rolling_restarts_with_sigterm_lose_and_double_nothing(settings: Settings, tmp_path: Path) -> None:
    """SIGTERM finishes the transaction in flight, leaves the group and exits with 0; the other takes over."""
    first, second = (WorkerProcess(settings, tmp_path, name=name) for name in ("first", "second"))
    with first, second, Load(settings, mixture(RECORDS, seed=2), per_second=PER_SECOND) as load:
        first.wait_until_working()
        codes = []
        for worker in (first, second, first):
            codes.append(worker.terminate())
            worker.start()
            worker.wait_until_working()
        load.join()

        assert codes == [0, 0, 0]
        all_is_accounted_for(settings)


def test_workers_that_join_and_leave_under_load_lose_and_double_nothing(settings: Settings, tmp_path: Path) -> None:
    """Each join and each kill moves partitions in the middle of chunks."""
    first, second = (WorkerProcess(settings, tmp_path, name=name) for name in ("first", "second"))
    with first, second, Load(settings, mixture(2 * RECORDS, seed=3), per_second=PER_SECOND) as load:
        second.wait_until_working()
        second.kill()
        first.wait_until_working(records=load.written)
        second.start()
        second.wait_until_working()
        load.join()

        all_is_accounted_for(settings)


def test_a_worker_that_was_paused_past_its_session_cannot_write_any_more(settings: Settings, tmp_path: Path) -> None:
    """The zombie wakes with chunks and a producer of before; its successor has fenced it."""
    zombie, successor = (WorkerProcess(settings, tmp_path, name=name) for name in ("zombie", "successor"))
    with zombie, Load(settings, mixture(2 * RECORDS, seed=4), per_second=PER_SECOND) as load:
        zombie.wait_until_working()
        zombie.pause()
        with successor:
            successor.wait_until_working(records=load.written)
            zombie.resume()
            load.join()

            all_is_accounted_for(settings)


def test_a_broker_that_stands_still_past_the_transaction_timeout_is_survived(
    kafka: LocalKafka, settings: Settings, tmp_path: Path
) -> None:
    """The coordinator ends the sole owner's transaction and fences it: it must come back by itself."""
    with WorkerProcess(settings, tmp_path) as worker, Load(settings, mixture(RECORDS, seed=5), per_second=1000) as load:
        worker.wait_until_working()
        kafka.pause()
        try:
            threading.Event().wait(BROKER_PAUSE_SECONDS)  # The fault itself: a broker that is away for so long.
        finally:
            kafka.resume()
        load.join()

        all_is_accounted_for(settings, seconds=90)
        assert worker.is_running()
