"""Records land on the partition Java's clients would choose, or deduplication breaks."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kafka.murmur2 import murmur2, partitions_of


@given(st.lists(st.binary(max_size=1100), max_size=200))
def test_every_key_of_a_group_goes_where_kafka_puts_it_alone(keys: list[bytes]) -> None:
    assert partitions_of(keys, 7) == [(reference(key) & 0x7FFFFFFF) % 7 for key in keys]


@given(st.integers(0, 40).flatmap(lambda length: st.lists(st.binary(min_size=length, max_size=length), min_size=1)))
def test_keys_of_one_length_do_not_disturb_each_other(keys: list[bytes]) -> None:
    assert list(murmur2(keys)) == [reference(key) & 0xFFFFFFFF for key in keys]


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
    assert murmur2([data]) == (expected & 0xFFFFFFFF,)


def test_the_sign_bit_does_not_count() -> None:
    """Java: toPositive(murmur2(key)) % partitions; the hash of `foobar` is negative, 0x50E4653E without its sign."""
    assert partitions_of([b"foobar"], 4) == [2]
