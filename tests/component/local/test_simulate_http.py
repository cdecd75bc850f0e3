"""The simulator's sender against a real HTTP server that answers as a script says."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from pipeline.core.signature import Callback, Denial, deny
from pipeline.local.load import Target, simulate
from pipeline.local.simulator import CallbackKind, Plan, callbacks
from tests.harness.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

NOW = 1_700_000_000.75
PATH = "/your/call%7eback?app=%61"  # Escapes that a URL library likes to tidy up.
CALLBACK = Callback(url=f"https://www.example.com{PATH}", auth_keys=("Key1New", "Key0Old"))
DROP = 0  # Closes the connection instead of answering.
FIVE = Plan(rate=10, seconds=0.5)


class FakeClock:
    """Time passes only while the sender sleeps, and `overshoot` longer than asked for: so do real timers."""

    def __init__(self, *, overshoot_seconds: float = 0.0) -> None:
        self.elapsed_seconds = 0.0
        self.slept: list[float] = []
        self._overshoot_seconds = overshoot_seconds

    def now(self) -> float:
        return NOW + self.elapsed_seconds

    def monotonic(self) -> float:
        return self.elapsed_seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.elapsed_seconds += seconds + self._overshoot_seconds
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What arrived, and the sender's clock when it did."""

    line: str
    headers: dict[str, str]
    body: bytes
    now: float

    def denial(self) -> Denial | None:
        return deny(
            CALLBACK,
            self.headers["x-vod-signature"].encode(),
            self.headers["x-vod-timestamp"].encode(),
            now=self.now,
            tolerance_seconds=1,
        )


@dataclass(slots=True)
class Receiver:
    """Answers the scripted statuses in order of arrival, then 200. With `gate`, only once so many requests wait."""

    clock: FakeClock
    script: list[int] = field(default_factory=list)
    gate: int = 0
    requests: list[Request] = field(default_factory=list)
    waiting: int = 0
    waiting_max: int = 0
    full: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    @property
    def target(self) -> Target:
        return Target(base_url=f"http://127.0.0.1:{self.port}", path=PATH, callback=CALLBACK)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await self._head(reader):
                line, *fields = head.decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (entry.partition(": ") for entry in fields)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append(Request(line=line, headers=headers, body=body, now=self.clock.now()))
                status = self.script.pop(0) if self.script else 200
                await self._wait()
                if status == DROP:
                    return
                location = "Location: /elsewhere\r\n" if status == 302 else ""
                writer.write(f"HTTP/1.1 {status} Scripted\r\n{location}Content-Length: 0\r\n\r\n".encode())
        finally:
            writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return (await reader.readuntil(b"\r\n\r\n"))[:-4]
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    async def _wait(self) -> None:
        self.waiting += 1
        self.waiting_max = max(self.waiting_max, self.waiting)
        if self.waiting >= self.gate:
            self.full.set()
        await self.full.wait()
        self.waiting -= 1
        if self.waiting == 0:
            self.full.clear()


@asynccontextmanager
async def receiving(clock: FakeClock, script: Iterable[int] = (), *, gate: int = 0) -> AsyncIterator[Receiver]:
    receiver = Receiver(clock, list(script), gate)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver


def recorder() -> tuple[list[int], Callable[[int], None]]:
    seen: list[int] = []
    return seen, seen.append


async def test_every_callback_arrives_once_as_it_was_generated() -> None:
    """The path goes out exactly as configured, escapes and query too: the bridge compares it as a string."""
    clock = FakeClock()
    async with receiving(clock) as receiver:
        summary = await simulate(FIVE, receiver.target, clock=clock)

    expected = {entry.body for entry in callbacks(FIVE, start=1_700_000_000_750)}
    assert {request.body for request in receiver.requests} == expected
    assert [request.line for request in receiver.requests] == [f"POST {PATH} HTTP/1.1"] * 5
    assert (summary.sent, summary.answered, summary.lost) == ({CallbackKind.SUCCESS: 5}, {200: 5}, {})
    assert (summary.unanswered, summary.retries) == (0, 0)


async def test_the_signature_is_valid_and_made_with_the_first_key() -> None:
    """The first key is the newest; one request at a time, so that no time passes between signing and arrival."""
    clock = FakeClock()
    async with receiving(clock) as receiver:
        await simulate(FIVE, receiver.target, clock=clock, outstanding_max=1)

    newest = Callback(url=CALLBACK.url, auth_keys=("Key1New",))
    assert [request.denial() for request in receiver.requests] == [None] * 5
    request = receiver.requests[0]
    signature, timestamp = request.headers["x-vod-signature"], request.headers["x-vod-timestamp"]
    assert deny(newest, signature.encode(), timestamp.encode(), now=request.now, tolerance_seconds=1) is None


async def test_without_a_key_callbacks_are_sent_unsigned() -> None:
    """As VOD does when no AuthKey is set."""
    clock = FakeClock()
    async with receiving(clock) as receiver:
        target = Target(base_url=receiver.target.base_url, path=PATH, callback=Callback(url=CALLBACK.url, auth_keys=()))
        await simulate(FIVE, target, clock=clock)

    assert not [name for name in receiver.requests[0].headers if name.startswith("x-vod")]


@pytest.mark.parametrize("status", [201, 204, 302, 403, 503])
async def test_anything_but_200_is_tried_again_a_second_later(status: int) -> None:
    """VOD's rule; redirects are not followed, and the new attempt is signed anew."""
    clock = FakeClock()
    async with receiving(clock, [status]) as receiver:
        summary = await simulate(Plan(rate=1, seconds=1), receiver.target, clock=clock)

    first, second = receiver.requests
    assert (first.line, first.body) == (second.line, second.body)
    assert second.now - first.now == pytest.approx(1)
    assert int(second.headers["x-vod-timestamp"]) - int(first.headers["x-vod-timestamp"]) == 1
    assert second.denial() is None
    assert summary.answered == {200: 1, status: 1}
    assert (summary.retries, summary.lost_total) == (1, 0)


async def test_after_three_attempts_a_callback_is_lost() -> None:
    """VOD gives up then, and the summary must not hide it."""
    clock = FakeClock()
    async with receiving(clock, [503, DROP, 503, 200]) as receiver:
        summary = await simulate(Plan(rate=1, seconds=1), receiver.target, clock=clock)

    assert len(receiver.requests) == 3
    assert clock.slept == [1.0, 1.0, 1.0]  # Until due, and before either retry.
    assert (summary.answered, summary.unanswered, summary.retries) == ({503: 2}, 1, 2)
    assert summary.lost == {CallbackKind.SUCCESS: 1}
    assert summary.latency_max_seconds == 0


async def test_with_no_one_listening_all_is_lost_and_nothing_raised() -> None:
    """A summary that says so helps; a traceback does not."""
    clock = FakeClock()
    target = Target(base_url=f"http://127.0.0.1:{free_port()}", path=PATH, callback=CALLBACK)

    summary = await simulate(FIVE, target, clock=clock)

    assert (summary.lost_total, summary.unanswered, summary.answered) == (5, 15, {})


async def test_latency_runs_from_due_to_delivered() -> None:
    """One retry: the pause of 1 s is part of what the sender waits for."""
    clock = FakeClock()
    async with receiving(clock, [503]) as receiver:
        summary = await simulate(Plan(rate=1, seconds=1), receiver.target, clock=clock)

    assert summary.latency_p50_seconds == summary.latency_max_seconds == pytest.approx(1)


async def test_sleeping_too_long_does_not_add_up() -> None:
    """100 callbacks in 10 s with timers 3 ms late: the end is 3 ms late, not 300."""
    clock = FakeClock(overshoot_seconds=0.003)
    async with receiving(clock) as receiver:
        summary = await simulate(Plan(rate=10, seconds=10), receiver.target, clock=clock)

    assert summary.wall_seconds == pytest.approx(10.003)
    assert summary.rate == pytest.approx(10, rel=0.001)


async def test_never_more_than_the_limit_are_outstanding() -> None:
    """The receiver answers only while three wait; were there no limit, all twelve would."""
    clock = FakeClock()
    async with receiving(clock, gate=3) as receiver:
        summary = await simulate(Plan(rate=12, seconds=1), receiver.target, clock=clock, outstanding_max=3)

    assert receiver.waiting_max == 3
    assert summary.answered == {200: 12}


async def test_progress_counts_what_is_answered_or_lost() -> None:
    """Up to the plan's total, so that the bar reaches its end."""
    clock = FakeClock()
    seen, progress = recorder()
    async with receiving(clock, [503, 503, 503]) as receiver:
        await simulate(FIVE, receiver.target, clock=clock, outstanding_max=1, progress=progress)

    assert seen == [1, 2, 3, 4, 5]
