"""Which entry of the settings a request is counted for, whatever came of it."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from pipeline.bridge.errors import AckTimeoutError, KafkaFailedError, OverloadedError
from pipeline.service.entries import CallbackSettings
from tests.harness.bridge_server import OK, Server, ask, head, post
from tests.waiting import until

WRONG = b"x-vod-timestamp: 1519375990\r\nx-vod-signature: " + b"0" * 32 + b"\r\n"
# A move to another domain: one path, two URLs.
MOVED = (
    CallbackSettings(name="old", url="http://old.example.com/your/callback", auth_keys=(SecretStr("Old1"),)),
    CallbackSettings(name="new", url="https://www.example.com/your/callback", auth_keys=(SecretStr("test123"),)),
)


async def sent(server: Server, request: bytes, *, is_cut: bool = False) -> None:
    """Send *request*, and wait for its answer, or close once its head was read."""
    async with server.serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        if not is_cut:
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        else:
            await until(lambda: bool(server.handler._bodies))
        writer.close()
        await server.until_idle()


@pytest.mark.parametrize(
    ("request_", "outcome", "entry"),
    [
        (post(b"x"), "published", "signed"),
        (post(b"x", signed=WRONG), "denied", "signed"),
        (post(b"x" * 65_537), "body_too_large", "signed"),
        (head(b"transfer-encoding: chunked\r\n") + b"nonsense\r\n", "malformed", "signed"),
        (head(b"content-length: 9\r\n") + b"x", "body_timeout", "signed"),
        (head(first=b"GET /your/callback HTTP/1.1"), "method_not_allowed", "signed"),
        (head(b"content-length: 1\r\n", first=b"POST /vod HTTP/1.1") + b"x", "published", "open"),
        (head(first=b"POST /none HTTP/1.1"), "not_found", ""),
        (b"nonsense\r\n\r\n", "malformed", ""),
    ],
)
async def test_a_request_is_counted_for_the_entry_of_its_path(request_: bytes, outcome: str, entry: str) -> None:
    server = Server(request_seconds=0.3)

    await sent(server, request_)

    assert (server.counted(), server.counted_by_entry()) == ({outcome: 1}, {entry: 1})
    assert server.denied_by_entry() == ({entry: 1} if outcome == "denied" else {})


@pytest.mark.parametrize("error", [OverloadedError(), AckTimeoutError(), KafkaFailedError("x")])
async def test_what_is_not_taken_is_counted_for_its_entry(error: Exception) -> None:
    server = Server()
    server.error = error

    await sent(server, post(b"x"))

    assert server.counted_by_entry() == {"signed": 1}


async def test_a_client_that_is_gone_is_counted_for_the_entry_it_had_come_for() -> None:
    server = Server()

    await sent(server, head(b"content-length: 9\r\n") + b"x", is_cut=True)

    assert (server.counted(), server.counted_by_entry()) == ({"client_gone": 1}, {"signed": 1})


async def test_a_repeated_and_a_spooled_one_are_counted_for_their_entry() -> None:
    server = Server(replay_cache_bytes=1 << 20)
    server.is_spooled = True

    assert await ask(server, post(b"x"), post(b"x")) == OK * 2
    assert (server.counted(), server.counted_by_entry()) == ({"spooled": 1, "repeated": 1}, {"signed": 2})


@pytest.mark.parametrize(
    ("host", "signed", "entry"),
    [
        (b"old.example.com", None, "new"),
        (b"old.example.com", WRONG, "old"),
        (b"www.example.com", WRONG, "new"),
        (b"10.0.0.1:8080", WRONG, ""),
    ],
)
async def test_on_a_path_of_two_urls_the_signature_counts_and_then_the_host(
    host: bytes, signed: bytes | None, entry: str
) -> None:
    """A proxy may send a Host of its own: what was signed says more. Without either it is not known."""
    server = Server(callbacks=MOVED)
    request = post(b"x") if signed is None else post(b"x", signed=signed)

    with capture_logs() as events:
        await sent(server, request.replace(b"www.example.com", host))

    assert server.counted_by_entry() == {entry: 1}
    assert [event["entry"] for event in events] == ([] if signed is None else [entry])


async def test_what_is_in_flight_at_a_reload_is_counted_for_its_entry_of_before() -> None:
    server = Server()
    server.ack.clear()

    async with server.serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"x"))
        await until(lambda: bool(server.records))
        server.handler.use([MOVED[1]])
        server.ack.set()
        assert await reader.readexactly(len(OK)) == OK
        writer.write(post(b"y"))
        assert await reader.readexactly(len(OK)) == OK
        writer.close()

    assert server.counted_by_entry() == {"signed": 1, "new": 1}


async def test_every_entry_shows_its_zeros_from_its_first_moment() -> None:
    """An alert on a rise needs the 0 before it."""
    server = Server()
    server.handler.use([MOVED[1]])

    for entry in ("", "open", "signed", "secret", "new"):
        for name, label in (
            ("vod_pipeline_bridge_requests_total", {"outcome": "denied"}),
            ("vod_pipeline_bridge_denials_total", {"reason": "signature_wrong"}),
            ("vod_pipeline_bridge_signature_bursts_total", {}),
        ):
            assert server.registry.get_sample_value(name, {**label, "entry": entry}) == 0
