"""
The whole flow as a state machine: deliveries, faults, rebalances and retention in any order, on the model of Kafka.

Any worker may work on any partition at any time, as a zombie does. After each step what is committed must be what a
recount of the deliveries gives; at the end a fresh worker reads everything, and all must be there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from aiokafka import TopicPartition
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.laws.client import Fault
from tests.laws.loop import StoppedError
from tests.laws.worker import COUNTS, GROUP, PARTITIONS, SOURCES, TOPICS, Worker
from tests.laws.world import BROKEN, FOREIGN, Delivery, World, deletion

WORKERS = 2
MINUTE = 60_000
MEDIA = st.integers(0, 3)
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

    def deliver(self, delivery: Delivery) -> None:
        self.world.deliver(delivery)
        self.past.append(delivery)

    @rule(media=MEDIA, content=st.integers(0, 2), ago=st.sampled_from([0, 1, 59, 60, 61, 300, 599, 600, 660]))
    def deliver_a_deletion(self, media: int, content: int, ago: int) -> None:
        """In order, out of order, late, or the same key with other content."""
        self.deliver(deletion(media, self.world.broker.now // 1000 * 1000 - ago * 1000, content))

    @rule(media=MEDIA, apart=st.sampled_from([-7200, -661, 121, 600]))
    def deliver_out_of_bounds(self, media: int, apart: int) -> None:
        """Expired, or from the future."""
        self.deliver(deletion(media, self.world.broker.now // 1000 * 1000 + apart * 1000, 0))

    @rule(delivery=st.sampled_from([BROKEN, FOREIGN]))
    def deliver_what_is_no_deletion(self, delivery: Delivery) -> None:
        self.deliver(delivery)

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        """A duplicate, sometimes of an event that has been forgotten by now."""
        self.deliver(data.draw(st.sampled_from(self.past)))

    @rule(milliseconds=st.sampled_from([1, 999, 30_000, MINUTE, 10 * MINUTE, 120 * MINUTE]))
    def wait(self, milliseconds: int) -> None:
        self.world.wait(milliseconds)

    @rule(slot=SLOT, tp=SOURCE, number=st.integers(1, 5))
    def fetch_ahead(self, slot: int, tp: TopicPartition, number: int) -> None:
        """Chunks wait in the worker's buffer while the world goes on."""
        self._run(slot, None)
        self.worker(slot).fetch(tp, records_max=number)

    @rule(slot=SLOT, tp=SOURCE, number=st.integers(1, 5), steps=STEPS, faults=FAULTS)
    def work(self, slot: int, tp: TopicPartition, number: int, steps: int | None, faults: dict[int, Fault]) -> None:
        """Fetch and handle; stopped in the middle, the worker stays a zombie until it is resumed or killed."""
        self._run(slot, None)
        self.worker(slot).fetch(tp, records_max=number)
        self._run(slot, tp, steps, faults)
        self._check()

    @rule(slot=SLOT, steps=STEPS)
    def go_on(self, slot: int, steps: int | None) -> None:
        """Let the worker finish what it is committing."""
        try:
            self.worker(slot).settle(steps=steps)
        except StoppedError:
            return
        self._check()

    @rule(slot=SLOT)
    def kill(self, slot: int) -> None:
        self._end(slot)
        self._check()

    @rule(slot=SLOT, tp=SOURCE, is_cancelled=st.booleans())
    def revoke(self, slot: int, tp: TopicPartition, is_cancelled: bool) -> None:
        """A rebalance, which cancels what is in flight, or comes between two chunks."""
        if is_cancelled:
            self.worker(slot).cancel()
        self.worker(slot).close(tp)
        self._check()

    @rule()
    def write_markers(self) -> None:
        self.world.broker.settle()
        self._check()

    @rule()
    def time_transactions_out(self) -> None:
        """The coordinator ends what is open, and fences whoever opened it."""
        self.world.broker.time_out()
        self._check()

    @rule()
    def deliver_late_requests(self) -> None:
        self.world.broker.deliver_late()
        self._check()

    @rule(topic=st.sampled_from([TOPICS.partial_counts, TOPICS.failure_rates]))
    def compact(self, topic: str) -> None:
        self.world.broker.log(TopicPartition(topic, 0)).compact()

    @rule(partition=PARTITION)
    def expire_read_raw(self, partition: int) -> None:
        """Retention takes what was read long ago."""
        tp = TopicPartition(TOPICS.raw, partition)
        committed = self.world.broker.offsets.get((GROUP, tp))
        if committed is not None and partition not in self.world.is_replayed:
            self.world.broker.log(tp).drop_before(committed[0])

    @rule(partition=PARTITION, number=st.integers(1, 3))
    def expire_unread_raw(self, partition: int, number: int) -> None:
        """Retention overtakes the workers, who were away for days."""
        self._stop_all()
        if partition not in self.world.is_replayed:
            log = self.world.broker.log(TopicPartition(TOPICS.raw, partition))
            committed = self.world.broker.offsets.get((GROUP, TopicPartition(TOPICS.raw, partition)))
            self.world.lose_unread(partition, (committed[0] if committed else log.start) + number)
        self._check()

    @rule(tp=SOURCE)
    def lose_the_offset(self, tp: TopicPartition) -> None:
        """Groups expire; what was written says how far it was read."""
        self._stop_all()
        self.world.broker.offsets.pop((GROUP, tp), None)
        if tp == COUNTS:
            self.world.note_report()
        else:
            self.world.is_replayed.add(tp.partition)

    @rule(partition=PARTITION, data=st.data())
    def replay(self, partition: int, data: st.DataObject) -> None:
        """An operator sets the offset back, and no metadata with it."""
        self._stop_all()
        tp = TopicPartition(TOPICS.raw, partition)
        if (GROUP, tp) in self.world.broker.offsets:
            log = self.world.broker.log(tp)
            end = self.world.broker.offsets[GROUP, tp][0]
            self.world.broker.offsets[GROUP, tp] = (data.draw(st.integers(log.start, end)), "")
            self.world.is_replayed.add(partition)

    def teardown(self) -> None:
        """Whatever happened: a fresh worker ends it."""
        self._stop_all()
        self.world.drain()

    def _run(
        self, slot: int, tp: TopicPartition | None, steps: int | None = None, faults: dict[int, Fault] | None = None
    ) -> None:
        worker = self.worker(slot)
        if tp is None:
            worker.resume()
            return
        try:
            worker.work(tp, steps=steps, faults=faults)
        except StoppedError:
            return

    def _end(self, slot: int) -> None:
        worker, self.workers[slot] = self.workers[slot], None
        if worker is not None:
            worker.kill()

    def _stop_all(self) -> None:
        for slot in range(WORKERS):
            self._end(slot)
        self.world.broker.deliver_late()
        self.world.broker.time_out()
        self.world.broker.settle()

    def _check(self) -> None:
        self.world.check()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.mark.timeout(900)
def test_the_flow_keeps_its_laws(machine_runs: int) -> None:
    """Thousands of runs; `make test-long` has many more, with another seed each time."""
    profile = settings(
        max_examples=machine_runs,
        stateful_step_count=25,
        derandomize=machine_runs <= 5000,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(Flow, settings=profile)
