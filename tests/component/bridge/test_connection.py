"""One connection without a socket: reads cut anywhere, answers in order, and bugs."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from pipeline.bridge.batch import StoredIn
from pipeline.bridge.errors import OverloadedError
from tests.harness.bridge_server import OK, Server, Wired, head, post, statuses, turns
from tests.vectors.hostile import BODY, CASES, CHUNKED, CHUNKS, H2C, LENGTH

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

CLOSING_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
# Of the hostile table, what has no other answer for being sent in more reads than one.
SHORT = [case.sent for case in CASES if len(case.sent) < 1500]
CUT = {
    "a callback": post(BODY),
    "two callbacks": post(b"1") + post(b"2"),
    "in chunks, with a trailer": head(CHUNKED) + CHUNKS[:-2] + b"x: y\r\n\r\n",
    "an offer to upgrade": post(BODY, H2C) + post(b"behind it"),
    "an offer to upgrade, in chunks": head(CHUNKED, H2C) + CHUNKS,
    "expecting 100": head(LENGTH, b"expect: 100-continue\r\n") + BODY,
    "unsigned": head(LENGTH, signed=b"") + BODY,
    "malformed behind a callback": post(b"1") + b"garbage\r\n\r\n",
    "the last one": post(b"1", b"connection: close\r\n") + post(b"2"),
}
Seen = tuple[bytes, bool, "Counter[str]", list[bytes]]


def pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(places)]


async def played(pieces: list[bytes], *, acked_after: int = 0) -> Seen:
    """Deliver *pieces*; so many of them come before Kafka acknowledges anything."""
    wired = Wired()
    wired.server.ack.clear()
    await wired.deliver(*pieces[:acked_after])
    wired.server.ack.set()
    await wired.deliver(*pieces[acked_after:])
    return wired.seen


@pytest.mark.parametrize("sent", CUT.values(), ids=CUT.keys())
async def test_wherever_a_request_is_cut_its_answers_are_the_same(sent: bytes) -> None:
    """A read ends anywhere."""
    whole = await played([sent])
    assert whole[0]

    assert await played([bytes([byte]) for byte in sent]) == whole
    for place in range(1, len(sent)):
        assert await played([sent[:place], sent[place:]]) == whole, sent[:place]


@settings(max_examples=400, deadline=None)
@given(
    requests=st.lists(st.sampled_from([*SHORT, post(b"1"), post(b"2")]), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 5000), max_size=3),
    acked_after=st.integers(0, 3),
)
def test_any_requests_cut_anywhere_have_the_same_answers(
    requests: list[bytes], cuts: list[int], acked_after: int
) -> None:
    """All of the hostile table, one after another on a connection, whenever Kafka acknowledges."""
    sent = b"".join(requests)

    cut = asyncio.run(played(pieces_of(sent, cuts), acked_after=acked_after))

    assert cut == asyncio.run(played([sent]))


async def test_answers_come_in_the_order_of_their_requests() -> None:
    wired = Wired()
    futures = []

    def publish(*_: Any, **__: Any) -> asyncio.Future[StoredIn]:
        futures.append(asyncio.get_running_loop().create_future())
        return futures[-1]

    wired.server.publish = publish  # type: ignore[method-assign]  # Set on one instance.
    await wired.deliver(post(b"1") + post(b"2") + post(b"3"))
    futures[2].set_result(StoredIn.KAFKA)
    futures[1].set_exception(OverloadedError())
    await turns()
    assert wired.wire.written == b""

    futures[0].set_result(StoredIn.KAFKA)
    await turns()

    assert statuses(wired.wire.written) == [200, 503, 200]


async def test_a_client_that_sends_ahead_is_slowed_and_not_refused() -> None:
    """While Kafka is slow, what a client sends ahead waits in its own socket."""
    wired = Wired()
    wired.server.ack.clear()
    await wired.deliver(*[post(b"%d" % number) for number in range(30)])
    assert wired.server.bodies == [b"0", b"1"]

    wired.server.ack.set()
    for _ in range(30):
        await wired.deliver()

    assert wired.seen == (OK * 30, False, {"published": 30}, [b"%d" % number for number in range(30)])


async def test_100_is_said_behind_the_answers_before_it() -> None:
    wired = Wired()
    wired.server.ack.clear()
    await wired.deliver(post(b"1"), head(LENGTH, b"expect: 100-continue\r\n"))
    assert wired.wire.written == b""

    wired.server.ack.set()
    await wired.deliver()

    assert statuses(wired.wire.written) == [200, 100]


async def test_http_1_0_is_not_answered_100() -> None:
    """RFC 9110, 10.1.1."""
    wired = Wired()

    await wired.deliver(head(LENGTH, b"expect: 100-continue\r\n", first=b"POST /your/callback HTTP/1.0") + BODY)

    assert wired.wire.written == CLOSING_OK


@pytest.mark.parametrize("is_repeated", [False, True], ids=["overloaded", "repeated"])
async def test_of_one_read_only_so_many_requests_are_answered_on_the_spot(is_repeated: bool) -> None:
    """To answer them all would hold up everybody else for as long."""
    wired = Wired(replay_cache_bytes=1 << 20)
    if is_repeated:
        await wired.deliver(post(BODY))
    else:
        wired.server.error = OverloadedError()
    before = len(statuses(wired.wire.written))

    await wired.deliver(post(BODY) * 100)

    assert statuses(wired.wire.written)[before:] == [200 if is_repeated else 503] * 17 + [503]
    assert wired.wire.is_closed


@pytest.mark.parametrize("is_at_once", [True, False])
async def test_a_bug_is_answered_500_and_logged_and_closes_the_connection(is_at_once: bool) -> None:
    """Else no one would answer, and a connection that waits for us is never cut off."""
    wired = Wired()

    def publish(*_: Any, **__: Any) -> asyncio.Future[StoredIn]:
        if is_at_once:
            raise ZeroDivisionError
        durable = asyncio.get_running_loop().create_future()
        durable.cancel()
        return durable

    wired.server.publish = publish  # type: ignore[method-assign]  # Set on one instance.
    with capture_logs() as logs:
        await wired.deliver(post(BODY))

    assert wired.wire.written.startswith(b"HTTP/1.1 500 ")
    assert wired.wire.is_closed
    assert [(line["event"], line["log_level"]) for line in logs] == [("request_failed", "error")]


async def test_a_bug_of_one_connection_keeps_no_other_from_its_answer() -> None:
    """They wait for the same batch of records."""
    durable: asyncio.Future[StoredIn] = asyncio.get_running_loop().create_future()
    server = Server()
    server.publish = lambda *_, **__: durable  # type: ignore[method-assign]  # Set on one instance.
    broken, whole = Wired(server), Wired(server)
    for wired in (broken, whole):
        await wired.deliver(post(BODY))

    def write(data: Any) -> None:
        raise ZeroDivisionError

    broken.wire.write = write  # type: ignore[method-assign]  # Set on one instance.
    with capture_logs() as logs:
        durable.set_result(StoredIn.KAFKA)
        await turns()

    assert broken.wire.is_aborted
    assert whole.wire.written == OK
    assert server.counted() == {"published": 2}
    assert [line["event"] for line in logs] == ["request_failed"]


async def test_behind_a_bug_what_was_handed_on_is_counted_and_not_answered() -> None:
    wired = Wired()
    first: asyncio.Future[StoredIn] = asyncio.get_running_loop().create_future()
    futures = [first, asyncio.get_running_loop().create_future()]
    wired.server.publish = lambda *_, **__: futures.pop(0)  # type: ignore[method-assign]  # Set on one instance.
    second = futures[1]
    await wired.deliver(post(b"1") + post(b"2"))

    first.cancel()
    await turns()
    second.set_result(StoredIn.KAFKA)
    await turns()

    assert statuses(wired.wire.written) == [500]
    assert wired.server.counted() == {"published": 1}


async def test_a_refusal_waits_for_the_answers_before_it_and_nothing_follows_it() -> None:
    wired = Wired()
    wired.server.ack.clear()
    await wired.deliver(post(BODY), b"garbage\r\n\r\n", post(BODY))
    assert wired.seen == (b"", False, {"malformed": 1}, [BODY])

    wired.server.ack.set()
    await turns()

    assert statuses(wired.wire.written) == [200, 400]
    assert wired.wire.is_closed


@pytest.mark.parametrize("sent", [post(b"x" * 60_000), head(b"content-length: 60000\r\n", signed=b"") + b"x" * 60_000])
async def test_a_silent_connection_holds_nothing_of_its_last_request(sent: bytes) -> None:
    """Tens of thousands of them may stay open between two callbacks."""
    wired = Wired()

    await wired.deliver(sent)

    reader = wired.connection._reader
    assert (reader.target, reader._headers, reader._body) == (b"", [], b"")
    assert (wired.connection._admitted, wired.connection._answers) == (None, [])
