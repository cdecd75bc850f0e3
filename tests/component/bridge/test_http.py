"""The bridge's ASGI application, in process: every status, and that nothing but an authenticated body is published."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from pipeline.bridge.errors import AckTimeoutError, OverloadedError, PublishError, RefusedError, SpoolFailedError
from pipeline.bridge.http import BridgeApp
from pipeline.core.signature import sign
from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.settings import BridgeSettings, CallbackSettings

if TYPE_CHECKING:
    from pipeline.bridge.publisher import Authenticated, Source

NOW = 1519375990.5
TARGET = b"/your/callback"
SIGNED = [(b"x-vod-timestamp", b"1519375990"), (b"x-vod-signature", b"c72b60894140fa98920f1279219b7ed4")]
WRONG = [(b"x-vod-timestamp", b"1519375990"), (b"x-vod-signature", b"0" * 32)]
BODY = b'{ "MediaId" : "abc", "Extra":"\xc3\xa9" }\n'
BODY_BYTES_MAX = 1024
# Another URL with the path of TARGET, such as the one before a move to https, and its own key.
OLD_URL = "http://old.example.com/your/callback"
OLD_KEY = "Old1Key"


class RecordingPublisher:
    """Records what it is asked to publish, and answers as it is told."""

    def __init__(self, error: PublishError | None = None) -> None:
        self.error = error
        self.is_spooled = False
        self.acked = asyncio.Event()
        self.acked.set()
        self.called = asyncio.Event()
        self.records: list[tuple[bytes | None, bytes, bytes, int]] = []

    async def _answer(self) -> bool:
        await self.acked.wait()
        if self.error is not None:
            raise self.error
        return self.is_spooled

    def publish(
        self, key: bytes | None, body: Authenticated, *, source: Source, received_at_ms: int
    ) -> asyncio.Future[bool]:
        if isinstance(self.error, OverloadedError):
            raise self.error
        self.records.append((key, body, source.value, received_at_ms))
        self.called.set()
        return asyncio.ensure_future(self._answer())


class Exchange:
    """One request: what the client sends, whether the application waits for more, and what it answered."""

    def __init__(
        self,
        *chunks: bytes,
        headers: list[tuple[bytes, bytes]] | None = None,
        method: str = "POST",
        target: bytes = TARGET,
        ending: str = "complete",
    ) -> None:
        path, _, query = target.partition(b"?")
        self.scope: dict[str, Any] = {"type": "http", "method": method, "raw_path": path, "query_string": query}
        self.scope["state"] = {}
        self.scope["headers"] = [*(SIGNED if headers is None else headers), (b"transfer-encoding", b"chunked")]
        last = len(chunks) - 1
        self._messages: deque[dict[str, Any]] = deque(
            {"type": "http.request", "body": chunk, "more_body": ending != "complete" or number != last}
            for number, chunk in enumerate(chunks)
        )
        if ending == "disconnect":
            self._messages.append({"type": "http.disconnect"})
        self.starved = asyncio.Event()
        self.received = 0
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if not self._messages:
            self.starved.set()
            await asyncio.Event().wait()  # The client sends no more: only the application's own deadline ends this.
        self.received += 1
        return self._messages.popleft()

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


class Bridge:
    """The application under test with everything around it."""

    def __init__(self, *, error: PublishError | None = None, **settings: Any) -> None:
        callbacks = [
            {"url": "https://www.example.com/your/callback", "auth_keys": ["test123"]},
            {"url": "https://www.example.com/secret?token=1", "auth_keys": []},
            {"url": OLD_URL, "auth_keys": [OLD_KEY]},
        ]
        self.registry = CollectorRegistry()
        self.publisher = RecordingPublisher(error)
        self.app = BridgeApp(
            BridgeSettings(
                callbacks=tuple(map(CallbackSettings.model_validate, callbacks)),
                body_bytes_max=BODY_BYTES_MAX,
                **settings,
            ),
            self.publisher,
            BridgeMetrics(self.registry),
            clock=lambda: NOW,
        )

    async def handle(self, exchange: Exchange) -> Exchange:
        await self.app(exchange.scope, exchange.receive, exchange.send)
        return exchange

    def counted(self) -> dict[str, float]:
        """Return the outcomes and reasons counted, without the zeros."""
        names = ("vod_pipeline_bridge_requests_total", "vod_pipeline_bridge_denials_total")
        samples = [sample for metric in self.registry.collect() for sample in metric.samples if sample.name in names]
        return {next(iter(sample.labels.values())): sample.value for sample in samples if sample.value}


@pytest.fixture
def bridge() -> Bridge:
    return Bridge()


async def test_an_authentic_callback_is_published_verbatim_and_answered_200(bridge: Bridge) -> None:
    exchange = await bridge.handle(Exchange(BODY))

    assert exchange.status == 200
    assert exchange.headers == {b"content-length": b"0"}
    assert exchange.sent[1:] == [{"type": "http.response.body", "body": b""}]
    assert bridge.publisher.records == [(b"abc", BODY, b"http", 1519375990500)]
    assert bridge.counted() == {"published": 1}


@pytest.mark.parametrize(
    ("url", "key", "status"),
    [(OLD_URL, OLD_KEY, 200), (OLD_URL, "test123", 403), ("https://www.example.com/your/callback", OLD_KEY, 403)],
)
async def test_on_a_path_of_two_urls_each_counts_with_its_own_key(
    bridge: Bridge, url: str, key: str, status: int
) -> None:
    """VOD signs the URL, and a request has the path alone."""
    headers = [(b"x-vod-timestamp", b"1519375990"), (b"x-vod-signature", sign(url, "1519375990", key).encode())]

    assert (await bridge.handle(Exchange(BODY, headers=headers))).status == status
    assert len(bridge.publisher.records) == (status == 200)


async def test_no_answer_is_given_before_the_acknowledgement(bridge: Bridge) -> None:
    """A 200 before the ack is an event lost when Kafka then fails."""
    bridge.publisher.acked.clear()
    exchange = Exchange(BODY)
    handling = asyncio.create_task(bridge.handle(exchange))
    await bridge.publisher.called.wait()
    assert exchange.sent == []

    bridge.publisher.acked.set()
    await handling

    assert exchange.status == 200


async def test_what_the_spool_took_is_answered_200_and_counted_apart(bridge: Bridge) -> None:
    bridge.publisher.is_spooled = True

    assert (await bridge.handle(Exchange(BODY))).status == 200
    assert bridge.counted() == {"spooled": 1}


async def test_a_copy_of_a_request_is_answered_and_not_published_again(bridge: Bridge) -> None:
    """Its timestamp is tolerated for minutes, and its body is not signed: anyone who saw it may send it again."""
    statuses = [(await bridge.handle(Exchange(BODY))).status for _ in range(3)]

    assert statuses == [200, 200, 200]
    assert len(bridge.publisher.records) == 1
    assert bridge.counted() == {"published": 1, "replayed": 2}


async def test_a_copy_of_a_request_in_flight_waits_for_the_same_answer(bridge: Bridge) -> None:
    bridge.publisher.acked.clear()
    first, copy = Exchange(BODY), Exchange(BODY)
    handling = [asyncio.create_task(bridge.handle(exchange)) for exchange in (first, copy)]
    await bridge.publisher.called.wait()
    await asyncio.sleep(0)  # The copy's turn.
    assert (first.sent, copy.sent) == ([], [])

    bridge.publisher.acked.set()
    await asyncio.gather(*handling)

    assert (first.status, copy.status) == (200, 200)
    assert len(bridge.publisher.records) == 1


async def test_a_copy_of_a_request_that_failed_is_published(bridge: Bridge) -> None:
    """It was not durable, so it does not count as seen."""
    bridge.publisher.error = AckTimeoutError()
    assert (await bridge.handle(Exchange(BODY))).status == 503
    bridge.publisher.error = None

    assert (await bridge.handle(Exchange(BODY))).status == 200
    assert len(bridge.publisher.records) == 2


async def test_another_body_under_the_same_signature_is_published(bridge: Bridge) -> None:
    """VOD signs the second, so all callbacks of a second share a signature."""
    for number in range(3):
        assert (await bridge.handle(Exchange(b'{"MediaId":"%d"}' % number))).status == 200

    assert len(bridge.publisher.records) == 3


async def test_too_many_bodies_under_one_signature_are_counted_once_and_still_taken() -> None:
    bridge = Bridge(bodies_per_signature_max=3)
    for number in range(6):
        assert (await bridge.handle(Exchange(b'{"MediaId":"%d"}' % number))).status == 200

    (bursts,) = [
        sample.value
        for metric in bridge.registry.collect()
        for sample in metric.samples
        if sample.name == "vod_pipeline_bridge_signature_bursts_total"
    ]
    assert bursts == 1
    assert len(bridge.publisher.records) == 6


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"[]", b"{}", b'{"MediaId":7}', b'{"MediaId":""}', b"\xff\x00", b"[" * 900]
)
async def test_what_has_no_media_id_is_published_without_a_key(bridge: Bridge, body: bytes) -> None:
    """It becomes a rejected record an operator can see; a retry by VOD could not repair it."""
    exchange = await bridge.handle(Exchange(body))

    assert exchange.status == 200
    assert bridge.publisher.records == [(None, body, b"http", 1519375990500)]


async def test_a_body_in_pieces_is_put_together(bridge: Bridge) -> None:
    exchange = await bridge.handle(Exchange(BODY[:5], b"", BODY[5:], b""))

    assert exchange.status == 200
    assert bridge.publisher.records[0][1] == BODY


@pytest.mark.parametrize(
    "target", [b"/", b"/your/callback/", b"/your/callback?a=1", b"/secret", b"/secret?token=2", b"", b"/\xff"]
)
async def test_only_the_configured_paths_exist(bridge: Bridge, target: bytes) -> None:
    exchange = await bridge.handle(Exchange(BODY, target=target))

    assert exchange.status == 404
    assert exchange.received == 0
    assert bridge.publisher.records == []
    assert bridge.counted() == {"not_found": 1}


async def test_a_configured_query_is_part_of_the_path(bridge: Bridge) -> None:
    exchange = await bridge.handle(Exchange(BODY, target=b"/secret?token=1", headers=[]))

    assert exchange.status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post"])
async def test_only_post_is_allowed(bridge: Bridge, method: str) -> None:
    exchange = await bridge.handle(Exchange(BODY, method=method))

    assert exchange.status == 405
    assert exchange.headers[b"allow"] == b"POST"
    assert bridge.publisher.records == []
    assert bridge.counted() == {"method_not_allowed": 1}


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "signature_missing"),
        (SIGNED[:1], "signature_missing"),
        (WRONG, "signature_wrong"),
        ([(b"x-vod-timestamp", b"15"), SIGNED[1]], "timestamp_malformed"),
        ([(b"x-vod-timestamp", b"1519375000"), SIGNED[1]], "timestamp_out_of_tolerance"),
    ],
)
async def test_a_denied_request_is_not_read_and_not_told_why(
    bridge: Bridge, headers: list[tuple[bytes, bytes]], reason: str
) -> None:
    exchange = await bridge.handle(Exchange(BODY, headers=headers))

    start = {"type": "http.response.start", "status": 403}
    start["headers"] = [(b"content-length", b"0"), (b"connection", b"close")]
    assert exchange.sent == [start, {"type": "http.response.body", "body": b""}]
    assert exchange.received == 0
    assert bridge.publisher.records == []
    assert bridge.counted() == {"denied": 1, reason: 1}


@pytest.mark.parametrize(("headers", "status"), [(SIGNED + WRONG, 200), (WRONG + SIGNED, 403)])
async def test_of_repeated_headers_the_first_counts(
    bridge: Bridge, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    assert (await bridge.handle(Exchange(BODY, headers=headers))).status == status


@pytest.mark.parametrize("length", [b"1025", b"9" * 18, b"9" * 19, b"9" * 5000])
async def test_an_announced_body_over_the_cap_is_not_read(bridge: Bridge, length: bytes) -> None:
    exchange = await bridge.handle(Exchange(BODY, headers=[(b"content-length", length), *SIGNED]))

    assert exchange.status == 413
    assert exchange.headers[b"connection"] == b"close"
    assert exchange.received == 0
    assert bridge.publisher.records == []
    assert bridge.counted() == {"body_too_large": 1}


@pytest.mark.parametrize("chunks", [[b"x" * 1024], [b"x" * 1000, b"x" * 24], [b"x" * 1023]])
async def test_a_body_up_to_the_cap_is_taken(bridge: Bridge, chunks: list[bytes]) -> None:
    headers = [(b"content-length", b"%d" % sum(map(len, chunks))), *SIGNED]

    assert (await bridge.handle(Exchange(*chunks, headers=headers))).status == 200


@pytest.mark.parametrize("chunks", [[b"x" * 1025], [b"x" * 1000, b"x" * 25, b"never read"]])
async def test_a_body_that_grows_over_the_cap_is_cut_off(bridge: Bridge, chunks: list[bytes]) -> None:
    exchange = await bridge.handle(Exchange(*chunks))

    assert exchange.status == 413
    assert exchange.headers[b"connection"] == b"close"
    assert exchange.received == min(len(chunks), 2)
    assert bridge.publisher.records == []


async def test_a_request_to_upgrade_the_connection_is_refused(bridge: Bridge) -> None:
    """uvicorn drops its body and calls it complete: it was published empty, answered 200, and lost."""
    exchange = await bridge.handle(Exchange(b"", headers=[(b"connection", b"upgrade"), (b"upgrade", b"h2c"), *SIGNED]))

    assert exchange.status == 400
    assert bridge.publisher.records == []


async def test_a_request_cancelled_from_outside_ends(bridge: Bridge) -> None:
    exchange = Exchange(ending="stall")
    handling = asyncio.create_task(bridge.handle(exchange))
    await exchange.starved.wait()
    handling.cancel()

    with pytest.raises(asyncio.CancelledError):
        await handling
    assert exchange.sent == []


@pytest.mark.parametrize("chunks", [[], [BODY[:5]], [BODY]])
async def test_a_client_gone_before_its_body_ended_publishes_nothing(bridge: Bridge, chunks: list[bytes]) -> None:
    exchange = await bridge.handle(Exchange(*chunks, ending="disconnect"))

    assert exchange.sent == []
    assert bridge.publisher.records == []
    assert bridge.counted() == {"client_gone": 1}


async def test_more_bodies_at_once_than_allowed_are_refused() -> None:
    """Each holds up to a cap of memory for as long as its deadline allows."""
    bridge = Bridge(in_flight_max=1)
    stalled = Exchange(ending="stall")
    handling = asyncio.create_task(bridge.handle(stalled))
    await stalled.starved.wait()

    exchange = await bridge.handle(Exchange(BODY))

    assert exchange.status == 503
    assert bridge.counted() == {"overloaded": 1}
    handling.cancel()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (AckTimeoutError(), "kafka_timeout"),
        (RefusedError("x"), "kafka_error"),
        (OverloadedError(), "overloaded"),
        (SpoolFailedError("x"), "spool_failed"),
    ],
)
async def test_what_kafka_did_not_acknowledge_is_answered_503(error: PublishError, outcome: str) -> None:
    bridge = Bridge(error=error)

    exchange = await bridge.handle(Exchange(BODY))

    assert exchange.status == 503
    assert bridge.counted() == {outcome: 1}


HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"x-vod-signature", b"x-vod-timestamp", b"content-length", b"transfer-encoding"])
        | st.binary(),
        st.sampled_from([value for _, value in SIGNED]) | st.binary(max_size=64),
    ),
    max_size=8,
)


@given(headers=HEADERS, body=st.binary(max_size=2048), target=st.just(TARGET) | st.binary(max_size=32))
def test_any_request_has_one_answer(headers: list[tuple[bytes, bytes]], body: bytes, target: bytes) -> None:
    async def scenario() -> None:
        bridge = Bridge()

        exchange = await bridge.handle(Exchange(body, headers=headers, target=target))

        assert exchange.status in (200, 400, 403, 404, 413)
        assert (exchange.status == 200) == (len(bridge.publisher.records) == 1)

    asyncio.run(scenario())


async def test_a_request_without_a_length_is_refused(bridge: Bridge) -> None:
    """It has no body by definition: a 200 would tell a sender who thinks otherwise that it is delivered."""
    exchange = Exchange(BODY)
    exchange.scope["headers"] = SIGNED

    await bridge.handle(exchange)

    assert exchange.status == 411
    assert bridge.publisher.records == []
    assert bridge.counted() == {"length_missing": 1}
