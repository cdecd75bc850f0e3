"""The end of one connection without a socket: a client that does not read or is gone, a stop, and deadlines."""

from __future__ import annotations

import pytest

from tests.harness.bridge_server import OK, Wired, post, statuses, turns
from tests.vectors.hostile import BODY

CLOSING_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


async def test_of_a_client_that_does_not_read_nothing_more_is_taken() -> None:
    """Its answers would pile up."""
    wired = Wired()
    wired.connection.pause_writing()
    await wired.deliver(post(BODY))
    assert wired.server.bodies == []

    wired.connection.resume_writing()
    await wired.deliver()

    assert wired.seen == (OK, False, {"published": 1}, [BODY])


async def test_one_gone_before_the_answer_is_counted_and_not_written_to() -> None:
    """uvloop raises where something is written to a closed socket."""
    wired = Wired()
    wired.server.ack.clear()
    await wired.deliver(post(BODY))

    wired.wire.close()
    wired.connection.connection_lost(None)
    wired.server.ack.set()
    await turns()

    assert wired.seen == (b"", True, {"published": 1}, [BODY])
    assert wired.is_over


STOPS = {
    "silent": (b"", b"", b""),
    "between requests": (post(BODY), b"", OK),
    "in a head": (post(BODY)[:40], b"", b""),
    "in a body": (post(BODY)[:-4], post(BODY)[-4:], CLOSING_OK),
    "in a head behind a request": (post(BODY) + post(b"2")[:40], b"", OK),
}


@pytest.mark.parametrize(("sent", "rest", "written"), STOPS.values(), ids=STOPS.keys())
async def test_a_server_that_stops_answers_what_has_begun(sent: bytes, rest: bytes, written: bytes) -> None:
    wired = Wired()
    await wired.deliver(*([sent] if sent else []))

    wired.connection.stop()
    await wired.deliver(*([rest] if rest else []))

    assert (wired.wire.written, wired.wire.is_closed) == (written, True)


async def test_a_server_that_stops_waits_for_kafka_and_says_that_it_closes() -> None:
    wired = Wired()
    wired.server.ack.clear()
    await wired.deliver(post(BODY))
    wired.connection.stop()
    assert wired.seen == (b"", False, {}, [BODY])

    wired.server.ack.set()
    await turns()

    assert wired.seen == (CLOSING_OK, True, {"published": 1}, [BODY])


# Of Server: 10 s for a request, 60 s between two; 2 s for closing.
DEADLINES = {
    "a new connection": (b"", 10, [408]),
    "a head": (post(BODY)[:40], 10, [408]),
    "a body": (post(BODY)[:-4], 10, [408]),
    "between requests": (post(BODY), 60, [200]),
    "a head behind a request": (post(BODY) + post(BODY)[:40], 10, [200, 408]),
}


@pytest.mark.parametrize(("sent", "seconds", "answers"), DEADLINES.values(), ids=DEADLINES.keys())
async def test_each_state_has_its_deadline_and_so_has_closing(sent: bytes, seconds: float, answers: list[int]) -> None:
    """A refusal is given once; a client that does not let the connection end is aborted."""
    wired = Wired()
    await wired.deliver(*([sent] if sent else []))

    wired.connection.check(1000)
    wired.connection.check(1000 + seconds - 0.1)
    assert not wired.wire.is_closed
    wired.connection.check(1000 + seconds)
    assert (wired.wire.is_closed, wired.wire.is_aborted) == (True, False)
    wired.connection.check(2000)
    wired.connection.check(2000 + 1.9)
    assert not wired.wire.is_aborted
    wired.connection.check(2000 + 2)

    assert wired.wire.is_aborted
    assert statuses(wired.wire.written) == answers
    assert sum(count for outcome, count in wired.server.counted().items() if "timeout" in outcome) == answers.count(408)


@pytest.mark.parametrize(
    ("begun", "rest", "times"),
    [(post(BODY)[:-4], post(BODY)[-4:], (1000, 1009, 1018)), (b"", post(BODY), (1000, 1050, 1100))],
    ids=["requests", "pauses"],
)
async def test_each_request_and_each_pause_has_its_own_time(begun: bytes, rest: bytes, times: tuple[int, ...]) -> None:
    wired = Wired()
    for now in times:
        await wired.deliver(*([begun] if begun else []))
        wired.connection.check(now)
        await wired.deliver(rest)

    assert wired.seen == (OK * 3, False, {"published": 3}, [BODY] * 3)


async def test_no_deadline_counts_while_an_answer_is_due() -> None:
    wired = Wired()
    wired.server.ack.clear()
    await wired.deliver(post(BODY) + post(BODY)[:40])
    for now in (1000, 2000, 3000):
        wired.connection.check(now)
    wired.server.ack.set()
    await turns()

    wired.connection.check(4000)
    wired.connection.check(4009)

    assert wired.seen == (OK, False, {"published": 1}, [BODY])


async def test_a_client_that_does_not_read_has_its_time_and_is_aborted_also_while_an_answer_is_due() -> None:
    wired = Wired()
    wired.server.ack.clear()
    await wired.deliver(post(BODY))
    wired.connection.pause_writing()

    wired.connection.check(1000)
    wired.connection.check(1009)
    assert not wired.wire.is_aborted
    wired.connection.check(1010)

    assert wired.wire.is_aborted


async def test_bytes_that_trickle_in_do_not_prolong_a_deadline() -> None:
    wired = Wired()
    for second, byte in enumerate(post(BODY)[:40]):
        await wired.deliver(bytes([byte]))
        wired.connection.check(1000 + second)

    assert statuses(wired.wire.written) == [408]


async def test_a_request_has_its_own_time_and_not_that_of_the_pause_before_it() -> None:
    wired = Wired()
    await wired.deliver(post(BODY))
    wired.connection.check(1000)
    await wired.deliver(post(BODY)[:-4])
    wired.connection.check(1001)
    wired.connection.check(1011)

    assert statuses(wired.wire.written) == [200, 408]


async def test_a_client_that_stops_reading_in_a_pause_has_the_time_of_a_request() -> None:
    wired = Wired()
    await wired.deliver(post(BODY))
    wired.connection.check(1000)
    wired.connection.pause_writing()
    wired.connection.check(1001)
    wired.connection.check(1011)

    assert wired.wire.is_aborted


async def test_one_that_reads_again_has_the_time_of_a_pause() -> None:
    wired = Wired()
    await wired.deliver(post(BODY))
    wired.connection.pause_writing()
    wired.connection.check(1000)
    wired.connection.resume_writing()
    wired.connection.check(1009)
    wired.connection.check(1011)

    assert not wired.wire.is_aborted
    assert not wired.wire.is_closing()
