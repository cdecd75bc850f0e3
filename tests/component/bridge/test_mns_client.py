"""Our MNS client: it asks as the official SDK does, and every call ends: with messages, an MnsError, or cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
import uvloop
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mns.account import Account

from pipeline.bridge.mns_answers import MnsError
from pipeline.bridge.mns_client import ANSWER_BYTES_MAX, MnsClient
from pipeline.service.metrics.mns import MnsProblem
from tests.harness.mns import MnsEmulator
from tests.harness.mns_poll import BODY, OTHER, queue_settings
from tests.harness.mns_queues import Fault

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Sequence

    from pipeline.bridge.mns_answers import Message


def client_of(emulator: MnsEmulator, **changes: str) -> MnsClient:
    return MnsClient(queue_settings(emulator, **changes), connect_seconds_max=10)


async def receive(client: MnsClient, *, seconds_max: float = 20) -> Sequence[Message]:
    return await client.receive(16, wait_seconds=30, seconds_max=seconds_max)


async def test_the_client_asks_what_the_sdk_asks(emulator: MnsEmulator) -> None:
    account = Account(emulator.endpoint, "LTAI5t", "s3cret")
    queue = account.get_queue("q")
    queue.set_encoding(False)
    emulator.put("q", BODY, OTHER)
    theirs = await asyncio.to_thread(queue.batch_receive_message, 16, 30)
    await asyncio.to_thread(queue.batch_delete_message, [message.receipt_handle for message in theirs])
    account.get_client().close_connection()
    asked = list(emulator.requests)
    emulator.put("q", BODY, OTHER)
    async with client_of(emulator) as client:
        ours = await receive(client)
        kept = await client.delete([message.receipt for message in ours], seconds_max=10)

    assert emulator.requests == asked * 2
    assert [message.text for message in ours] == [message.message_body for message in theirs] == [BODY, OTHER]
    assert kept == {}
    assert emulator.messages("q") == []


async def test_what_was_not_deleted_is_named(emulator: MnsEmulator) -> None:
    emulator.put("q", BODY, OTHER)
    emulator.keep(OTHER, "InternalError")
    async with client_of(emulator) as client:
        receipts = [message.receipt for message in await receive(client)]
        kept = await client.delete([*receipts, "for&ged"], seconds_max=10)

    assert kept == {receipts[1]: "InternalError", "for&ged": "ReceiptHandleError"}
    assert emulator.messages("q") == [OTHER]


async def test_a_connection_is_kept_and_used_again(emulator: MnsEmulator) -> None:
    """Also over answers that are errors, as that of an empty queue is."""
    emulator.put("q", BODY)
    emulator.fail("GET", None, Fault.EMPTY_NOW, Fault.ERROR_500)
    async with client_of(emulator) as client:
        await client.delete([message.receipt for message in await receive(client)], seconds_max=10)
        assert await receive(client) == ()
        with pytest.raises(MnsError, match="InternalError"):
            await receive(client)

    assert (len(emulator.requests), emulator.connections) == (4, 1)


async def test_a_request_whose_kept_connection_was_closed_is_made_anew(emulator: MnsEmulator) -> None:
    """MNS closes what is idle for too long: that is no failure."""
    emulator.put("q", BODY)
    emulator.fail("GET", Fault.EMPTY_NOW, Fault.DROP)
    async with client_of(emulator) as client:
        await receive(client)
        (message,) = await receive(client)

    assert message.text == BODY
    assert (len(emulator.requests), emulator.connections) == (3, 2)


async def test_a_redirect_is_not_followed(emulator: MnsEmulator) -> None:
    """Elsewhere no one shall see a signature."""
    emulator.fail("GET", Fault.REDIRECT)
    async with client_of(emulator) as client:
        with pytest.raises(MnsError, match="status 302") as caught:
            await receive(client)

    assert caught.value.problem is MnsProblem.DAMAGED
    assert len(emulator.requests) == 1


async def test_proxies_of_the_environment_are_not_used(emulator: MnsEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the SDK never used them. These would refuse."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    emulator.put("q", BODY)
    async with client_of(emulator) as client:
        assert [message.text for message in await receive(client)] == [BODY]


async def test_a_certificate_that_is_not_trusted_is_refused(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with MnsEmulator("q", tls=tls) as emulator:
        async with client_of(emulator) as client:
            with pytest.raises(MnsError, match="certificate verify failed") as caught:
                await receive(client)

    assert caught.value.problem is MnsProblem.NETWORK
    assert emulator.requests == []


@pytest.mark.parametrize(
    ("fault", "problem", "detail"),
    [
        (Fault.HANG, MnsProblem.TIMEOUT, "no answer within 0.3 s"),
        (Fault.DRIP, MnsProblem.TIMEOUT, "no answer within 0.3 s"),
        (Fault.DRIP_BODY, MnsProblem.TIMEOUT, "no answer within 0.3 s"),
        (Fault.DROP, MnsProblem.NETWORK, "ServerDisconnectedError"),
        (Fault.RESET, MnsProblem.NETWORK, "reset by peer"),
        (Fault.HALF, MnsProblem.NETWORK, "ClientPayloadError"),
    ],
)
async def test_a_peer_that_breaks_off_or_never_ends_is_an_error(
    emulator: MnsEmulator, fault: Fault, problem: MnsProblem, detail: str
) -> None:
    """And the next call is as if nothing had been."""
    emulator.put("q", BODY)
    emulator.fail("GET", fault, fault if problem is MnsProblem.NETWORK and fault is not Fault.HALF else None)
    async with client_of(emulator) as client:
        with pytest.raises(MnsError, match=detail) as caught:
            await receive(client, seconds_max=0.3 if problem is MnsProblem.TIMEOUT else 20)
        again = await receive(client)

    assert caught.value.problem is problem
    assert [message.text for message in again] == [BODY]


async def test_an_answer_is_read_up_to_8_mib(emulator: MnsEmulator) -> None:
    """Sixteen bodies of 64 KiB that are all quotation marks are less; what never ends is more."""
    emulator.put("q", *['"' * 65_536] * 16)
    emulator.fail("GET", None, Fault.HUGE)
    async with client_of(emulator) as client:
        assert [len(message.text) for message in await receive(client)] == [65_536] * 16
        with pytest.raises(MnsError, match=f"more than {ANSWER_BYTES_MAX} bytes") as caught:
            await receive(client)

    assert caught.value.problem is MnsProblem.DAMAGED
    assert 16 * 65_536 * len("&quot;") < ANSWER_BYTES_MAX == 8 << 20


async def test_a_call_is_cancelled_like_any_task(emulator: MnsEmulator) -> None:
    """In the middle of a long poll; the client can be used again."""
    async with client_of(emulator) as client:
        polling = asyncio.create_task(receive(client))
        await asyncio.to_thread(emulator.until, lambda: emulator.waiting == 1)
        polling.cancel()
        await asyncio.wait({polling})
        assert polling.cancelled()
        emulator.fail("GET", Fault.EMPTY_NOW)

        assert await receive(client) == ()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("endpoint", ["http://a..b", f"http://{'a' * 70}.example"])
async def test_an_endpoint_that_is_no_host_is_an_error(emulator: MnsEmulator, endpoint: str) -> None:
    async with client_of(emulator, endpoint=endpoint) as client:
        with pytest.raises(MnsError) as caught:
            await receive(client)

    assert caught.value.problem is MnsProblem.NETWORK


class Peer:
    """Answers each connection with the same bytes, whatever they are, and closes it."""

    def __init__(self) -> None:
        self.answer = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def answering() -> AsyncIterator[tuple[Peer, MnsClient]]:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    with MnsEmulator() as emulator:
        async with (
            server,
            client_of(emulator, endpoint=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client,
        ):
            yield peer, client


SECRET = b"<MessageBody>c0nfidential</MessageBody>"
HEADS = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 404 Not Found\r\n", b"HTTP/1.1 204 \r\n", b"HTTP/1.1 101 \r\n",
    b"HTTP/1.1 302 \r\n", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", b"HTTP/9.9 999\r\n", b"",
]  # fmt: skip
FIELDS = [
    b"Content-Length: 99\r\n", b"Content-Length: -1\r\n", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n", b"Location: //[\r\n", b"Content-Type: text/xml; charset=none\r\n",
    b"Set-Cookie: a=b; Domain=\xff\r\n", b"Connection: upgrade\r\n", b"\xff: \xff\r\n", b" more\r\n", b"\r\n", SECRET,
]  # fmt: skip
WHOLE = b"<Message><MessageId>1</MessageId><ReceiptHandle>r</ReceiptHandle></Message>"
EMPTY = b"<Error><Code>MessageNotExist</Code></Error>"
BODIES = [
    b"<Messages>", b"</Messages>", b"<Message>", b"</Message>", b"<MessageId>1</MessageId>", b"<!DOCTYPE a>", b"&x;",
    b"<ReceiptHandle>r</ReceiptHandle>", b"<Error>", b"</Error>", b"<Code>x</Code>", b"\x00", b"\xff", b"63\r\n",
    b"]]>", SECRET, WHOLE, EMPTY,
]  # fmt: skip


def some(pieces: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(st.one_of(*[st.sampled_from(pieces)] * 3, st.binary(max_size=2)), max_size=4).map(b"".join)


ANSWERS = st.tuples(
    st.sampled_from(HEADS),
    st.one_of(st.just(b""), st.sampled_from(FIELDS), some(FIELDS)),
    st.sampled_from([b"\r\n", b"\r\n", b""]),
    st.one_of(some(BODIES), some(BODIES).map(lambda body: b"<Messages>" + body + b"</Messages>")),
).map(b"".join)


def test_any_bytes_as_an_answer_are_messages_or_an_error() -> None:
    """Nothing else, so nothing stops a poller; and no error says what was in a body."""
    outcomes: set[bool | MnsProblem] = set()
    details: set[str] = set()

    async def ask(peer: Peer, client: MnsClient, answer: bytes) -> None:
        peer.answer = answer
        try:
            outcomes.add(bool(await receive(client)))
            outcomes.add(bool(await client.delete(["r"], seconds_max=20)))
        except MnsError as error:
            outcomes.add(error.problem)
            details.add(str(error))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, contextlib.ExitStack() as stack:
        context = answering()
        peer, client = runner.run(context.__aenter__())
        stack.callback(lambda: runner.run(context.__aexit__(None, None, None)))

        @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        @given(ANSWERS)
        @example(HEADS[0] + b"\r\n<Messages>" + WHOLE + b"</Messages>")
        @example(HEADS[1] + b"\r\n" + EMPTY)
        def check(answer: bytes) -> None:
            runner.run(ask(peer, client, answer))

        check()

    assert {True, False, MnsProblem.DAMAGED, MnsProblem.NETWORK} <= outcomes
    assert not [detail for detail in details if "c0nfidential" in detail]
