"""The monitoring port: what it answers, and that no client can take a process's files, memory or time by it."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import sys
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from prometheus_client import CollectorRegistry, Counter
from structlog.testing import capture_logs

from pipeline.service.monitor import CONNECTIONS_MAX, monitoring
from pipeline.service.web import REQUEST_BYTES_MAX, Connections, ListenError, listen
from tests.harness.bridge_server import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

GET = b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n"
SHORT_SECONDS = 0.2
# A process with few files, whose readiness needs one more.
FEW_FILES = """
import asyncio, resource, sys, uvloop
from prometheus_client import CollectorRegistry
from pipeline.service.monitor import monitoring
from pipeline.service.web import listen

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


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[..., object]:
    """Run a coroutine on one of the loops that production and tools use."""

    def run(coroutine: object) -> object:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(coroutine)  # type: ignore[arg-type]

    return run


@asynccontextmanager
async def served(
    problems: Callable[[], Sequence[str]] = list, *, registry: CollectorRegistry | None = None,
    asks_others: bool = False, seconds_max: float = 30,
) -> AsyncIterator[int]:  # fmt: skip
    bound = listen("127.0.0.1", 0, setting="-")
    port: int = bound.getsockname()[1]
    registry = registry or CollectorRegistry()
    async with monitoring(registry, problems, bound, asks_others=asks_others, seconds_max=seconds_max):
        yield port


async def asked(port: int, request: bytes) -> bytes:
    """Return all that is answered until the other side closes, and b"" if it resets the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (GET % b"/healthz", 200, b"alive\n"),
        (GET % b"/readyz", 503, b"no Kafka\nspool\n"),
        (GET % b"/metrics", 200, b"# HELP seen_total Seen.\n# TYPE seen_total counter\nseen_total 0.0\n"),
        (GET % b"/metrics?name=x", 200, b"# HELP seen_total Seen.\n# TYPE seen_total counter\nseen_total 0.0\n"),
        (GET % b"/", 404, b"there are /healthz, /readyz and /metrics\n"),
        (GET % b"/\xff", 400, b"Invalid HTTP request received.\n"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200, b"alive\n"),
        (b"HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 200, b""),
        (b"POST /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 405, b"only GET and HEAD\n"),
        (GET % b"/healthz" * 3, 200, b"alive\n"),
    ],
)
def test_what_is_answered(run: Callable[..., bytes], request_: bytes, status: int, body: bytes) -> None:
    registry = CollectorRegistry()
    Counter("seen", "Seen.", registry=registry)._created = 0

    async def get() -> bytes:
        async with served(lambda: ["no Kafka", "spool"], registry=registry) as port:
            return await asked(port, request_)

    head, _, got = run(get()).partition(b"\r\n\r\n")

    assert int(head.split()[1]) == status
    assert b"connection: close" in head
    others = (b"_created", b"vod_pipeline_")  # What the port shows of itself.
    assert b"".join(line + b"\n" for line in got.splitlines() if not any(o in line for o in others)) == body


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
            async with asyncio.timeout(10):
                answer = await asked(port, GET % b"/readyz")
        _, complaints = await process.communicate(b"")
    finally:
        with suppress(ProcessLookupError):
            process.kill()

    assert answer.endswith(b"ready\n")
    assert complaints == b""
    assert process.returncode == 0


def test_what_cannot_be_answered_is_a_500_and_its_cause_is_logged(run: Callable[..., bytes]) -> None:
    """A health check must not take it for a broken network."""

    def fail() -> list[str]:
        raise LookupError("the consumer's thread")

    async def get() -> bytes:
        async with served(fail) as port:
            return await asked(port, GET % b"/readyz")

    with capture_logs() as logs:
        answer = run(get())

    assert answer.startswith(b"HTTP/1.1 500 ")
    assert answer.endswith(b"see the log\n")
    assert [(line["event"], line["path"]) for line in logs] == [("monitoring_failed", "/readyz")]


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
            gone = await asyncio.gather(*(_is_closed(reader) for reader in readers))
            assert gone == [True, True] + [False] * (CONNECTIONS_MAX - 1)  # The oldest.
            assert registry.get_sample_value("vod_pipeline_monitoring_connections") == CONNECTIONS_MAX - 1
            assert registry.get_sample_value("vod_pipeline_monitoring_connections_cut_total") == 2

    run(crowd())


async def _is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(1), SHORT_SECONDS) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nx: y"])
def test_a_request_that_does_not_end_is_cut_off(run: Callable[..., bytes], sent: bytes) -> None:
    registry = CollectorRegistry()

    async def silent() -> bytes:
        async with served(registry=registry, seconds_max=SHORT_SECONDS) as port, asyncio.timeout(10):
            return await asked(port, sent)

    assert run(silent()) == b""
    assert registry.get_sample_value("vod_pipeline_monitoring_connections_cut_total") == 1


def test_a_request_that_drips_is_cut_off(run: Callable[..., None]) -> None:
    """No byte begins the time anew."""

    async def drip() -> None:
        async with served(seconds_max=SHORT_SECONDS) as port, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while not (reader.at_eof() or writer.is_closing()):
                writer.write(b"x")
                await asyncio.sleep(SHORT_SECONDS / 4)
            writer.close()

    run(drip())


def test_a_head_that_is_too_long_is_cut_off(run: Callable[..., bytes]) -> None:
    async def long() -> bytes:
        async with served() as port, asyncio.timeout(10):
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
        async with served(lambda: [large], seconds_max=SHORT_SECONDS) as port, asyncio.timeout(30):
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
            gone.wait(10)
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


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_a_taken_port_is_named(host: str, shown: str) -> None:
    with listen(host, 0, setting="-") as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ListenError, match=re.escape(f"cannot listen on {shown}:{port} (bridge.port): Address already")
        ):
            listen(host, port, setting="bridge.port")


def test_stopping_lets_an_answer_go_out_and_does_not_wait_for_the_silent(run: Callable[..., None]) -> None:
    async def stop() -> None:
        began = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow() -> list[str]:
            loop.call_soon_threadsafe(began.set)
            time.sleep(SHORT_SECONDS)
            return []

        async with AsyncExitStack() as stack:
            async with served(slow, asks_others=True) as port:
                silent, writer = await asyncio.open_connection("127.0.0.1", port)
                stack.callback(writer.close)
                answer = asyncio.create_task(asked(port, GET % b"/readyz"))
                await began.wait()
            assert await _is_closed(silent)
            assert (await answer).endswith(b"ready\n")

    run(stop())
