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

from pipeline.bridge.protocol import BoundedProtocol, Exchange
from tests.component.test_bridge_hostile import BODY, CASES, post
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
        if not self.is_closed:
            self.written += data

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

    async def deliver(self, *pieces: bytes) -> None:
        """Bring *pieces* as a read each, and let the bridge do what it can after each."""
        for piece in pieces:
            if self.wire.is_closed or self.wire.is_paused:
                return
            self.protocol.data_received(piece)
            await turns()

    @property
    def seen(self) -> Seen:
        return self.wire.written, self.wire.is_closed, self.server.counted(), self.server.bodies


def pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(places)]


async def played(pieces: list[bytes], take: Callable[..., bool] | None = None) -> Seen:
    connection = Connection(take)
    await connection.deliver(*pieces)
    return connection.seen


@settings(max_examples=600, deadline=None)
@given(
    requests=st.lists(st.sampled_from([*SHORT, post(b"1"), post(b"2")]), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 5000), max_size=3),
)
def test_either_way_has_the_same_answers_counts_and_records(requests: list[bytes], cuts: list[int]) -> None:
    """All of the hostile table, one after another on a connection, cut into reads anywhere."""
    pieces = pieces_of(b"".join(requests), cuts)

    short = asyncio.run(played(pieces))
    model = asyncio.run(played(pieces, take=lambda *_: False))

    assert short == model


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
    connection.wire.is_closed = False  # A write would show.
    connection.server.ack.set()
    await turns()

    assert connection.seen == (b"", False, {"published": 1}, [BODY])
