"""What a dropped session held is gone without the cyclic collector, which a worker hardly ever runs."""

from __future__ import annotations

import gc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pipeline.core.deduplication import AcceptState
from pipeline.core.rates import ReportState
from pipeline.worker.chunk import Chunk
from pipeline.worker.stage import Output
from tests.laws.client import Fault
from tests.laws.deliveries import FOREIGN, deletion
from tests.laws.kafka import Broker, KnownProducer
from tests.laws.test_every_await import RAW, REQUESTS_MAX, cuts, delivered, play, plays_to_the_end
from tests.laws.worker import COUNTS, Worker
from tests.laws.world import START

HELD = (AcceptState, ReportState, Output, Chunk)  # And no clients: the real ones are cycles of their own.
OF_TWO_SESSIONS = Counter(AcceptState=1, ReportState=1, Output=2, Chunk=2)

pytestmark = pytest.mark.usefixtures("_no_cyclic_collector")


@pytest.fixture
def _no_cyclic_collector() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # What clients of the tests before left in cycles.
        gc.collect()
    gc.disable()
    gc.freeze()  # What is there already is not looked at.
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


@contextmanager
def working(broker: Broker) -> Iterator[Worker]:
    """Run a worker; in the end it is killed, and its memory is free as that of a process is."""
    worker = Worker(broker)
    try:
        yield worker
    finally:
        worker.kill()
        gc.collect()


def alive(*kinds: type) -> Counter[str]:
    """Count what is in memory of *kinds*, by default of what sessions hold, and not what this returned before."""
    found = (each for each in gc.get_objects() if isinstance(each, kinds or HELD))
    return Counter(type(each).__name__ for each in found if not isinstance(each, (Counter, KnownProducer)))


@pytest.mark.parametrize("fault", list(Fault), ids=[fault.name for fault in Fault])
def test_whichever_request_fails_a_partition_has_one_state(fault: Fault) -> None:
    """A worker with 13 million keys has no room for a second copy of a quarter of them."""
    for request in range(REQUESTS_MAX):
        broker = delivered().broker
        with working(broker) as worker:
            play(worker, faults={request: fault})
            count = worker.network.requests
            worker.settle()
            broker.deliver_late()

            assert alive() <= OF_TWO_SESSIONS, f"request {request}"
            worker.close(RAW)
            worker.close(COUNTS)
            assert not alive(), f"request {request}"
        if request >= count:
            break
    assert 15 < request < REQUESTS_MAX - 1


def test_cancelled_at_any_await_nothing_is_left() -> None:
    """A rebalance takes the partitions away between any two steps."""
    for steps in cuts():
        with working(delivered().broker) as worker:
            is_over = plays_to_the_end(worker, steps)
            worker.cancel()
            worker.close(RAW)
            worker.close(COUNTS)

            assert not alive(), f"step {steps}"
        if is_over:
            break
    assert steps > 40


def test_fenced_at_any_await_a_partition_has_one_state() -> None:
    """Between any two steps a successor fences the worker, which goes on where it was, and gets the partitions back."""
    for steps in cuts():
        world = delivered()
        with working(world.broker) as worker:
            is_over = plays_to_the_end(worker, steps)
            world.broker.fence()
            worker.resume()
            world.deliver(deletion(6, START, 0))
            for tp in (RAW, RAW, COUNTS):
                worker.fetch(tp, records_max=9)
                worker.work(tp)
            worker.settle()

            assert alive() <= OF_TWO_SESSIONS, f"step {steps}"
        if is_over:
            break
    assert steps > 40


def fence(worker: Worker) -> None:
    worker.broker.fence()


def stand_still(worker: Worker) -> None:
    """Past every timeout: no answer comes, and then the coordinator has ended all transactions and fenced us."""
    take_in(worker, faults=dict.fromkeys(range(3), Fault.NEVER_ANSWERED))
    worker.broker.time_out()


def take_in(worker: Worker, *, faults: dict[int, Fault] | None = None) -> None:
    for tp in (RAW, COUNTS):
        worker.fetch(tp, records_max=9)
        worker.work(tp, faults=faults)
    worker.settle()


@pytest.mark.parametrize(("happens", "rounds"), [(fence, 50), (stand_still, 20)])
def test_after_many_failures_a_worker_is_as_large_as_after_half_of_them(
    happens: Callable[[Worker], None], rounds: int
) -> None:
    """Where the cyclic collector has been, as it is once a minute: what lives on keeps nothing, either."""
    world, sizes = delivered(), list[Counter[str]]()
    with working(world.broker) as worker:
        play(worker)
        before = world.broker.epochs
        for number in range(1, rounds + 1):
            world.deliver(FOREIGN)  # What leaves nothing in a state.
            happens(worker)
            for _ in range(3):  # The second finds out that the first failed.
                world.deliver(FOREIGN)
                take_in(worker)
            world.broker.log(RAW).drop_before(worker.position(RAW))
            if number in (1, rounds // 2, rounds):  # At first Python fills caches of its own.
                gc.collect()
                sizes.append(alive(object))

        _, middle, end = sizes
        assert end == middle
        assert world.broker.epochs - before >= rounds
