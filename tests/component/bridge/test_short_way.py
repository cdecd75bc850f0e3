"""The short way of a whole request changes nothing but the time it takes: uvicorn's way is the model."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from pipeline.bridge.errors import OverloadedError
from pipeline.bridge.protocol import BoundedProtocol, Exchange
from tests.component.bridge.test_hostile import BODY, CASES, head, post
from tests.harness.bridge_server import Server

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

TURNS = 12  # Of the loop: more than any answer takes.
SHORT = [case.sent for case in CASES if len(case.sent) < 4000]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

Seen = tuple[bytes, bool, "Counter[str]", list[bytes]]


class Wire(asyncio.Transport):
    """A connection whose client is this test; like a real one it delivers nothing while reading is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = self.is_paused = False

    def write(self, data: Any) -> None:
        self.written += data  # Closing or not: a real one still sends it while the client has not read what is before.

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_extra_info(self, _: str, default: Any = None) -> Any:
        return default


async def turns() -> None:
    """Let the bridge do all that it can."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


class Connection:
    """One connection to a bridge that has no socket."""

    def __init__(self, take: Callable[..., bool] | None = None) -> None:
        self.server = Server()
        if take is not None:
            self.server.app.take = take  # type: ignore[method-assign]  # Set on one instance.
        config = uvicorn.Config(
            self.server.app, ws="none", lifespan="off", interface="asgi3", log_config=None, server_header=False,
            date_header=False, proxy_headers=False, access_log=False, http=BoundedProtocol,
        )  # fmt: skip
        make = partial(BoundedProtocol, connections_max=9, on_refused=self.server._count)
        self.protocol = make(config=config, server_state=ServerState(), app_state={})
        self.wire = Wire()
        self.protocol.connection_made(self.wire)
        self._waiting: list[bytes] = []

    async def deliver(self, *pieces: bytes) -> None:
        """Bring *pieces* as a read each, behind those that wait, and let the bridge do what it can after each."""
        self._waiting += pieces
        await turns()
        while self._waiting and not (self.wire.is_closed or self.wire.is_paused):
            self.protocol.data_received(self._waiting.pop(0))
            await turns()

    @property
    def seen(self) -> Seen:
        return self.wire.written, self.wire.is_closed, self.server.counted(), self.server.bodies


def pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(places)]


async def played(pieces: list[bytes], acked_after: int, take: Callable[..., bool] | None = None) -> Seen:
    """Deliver *pieces*; so many of them come before Kafka acknowledges anything."""
    connection = Connection(take)
    connection.server.ack.clear()
    await connection.deliver(*pieces[:acked_after])
    connection.server.ack.set()
    await connection.deliver(*pieces[acked_after:])
    return connection.seen


@settings(max_examples=600, deadline=None)
@given(
    requests=st.lists(st.sampled_from([*SHORT, post(b"1"), post(b"2")]), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 5000), max_size=3),
    acked_after=st.integers(0, 3),
)
def test_either_way_has_the_same_answers_counts_and_records(
    requests: list[bytes], cuts: list[int], acked_after: int
) -> None:
    """All of the hostile table, one after another on a connection, cut into reads anywhere."""
    pieces = pieces_of(b"".join(requests), cuts)

    short = asyncio.run(played(pieces, acked_after))
    model = asyncio.run(played(pieces, acked_after, take=lambda *_: False))

    assert short == model


@pytest.mark.parametrize("take", [None, lambda *_: False], ids=["short way", "uvicorn's way"])
async def test_a_client_that_sends_ahead_is_slowed_and_not_refused(take: Callable[..., bool] | None) -> None:
    """While Kafka is slow, what a client sends ahead waits in its own socket."""
    connection = Connection(take)
    connection.server.ack.clear()
    await connection.deliver(*[post(b"%d" % number) for number in range(30)])
    assert connection.server.bodies == [b"0"]

    connection.server.ack.set()
    await connection.deliver()

    assert connection.seen == (OK * 30, False, {"published": 30}, [b"%d" % number for number in range(30)])


async def test_one_read_of_many_requests_is_refused_also_when_the_bridge_is_overloaded() -> None:
    """To answer them all on the spot would hold up everybody else for as long."""
    connection = Connection()

    def publish(*_: Any, **__: Any) -> asyncio.Future[bool]:
        raise OverloadedError

    connection.server.publish = publish  # type: ignore[method-assign]  # Set on one instance.
    await connection.deliver(post(BODY) * 100)

    assert connection.wire.written.count(b" 503 ") == 1
    assert connection.wire.is_closed


@pytest.mark.parametrize("is_at_once", [True, False])
async def test_a_bug_is_answered_500_and_closes_the_connection(
    is_at_once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody would else answer, and a connection that waits for us is never cut off."""
    connection = Connection()

    def publish(*_: Any, **__: Any) -> asyncio.Future[bool]:
        if is_at_once:
            raise ZeroDivisionError
        durable = asyncio.get_running_loop().create_future()
        durable.cancel()
        return durable

    connection.server.publish = publish  # type: ignore[method-assign]  # Set on one instance.
    await connection.deliver(post(BODY))

    assert connection.wire.written.startswith(b"HTTP/1.1 500 ")
    assert connection.wire.is_closed
    assert [record.message for record in caplog.records] == ["Exception in the application"]


@pytest.mark.parametrize("sent", [post(b"x" * 60_000), head(b"content-length: 60000\r\n", signed=b"") + b"x" * 60_000])
async def test_a_silent_connection_holds_nothing_of_its_last_request(sent: bytes) -> None:
    """Tens of thousands of them may stay open between two callbacks."""
    connection = Connection()

    await connection.deliver(sent)

    assert (connection.protocol._body, connection.protocol.headers) == (b"", [])


@pytest.mark.parametrize("take", [None, lambda *_: False], ids=["short way", "uvicorn's way"])
async def test_nothing_is_answered_behind_a_refusal(take: Callable[..., bool] | None) -> None:
    """What was taken before comes late: as the answer of the next request it would be a false 200."""
    connection = Connection(take)
    connection.server.ack.clear()
    await connection.deliver(post(BODY), b"garbage\r\n\r\n")

    connection.server.ack.set()
    await turns()

    assert connection.wire.written.count(b"HTTP/1.1 ") == connection.wire.written.count(b" 400 ") == 1


@pytest.mark.parametrize("cuts", [[], [-len(BODY)], [40]], ids=["whole", "body apart", "head apart"])
async def test_a_whole_request_needs_no_task(cuts: list[int]) -> None:
    """It is why there is a short way; a body that comes later is read as ever."""
    connection = Connection()

    await connection.deliver(*pieces_of(post(BODY), cuts))

    assert connection.seen == (OK, False, {"published": 1}, [BODY])
    assert isinstance(connection.protocol._running, Exchange) == (cuts != [-len(BODY)])


async def test_a_client_that_does_not_read_is_not_written_to() -> None:
    """Its answers would pile up: uvicorn's way waits until it reads."""
    connection = Connection()
    connection.protocol.pause_writing()

    await connection.deliver(post(BODY))
    assert connection.wire.written == b""
    connection.protocol.resume_writing()
    await turns()

    assert connection.seen == (OK, False, {"published": 1}, [BODY])


async def test_a_request_is_the_same_one_to_whoever_times_it_until_it_is_answered() -> None:
    """`patience` tells requests by their scope: another one in between would double a slow client's time."""
    connection = Connection()
    await connection.deliver(post(BODY)[:40])
    scope = connection.protocol.scope

    await connection.deliver(post(BODY)[40:-4])
    assert connection.protocol.scope is scope
    await connection.deliver(post(BODY)[-4:])

    assert connection.protocol.scope is scope
    assert connection.seen == (OK, False, {"published": 1}, [BODY])


async def test_a_server_that_stops_answers_what_it_took_and_says_that_it_closes() -> None:
    """uvicorn tells each connection when the server is to stop."""
    connection = Connection()
    connection.server.ack.clear()
    await connection.deliver(post(BODY))
    connection.protocol.shutdown()
    assert connection.seen == (b"", False, {}, [BODY])

    connection.server.ack.set()
    await turns()

    closing = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    assert connection.seen == (closing, True, {"published": 1}, [BODY])


async def test_who_is_gone_before_the_answer_is_not_written_to() -> None:
    """uvloop raises where something is written to a closed socket."""
    connection = Connection()
    connection.server.ack.clear()
    await connection.deliver(post(BODY))

    connection.protocol.connection_lost(None)
    connection.server.ack.set()
    await turns()

    assert connection.seen == (b"", True, {"published": 1}, [BODY])
