"""Very many hostile connections at once, against a server in its own process: memory and descriptors are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

HONEST = b"POST /vod HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nhonest"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
pytestmark = pytest.mark.slow

# What the server may do for others before an honest client has its answer: its processor's time, as all else depends on
# what runs beside it.
CPU_SECONDS_MAX = 0.5
SILENT_SECONDS = 0.5
CONNECTIONS_MAX = 10_000
DESCRIPTORS_OTHER = 200  # What a process has open besides.
IDLE_BYTES_MAX = 16 * 1024
GREEDY_BYTES_MAX = 64 * 1024 * 1024
# 16 KiB of head and what parsing made of it, the kernel's own buffers not counted.
HEAD_BYTES_MAX = 64 * 1024


class Process(NamedTuple):
    """A running server."""

    pid: int
    port: int

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def peak_bytes(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def cpu_seconds(self) -> float:
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def serving(descriptors_max: int, *, connections_max: int = 100_000) -> Iterator[Process]:
    """Run a server; it must live until the end, and have had nothing to say."""
    command = [sys.executable, "-m", "tests.harness.bridge_server", str(descriptors_max), str(connections_max)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Process(process.pid, int(process.stdout.readline()))
            assert process.poll() is None
        finally:
            process.kill()
            _, complaints = process.communicate()
        assert complaints == ""


@pytest.fixture
def descriptors() -> Iterator[int]:
    """Raise the limit of open files as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def answered(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(HONEST)
        return await reader.read(len(OK))
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def honest(server: Process) -> None:
    before = server.cpu_seconds()
    async with asyncio.timeout(60):
        assert await answered(server.port) == OK
    assert server.cpu_seconds() - before < CPU_SECONDS_MAX


async def recovered(port: int) -> None:
    """As `honest`, as soon as the server has seen that the others are gone."""
    async with asyncio.timeout(60):
        while await answered(port) != OK:
            pass


@contextlib.asynccontextmanager
async def crowd(server: Process, number: int, sent: bytes) -> AsyncIterator[list[asyncio.Transport]]:
    """Open *number* connections, 200 at a time, and send the same on each."""
    loop = asyncio.get_running_loop()
    transports: list[asyncio.Transport] = []
    try:
        for _ in range(number // 200):
            opening = (loop.create_connection(asyncio.Protocol, "127.0.0.1", server.port) for _ in range(200))
            for transport, _ in await asyncio.gather(*opening):
                transport.write(sent)
                transports.append(transport)
            await honest(server)
        yield transports
    finally:
        for transport in transports:
            transport.abort()


@pytest.mark.parametrize(
    ("sent", "number", "bytes_max"),
    [
        (b"", CONNECTIONS_MAX, IDLE_BYTES_MAX),
        (HONEST, CONNECTIONS_MAX, IDLE_BYTES_MAX),
        (b"POST /vod HTTP/1.1\r\n" + b"a:%b\r\n" % (b"b" * 150) * 100, 1000, HEAD_BYTES_MAX),
    ],
    ids=["silent", "idle after a request", "the largest heads, unfinished"],
)
async def test_10_000_connections_that_wait_cost_little_and_disturb_no_one(
    sent: bytes, number: int, bytes_max: int, descriptors: int
) -> None:
    """What one costs times how many there can be is what the bridge needs at most."""
    number = min(number, descriptors - DESCRIPTORS_OTHER)
    with serving(descriptors) as server:
        await honest(server)
        before = server.resident_bytes()

        async with crowd(server, number, sent):
            each = (server.resident_bytes() - before) / number
            await honest(server)

    print(f"{each:.0f} bytes for each of {number}")
    assert each < bytes_max


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /vod HTTP/1.1\r\n\r\n" * 40_000,
        b"POST /vod HTTP/1.1\r\n" + b"a:b\r\n" * 200_000,
        b"POST /vod HTTP/1.1\r\nx: " + b"x" * 1_000_000,
        b"POST /vod HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"a:b\r\n" * 200_000,
        b"POST /vod HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1_000_000,
        HONEST * 15_000,
    ],
    ids=["tiny requests", "tiny headers", "a long header", "trailers", "bodies", "requests sent ahead"],
)
async def test_200_connections_with_a_megabyte_each_cost_little_and_disturb_no_one(
    sent: bytes, descriptors: int
) -> None:
    """Before there were limits, tiny headers alone took twenty times what was sent."""
    with serving(descriptors) as server:
        await honest(server)
        before = server.peak_bytes()

        async with crowd(server, 200, sent):
            await honest(server)
        await honest(server)

        grown = server.peak_bytes() - before
        print(f"{grown / 1e6:.1f} MB")
        assert grown < GREEDY_BYTES_MAX


async def test_connections_that_come_and_go_leave_nothing_behind(descriptors: int) -> None:
    """The first crowd's memory is used again by the next."""
    with serving(descriptors) as server:
        grown = []
        for _ in range(4):
            async with crowd(server, 2000, HONEST):
                grown.append(server.resident_bytes())
            await honest(server)

        print([f"{bytes_ / 1e6:.1f}" for bytes_ in grown])
        assert grown[-1] < grown[0] * 1.2


async def refused(port: int, number: int, *, expected: int) -> int:
    """Open *number* connections at once, and return how many the server closes: it may be more than *expected*."""
    async with asyncio.timeout(60):
        streams = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(number)))
        reading = [asyncio.create_task(reader.read()) for reader, _ in streams]
        await until(lambda: sum(task.done() for task in reading) >= expected)
        done, _ = await asyncio.wait(reading, timeout=SILENT_SECONDS)
    for task in reading:
        task.cancel()
    for _, writer in streams:
        writer.close()
    return len(done)


async def test_a_server_out_of_descriptors_lets_new_connections_wait_and_recovers() -> None:
    """It neither stops nor complains; who waits in the kernel's backlog is served as soon as another has gone."""
    with serving(64) as server:
        assert await refused(server.port, 200, expected=0) == 0
        await recovered(server.port)


async def test_more_connections_than_allowed_are_turned_away_and_descriptors_remain() -> None:
    """Kafka and the monitoring port need some, most of all when there are too many clients."""
    with serving(1024, connections_max=50) as server:
        assert await refused(server.port, 200, expected=150) == 150
        await recovered(server.port)
