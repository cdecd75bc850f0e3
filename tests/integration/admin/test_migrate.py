"""More partitions mean new topics: they must know what the old ones accepted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pipeline.admin import migrate
from pipeline.admin.topics.apply import reconcile
from pipeline.kafka.tools.cluster import ClusterError
from pipeline.kafka.tools.raw_writer import write_raw
from tests.harness.load import Load, deletion, mixture
from tests.harness.recount import differences, read
from tests.harness.worker import WorkerProcess
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.service.settings import Settings

RECORDS = 2000
PARTITIONS = 7


def with_more_partitions(settings: Settings) -> Settings:
    kafka = settings.kafka.model_copy(
        update={"topic_prefix": f"{settings.kafka.topic_prefix}more.", "partitions": PARTITIONS}
    )
    worker = settings.worker.model_copy(update={"group": f"{settings.worker.group}-more"})
    new: Settings = settings.model_copy(update={"kafka": kafka, "worker": worker})
    reconcile(new)
    return new


def accepted(settings: Settings) -> list[bytes]:
    return [record.value for records in read(settings, settings.kafka.topics.accepted) for record in records]


def test_what_was_accepted_before_is_a_duplicate_afterwards(settings: Settings, tmp_path: Path) -> None:
    """All callbacks come again after the move, to partitions that never saw them."""
    bodies = mixture(RECORDS, seed=11)
    with WorkerProcess(settings, tmp_path, name="old"), Load(settings, bodies, per_second=2000) as load:
        load.join()
        eventually(lambda: differences(settings))
    before = accepted(settings)
    new = with_more_partitions(settings)
    latest = max(record.timestamp for records in read(settings, settings.kafka.topics.raw) for record in records)

    carried = migrate.carry_over(new, old_prefix=settings.kafka.topic_prefix, now_ms=latest, progress=lambda: None)

    with WorkerProcess(new, tmp_path, name="new"):
        eventually(lambda: [] if len(accepted(new)) >= carried else ["not all are accepted"])
        with Load(new, bodies, per_second=2000) as load:
            load.join()
        eventually(lambda: differences(new))
    assert carried == len(before)
    assert sorted(accepted(new)) == sorted(before)


def test_what_the_horizon_is_about_to_forget_is_left_out(settings: Settings, tmp_path: Path) -> None:
    """It would only be rejected as expired. Kept: horizon less an hour, to the millisecond."""
    at = datetime.now(UTC).replace(microsecond=0)
    with WorkerProcess(settings, tmp_path):
        write_raw(settings.kafka, [(deletion("m", at).value, [])], lambda: None)
        eventually(lambda: [] if accepted(settings) else ["not yet accepted"])
    new = with_more_partitions(settings)
    last_ms = int(at.timestamp() * 1000) + (settings.worker.dedupe_horizon_seconds - 3600) * 1000
    old_prefix = settings.kafka.topic_prefix

    carried = [
        migrate.carry_over(new, old_prefix=old_prefix, now_ms=now_ms, progress=lambda: None)
        for now_ms in (last_ms, last_ms + 1)
    ]

    assert carried == [1, 0]


def test_a_prefix_without_topics_is_named(settings: Settings) -> None:
    with pytest.raises(ClusterError, match=r"no topic nothing\.accepted"):
        migrate.carry_over(settings, old_prefix="nothing.", now_ms=0, progress=lambda: None)
