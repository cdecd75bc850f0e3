"""
Kafka's own definitions of its messages, and what they say of bytes.

They come with Kafka's clients jar (common/message/*.json), from which Kafka generates its own code.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tests.conftest import KAFKA_JARS

if TYPE_CHECKING:
    from collections.abc import Iterator

FIXED = {"int8": ">b", "int16": ">h", "int32": ">i", "int64": ">q", "bool": ">?"}


@lru_cache
def definition(name: str) -> Any:
    """Return what Kafka says of a message."""
    (jar,) = KAFKA_JARS.glob("kafka-clients-*.jar")
    with zipfile.ZipFile(jar) as file:
        text = file.read(f"common/message/{name}.json").decode()
    return json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))


def is_in(versions: str, version: int) -> bool:
    low, dash, high = versions.partition("-")
    if versions.endswith("+"):
        return version >= int(versions[:-1])
    return versions != "none" and int(low) <= version <= int(high if dash else low)


def fields(described: Any, version: int, structs: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield name, type and fields of what a message of *version* has, but for what stands in tags."""
    for field in described:
        if is_in(field["versions"], version) and "tag" not in field:
            kind = field["type"].removeprefix("[]")
            yield field["name"], field["type"], field.get("fields") or structs.get(kind)


def structs_of(message: Any) -> dict[str, Any]:
    return {common["name"]: common["fields"] for common in message.get("commonStructs", [])}


class Reading:
    """Reads a message as its definition has it."""

    def __init__(self, data: bytes, version: int, structs: dict[str, Any]) -> None:
        self.data, self.version, self.structs = data, version, structs

    def message(self, described: Any) -> dict[str, Any]:
        found = {name: self.value(kind, inner) for name, kind, inner in fields(described, self.version, self.structs)}
        assert self.take(1) == b"\0"  # No tags.
        return found

    def value(self, kind: str, inner: Any) -> Any:
        if kind.startswith("[]"):
            return [self.value(kind[2:], inner) for _ in range(self.length() or 0)]
        if kind in FIXED:
            (value,) = struct.unpack(FIXED[kind], self.take(struct.calcsize(FIXED[kind])))
            return value
        if inner is not None:
            return self.message(inner)
        size = self.length()
        found = None if size is None else self.take(size)
        return found.decode() if kind == "string" and found is not None else found

    def length(self) -> int | None:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value - 1 if value else None

    def take(self, size: int) -> bytes:
        found, self.data = self.data[:size], self.data[size:]
        assert len(found) == size
        return found


def written(value: Any, kind: str, inner: Any, version: int, structs: dict[str, Any]) -> bytes:
    """Write a value as its definition has it."""
    if kind.startswith("[]"):
        return length(len(value)) + b"".join(written(item, kind[2:], inner, version, structs) for item in value)
    if kind in FIXED:
        return struct.pack(FIXED[kind], value)
    if inner is not None:
        return message(value, inner, version, structs)
    return b"\0" if value is None else length(len(value.encode())) + value.encode()


def message(values: dict[str, Any], described: Any, version: int, structs: dict[str, Any]) -> bytes:
    parts = [
        written(values.pop(name), kind, inner, version, structs)
        for name, kind, inner in fields(described, version, structs)
    ]
    assert not values
    return b"".join(parts) + b"\x01\x09\x02hi"  # A tag of a later version.


def length(size: int) -> bytes:
    size += 1
    return bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
