"""Whatever Kafka takes is read, by both clients, and what they could read anyway is read as before."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords as UntouchedRecords
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.memory_records import MemoryRecords as KafkaPythonRecords

from pipeline.audit.workers import _begin
from pipeline.kafka.lenient_decoding import decode, install
from tests.harness.wire import Wire, pack

LOG_APPEND_TIME = 0b1000
GZIP = 0b0001

GOOD = Wire(b"key", b"value", [(b"name", b"x"), (b"null", None)])
HOSTILE = [
    Wire(b"key", b"value", [(b"caf\xe9", b"x")]),
    Wire(b"key", b"value", [(b"\xed\xa0\x80", b"x"), (b"name", b"\xff")]),
    Wire(b"key", b"value", [(b"name", b"x")], attributes=0x80),
    Wire(b"poison", b"{}", attributes=0xFF),
    Wire(b"key", b"value", offset_delta=-7),
    Wire(b"key", b"value", offset_delta=0),
    Wire(b"key", b"value", offset_delta=1_000_000),
    Wire(b"\xfe" + b"\xff" * 8 + b"\x01", b"value", attributes=0x80),  # OverflowError in aiokafka's C code.
    Wire(b"\x80" + b"\xff" * 8 + b"\x01", b"value", attributes=0x80),  # MemoryError.
    Wire(b"\x82" + b"\x80" * 8 + b"\x02m", b"value", attributes=0x80),  # A key of `m`, to aiokafka alone.
    *(Wire(b"key", b"value", [(b"name", b"x")], wide=what) for what in ["key", "value", "headers", "name", "content"]),
]

NULLABLE = st.none() | st.binary(max_size=20)
RECORD = st.builds(
    Wire,
    key=NULLABLE,
    value=NULLABLE,
    headers=st.lists(st.tuples(st.binary(max_size=8), NULLABLE), max_size=3),
    attributes=st.integers(0, 255),
    offset_delta=st.none() | st.integers(-3, 3),
    timestamp_delta=st.integers(-5, 5),
    wide=st.lists(st.sampled_from(["length", "offset", "key", "value", "headers", "name", "content"])).map(" ".join),
)

Seen = tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    install()


def by_aiokafka(data: bytes) -> Iterator[Any]:
    records = fetcher.MemoryRecords(data)
    while records.has_next():
        yield from records.next_batch()


def by_kafka_python(data: bytes) -> Iterator[Any]:
    for batch in KafkaPythonRecords(data):
        yield from batch


def by_the_audit(data: bytes) -> list[Seen]:
    return seen(by_kafka_python(data))


CLIENTS = pytest.mark.parametrize("read", [by_aiokafka, by_kafka_python])


def seen(records: Iterator[Any]) -> list[Seen]:
    return [(record.offset, record.timestamp, record.key, record.value, list(record.headers)) for record in records]


def truth(records: list[Wire], *, base: int = 0, at: int | None = None) -> list[Seen]:
    return [
        (
            base + place,
            record.timestamp_delta if at is None else at,
            record.key,
            record.value,
            [(name.decode(errors="replace").replace("\ufffd", "?"), value) for name, value in record.headers],
        )
        for place, record in enumerate(records)
    ]


@CLIENTS
@pytest.mark.parametrize("hostile", HOSTILE, ids=repr)
def test_a_record_that_a_client_cannot_read_is_read_and_so_are_its_neighbours(read: Any, hostile: Wire) -> None:
    """In the middle of a batch that is not the first, as brokers hand them out."""
    records = [GOOD, GOOD, hostile, GOOD]

    found = seen(read(pack(records, base=40) + pack(records, base=44)))

    assert found == truth(records, base=40) + truth(records, base=44)


@CLIENTS
def test_a_byte_of_a_header_name_that_is_no_utf_8_becomes_a_question_mark(read: Any) -> None:
    """Nothing gets longer by that: a record that raw takes is a record that rejected takes."""
    (record,) = read(pack([Wire(headers=[(b"caf\xe9 \xe2\x82\xac", b"x"), (b"\xff" * 9, b"")])]))

    assert list(record.headers) == [("caf? \u20ac", b"x"), ("?" * 9, b"")]


@CLIENTS
@given(records=st.lists(RECORD, min_size=1, max_size=6))
def test_any_record_is_read_as_it_was_written(read: Any, records: list[Wire]) -> None:
    """Whatever a client would have made of it, worker and audit see the same."""
    assert seen(read(pack(records, base=3))) == truth(records, base=3)


@given(records=st.lists(RECORD, min_size=1, max_size=6))
def test_our_own_decoding_reads_all(records: list[Wire]) -> None:
    """It is what everything else falls back to, so nothing may be beyond it."""
    assert seen(decode(pack(records, base=3))) == truth(records, base=3)


def test_the_brokers_time_is_the_batchs() -> None:
    """raw has LogAppendTime: the records' own deltas do not count."""
    records = [Wire(b"a", timestamp_delta=9), Wire(b"b", headers=[(b"\xff", b"")], timestamp_delta=-9)]

    assert seen(by_aiokafka(pack(records, timestamp=1000, attributes=LOG_APPEND_TIME))) == truth(records, at=1000)


def test_a_batch_with_gaps_is_left_to_the_client() -> None:
    """Compaction makes them: offsets there are not counted."""
    data = bytearray(pack([GOOD, Wire(b"b", offset_delta=5)]))
    data[23:27] = (5).to_bytes(4, "big")  # The last offset's delta.

    assert [record.offset for record in by_aiokafka(bytes(data))] == [0, 5]
    assert [record.offset for record in by_kafka_python(bytes(data))] == [0, 5]


def test_what_is_compressed_is_left_to_the_client() -> None:
    """We decode no codecs: raw is uncompressed, whatever its producers send."""
    data = pack([GOOD], attributes=GZIP)

    with pytest.raises(Exception, match="Not a gzipped file"):
        list(by_aiokafka(data))


def test_the_audits_own_processes_read_it_too() -> None:
    """A large audit spawns them, and they have not come through the command line."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(answers,)) as pool:
        found = pool.submit(by_the_audit, pack([GOOD, HOSTILE[0]])).result()

    assert found == truth([GOOD, HOSTILE[0]])


@pytest.mark.parametrize("hostile", HOSTILE, ids=repr)
def test_the_hostile_records_are_what_the_untouched_client_cannot_read(hostile: Wire) -> None:
    """Otherwise the tests above prove nothing."""
    records = [GOOD, hostile]

    try:
        found = seen(iter(UntouchedRecords(pack(records)).next_batch()))
    except (UnicodeDecodeError, CorruptRecordException, OverflowError, MemoryError):
        return
    assert found != truth(records)
