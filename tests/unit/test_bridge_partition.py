"""Records land on the partition Java's clients would choose, or deduplication breaks."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bridge.partition import murmur2, partition_of


@given(st.binary(max_size=1100))
def test_murmur2_is_the_one_of_kafka(data: bytes) -> None:
    assert murmur2(data) == reference(data) & 0xFFFFFFFF


# Expected values: org.apache.kafka.common.utils.UtilsTest.testMurmur2.
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_the_values_of_the_java_client(data: bytes, expected: int) -> None:
    assert murmur2(data) == expected & 0xFFFFFFFF


def test_the_sign_bit_does_not_count() -> None:
    """Java: toPositive(murmur2(key)) % partitions; the hash of `foobar` is negative, 0x50E4653E without its sign."""
    assert partition_of(b"foobar", 4) == 2
