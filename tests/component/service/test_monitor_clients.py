"""No client can take a process's files, memory or time by its monitoring port."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import threading
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from pipeline.service.monitor import CONNECTIONS_MAX
from pipeline.service.web import REQUEST_BYTES_MAX, Connections
from tests.harness.monitor import GET, SHORT_SECONDS, asked, is_closed, served
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

# A process with few files, whose readiness needs one more.
FEW_FILES = """
import asyncio, resource, sys, uvloop
from prometheus_client import CollectorRegistry
from pipeline.service.monitor import monitoring
from pipeline.service.web import listen
from tests.waiting import until

def problems():
    with open("/dev/null"):
        return []

async def main():
    bound = listen("127.0.0.1", 0, setting="-")
    port = bound.getsockname()[1]
    async with monitoring(CollectorRegistry(), problems, bound):
        print(port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
with asyncio.Runner(loop_factory={"uvloop": uvloop.new_event_loop, "asyncio": None}[sys.argv[1]]) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_300_idle_connections_leave_a_process_with_256_files_what_it_needs(loop: str) -> None:
    """A scraper or health check behind a NAT that forgets it leaves one each; over weeks they are as many."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FEW_FILES, loop, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        async with AsyncExitStack() as stack:
            opening = (asyncio.open_connection("127.0.0.1", port) for _ in range(300))
            for _, writer in await asyncio.gather(*opening):
                stack.callback(writer.close)
            async with asyncio.timeout(60):
                answer = await asked(port, GET % b"/readyz")
        _, complaints = await process.communicate(b"")
    finally:
        with suppress(ProcessLookupError):
            process.kill()

    assert answer.endswith(b"ready\n")
    assert complaints == b""
    assert process.returncode == 0


def test_an_idle_crowd_does_not_keep_out_who_comes_next(run: Callable[..., None]) -> None:
    async def crowd() -> None:
        registry = CollectorRegistry()
        async with served(registry=registry) as port, AsyncExitStack() as stack:
            readers = []
            for _ in range(CONNECTIONS_MAX + 1):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                stack.callback(writer.close)
                readers.append(reader)
            assert (await asked(port, GET % b"/healthz")).endswith(b"alive\n")
            assert [await is_closed(reader) for reader in readers[:2]] == [True, True]  # The oldest.
            assert not any(reader.at_eof() for reader in readers[2:])
            assert registry.get_sample_value("vod_pipeline_monitoring_connections") == CONNECTIONS_MAX - 1
            assert registry.get_sample_value("vod_pipeline_monitoring_connections_cut_total") == 2

    run(crowd())


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nx: y"])
def test_a_request_that_does_not_end_is_cut_off(run: Callable[..., bytes], sent: bytes) -> None:
    registry = CollectorRegistry()

    async def silent() -> bytes:
        async with served(registry=registry, seconds_max=SHORT_SECONDS) as port, asyncio.timeout(60):
            return await asked(port, sent)

    assert run(silent()) == b""
    assert registry.get_sample_value("vod_pipeline_monitoring_connections_cut_total") == 1


def test_a_request_that_drips_is_cut_off(run: Callable[..., None]) -> None:
    """No byte begins the time anew."""

    async def drip() -> None:
        async with served(seconds_max=SHORT_SECONDS) as port, asyncio.timeout(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while not (reader.at_eof() or writer.is_closing()):
                writer.write(b"x")
                await asyncio.sleep(SHORT_SECONDS / 4)
            writer.close()

    run(drip())


def test_a_head_that_is_too_long_is_cut_off(run: Callable[..., bytes]) -> None:
    async def long() -> bytes:
        async with served() as port, asyncio.timeout(60):
            return await asked(port, b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 2 * REQUEST_BYTES_MAX)

    assert run(long()) == b""


def test_a_client_that_does_not_read_the_answer_is_cut_off(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it stays in memory for as long as the client likes."""
    made: list[Connections] = []

    def recorded(**options: Any) -> Connections:
        made.append(Connections(**options))
        return made[-1]

    monkeypatch.setattr("pipeline.service.monitor.Connections", recorded)
    large = "x" * (32 << 20)  # More than the kernel's buffers take.

    async def deaf() -> None:
        async with served(lambda: [large], seconds_max=SHORT_SECONDS) as port, asyncio.timeout(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            writer.write(GET % b"/readyz")
            await until(lambda: bool(made[0].open))
            await until(lambda: not made[0].open)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(len(large))
            writer.close()

    run(deaf())


def test_a_client_that_resets_while_its_answer_is_made_is_no_error(run: Callable[..., None]) -> None:
    """As one does whose time is over; uvloop raises RuntimeError for what is written then."""

    async def reset() -> None:
        loop = asyncio.get_running_loop()
        began, gone = asyncio.Event(), threading.Event()

        def slow() -> list[str]:
            loop.call_soon_threadsafe(began.set)
            gone.wait(60)
            return []

        with socket.socket() as client:
            async with served(slow, asks_others=True) as port:
                client.connect(("127.0.0.1", port))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(GET % b"/readyz")
                await began.wait()
                client.close()
                await asked(port, GET % b"/healthz")  # The reset is older than that.
                gone.set()

    with capture_logs() as logs:
        run(reset())

    assert logs == []
