"""A partition that cannot go on stands still, keeps nothing in memory, and goes on once it can."""

from __future__ import annotations

import gc

import pytest
from aiokafka import TopicPartition

from pipeline.core.deduplication import AcceptState
from pipeline.core.rejection_limit import RejectionLimitPolicy
from pipeline.worker.partition import FAILURES_MAX, PAUSED_SECONDS, PAUSED_SECONDS_MAX
from tests.laws.test_every_await import RAW, delivered
from tests.laws.worker import TOPICS, Worker
from tests.laws.world import World

OUTPUTS = [TOPICS.accepted, TOPICS.rejected, TOPICS.partial_counts]


def play_for(worker: Worker, seconds: float) -> None:
    """Take the partition in, in two chunks, for so long."""
    worker.fetch(RAW, records_max=4)
    worker.fetch(RAW, records_max=9)

    async def all_of_it() -> None:
        while (chunk := worker.next_chunk(RAW)) is not None:
            await worker.handle(RAW, chunk)

    worker.play_for(seconds, all_of_it())


def states() -> int:
    """Count the memories of partitions that are left in memory, where the collector of cycles has been."""
    gc.collect()
    return sum(isinstance(found, AcceptState) for found in gc.get_objects())


@pytest.fixture
def world() -> World:
    return delivered()


@pytest.mark.parametrize("topic", OUTPUTS)
def test_a_refused_batch_pauses_its_partition_until_it_is_taken(world: World, topic: str) -> None:
    """However often it is tried: the worker does not end for it, nothing is left out, and no memory is held."""
    tp = TopicPartition(topic, 0)
    world.broker.refusals[tp] = FAILURES_MAX + 1
    worker = Worker(world.broker)
    play_for(worker, PAUSED_SECONDS / 2)

    assert f"to be written to {topic}[0]: InvalidTimestampError" in worker.paused(RAW)
    assert states() == 0
    worker.settle()  # The pause is over then, and the partition open again.
    while world.broker.refusals[tp]:
        play_for(worker, PAUSED_SECONDS_MAX + 100)
    play_for(worker, 100)
    assert worker.paused(RAW) == ""
    world.drain(worker)


def test_a_partition_that_rejects_too_much_keeps_no_memory(world: World) -> None:
    worker = Worker(world.broker, rejection_limit=RejectionLimitPolicy(share_max=0.1, records_min=1))
    play_for(worker, 100)

    assert "were rejected" in worker.paused(RAW)
    assert states() == 0
    worker.kill()
