"""
Has both Kafka clients read every record that Kafka takes, and read it as Java does.

A broker checks a record's structure, and no more. A header name that is no UTF-8, attributes of 128 or more, an offset
that is another record's, a length with bits that Java drops: aiokafka and kafka-python raise in the middle of a batch,
or read something else, and the partition could not be read beyond it. From the first such record on, a batch is decoded
here: bytes of a name that are no UTF-8 become `?`, attributes are passed over, as none is defined, and the offset is
the one that Kafka counts.

Source: https://kafka.apache.org/documentation/#recordbatch and #record, org.apache.kafka.common.record.DefaultRecord,
and ByteUtils; what brokers take was tried on Kafka 4.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch

from pipeline.kafka.internals import check_versions

_LENGTH = struct.Struct(">8xi")  # Base offset, and how many bytes of the batch follow.
# Base offset, attributes, last offset delta, first and highest timestamp, number of records.
_HEAD = struct.Struct(">q4x4xx4xhiqq8x2x4xi")
_COMPRESSION = 0b0111
_LOG_APPEND_TIME = 0b1000

_INT_MAX = 0x7FFFFFFF
_ATTRIBUTES_MAX = 127  # From here on, both clients take the next byte for a part of them.


class Record(NamedTuple):
    """What both clients ask of a record."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    size_in_bytes: int
    checksum: None = None

    def validate_crc(self) -> bool:
        """Return True: that of the batch was looked at."""
        return True


def install() -> None:
    """Change how this process's clients read: neither has a place where one consumer alone could be changed."""
    check_versions("aiokafka", "kafka-python")
    fetcher.MemoryRecords = _AiokafkaRecords
    memory_records.DefaultRecordBatch = _KafkaPythonBatch


def decode(data: bytes | memoryview) -> Iterator[Record]:
    """
    Yield the records of one uncompressed batch.

    Args:
        data: The whole batch, in format 2, as a broker that took it hands it out.
    """
    base, attributes, _, first_timestamp, highest_timestamp, count = _HEAD.unpack_from(data)
    is_stamped = bool(attributes & _LOG_APPEND_TIME)
    at = _HEAD.size
    for index in range(count):
        size, start = _int_at(data, at)
        timestamp_delta, at = decode_varint(data, start + 1)  # Behind the attributes.
        _, at = _int_at(data, at)
        key, at = _bytes_at(data, at)
        value, at = _bytes_at(data, at)
        number, at = _int_at(data, at)
        headers = []
        for _ in range(number):
            name, at = _bytes_at(data, at)
            content, at = _bytes_at(data, at)
            headers.append((_readable(name or b""), content))
        timestamp = highest_timestamp if is_stamped else first_timestamp + timestamp_delta
        yield Record(base + index, timestamp, int(is_stamped), key, value, headers, size)


def _int_at(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Read a 32-bit number; returns it, and where it ends. Its five bytes have room for more bits, which Java drops."""
    if at >= len(data):
        raise CorruptRecordException(
            f"a record ends behind its batch, at {at} of {len(data)}"
        )  # The C code would crash.
    number, at = decode_varint(data, at)
    return (number & _INT_MAX if number >= 0 else ~(~number & _INT_MAX)), at


def _bytes_at(data: bytes | memoryview, at: int) -> tuple[bytes | None, int]:
    """Read what has its length before it; returns it, or None where the length is negative, and where it ends."""
    size, at = _int_at(data, at)
    return (None, at) if size < 0 else (bytes(data[at : at + size]), at + size)


def _readable(name: bytes) -> str:
    """Decode a header name. As U+FFFD a byte would take three, and rejected takes twice the size of raw's records."""
    return name.decode(errors="replace").replace("\ufffd", "?")


def _read(records: Iterator[Any], data: bytes | memoryview) -> Iterator[Any]:
    """Yield a batch's *records*, as its client decodes them from *data*; from where it fails on, as we do."""
    base, attributes, last_delta, _, _, count = _HEAD.unpack_from(data)
    if attributes & _COMPRESSION or last_delta + 1 != count:
        # The broker decompresses raw; and it has no gaps, as it is not compacted. Only we write what is.
        yield from records
        return
    end, at = len(data), _HEAD.size
    for index in range(count):
        size, at = decode_varint(data, at)
        if data[at] > _ATTRIBUTES_MAX:
            break
        try:
            record = next(records)
        except Exception:  # noqa: BLE001  # Whatever a client makes of such bytes: OverflowError and MemoryError, too.
            break
        at += size
        if record.offset != base + index or not 0 < at <= end:
            break
        yield record
    else:
        return
    yield from islice(decode(data), index, None)


class _AiokafkaRecords:
    """aiokafka's MemoryRecords, which keeps the bytes that its batches are decoded from."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._records = MemoryRecords(data)
        self._at = 0

    def size_in_bytes(self) -> int:
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def next_batch(self) -> _AiokafkaBatch:
        batch, begin = self._records.next_batch(), self._at
        self._at += _LENGTH.size + _LENGTH.unpack_from(self._data, begin)[0]
        return _AiokafkaBatch(batch, self._data[begin : self._at])


class _AiokafkaBatch:
    """A batch of aiokafka's, but for its iteration."""

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)  # aiokafka takes a control batch's record like this.

    def __iter__(self) -> Iterator[Any]:
        return _read(iter(self._batch), self._data)


class _KafkaPythonBatch(DefaultRecordBatch):  # type: ignore[misc]  # kafka-python is untyped.
    """A batch of kafka-python's, but for its iteration."""

    def __init__(self, buffer: memoryview) -> None:
        super().__init__(buffer)
        self._data = buffer

    def __iter__(self) -> Iterator[Any]:
        super().__iter__()  # Decompresses.
        return _read(iter(self.__next__, None), self._data)
