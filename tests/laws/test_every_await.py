"""The stages stopped at each of their suspension points, and each of their requests failed in each way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import TopicPartition

from tests.laws.client import Fault, ModelClient
from tests.laws.deliveries import BROKEN, FOREIGN, deletion
from tests.laws.loop import StoppedError
from tests.laws.worker import COUNTS, OUTPUTS, TOPICS, Worker
from tests.laws.world import START, World

RAW = TopicPartition(TOPICS.raw, 0)
STEPS_MAX = 500
REQUESTS_MAX = 60
LATE_STEPS = 200
FORGOTTEN_STEPS = 150  # A wait for a marker is long; by then its successors have had their chance.


def delivered() -> World:
    """A partition with some of everything, in two halves."""
    world = World()
    first, second = deletion(0, START, 0), deletion(2, START - 61_000, 1)
    for record in (first, BROKEN, second, first, FOREIGN, deletion(0, START, 2), second, deletion(4, START, 1), BROKEN):
        world.deliver(record)
        world.broker.now += 1000
    return world


def play(worker: Worker, *, steps: int | None = None, faults: dict[int, Fault] | None = None) -> None:
    """Take in the partition and its counts, in three chunks; stopped after *steps* in all."""
    worker.fetch(RAW, records_max=4)
    worker.fetch(RAW, records_max=9)

    async def all_of_it() -> None:
        for tp in (RAW, RAW, COUNTS):
            if tp == COUNTS:
                worker.fetch(tp, records_max=9)
            chunk = worker.next_chunk(tp)
            if chunk is not None:
                await worker.handle(tp, chunk)

    worker.play(all_of_it(), steps=steps, faults=faults)


def cuts() -> Iterator[int]:
    return iter(range(STEPS_MAX))


def test_killed_at_any_await_nothing_is_lost_or_doubled() -> None:
    """kill -9 between any two steps; the next one ends it."""
    for steps in cuts():
        world = delivered()
        worker = Worker(world.broker)
        is_over = plays_to_the_end(worker, steps)
        worker.kill()
        world.check()
        world.drain()
        if is_over:
            break
    assert 40 < steps < STEPS_MAX - 1


@pytest.mark.parametrize("tp", OUTPUTS, ids=[f"{tp.topic}-{tp.partition}" for tp in OUTPUTS])
def test_killed_at_any_await_where_markers_are_forgotten_nothing_is_lost_or_doubled(tp: TopicPartition) -> None:
    """Those of the first transaction there, committed or timed out; the next one must not decide on it."""
    for steps in range(FORGOTTEN_STEPS):
        world = delivered()
        world.broker.leaderless = {tp}
        worker, successor = Worker(world.broker), Worker(world.broker)
        plays_to_the_end(worker, steps)
        worker.kill()
        world.broker.time_out()
        world.check()
        play(successor)
        world.drain(successor)


def test_killed_at_any_await_while_it_ends_what_hangs_nothing_is_lost_or_doubled() -> None:
    """The markers of a transaction that was committed were forgotten, and who comes next is killed, too."""
    for steps in cuts():
        world = delivered()
        world.broker.leaderless = {TopicPartition(TOPICS.accepted, 0), TopicPartition(TOPICS.rejected, 0)}
        first, second = Worker(world.broker), Worker(world.broker)
        play(first)
        first.kill()
        is_over = plays_to_the_end(second, steps)
        second.kill()
        world.broker.time_out()
        world.check()
        world.drain()
        if is_over:
            break
    assert 40 < steps < STEPS_MAX - 1


def test_paused_at_any_await_a_zombie_changes_nothing() -> None:
    """SIGSTOP between any two steps; a successor does everything, and the zombie goes on where it was."""
    for steps in cuts():
        world = delivered()
        zombie = Worker(world.broker)
        is_over = plays_to_the_end(zombie, steps)
        world.drain()
        world.deliver(deletion(6, START, 0))
        zombie.resume()
        zombie.settle()
        world.broker.settle()
        world.check()
        zombie.kill()
        world.drain()
        if is_over:
            break
    assert 40 < steps < STEPS_MAX - 1


def test_cancelled_at_any_await_nothing_is_lost_or_doubled() -> None:
    """A rebalance takes the partition away between any two steps, and gives it back later."""
    for steps in cuts():
        world = delivered()
        worker = Worker(world.broker)
        is_over = plays_to_the_end(worker, steps)
        worker.cancel()
        worker.close(RAW)
        worker.close(COUNTS)
        world.broker.settle()
        world.check()
        worker.fetch(RAW, records_max=5)
        worker.work(RAW)
        worker.kill()
        world.drain()
        if is_over:
            break
    assert 40 < steps < STEPS_MAX - 1


@pytest.mark.parametrize(
    "faults",
    [*([fault] for fault in Fault), [Fault.ANSWER_LOST, Fault.REFUSED_FOR_GOOD]],
    ids=[*(fault.name for fault in Fault), "made again in vain"],
)
def test_any_request_may_fail(faults: list[Fault]) -> None:
    """The worker goes on by itself, from the committed offset."""
    for request in range(REQUESTS_MAX):
        world = delivered()
        worker = Worker(world.broker)
        play(worker, faults=dict(enumerate(faults, request)))
        count = worker.network.requests
        worker.settle()
        world.broker.deliver_late()
        world.broker.settle()
        world.check()
        world.drain(worker)
        if request >= count:
            break
    assert 15 < request < REQUESTS_MAX - 1


@pytest.mark.parametrize("late_by", range(1, 13))
def test_a_request_that_was_made_again_may_arrive_in_the_next_transaction(late_by: int) -> None:
    """The first one was lost on the way, as it seemed."""
    for request in range(REQUESTS_MAX):
        world = delivered()
        worker = Worker(world.broker)
        worker.network.late_by = late_by
        play(worker, faults={request: Fault.LATE})
        count = worker.network.requests
        worker.kill()
        world.broker.time_out()
        world.check()
        world.drain()
        if request >= count:
            break
    assert 15 < request < REQUESTS_MAX - 1


def test_offsets_that_come_when_their_worker_is_dead_hold_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were sent again and committed, so that no transaction is open that would decide on the late ones."""
    sent: set[int] = set()
    commit_offsets = ModelClient.commit_offsets

    async def noted(client: ModelClient, *arguments: Any) -> None:
        sent.add(client._network.requests)
        await commit_offsets(client, *arguments)

    with monkeypatch.context() as watched:
        watched.setattr(ModelClient, "commit_offsets", noted)
        watcher = Worker(delivered().broker)
        play(watcher)
        watcher.kill()
    for request in sent:
        for steps in range(LATE_STEPS):
            world = delivered()
            worker = Worker(world.broker)
            plays_to_the_end(worker, steps, faults={request: Fault.LATE})
            worker.kill()
            world.drain()
    assert len(sent) > 3


def plays_to_the_end(worker: Worker, steps: int, *, faults: dict[int, Fault] | None = None) -> bool:
    try:
        play(worker, steps=steps, faults=faults)
    except StoppedError:
        return False
    return True
