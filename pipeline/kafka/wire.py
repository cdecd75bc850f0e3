"""
Kafka's wire format, as far as requests of our own need it: flexible versions (KIP-482), packed by hand.

aiokafka packs field by field, which takes several times as long, and lacks some requests. Its client sends these all
the same: a request is to it whatever has the methods of `Request`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, Generic, NamedTuple, Self, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion

T = TypeVar("T")

NO_TAGS = b"\0"
_HEAD = struct.Struct(">hhih")
_CORRELATION = struct.Struct(">i")


def uvarint(number: int) -> bytes:
    """Pack an unsigned number, seven bits a byte."""
    packed = bytearray()
    while number > 0x7F:
        packed.append(number & 0x7F | 0x80)
        number >>= 7
    packed.append(number)
    return bytes(packed)


def octets(value: bytes) -> tuple[bytes, bytes]:
    """Pack compact bytes, without copying them."""
    return uvarint(len(value) + 1), value


def string(value: str | None) -> bytes:
    """Pack a compact string, or none."""
    return b"\0" if value is None else b"".join(octets(value.encode()))


def topics(partitions: Mapping[TopicPartition, Sequence[bytes]], *, tagged: bool = True) -> list[bytes]:
    """Pack what belongs to each partition, by topic: each with its number, and tags of its own if it is *tagged*."""
    by_topic: dict[str, list[TopicPartition]] = {}
    for tp in partitions:
        by_topic.setdefault(tp.topic, []).append(tp)
    parts = [uvarint(len(by_topic) + 1)]
    for topic, tps in by_topic.items():
        parts += string(topic), uvarint(len(tps) + 1)
        for tp in tps:
            parts += _CORRELATION.pack(tp.partition), *partitions[tp], NO_TAGS if tagged else b""
        parts.append(NO_TAGS)
    return parts


class Answer:
    """Reads an answer, field by field."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._at = position

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Read fields of a fixed size."""
        values = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return values

    def uvarint(self) -> int:
        """Read an unsigned number."""
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def string(self) -> str | None:
        """Read a compact string, or none."""
        size = self.uvarint() - 1
        if size < 0:
            return None
        self._at += size
        return self._data[self._at - size : self._at].decode()

    def items(self) -> range:
        """Read how many items follow."""
        return range(self.uvarint() - 1)

    def skip_tags(self) -> None:
        """Read over what later versions added."""
        for _ in range(self.uvarint()):
            self.uvarint()
            size = self.uvarint()
            self._at += size


class Request(Generic[T]):
    """A packed request, in parts that are joined once; *parse* reads its answer."""

    def __init__(self, key: int, version: int, parts: Sequence[bytes], parse: Callable[[Answer], T]) -> None:
        self.key, self.version, self.parts, self.parse = key, version, parts, parse
        self._header = b""

    # What aiokafka's connection asks of a request.

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> Self:
        """Refuse a broker that does not take this version."""
        lowest, highest = versions.get(self.key, (0, -1))
        if not lowest <= self.version <= highest:
            raise IncompatibleBrokerVersion(f"the broker takes no version {self.version} of request {self.key}")
        return self

    def build_request_header(self, correlation_id: int, client_id: str) -> _Packed:
        """Pack the header, version 2, which `encode` returns with the body: to add one to the other copies both."""
        name = client_id.encode()
        self._header = _HEAD.pack(self.key, self.version, correlation_id, len(name)) + name + NO_TAGS
        return _Packed(b"")

    def encode(self) -> bytes:
        """Return header and body."""
        return b"".join((self._header, *self.parts))

    def parse_response_header(self, data: BytesIO) -> _ResponseHeader:
        """Read the header, version 1; its tags are left to `decode`."""
        return _ResponseHeader(*_CORRELATION.unpack(data.read(_CORRELATION.size)))

    @property
    def RESPONSE_TYPE(self) -> Self:  # noqa: N802  # aiokafka's name.
        """Return what decodes the answer."""
        return self

    def decode(self, data: BytesIO) -> T:
        """Read the answer."""
        answer = Answer(data.getvalue(), _CORRELATION.size)
        answer.skip_tags()
        return self.parse(answer)


class _Packed(NamedTuple):
    data: bytes

    def encode(self) -> bytes:
        return self.data


class _ResponseHeader(NamedTuple):
    correlation_id: int
