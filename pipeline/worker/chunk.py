"""What a partition is handed: a range of its offsets, with the records in it still encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

from pipeline.kafka import DefaultRecord

# A fetch brings 15,000 records of the usual size, but 600,000 of the smallest that Kafka takes: 423 MB once decided on.
CHUNK_RECORDS_MAX = 50_000


class Batch(NamedTuple):
    """A batch of records that are not decoded yet, how many they are, and the offset behind them."""

    records: Iterable[DefaultRecord]
    number: int
    end: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    A range of a partition's offsets, and the records in it: what one fetch brought, or several (see feed), or a part.

    `begin` and `end` are the fetch positions before and after it: all of [begin, end) was read, though offsets in
    between may be missing (control records, aborted transactions, compaction). It is `idle` if the partition was read
    to its end some time ago and nothing came since. `now` is Kafka's time in ms since the epoch, None while that is not
    known; `behind` how many offsets the log end is ahead of `end`.

    The batches are decoded while they are iterated, once: a record is then used while it is in the processor's cache,
    and what waits for its turn is bytes and not thousands of objects.
    """

    topic: str
    partition: int
    begin: int
    end: int
    batches: Sequence[Batch]
    idle: bool
    now: int | None
    behind: int

    @property
    def count(self) -> int:
        """How many records the batches hold, by the offsets in their heads; nothing is decoded for that."""
        return sum(batch.number for batch in self.batches)

    def records(self) -> Iterator[DefaultRecord]:
        """Decode and yield the records. A chunk can be read once; after a failure it is fetched again."""
        return chain.from_iterable(batch.records for batch in self.batches)


def split(chunk: Chunk, *, records_max: int) -> Iterator[Chunk]:
    """Cut *chunk* between batches into chunks of at most *records_max* records, or of one batch that has more."""
    begin, count = chunk.begin, 0
    batches: list[Batch] = []
    for batch in chunk.batches:
        if batches and count + batch.number > records_max:
            end = batches[-1].end
            yield replace(chunk, begin=begin, end=end, batches=batches, behind=chunk.behind + chunk.end - end)
            begin, count, batches = end, 0, []
        batches.append(batch)
        count += batch.number
    yield replace(chunk, begin=begin, batches=batches)
