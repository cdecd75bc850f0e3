"""The monitoring port: what it answers, and how it starts and stops."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, Counter
from structlog.testing import capture_logs

from pipeline.service.web import ListenError, listen
from tests.harness.monitor import GET, SHORT_SECONDS, asked, is_closed, served

if TYPE_CHECKING:
    from collections.abc import Callable


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
            assert await is_closed(silent)
            assert (await answer).endswith(b"ready\n")

    run(stop())
