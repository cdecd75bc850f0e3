"""What shares a transaction, and what a failed one has to do with the partitions that had a part in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from aiokafka import TopicPartition

from pipeline.core.contract import Row
from pipeline.kafka.batches import RefusedError
from pipeline.kafka.transactions import output
from pipeline.worker import committer
from pipeline.worker.committer import Commit, CommitError, Committer
from tests.laws.client import Fault, ModelClient, Network, open_producer
from tests.laws.kafka import Broker
from tests.laws.loop import StepLoop
from tests.laws.worker import COUNTS, GROUP, TOPICS

REQUESTS = 8  # Of a transaction, and of what is asked about its markers.


class Workplace:
    """A committer, and how many transactions it ended."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.network = Network(self.broker)
        self.committer = Committer(GROUP, partial(open_producer, ModelClient(self.network)))
        self.transactions = 0
        end = self.broker.end

        def counted(who: tuple[str, int], *, commit: bool) -> None:
            self.transactions += commit
            end(who, commit=commit)

        self.broker.end = counted  # type: ignore[method-assign]

    async def commit_of(self, partition: int, *, size: int = 1, is_alone: bool = False) -> Commit:
        """Return an event and a count of *partition*."""
        tp = TopicPartition(TOPICS.raw, partition)
        accepted = output(TopicPartition(TOPICS.accepted, partition), [(b"key", b"x" * size, 1, [])])
        shared: dict[TopicPartition, list[Row]] = {COUNTS: [(b"%d" % partition, b"1", 1, [])]}
        owner = await self.committer.owner(tp)
        return Commit(tp, 1, "", owner, [accepted], shared, is_alone)

    async def commit(self, *commits: Commit) -> list[Any]:
        """Hand them over at once, and return what became of each."""
        return list(await asyncio.gather(*map(self.committer.commit, commits), return_exceptions=True))

    def committed(self) -> set[int]:
        """Return the partitions whose event, count and offset are there."""
        self.broker.settle()
        counts = {int(record.key or b"") for record in self.broker.log(COUNTS).committed()}
        events = {
            tp.partition for tp, log in self.broker.logs.items() if tp.topic == TOPICS.accepted and log.committed()
        }
        assert counts == events == {tp.partition for _, tp in self.broker.offsets}
        return counts


@pytest.fixture
def workplace() -> Iterator[Workplace]:
    workplace = Workplace()
    yield workplace
    assert not workplace.broker.is_hanging


async def test_what_is_ready_meanwhile_is_the_next_transaction(workplace: Workplace) -> None:
    commits = [await workplace.commit_of(partition) for partition in range(5)]
    first = asyncio.create_task(workplace.committer.commit(commits[0]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    await workplace.commit(*commits[1:])
    await first

    assert workplace.transactions == 2
    assert workplace.committed() == {0, 1, 2, 3, 4}


async def test_a_transaction_is_bounded(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one gains nothing by being shared, and each waits for all of it."""
    monkeypatch.setattr(committer, "GROUP_BYTES_MAX", 2500)
    commits = [await workplace.commit_of(partition, size=1000) for partition in range(7)]

    await workplace.commit(*commits)

    assert workplace.transactions == 3
    assert workplace.committed() == set(range(7))


async def test_what_failed_before_is_alone(workplace: Workplace) -> None:
    commits = [await workplace.commit_of(partition, is_alone=partition in (1, 2)) for partition in range(5)]

    await workplace.commit(*commits)

    assert workplace.transactions == 4
    assert workplace.committed() == set(range(5))


async def test_what_is_refused_for_good_is_said_to_its_own_partition(workplace: Workplace) -> None:
    """The others are tried again at once, and need not be restored."""
    workplace.broker.refusals[TopicPartition(TOPICS.accepted, 1)] = 1
    commits = [await workplace.commit_of(partition) for partition in range(3)]

    outcomes = await workplace.commit(*commits)

    assert [type(outcome) for outcome in outcomes] == [dict, RefusedError, dict]
    assert workplace.committed() == {0, 2}


@pytest.mark.parametrize("fault", [Fault.NEVER_SENT, Fault.NEVER_ANSWERED])
def test_what_is_not_done_in_time_is_tried_again_as_it_is(workplace: Workplace, fault: Fault) -> None:
    """Whichever request it was. No partition is restored for it, and none is committed twice."""

    async def all_of_it() -> None:
        for request in range(REQUESTS):
            commits = [await workplace.commit_of(partition) for partition in range(2)]
            workplace.network.requests, workplace.network.faults = 0, {request: fault}
            assert [type(outcome) for outcome in await workplace.commit(*commits)] == [dict, dict]

    loop = StepLoop()
    loop.run(all_of_it())
    loop.abandon()

    assert workplace.committed() == {0, 1}
    for partition in range(2):
        assert len(workplace.broker.log(TopicPartition(TOPICS.accepted, partition)).committed()) == REQUESTS


async def test_what_is_refused_where_all_write_is_said_to_all(workplace: Workplace) -> None:
    workplace.broker.refusals[COUNTS] = 1
    commits = [await workplace.commit_of(partition) for partition in range(2)]

    outcomes = await workplace.commit(*commits)

    assert [type(outcome) for outcome in outcomes] == [RefusedError, RefusedError]


async def test_a_partition_that_was_claimed_under_another_name_fails_alone(workplace: Workplace) -> None:
    """Another worker fenced that name; the one that is committed under now is ours."""
    before, now = await workplace.commit_of(0), await workplace.commit_of(1)
    before.owner = "worker-0"

    outcomes = await workplace.commit(before, now)

    assert isinstance(outcomes[0], CommitError)
    assert workplace.committed() == {1}


async def test_what_was_taken_away_is_not_begun(workplace: Workplace) -> None:
    first, second, third = [await workplace.commit_of(partition) for partition in range(3)]
    waiting = [asyncio.create_task(workplace.committer.commit(commit)) for commit in (first, second, third)]
    waiting[1].cancel()

    await asyncio.wait(waiting)

    assert workplace.committed() == {0, 2}


async def test_a_bug_is_raised_as_it_is(workplace: Workplace) -> None:
    """What is no failure of Kafka's ends the process."""
    commit = await workplace.commit_of(0)
    commit.shared = {COUNTS: [(b"0", 5, 1, [])]}  # type: ignore[list-item]

    (outcome,) = await workplace.commit(commit)

    assert not isinstance(outcome, (CommitError, RefusedError))
    assert isinstance(outcome, Exception)
