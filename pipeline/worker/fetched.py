"""
What aiokafka fetched of a partition, handed out as batches instead of records.

The private names used here are aiokafka's; kafka/internals.py lists them, and its version is asserted at start.
"""

from __future__ import annotations

from collections.abc import Iterator

from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecord, DefaultRecordBatch

from pipeline.worker.chunk import Batch


class _Batches:
    """Stands in for aiokafka's records: its position is the fetch's before it is iterated, and the next one after."""

    def __init__(self, batches: list[Batch], *, begin: int, end: int) -> None:
        self.next_fetch_offset = begin
        self._batches = batches
        self._end = end

    def __iter__(self) -> Iterator[Batch]:
        self.next_fetch_offset = self._end
        return iter(self._batches)


def keep_batches(result: FetchResult) -> int:
    """
    Have *result* hand out its batches of committed records instead of the records; returns their bytes.

    It does what aiokafka's PartitionRecords._unpack_records does, in the same order and with its own helpers, but
    without a generator step, three calls and a ConsumerRecord for each record: those cost more than the decoding.
    """
    fetched = result._partition_records
    if isinstance(fetched, _Batches):
        return 0
    batches: list[Batch] = []
    offset = begin = fetched.next_fetch_offset
    size: int = fetched._records.size_in_bytes()
    while fetched._records.has_next():
        batch = fetched._records.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {fetched._tp}")
        if batch.producer_id is not None:
            fetched._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and fetched._contains_abort_marker(batch):
                fetched._aborted_producers.discard(batch.producer_id)
        is_aborted = batch.is_transactional and batch.producer_id in fetched._aborted_producers
        if not is_aborted and not batch.is_control_batch:
            records = batch if batch.base_offset >= offset else _from_offset(batch, offset)
            batches.append(Batch(records, batch.next_offset - max(batch.base_offset, offset), batch.next_offset))
        offset = batch.next_offset
    result._partition_records = _Batches(batches, begin=begin, end=offset)
    return size


def _from_offset(batch: DefaultRecordBatch, offset: int) -> Iterator[DefaultRecord]:
    """Leave out what lies before *offset*: a fetch in the middle of a batch brings all of it."""
    return (record for record in batch if record.offset >= offset)
