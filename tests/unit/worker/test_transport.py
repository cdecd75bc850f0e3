"""The transport, where it needs no Kafka."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from pipeline.worker.chunk import Batch, Chunk, split
from pipeline.worker.consumer_thread import ChunkThread
from pipeline.worker.partition import KAFKA_FAILURES
from pipeline.worker.transport import ChunkConsumer

TP0 = TP("raw", 0)


def chunk_of(*numbers: int, begin: int = 10, gap: int = 3) -> Chunk:
    """A chunk of batches with so many records, with control records between them and behind the last."""
    batches, end = [], begin
    for number in numbers:
        batches.append(Batch([], number, end + number))
        end += number + gap
    return Chunk("raw", 0, begin, end, batches, idle=False, now=0, behind=100)


def test_a_chunk_is_cut_between_batches() -> None:
    """Each part goes on where the one before ends, and together they are as long; a batch is not divided."""
    # 10 [4 ] 14..17 [4 ] 21..24 [20 ] 44..47 [1 ] 48..51
    chunk = chunk_of(4, 4, 20, 1)

    parts = list(split(chunk, records_max=10))

    assert [(part.begin, part.end, part.count, part.behind) for part in parts] == [
        (10, 21, 8, 130), (21, 44, 20, 107), (44, 51, 1, 100)
    ]  # fmt: skip


@pytest.mark.parametrize("numbers", [(), (3,), (4, 6)])
def test_a_chunk_of_the_usual_size_stays_one(numbers: tuple[int, ...]) -> None:
    chunk = chunk_of(*numbers)

    assert list(split(chunk, records_max=10)) == [chunk]


class Thread:
    """A consumer's thread whose loop is closed, or one with a bug."""

    def __init__(self, *, is_closed: bool) -> None:
        self.thread_loop = asyncio.new_event_loop()
        self._is_closed = is_closed

    def seek_here(self, *_: Any) -> None:
        raise AssertionError("no one calls it")

    async def call_thread(self, function: Any, *arguments: Any) -> None:
        """Do what mode does first."""
        self.thread_loop.close()
        if self._is_closed:
            self.thread_loop.call_soon_threadsafe(function, *arguments)
        self.thread_loop = asyncio.get_running_loop()
        raise RuntimeError("dictionary changed size during iteration")


def consumer_with(thread: Thread | None) -> ChunkConsumer:
    consumer = object.__new__(ChunkConsumer)  # Faust's own needs an app that runs.
    consumer._thread = thread  # type: ignore[assignment]  # Stands in for it.
    return consumer


async def test_to_seek_with_a_consumer_that_ended_is_a_failure_of_kafkas() -> None:
    """aiokafka's consumer can fail for good while a broker is away; that is no bug of ours."""
    with pytest.raises(KAFKA_FAILURES):
        await consumer_with(Thread(is_closed=True))._seek(TP0, 5)


async def test_another_error_of_seeking_is_still_a_bug() -> None:
    with pytest.raises(RuntimeError, match="changed size"):
        await consumer_with(Thread(is_closed=False))._seek(TP0, 5)


async def test_a_rebalance_asks_for_no_offsets() -> None:
    """Faust gives up in silence what takes too long then, and each partition finds its position itself."""
    consumer = consumer_with(None)

    assert await consumer.perform_seek() is None  # type: ignore[func-returns-value]  # Faust's fails: there is no thread.


class Coordinator:
    """aiokafka's, as far as it knows who it is."""

    member_id = "member"
    resets = 0

    def reset_generation(self) -> None:
        self.resets += 1


class Consumer:
    """A consumer that runs."""

    _closed = False

    def __init__(self) -> None:
        self._coordinator = Coordinator()


class CrashedError(Exception):
    """The worker would have ended itself."""


def watched(consumer: Consumer) -> None:
    """Watch *consumer* for a worker whose session is 10 s."""

    def on_membership_lost() -> None:
        raise CrashedError

    thread = object.__new__(ChunkThread)  # mode's own needs an app that runs.
    thread.app = cast("Any", SimpleNamespace(conf=SimpleNamespace(broker_session_timeout=10)))
    thread.transport = SimpleNamespace(on_membership_lost=on_membership_lost)
    thread.log = cast("Any", SimpleNamespace(warning=lambda _: None))
    thread._watch_membership(cast("Any", consumer))


@pytest.mark.parametrize(("apart", "is_a_fight"), [(15.0, True), (25.0, False)])
def test_a_membership_that_is_lost_twice_is_another_processes(
    monkeypatch: pytest.MonkeyPatch, apart: float, is_a_fight: bool
) -> None:
    """Once may be a session that ran out while a broker stood still: the worker joins again, with all that it knows."""
    consumer, now = Consumer(), 1000.0
    monkeypatch.setattr("pipeline.worker.consumer_thread.time.monotonic", lambda: now)
    watched(consumer)
    consumer._coordinator.reset_generation()
    assert consumer._coordinator.resets == 1

    now += apart

    with pytest.raises(CrashedError) if is_a_fight else nullcontext():
        consumer._coordinator.reset_generation()
    assert consumer._coordinator.resets == (1 if is_a_fight else 2)
