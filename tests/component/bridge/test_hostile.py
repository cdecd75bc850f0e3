"""Hostile clients on real sockets: what each is answered, what is counted and published; no other client minds."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.harness.bridge_server import OK, Server, statuses
from tests.vectors.hostile import CASES, Case

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")
REQUEST_SECONDS = 0.5
CPU_SECONDS_MAX = 1  # Of this process, client and server, before an honest client has its answer.
HONEST = b"POST /vod HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nhonest"
# Sent after what is answered 200: if the bridge had another idea of where that request ended, this would not be 404.
PROBE = b"GET /probe HTTP/1.1\r\nhost: x\r\n\r\n"
# From here on our bytes may be unread when the server closes: TCP resets then, and the answer may be lost with them.
UNREAD_BYTES_MIN = 60_000


class Errors(list[dict[str, Any]]):
    """What reached the event loop: exceptions that were not caught."""

    def __call__(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.append(context)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bridge() -> AsyncIterator[tuple[Server, int]]:
    """One server for the whole table, all of which it has to outlive."""
    server = Server(request_seconds=REQUEST_SECONDS)
    async with server.serve() as port:
        yield server, port


async def talk(port: int, case: Case) -> list[int]:
    """Send the case's bytes, and the probe behind what leaves the connection open; return all answers, in order."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        writer.write(case.sent)
        if case.half_closes:
            writer.write_eof()
        while data := await reader.read(65_536):
            received += data
            if case.stays_open and len(statuses(received)) == len(case.answers):
                writer.write(PROBE)
    except ConnectionError:
        pass  # See UNREAD_BYTES_MIN.
    finally:
        writer.close()
    return statuses(received)


async def honest(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HONEST)
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answer


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_hostile_request_has_its_answer_and_disturbs_no_one(
    case: Case, bridge: tuple[Server, int], caplog: pytest.LogCaptureFixture
) -> None:
    server, port = bridge
    server.records.clear()
    before = server.counted()
    errors = Errors()
    asyncio.get_running_loop().set_exception_handler(errors)

    hostile = asyncio.create_task(talk(port, case))
    began = time.process_time()
    async with asyncio.timeout(60):
        assert await honest(port) == OK
    assert time.process_time() - began < CPU_SECONDS_MAX
    answers = await asyncio.wait_for(hostile, 60)
    await server.until_idle()

    expected = [*case.answers, 404] if case.stays_open else [*case.answers]
    assert answers == expected or (not answers and len(case.sent) > UNREAD_BYTES_MIN)
    counted = Counter(case.counted) + Counter({"published": 1, "not_found": int(case.stays_open)})
    assert server.counted() - before == counted
    assert sorted(server.bodies) == sorted([*case.published, b"honest"])
    assert errors == []
    assert caplog.records == []
