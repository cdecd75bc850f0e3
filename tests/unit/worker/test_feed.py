"""The feed of a partition: what waits grows, is taken as one, and is bounded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from faust.types import TP

from pipeline.worker.chunk import Batch, Chunk
from pipeline.worker.feed import BYTES_MAX, FEW_RECORDS, Feed

if TYPE_CHECKING:
    from collections.abc import Coroutine

TP0 = TP("raw", 0)


class Paused(list[bool]):
    """What the consumer was asked for: True is to fetch no more."""

    def __call__(self, feed: Feed, is_paused: bool) -> None:
        assert feed.tp == TP0
        self.append(is_paused)


@pytest.fixture
def paused() -> Paused:
    return Paused()


@pytest.fixture
def feed(paused: Paused) -> Feed:
    return Feed(TP0, object(), paused)


def chunk(begin: int, end: int, *, idle: bool = False, now: int = 0) -> Chunk:
    batches = [] if begin == end else [Batch([], end - begin, end)]
    return Chunk("raw", 0, begin, end, batches, idle=idle, now=now, behind=0)


def taken(feed: Feed, commit: asyncio.Task[None] | None = None) -> Coroutine[None, None, Chunk | None]:
    return feed.take(lambda: None if commit is None or commit.done() else commit)


async def test_what_comes_while_the_agent_is_busy_is_one_chunk(feed: Feed) -> None:
    feed.put(chunk(0, 3), 1)
    feed.put(chunk(3, 5), 1)

    found = await taken(feed)

    assert found is not None
    assert (found.begin, found.end, [batch.end for batch in found.batches]) == (0, 5, [3, 5])


async def test_an_agent_that_waits_gets_the_next_one(feed: Feed) -> None:
    waiting = asyncio.create_task(taken(feed))
    await asyncio.sleep(0)
    assert not waiting.done()

    feed.put(chunk(0, 1), 1)

    assert await waiting == chunk(0, 1)


async def test_what_was_fetched_elsewhere_replaces_what_waits(feed: Feed) -> None:
    """After a seek: the state ends there, and what came before is of no use."""
    feed.put(chunk(0, 3), 1)
    feed.put(chunk(7, 9), 1)

    assert await taken(feed) == chunk(7, 9)


async def test_what_is_cleared_is_not_taken(feed: Feed) -> None:
    feed.put(chunk(0, 3), 1)
    feed.clear()
    feed.put(chunk(0, 1), 1)

    assert await taken(feed) == chunk(0, 1)


@pytest.mark.parametrize(
    ("waiting", "is_idle", "now"), [(chunk(5, 5, idle=True, now=1), True, 2), (chunk(3, 5, now=1), False, 1)]
)
async def test_a_tick_replaces_a_tick_and_adds_nothing_to_records(
    feed: Feed, waiting: Chunk, is_idle: bool, now: int
) -> None:
    feed.put(waiting, 1)
    feed.put(chunk(5, 5, idle=True, now=2), 0)

    found = await taken(feed)

    assert found is not None
    assert (found.begin, found.end, found.idle, found.now) == (waiting.begin, 5, is_idle, now)


async def test_few_records_wait_for_the_commit_and_grow_meanwhile(feed: Feed) -> None:
    """One transaction costs as much for one record as for hundreds."""
    committed = asyncio.Event()
    commit = asyncio.create_task(committed.wait())
    feed.put(chunk(0, 1), 1)
    waiting = asyncio.create_task(taken(feed, commit))  # type: ignore[arg-type]
    for end in (2, 3):
        await asyncio.sleep(0)
        feed.put(chunk(end - 1, end), 1)
    await asyncio.sleep(0)
    assert not waiting.done()

    committed.set()

    found = await waiting
    assert found is not None
    assert (found.begin, found.end) == (0, 3)


async def test_many_records_do_not_wait_for_it(feed: Feed) -> None:
    """They are decided on while the ones before are committed."""
    commit = asyncio.create_task(asyncio.Event().wait())
    feed.put(chunk(0, 1), 1)
    waiting = asyncio.create_task(taken(feed, commit))  # type: ignore[arg-type]
    await asyncio.sleep(0)

    feed.put(chunk(1, 1 + FEW_RECORDS), 1)

    found = await waiting
    assert found is not None
    assert found.end == 1 + FEW_RECORDS
    commit.cancel()


async def test_a_commit_that_fails_ends_the_wait_too(feed: Feed) -> None:
    """The chunk after it finds out."""

    async def fail() -> None:
        raise TimeoutError

    commit = asyncio.create_task(fail())
    feed.put(chunk(0, 1), 1)

    assert await taken(feed, commit) == chunk(0, 1)
    with pytest.raises(TimeoutError):
        await commit


async def test_too_much_is_not_fetched_until_the_agent_has_taken_it(feed: Feed, paused: Paused) -> None:
    feed.put(chunk(0, 1), BYTES_MAX)
    assert paused == []

    feed.put(chunk(1, 2), 1)
    feed.put(chunk(2, 3), BYTES_MAX)  # Was on its way.
    assert paused == [True]

    found = await taken(feed)

    assert found is not None
    assert found.end == 3
    assert paused == [True, False]


async def test_a_partition_that_is_assigned_anew_ends_it(feed: Feed) -> None:
    waiting = asyncio.create_task(taken(feed))
    await asyncio.sleep(0)

    feed.close()
    feed.put(chunk(0, 1), 1)

    assert await waiting is None
