"""Callbacks over a real socket: every answer, what is counted, and that only an authenticated body is published."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.bridge.errors import AckTimeoutError, KafkaFailedError, OverloadedError, PublishError, SpoolFailedError
from tests.harness.bridge_server import OK, SIGNED, Server, head, post, statuses
from tests.waiting import until

BODY = b'{ "MediaId" : "abc", "Extra":"\xc3\xa9" }\n'
RECEIVED_AT_MS = 1519375990500
CACHE_BYTES = 1 << 20
WRONG = b"x-vod-timestamp: 1519375990\r\nx-vod-signature: " + b"0" * 32 + b"\r\n"


async def ask(server: Server, *requests: bytes) -> bytes:
    """Send each request on a connection of its own, one after the other, and return all answers."""
    received = b""
    async with server.serve() as port:
        for request in requests:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            received += await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            writer.close()
    return received


async def test_an_authentic_callback_is_published_verbatim_and_answered_200() -> None:
    server = Server()

    assert await ask(server, post(BODY)) == OK
    assert server.records == [(b"abc", BODY, b"http", RECEIVED_AT_MS)]
    assert server.counted() == {"published": 1}


async def test_no_answer_is_given_before_the_acknowledgement() -> None:
    """A 200 before the ack is an event lost when Kafka then fails."""
    server = Server()
    server.ack.clear()

    async with server.serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = asyncio.create_task(reader.readexactly(len(OK)))
        writer.write(post(BODY))
        await until(lambda: bool(server.records))
        assert (answer.done(), server.counted()) == (False, {})
        server.ack.set()

        assert await answer == OK
        writer.close()


async def test_what_the_spool_took_is_answered_200_and_counted_apart() -> None:
    server = Server()
    server.is_spooled = True

    assert await ask(server, post(BODY)) == OK
    assert server.counted() == {"spooled": 1}


async def test_a_copy_of_a_request_is_answered_and_not_published_again() -> None:
    """Its timestamp is good for minutes, and its body is not signed: anyone who saw it may send it again."""
    server = Server(replay_cache_bytes=CACHE_BYTES)

    assert await ask(server, *[post(BODY)] * 3) == OK * 3
    assert server.bodies == [BODY]
    assert server.counted() == {"published": 1, "repeated": 2}


async def test_a_copy_of_a_request_in_flight_waits_for_the_same_answer() -> None:
    server = Server(replay_cache_bytes=CACHE_BYTES)
    server.ack.clear()

    async with server.serve() as port:
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for _, writer in streams:
            writer.write(post(BODY))
        await until(lambda: bool(server.records))
        server.ack.set()

        assert [await reader.readexactly(len(OK)) for reader, _ in streams] == [OK, OK]
        for _, writer in streams:
            writer.close()

    assert server.bodies == [BODY]


async def test_a_copy_of_a_request_that_failed_is_published() -> None:
    """It was not durable, so it does not count as seen."""
    server = Server(replay_cache_bytes=CACHE_BYTES)
    server.error = AckTimeoutError()
    failed = await ask(server, post(BODY))
    server.error = None

    assert statuses(failed + await ask(server, post(BODY))) == [503, 200]
    assert server.bodies == [BODY, BODY]


async def test_another_body_under_the_same_signature_is_published() -> None:
    """VOD signs the second, so all callbacks of a second share a signature."""
    server = Server(replay_cache_bytes=CACHE_BYTES)

    assert await ask(server, post(b"1"), post(b"2"), post(b"3")) == OK * 3
    assert server.bodies == [b"1", b"2", b"3"]


async def test_unsigned_callbacks_are_not_distinguished_by_a_timestamp_that_proves_nothing() -> None:
    """It may be as long as a head: a cache of those would hold far more than it may."""
    server = Server(replay_cache_bytes=CACHE_BYTES)
    unsigned = head(b"content-length: 2\r\nx-vod-timestamp: 1\r\n", first=b"POST /vod HTTP/1.1", signed=b"") + b"{}"

    assert await ask(server, unsigned, unsigned) == OK * 2
    assert server.counted() == {"published": 2}


async def test_too_many_bodies_under_one_signature_are_counted_once_and_still_taken() -> None:
    server = Server(bodies_per_signature_max=3)

    assert await ask(server, *[post(b'{"MediaId":"%d"}' % number) for number in range(6)]) == OK * 6
    assert server.registry.get_sample_value("vod_pipeline_bridge_signature_bursts_total") == 1
    assert len(server.records) == 6


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"[]", b"{}", b'{"MediaId":7}', b'{"MediaId":""}', b"\xff\x00", b"[" * 900]
)
async def test_what_has_no_media_id_is_published_without_a_key(body: bytes) -> None:
    """It becomes a rejected record an operator can see; a retry by VOD could not repair it."""
    server = Server()

    assert await ask(server, post(body)) == OK
    assert server.records == [(None, body, b"http", RECEIVED_AT_MS)]


async def test_a_configured_query_is_part_of_the_path() -> None:
    server = Server()
    lines = b"content-length: 0\r\n"

    received = await ask(
        server,
        head(lines, first=b"POST /secret?token=1 HTTP/1.1", signed=b""),
        head(lines, first=b"POST /secret?token=2 HTTP/1.1", signed=b""),
        head(lines, first=b"POST /secret HTTP/1.1", signed=b""),
    )

    assert statuses(received) == [200, 404, 404]


async def test_what_is_not_a_post_is_answered_with_the_method_that_is_allowed() -> None:
    server = Server()

    received = await ask(server, head(b"content-length: 0\r\n", first=b"PUT /vod HTTP/1.1"))

    assert received == (
        b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\nallow: POST\r\nconnection: close\r\n\r\n"
    )


async def test_the_sender_of_a_denied_callback_learns_nothing_but_that() -> None:
    server = Server()

    received = await ask(server, post(BODY, signed=WRONG))

    assert received == b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    assert server.records == []
    assert (server.counted(), server.denied()) == ({"denied": 1}, {"signature_wrong": 1})


@pytest.mark.parametrize(("signed", "status"), [(SIGNED + WRONG, 200), (WRONG + SIGNED, 403)])
async def test_of_repeated_headers_the_first_counts(signed: bytes, status: int) -> None:
    assert statuses(await ask(Server(), post(BODY, signed=signed))) == [status]


@pytest.mark.parametrize("chunks", [[b"x" * 1024], [b"x" * 1000, b"x" * 24], [b"x"] * 1024])
async def test_a_body_up_to_the_cap_is_taken(chunks: list[bytes]) -> None:
    server = Server(body_bytes_max=1024)

    assert await ask(server, head(b"transfer-encoding: chunked\r\n") + chunked(*chunks)) == OK
    assert server.bodies == [b"x" * 1024]


@pytest.mark.parametrize("chunks", [[b"x" * 1025], [b"x" * 1000, b"x" * 25, b"never read"]])
async def test_a_body_that_grows_over_the_cap_is_refused(chunks: list[bytes]) -> None:
    server = Server(body_bytes_max=1024)

    assert statuses(await ask(server, head(b"transfer-encoding: chunked\r\n") + chunked(*chunks))) == [413]
    assert server.records == []


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


@pytest.mark.parametrize("begun", [b"", b'5\r\n{ "Me', b"2\r\n{}\r\n"])
async def test_a_client_gone_before_its_body_ended_publishes_nothing(begun: bytes) -> None:
    server = Server()

    async with server.serve() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head(b"transfer-encoding: chunked\r\n") + begun)
        writer.close()
        await until(lambda: bool(server.counted()))

    assert server.records == []
    assert server.counted() == {"client_gone": 1}


async def test_more_bodies_at_once_than_allowed_are_refused_until_one_has_ended() -> None:
    """Each holds up to a cap of memory for as long as its deadline allows."""
    server = Server(in_flight_max=1)
    begun = head(b"content-length: 2\r\n", b"expect: 100-continue\r\n")

    async with server.serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        assert statuses(await reader.readuntil(b"\r\n\r\n")) == [100]
        other, others = await asyncio.open_connection("127.0.0.1", port)
        others.write(post(BODY))
        assert statuses(await other.read()) == [503]
        assert server.registry.get_sample_value("vod_pipeline_bridge_connections") == 1
        assert server.registry.get_sample_value("vod_pipeline_bridge_connections_limit") == 100_000
        others.close()
        writer.write(b"{}")
        assert await reader.readuntil(b"\r\n\r\n") == OK
        writer.write(post(BODY))
        assert await reader.readuntil(b"\r\n\r\n") == OK
        writer.close()

    assert server.counted() == {"overloaded": 1, "published": 2}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (AckTimeoutError(), "kafka_timeout"),
        (KafkaFailedError("x"), "kafka_error"),
        (OverloadedError(), "overloaded"),
        (SpoolFailedError("x"), "spool_failed"),
    ],
)
async def test_what_is_not_durable_is_answered_503_on_a_connection_that_stays(
    error: PublishError, outcome: str
) -> None:
    server = Server()
    server.error = error

    async with server.serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(post(BODY))
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer == b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
        writer.close()

    assert server.counted() == {outcome: 2}
