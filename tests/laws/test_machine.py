"""
The whole flow as a state machine: deliveries, faults, rebalances and retention in any order, on the model of Kafka.

Any worker may work on any partition at any time, as a zombie does. After each step what is committed must be what a
recount of the deliveries gives; at the end a fresh worker reads everything, and all must be there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiokafka import TopicPartition
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.laws.client import Fault
from tests.laws.deliveries import BROKEN, FOREIGN, Delivery, deletion
from tests.laws.loop import StoppedError
from tests.laws.worker import COUNTS, GROUP, OUTPUTS, PARTITIONS, SOURCES, TOPICS, DiedError, Worker
from tests.laws.world import World

WORKERS = 2
MINUTE = 60_000
MEDIA = st.integers(0, 3)
CONTENT = st.integers(0, 2)
AGO_SECONDS = st.sampled_from([0, 0, 1, 59, 60, 61, 300, 599, 600, 660, 7200, -120, -121])
NUMBER = st.integers(1, 5)
SOURCE = st.sampled_from(SOURCES)
SLOT = st.integers(0, WORKERS - 1)
PARTITION = st.integers(0, PARTITIONS - 1)
# Most of the time nothing goes wrong: what follows a fault has to be reached, too.
STEPS = st.one_of(st.none(), st.none(), st.integers(0, 120))
FAULTS = st.one_of(st.just({}), st.just({}), st.dictionaries(st.integers(0, 25), st.sampled_from(Fault), max_size=2))


class Flow(RuleBasedStateMachine):
    """Two workers that know nothing of each other, and everything that can happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.workers: list[Worker | None] = [None] * WORKERS
        self.past: list[Delivery] = []

    def worker(self, slot: int) -> Worker:
        worker = self.workers[slot]
        if worker is None:
            worker = self.workers[slot] = Worker(self.world.broker)
        return worker

    @rule(deliveries=st.lists(st.tuples(MEDIA, CONTENT, AGO_SECONDS), min_size=1, max_size=4))
    def deliver_deletions(self, deliveries: list[tuple[int, int, int]]) -> None:
        """In order, out of order, late, expired, from the future, or the same key with other content."""
        for media, content, ago in deliveries:
            self._deliver(deletion(media, self.world.broker.now // 1000 * 1000 - ago * 1000, content))

    @rule(deliveries=st.lists(st.one_of(st.sampled_from([BROKEN, FOREIGN]), st.integers(0, 9)), max_size=3))
    def deliver_something_else(self, deliveries: list[Delivery | int]) -> None:
        """What is no deletion, or one of the last deliveries again: a duplicate, perhaps of something forgotten."""
        for delivery in deliveries:
            if isinstance(delivery, Delivery):
                self._deliver(delivery)
            elif self.past:
                self._deliver(self.past[-1 - delivery % len(self.past)])

    @rule(media=MEDIA, ago=AGO_SECONDS, ahead=st.sampled_from([61 * MINUTE, 480 * MINUTE, 43_200 * MINUTE]))
    def jump(self, media: int, ago: int, ahead: int) -> None:
        """A broker's clock is ahead for one record, of a partition that a worker has read some of."""
        partition = media % PARTITIONS
        now = self.world.broker.now
        if partition not in self.world.is_replayed and self.world.is_clock_right(partition):
            self.world.jumped.add(partition)
            self._deliver(deletion(media, now // 1000 * 1000 - ago * 1000, 0), ahead=ahead)

    @rule(milliseconds=st.sampled_from([1, 999, 30_000, MINUTE, 10 * MINUTE, 120 * MINUTE]))
    def wait(self, milliseconds: int) -> None:
        self.world.wait(milliseconds)

    @rule(slot=SLOT, tp=SOURCE, number=NUMBER)
    def fetch_ahead(self, slot: int, tp: TopicPartition, number: int) -> None:
        """Chunks wait in the worker's buffer while the world goes on."""
        with self._restarted(slot):
            self.worker(slot).resume()
            self.worker(slot).fetch(tp, records_max=number)

    @rule(slot=SLOT, partition=PARTITION, number=NUMBER, steps=STEPS, faults=FAULTS)
    def accept(self, slot: int, partition: int, number: int, steps: int | None, faults: dict[int, Fault]) -> None:
        """Fetch and handle; stopped in the middle, the worker stays a zombie until it is resumed or killed."""
        self._work(slot, TopicPartition(TOPICS.raw, partition), number, steps, faults)

    @rule(slot=SLOT, partition=PARTITION, number=NUMBER)
    def accept_undisturbed(self, slot: int, partition: int, number: int) -> None:
        self._work(slot, TopicPartition(TOPICS.raw, partition), number, None, {})

    @rule(slot=SLOT, number=NUMBER, steps=STEPS, faults=FAULTS)
    def report(self, slot: int, number: int, steps: int | None, faults: dict[int, Fault]) -> None:
        self._work(slot, COUNTS, number, steps, faults)

    @rule(slot=SLOT, steps=STEPS)
    def go_on(self, slot: int, steps: int | None) -> None:
        """Let the worker finish what it is committing."""
        with self._restarted(slot):
            self.worker(slot).settle(steps=steps)

    @rule(slot=SLOT, tp=SOURCE, how=st.sampled_from(["kill", "cancel", "revoke"]))
    def take_away(self, slot: int, tp: TopicPartition, how: str) -> None:
        """kill -9, or a rebalance, which cancels what is in flight or comes between two chunks."""
        if how == "kill":
            self._kill(slot)
            return
        with self._restarted(slot):
            if how == "cancel":
                self.worker(slot).cancel()
            self.worker(slot).close(tp)

    @rule(what=st.sampled_from(["settle", "time_out", "deliver_late", TOPICS.partial_counts, TOPICS.failure_rates]))
    def happen_in_the_broker(self, what: str) -> None:
        """Markers are written, open transactions time out, old requests arrive, a topic is compacted."""
        if what in (TOPICS.partial_counts, TOPICS.failure_rates):
            self.world.broker.log(TopicPartition(what, 0)).compact()
        else:
            getattr(self.world.broker, what)()

    @rule(tps=st.sets(st.sampled_from(OUTPUTS), min_size=1))
    def lose_leaders(self, tps: set[TopicPartition]) -> None:
        """Kafka forgets the next markers of partitions that have no leader at that moment."""
        self.world.broker.leaderless = set(tps)

    @rule(tp=st.sampled_from(OUTPUTS), number=st.integers(1, 3))
    def refuse(self, tp: TopicPartition, number: int) -> None:
        """What the next batches hold is nothing that the topic takes, until someone changes its settings."""
        self.world.broker.refusals[tp] = number

    @rule(partition=PARTITION, back=st.integers(1, 9), readers=st.integers(1, 3))
    def cut_off(self, partition: int, back: int, readers: int) -> None:
        """A leader of old answers those who restore a partition; without metadata nothing would tell."""
        _, metadata = self.world.broker.offsets.get((GROUP, TopicPartition(TOPICS.raw, partition)), (0, ""))
        if "totals" in metadata:
            tp = TopicPartition(TOPICS.accepted, partition)
            self.world.broker.stale[tp] = [max(0, self.world.broker.log(tp).end - back)] * readers

    @rule(partition=PARTITION, unread=st.integers(0, 3))
    def expire_raw(self, partition: int, unread: int) -> None:
        """Retention takes what was read long ago, or overtakes the workers, who were away for days."""
        if partition not in self.world.is_replayed:
            unread = 0 if partition in self.world.jumped else unread
            if unread:
                self._kill_all()
                # Counts that hung alone were committed, perhaps of what no one accepts any more: see the known limits.
                unread = 0 if COUNTS in self.world.broker.has_forgotten else unread
            self.world.expire_raw(partition, unread)

    @rule(tp=SOURCE)
    def lose_the_offset(self, tp: TopicPartition) -> None:
        """Groups expire; what was written says how far it was read."""
        if tp.partition not in self.world.jumped or tp == COUNTS:
            self._kill_all()
            self.world.lose_offset(tp)

    @rule(partition=PARTITION, back=st.integers(0, 9))
    def replay(self, partition: int, back: int) -> None:
        """An operator sets the offset back, and no metadata with it."""
        if partition not in self.world.jumped:
            self._kill_all()
            self.world.set_offset_back(partition, back)

    @invariant()
    def agree(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """Whatever happened: a fresh worker ends it."""
        self._kill_all()
        self.world.drain()

    def _deliver(self, delivery: Delivery, *, ahead: int = 0) -> None:
        self.world.deliver(delivery, ahead=ahead)
        self.past.append(delivery)

    def _work(self, slot: int, tp: TopicPartition, number: int, steps: int | None, faults: dict[int, Fault]) -> None:
        with self._restarted(slot):
            worker = self.worker(slot)
            worker.resume()
            worker.fetch(tp, records_max=number)
            worker.work(tp, steps=steps, faults=faults)

    @contextmanager
    def _restarted(self, slot: int) -> Iterator[None]:
        """Let the worker stand still where it is, or end itself: no other works on what it waits for meanwhile."""
        try:
            yield
        except StoppedError:
            return
        except DiedError:
            assert self.world.broker.is_hanging
            self._kill(slot)

    def _kill(self, slot: int) -> None:
        worker, self.workers[slot] = self.workers[slot], None
        if worker is not None:
            worker.kill()

    def _kill_all(self) -> None:
        for slot in range(WORKERS):
            self._kill(slot)
        self.world.broker.deliver_late()
        self.world.broker.time_out()
        self.world.broker.settle()


@pytest.mark.timeout(7200)
def test_the_flow_keeps_its_laws(machine_runs: int) -> None:
    """Thousands of runs; `make test-long` has many more, with another seed each time."""
    is_shrunk = os.environ.get("LAWS_SHRINK") != "no"  # A stage that is broken on purpose needs no example.
    profile = settings(
        max_examples=machine_runs,
        stateful_step_count=20,
        derandomize=machine_runs <= 5000,
        deadline=None,
        database=None,
        phases=[Phase.generate, *([Phase.shrink] if is_shrunk else [])],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(Flow, settings=profile)
