"""What the bridge remembers of requests, and what it forgets."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from pipeline.bridge.batch import StoredIn
from pipeline.bridge.repeats import ENTRY_BYTES, Bursts, Recent


def durable(error: Exception | None = None) -> asyncio.Future[StoredIn]:
    future: asyncio.Future[StoredIn] = asyncio.Future(loop=asyncio.new_event_loop())
    if error is None:
        future.set_result(StoredIn.KAFKA)
    else:
        future.set_exception(error)
        future.exception()
    future.get_loop().close()
    return future


def test_a_request_is_its_timestamp_and_its_body() -> None:
    recent, future = Recent(1 << 20), durable()
    recent.add((b"1", b"body"), future)

    assert recent.get((b"1", b"body")) is future
    assert recent.get((b"2", b"body")) is None
    assert recent.get((b"1", b"bodY")) is None


def test_what_is_remembered_is_shown_and_never_more_than_is_allowed() -> None:
    recent, future = Recent(10_000), durable()
    sizes = []
    for number in range(100):
        recent.add((b"%03d" % number, b"x" * 97), future)
        sizes.append(recent.bytes)

    assert sizes[0] == 100 + ENTRY_BYTES
    assert sizes[1] == 2 * sizes[0]
    assert 5_000 < max(sizes) <= 10_000 + 2 * sizes[0]


def test_what_failed_was_not_seen() -> None:
    recent = Recent(1 << 20)
    recent.add((b"1", b"body"), durable(TimeoutError()))

    assert recent.get((b"1", b"body")) is None


def test_memory_is_bounded_and_the_newest_half_is_kept() -> None:
    body = b"x" * (1000 - ENTRY_BYTES)
    recent, future = Recent(10_000), durable()

    for number in range(1000):
        recent.add((b"%d" % number, body), future)

    known = [number for number in range(1000) if recent.get((b"%d" % number, body)) is not None]
    assert known == list(range(1000 - len(known), 1000))
    assert 5 <= len(known) <= 10


@pytest.mark.parametrize(
    ("timestamp_bytes", "body_bytes", "number"), [(15_000, 2, 4_000), (10, 15_000, 4_000), (10, 2, 60_000)]
)
def test_what_is_kept_takes_no_more_memory_than_it_may(timestamp_bytes: int, body_bytes: int, number: int) -> None:
    """An unsigned callback's timestamp is any header a client sends: 15 KB with a body of two bytes."""
    allowed = 8 << 20
    loop = asyncio.new_event_loop()
    recent = Recent(allowed)
    tracemalloc.start()
    try:
        for each in range(number):
            future: asyncio.Future[StoredIn] = asyncio.Future(loop=loop)
            future.set_result(StoredIn.KAFKA)
            recent.add((b"%0*d" % (timestamp_bytes, each), b"%0*d" % (body_bytes, each)), future)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        loop.close()

    assert allowed / 3 < taken < allowed


def test_a_signature_is_the_same_in_large_letters() -> None:
    """The check of it ignores the case, so a thief could write one in four billion ways."""
    bursts = Bursts(2)

    assert [bursts.add(signature, 1.0) for signature in (b"a" * 32, b"A" * 32, b"aA" * 16)] == [False, False, True]


def test_a_burst_is_shown_once_a_second_and_signature() -> None:
    bursts = Bursts(2)

    one, other = b"a" * 32, b"b" * 32

    assert [bursts.add(one, 1.0) for _ in range(5)] == [False, False, True, False, False]
    assert [bursts.add(other, 1.5) for _ in range(3)] == [False, False, True]
    assert [bursts.add(one, 2.0) for _ in range(3)] == [False, False, True]
