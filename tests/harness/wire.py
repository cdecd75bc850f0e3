"""Record batches written byte by byte, as a client could that is none of ours; format 2 of Kafka's protocol."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.util import calc_crc32c, encode_varint

from pipeline.service.settings import Settings


@dataclass(frozen=True)
class Wire:
    """
    A record. Header names are bytes; `offset_delta` None: its place in the batch, as it should be.

    `wide` names numbers that are written in five bytes, with bits set that Java drops: length, offset, key, value,
    headers, name, content.
    """

    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    attributes: int = 0
    offset_delta: int | None = None
    timestamp_delta: int = 0
    wide: str = ""


def pack(records: Sequence[Wire], *, base: int = 0, timestamp: int = 0, attributes: int = 0) -> bytes:
    """Return the batch of *records*; *timestamp* (ms) is the first and the highest."""
    count = len(records)
    rest = struct.pack(">hiqqqhii", attributes, count - 1, timestamp, timestamp, -1, -1, -1, count)
    rest += b"".join(_record(record, place) for place, record in enumerate(records))
    return struct.pack(">qiibI", base, len(rest) + 9, -1, 2, calc_crc32c(rest)) + rest


async def write_batches(settings: Settings, *batches: bytes) -> None:
    """Have raw[0] take *batches*, one after the other."""
    async with AIOKafkaProducer(**settings.kafka.client_options(), acks="all") as producer:
        for batch in batches:
            await (await producer.send_batch(_Written(batch), settings.kafka.topics.raw, partition=0))


class _Written(BatchBuilder):  # type: ignore[misc]  # aiokafka is untyped.
    """A batch that is built already."""

    def __init__(self, data: bytes) -> None:
        super().__init__(len(data), 0)
        self._buffer = bytearray(data)
        self._relative_offset = 1  # aiokafka passes over what looks empty.


def _record(record: Wire, place: int) -> bytes:
    def varint(number: int, what: str) -> bytes:
        return _wide(number) if what in record.wide.split() else _varint(number)

    def sized(value: bytes | None, what: str) -> bytes:
        return varint(-1, what) if value is None else varint(len(value), what) + value

    delta = place if record.offset_delta is None else record.offset_delta
    body = bytes([record.attributes]) + _varint(record.timestamp_delta) + varint(delta, "offset")
    body += sized(record.key, "key") + sized(record.value, "value") + varint(len(record.headers), "headers")
    body += b"".join(sized(name, "name") + sized(value, "content") for name, value in record.headers)
    return sized(body, "length")


def _varint(number: int) -> bytes:
    written = bytearray()
    encode_varint(number, written.append)
    return bytes(written)


def _wide(number: int) -> bytes:
    """Write *number* in five bytes, whose last has three bits more than a 32-bit number needs."""
    zigzag = (number << 1 ^ number >> 31) & 0xFFFFFFFF
    return bytes(0x80 | zigzag >> shift & 0x7F for shift in (0, 7, 14, 21)) + bytes([0x70 | zigzag >> 28])
