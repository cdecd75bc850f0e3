"""What the bridge remembers of requests, and what it forgets."""

from __future__ import annotations

import asyncio

from pipeline.bridge.repeats import ENTRY_BYTES, Bursts, Recent


def durable(error: Exception | None = None) -> asyncio.Future[bool]:
    future: asyncio.Future[bool] = asyncio.Future(loop=asyncio.new_event_loop())
    if error is None:
        future.set_result(False)
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


def test_a_burst_is_told_once_a_second_and_signature() -> None:
    bursts = Bursts(2)

    assert [bursts.add(b"a", 1.0) for _ in range(5)] == [False, False, True, False, False]
    assert [bursts.add(b"b", 1.5) for _ in range(3)] == [False, False, True]
    assert [bursts.add(b"a", 2.0) for _ in range(3)] == [False, False, True]
