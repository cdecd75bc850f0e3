"""The report stage: which chunks are worth a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from pipeline.core.contract import SUCCESS, Topics, pack_count_key
from pipeline.core.rates import ReportState
from pipeline.service.metrics.worker import WorkerMetrics
from pipeline.worker.chunk import Batch, Chunk
from pipeline.worker.report import OFFSET_INTERVAL, Reporting, ReportStage

if TYPE_CHECKING:
    pass

MINUTE = 60_000


class Record:
    """A count of window 0, as it lies in partial-counts."""

    def __init__(self, number: int) -> None:
        self.key = pack_count_key(0, 0, SUCCESS)
        self.value = b"%d" % number


class Clock:
    now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stage(clock: Clock) -> ReportStage:
    metrics = WorkerMetrics(CollectorRegistry())
    return ReportStage(
        topics=Topics.with_prefix("t."), group="g", partitions=1, window_ms=MINUTE, metrics=metrics, now_ms=clock
    )


def chunk(begin: int, *records: Any) -> Chunk:
    end = begin + len(records)
    batches = [Batch(records, len(records), end)] if records else []
    return Chunk("partial-counts", 0, begin, end, batches, idle=not records, now=None, behind=0)


def test_what_leads_to_rows_is_committed_at_once(stage: ReportStage) -> None:
    output = stage.process(Reporting(ReportState(1, MINUTE)), chunk(0, Record(1)))

    assert output is not None
    assert len(output.rows[0].batches) == 1


def test_positions_without_rows_are_committed_twice_a_second_at_most(stage: ReportStage, clock: Clock) -> None:
    """The same count again is no row: what one commit in between would save is read again, and changes nothing."""
    state = Reporting(ReportState(1, MINUTE))
    stage.process(state, chunk(0, Record(1)))
    committed = []
    for step in range(1, 21):
        clock.now += 100
        if stage.process(state, chunk(step, Record(1))) is not None:
            committed.append(step * 100)

    assert committed == list(range(OFFSET_INTERVAL, 2001, OFFSET_INTERVAL))


def test_the_last_position_is_committed_when_nothing_follows(stage: ReportStage, clock: Clock) -> None:
    state = Reporting(ReportState(1, MINUTE))
    stage.process(state, chunk(0, Record(1)))
    assert stage.process(state, chunk(1, Record(1))) is None

    clock.now += OFFSET_INTERVAL

    assert stage.process(state, chunk(2)) is not None
    clock.now += OFFSET_INTERVAL
    assert stage.process(state, chunk(2)) is None
