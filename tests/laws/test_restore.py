"""A state is taken only if it holds all that was committed."""

from __future__ import annotations

import json

import pytest
from aiokafka import TopicPartition

from pipeline.worker.partition import FAILURES_MAX
from tests.laws.deliveries import BROKEN, deletion
from tests.laws.log import PartitionLog
from tests.laws.test_every_await import RAW, delivered, play
from tests.laws.worker import COUNTS, GROUP, METRICS, POLICY, TOPICS, Worker
from tests.laws.world import START, World

ACCEPTED = TopicPartition(TOPICS.accepted, 0)
RATES = TopicPartition(TOPICS.failure_rates, 0)
ZERO = {"partition": "0"}


@pytest.fixture
def world() -> World:
    """A partition that a worker has read to its end, before it ended."""
    world = delivered()
    worker = Worker(world.broker)
    play(worker)
    worker.settle()
    worker.kill()
    world.broker.settle()
    assert len(world.broker.log(ACCEPTED).committed()) == 3
    return world


def repeat(world: World) -> None:
    """Deliver once more what was accepted."""
    for media, at, content in ((0, START, 0), (2, START - 61_000, 1), (4, START, 1)):
        world.deliver(deletion(media, at, content))


@pytest.mark.parametrize("back", range(6))
def test_a_leader_of_old_is_not_believed(world: World, back: int) -> None:
    """A broker that is cut off from all but the worker ends before what was accepted last: it would come again."""
    world.broker.stale[ACCEPTED] = [max(0, world.broker.log(ACCEPTED).end - back)]
    repeat(world)

    world.drain()

    assert world.broker.stale[ACCEPTED] == []


def test_what_stays_away_pauses_the_partition(world: World) -> None:
    """No one knows whether it is lost, so nothing is decided, and the worker does not end for it."""
    world.broker.stale[ACCEPTED] = [0] * (FAILURES_MAX + 5)
    repeat(world)
    worker = Worker(world.broker)
    worker.fetch(RAW, records_max=9)
    chunk = worker.next_chunk(RAW)
    assert chunk is not None

    worker.play_for(120, worker.handle(RAW, chunk))
    assert "raw offset 7" in worker.paused(RAW)
    assert "offsets reset --partition 0 --to earliest" in worker.paused(RAW)

    world.drain(worker)


def test_a_commit_of_a_version_that_named_nothing_is_taken(world: World) -> None:
    where = GROUP, RAW
    offset, metadata = world.broker.offsets[where]
    named = json.loads(metadata)
    del named["last_accepted"]
    world.broker.offsets[where] = offset, json.dumps(named)
    repeat(world)

    world.drain()


@pytest.mark.parametrize("ahead", [3_600_001, 8 * 3_600_000, 30 * 86_400_000])
def test_a_stamp_of_a_wrong_clock_stops_no_worker(world: World, ahead: int) -> None:
    """Raw holds a record before the committed offset that is newer than the stream time, and yet is the same raw."""
    before = jumps()
    for delivery, by in ((BROKEN, ahead), (deletion(6, world.broker.now, 0), 0)):
        world.deliver(delivery, ahead=by)
        worker = Worker(world.broker)
        worker.fetch(RAW, records_max=9)
        worker.work(RAW)
        worker.settle()
        worker.kill()
        world.broker.settle()
    repeat(world)

    world.drain()

    assert [record.key for record in world.broker.log(ACCEPTED).committed()][-1:] == [b"m6"]
    assert jumps() == before + 1


def jumps() -> float:
    """Return how many jumps of partition 0 were counted, in all runs so far."""
    (metric,) = METRICS.clock_jumps.collect()
    return sum(sample.value for sample in metric.samples if sample.name.endswith("_total") and sample.labels == ZERO)


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_has_expired_need_not_be_there(world: World, *, is_kept: bool) -> None:
    """The last event was accepted so long ago that nothing has to be remembered, and retention may have taken it."""
    world.wait(2 * POLICY.horizon)
    world.deliver(BROKEN)
    worker = Worker(world.broker)
    worker.fetch(RAW, records_max=9)
    worker.work(RAW)
    worker.settle()
    worker.kill()
    world.broker.settle()
    if not is_kept:
        world.broker.log(ACCEPTED).drop_before(world.broker.log(ACCEPTED).end)
    world.deliver(deletion(6, world.broker.now, 0))
    worker = Worker(world.broker)
    worker.fetch(RAW, records_max=9)
    worker.work(RAW)
    worker.settle()

    assert worker.paused(RAW) == ""
    assert [record.key for record in world.broker.log(ACCEPTED).committed()][-1:] == [b"m6"]
    worker.kill()


@pytest.mark.parametrize("ahead", [0, 8 * 3_600_000, 30 * 86_400_000])
def test_rows_are_right_where_partitions_begin_anew(world: World, ahead: int) -> None:
    """After `offsets reset`: the broker's clock was ahead for a while, so that the report forgot all windows."""
    world.deliver(deletion(1, START, 1))
    world.deliver(deletion(5, START + 61_000, 1))  # Of a window that nothing corrects.
    read(world)
    before = world.broker.now
    world.broker.now += ahead
    for _ in range(2):
        for delivery in (BROKEN, deletion(1, START, 1)):
            world.deliver(delivery)
        world.broker.now += 1
    read(world)
    world.broker.now = before
    world.begin_anew()
    worker = correct(world)

    world.drain(worker)


@pytest.mark.parametrize("lost", [COUNTS, RATES])
def test_rows_are_right_after_a_topic_was_made_anew(world: World, lost: TopicPartition) -> None:
    """Its partitions say all their counts again after `offsets reset`, which may leave the offset where it is."""
    world.deliver(deletion(1, START, 1))
    world.deliver(deletion(5, START + 61_000, 1))  # Of a window that nothing corrects.
    read(world)
    world.broker.logs[lost] = PartitionLog()
    world.broker.offsets.pop((GROUP, COUNTS))
    world.begin_anew()
    worker = correct(world)

    world.drain(worker)


def correct(world: World) -> Worker:
    """
    Deliver late events of windows that are complete, one after the other, to one worker, which is returned.

    Another one would restore what this one's report forgot.
    """
    worker = Worker(world.broker)
    for media, at in ((6, START), (8, START - 61_000), (3, START)):
        world.deliver(deletion(media, at, 1))
        read_round(world, worker)
    return worker


def read(world: World) -> None:
    """Have a worker read all there is, see windows end, and end."""
    worker = Worker(world.broker)
    for _ in range(3):
        read_round(world, worker)
    worker.kill()
    world.broker.settle()


def read_round(world: World, worker: Worker) -> None:
    """Have *worker* read what there is of each source; then a minute passes."""
    for tp in (RAW, TopicPartition(TOPICS.raw, 1), COUNTS):
        worker.fetch(tp, records_max=9)
        while worker.work(tp):
            continue
        worker.settle()
        world.broker.settle()
    world.wait(60_000)
