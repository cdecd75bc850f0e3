"""The Kafka contract: what one process writes, another reads back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import contract
from pipeline.core.contract import (
    CountKey,
    Decision,
    Headers,
    Topics,
    WatermarkKey,
    header,
    pack_count_key,
    pack_decision,
    pack_watermark_key,
    rejected_key,
    transactional_prefix,
    unpack_decision,
    unpack_partial_key,
)

uint64s = st.integers(0, 2**64 - 1)
codes = st.text(max_size=128) | st.sampled_from(["", "|", "||", "watermark|0", "0|0|x", "é|\x00\n", "unknown"])


def test_the_topic_names_are_the_contract() -> None:
    """Consumers and operators write them down."""
    assert Topics.with_prefix("vod-deletions.") == Topics(
        raw="vod-deletions.raw",
        accepted="vod-deletions.accepted",
        rejected="vod-deletions.rejected",
        partial_counts="vod-deletions.partial-counts",
        failure_rates="vod-deletions.failure-rates",
    )


def test_the_keys_are_the_contract() -> None:
    """Compaction and other programs depend on the bytes; partition 3, window 12:00, a code with the separator."""
    assert pack_count_key(3, 1_704_110_400_000, "a|é") == b"3|1704110400000|a|\xc3\xa9"
    assert pack_count_key(3, 1_704_110_400_000, "") == b"3|1704110400000|"
    assert pack_watermark_key(3) == b"watermark|3"
    assert rejected_key(3, 42) == b"3:42"


def test_the_transactional_ids_are_the_contract() -> None:
    """A successor fences its predecessor under the same id, and operators grant what begins with the prefix."""
    assert transactional_prefix("vod-deletions.raw", "vod-pipeline") == "vod-deletions.raw-vod-pipeline-"
    assert transactional_prefix("a.raw", "group", "accept") == "a.raw-group-accept-"


def test_what_raw_admits_can_be_written_to_rejected() -> None:
    """A raw record, with 1 KiB of detail and the batch's own head, has to fit; or its partition stands still."""
    assert contract.RAW_MESSAGE_BYTES_MAX < contract.REJECTED_BATCH_BYTES_MAX
    assert contract.REJECTED_BATCH_BYTES_MAX + 2048 < contract.REJECTED_MESSAGE_BYTES_MAX
    assert contract.OUTPUT_BATCH_BYTES_MAX + 2048 < contract.OUTPUT_MESSAGE_BYTES_MAX


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1000), st.integers(-(2**63), 2**63 - 1), codes)
def test_a_count_key_is_read_back(partition: int, window: int, code: str) -> None:
    """A code may hold any character, the separator and the word watermark too."""
    assert unpack_partial_key(pack_count_key(partition, window, code)) == CountKey(partition, window, code)


@pytest.mark.parametrize("partition", [0, 1, 999])
def test_a_watermark_key_is_read_back(partition: int) -> None:
    """Both kinds of key share the topic and must not be mistaken for each other."""
    assert unpack_partial_key(pack_watermark_key(partition)) == WatermarkKey(partition)


def test_the_decision_header_is_the_contract() -> None:
    """Two big-endian uint64, then the ErrorCode: it is read back for 30 days, by newer versions too."""
    packed = b"\x00\x00\x00\x00\x00\x00\x00\x2a\xff\xff\xff\xff\xff\xff\xff\xffa|\xc3\xa9"

    assert pack_decision(42, 2**64 - 1) + "a|é".encode() == packed
    assert unpack_decision(packed) == Decision(42, 2**64 - 1, "a|é")


@settings(max_examples=100, deadline=None)
@given(uint64s, uint64s, codes)
def test_a_decision_is_read_back(raw_offset: int, fingerprint: int, code: str) -> None:
    """What restores from accepted knows nothing but this header, the key and the timestamp."""
    packed = pack_decision(raw_offset, fingerprint) + code.encode()

    assert unpack_decision(packed) == Decision(raw_offset, fingerprint, code)


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ([], None),
        ([("other", b"x")], None),
        ([("reason", b"x")], b"x"),
        ([("reason", b"")], b""),
        ([("reason", b"forged"), ("other", b"x"), ("reason", b"ours"), ("last", b"y")], b"ours"),
        ((("reason", b"forged"), ("reason", b"ours")), b"ours"),
    ],
)
def test_the_last_header_of_a_name_is_the_one(headers: Headers, value: bytes | None) -> None:
    """Ours are appended behind what the record came with: a sender cannot forge them."""
    assert header(headers, "reason") == value
