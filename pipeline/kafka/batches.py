"""Kafka batches that are filled row by row, and sent: what bridge and worker have in common on the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aiokafka import TopicPartition
from aiokafka.errors import (
    InvalidTimestampError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    UnsupportedForMessageFormatError,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from pipeline.core.contract import Row
from pipeline.kafka.clients import InvalidRecordError

# Those that are about what is in a batch.
REFUSALS = (
    InvalidRecordError,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    UnsupportedForMessageFormatError,
)


class RefusedError(Exception):
    """Kafka refuses a batch, and will however often it is sent; the message names where it was to go, and why."""

    def __init__(self, tp: TopicPartition, why: Exception) -> None:
        super().__init__(f"{tp.topic}[{tp.partition}]: {why!r}")
        self.tp = tp
        self.why = why


class Batch(BatchBuilder):  # type: ignore[misc]  # aiokafka is untyped.
    """
    A batch in Kafka's record format.

    BatchBuilder.append costs another 0.2 us a row for serializers and metadata that are not used here.
    """

    def __init__(self, bytes_max: int, *, is_transactional: bool) -> None:
        super().__init__(bytes_max, 0, is_transactional=int(is_transactional))

    def add(self, row: Row) -> bool:
        """Append *row*, unless the batch is full; a row larger than a batch has one of its own."""
        key, value, timestamp, headers = row
        if self._builder.append(self._relative_offset, timestamp, key, value, headers) is None:
            return False
        self._relative_offset += 1
        return True

    def number(self, producer_id: int, epoch: int, sequence: int) -> None:
        """Say whose batch it is, and how many records this one wrote into the partition in this epoch before it."""
        self._set_producer_state(producer_id, epoch, sequence)

    def build(self) -> bytes:
        """Return the batch, as it is numbered."""
        return self._builder.build()  # type: ignore[no-any-return]  # aiokafka is untyped.


class Batches:
    """
    Rows on their way into *tp*, encoded as they come: a list of them would have left the processor's cache by then.

    `first` is the first row. `bytes_max` bounds a batch; the broker judges a single row that is larger.
    """

    def __init__(self, tp: TopicPartition, rows: Iterable[Row] = (), *, bytes_max: int, is_transactional: bool) -> None:
        self.tp = tp
        self.batches: list[Batch] = []
        self.first: Row | None = None
        self._bytes_max = bytes_max
        self._is_transactional = is_transactional
        self._add: Callable[[Row], bool] | None = None
        for row in rows:
            self.append(row)

    @property
    def size(self) -> int:
        """How many bytes there are to send."""
        return sum(batch.size() for batch in self.batches)

    def append(self, row: Row) -> None:
        """Encode *row*."""
        if self._add is None or not self._add(row):
            self.first = self.first or row
            batch = Batch(self._bytes_max, is_transactional=self._is_transactional)
            self.batches.append(batch)
            self._add = batch.add
            batch.add(row)
