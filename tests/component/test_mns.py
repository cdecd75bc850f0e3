"""The MNS poller against a real HTTP server: nothing is deleted before it is safe, and nothing stops the poller."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from prometheus_client import CollectorRegistry

from pipeline.bridge.errors import AckTimeoutError, OverloadedError, PublishError, RefusedError
from pipeline.bridge.mns import MnsPoller, PollPolicy, body_of, polling
from pipeline.metrics import MnsMetrics
from pipeline.settings import MnsSettings
from tests.harness.mns import MnsEmulator
from tests.harness.mns_queues import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from pipeline.bridge.publisher import Authenticated, Source

BODY = '{"MediaId":"a","EventType":"DeleteMediaComplete"}'
OTHER = '{"MediaId":"b"}'
STOP_SECONDS_MAX = 5.0  # A long poll lasts 30 s: a stop that waits for it shows.


class Taken:
    """Stands in for the publisher: records what it gets, and refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes | None, bytes, bytes, int]] = []
        self.errors: dict[bytes, Exception] = {}
        self.spooled: set[bytes] = set()
        self.before: Callable[[], None] = lambda: None
        self.acked = asyncio.Event()
        self.acked.set()
        self._changed = asyncio.Event()

    def __call__(
        self, key: bytes | None, body: Authenticated, *, source: Source, received_at_ms: int
    ) -> asyncio.Future[bool]:
        error = self.errors.get(body)
        if isinstance(error, OverloadedError):
            raise error
        self.records.append((key, body, source.value, received_at_ms))
        self._changed.set()
        self.before()
        return asyncio.ensure_future(self._answer(error, is_spooled=body in self.spooled))

    async def _answer(self, error: Exception | None, *, is_spooled: bool) -> bool:
        await self.acked.wait()
        if error is not None:
            raise error
        return is_spooled

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, body, _, _ in self.records]

    async def until(self, number: int) -> None:
        async with asyncio.timeout(20):
            while len(self.records) < number:
                await self._changed.wait()
                self._changed.clear()


class Pauses:
    """Records how long the poller wanted to wait, and lets it go on at once, up to a number of times."""

    def __init__(self, number_max: int = 100) -> None:
        self.seconds: list[float] = []
        self.over = asyncio.Event()
        self._number_max = number_max
        self._changed = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self._changed.set()
        if len(self.seconds) >= self._number_max:
            await self.over.wait()

    async def until(self, number: int) -> None:
        async with asyncio.timeout(20):
            while len(self.seconds) < number:
                await self._changed.wait()
                self._changed.clear()


class Poll:
    """A running poller with everything around it."""

    def __init__(self, emulator: MnsEmulator, *, pauses: int = 100, real_pauses: bool = False, **how: Any) -> None:
        self.emulator = emulator
        self.taken = Taken()
        self.pauses = Pauses(pauses)
        self.registry = CollectorRegistry()
        queue = how.pop("queue", None) or queue_settings(emulator)
        self.poller = MnsPoller(
            queue,
            self.taken,
            MnsMetrics(self.registry, [queue.queue]),
            policy=PollPolicy(**how),
            pause=None if real_pauses else self.pauses,
            clock=emulator.now,
        )

    async def __aenter__(self) -> Poll:
        self.running = asyncio.create_task(self.poller.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.poller.stop()
        self.pauses.over.set()
        self.taken.acked.set()
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await self.running
        became = [self.count(step) or 0 for step in ("published", "spooled", "replayed", "not_published")]
        assert self.count("received") == sum(became)

    async def until(self, condition: Callable[[], bool]) -> None:
        await asyncio.to_thread(self.emulator.until, condition)

    async def until_empty(self) -> None:
        await self.until(lambda: not self.emulator.messages("q"))

    def count(self, step: str) -> float | None:
        return self.registry.get_sample_value("pipeline_mns_messages_total", {"queue": "q", "step": step})

    def errors(self, reason: str) -> float | None:
        return self.registry.get_sample_value("pipeline_mns_errors_total", {"queue": "q", "reason": reason})


def queue_settings(emulator: MnsEmulator, **changes: str) -> MnsSettings:
    entry = {"queue": "q", "access_key_id": "LTAI5t", "access_key_secret": "s3cret", "endpoint": emulator.endpoint}
    return MnsSettings.model_validate(entry | changes)


@pytest.fixture
def emulator() -> Iterator[MnsEmulator]:
    """An MNS with one empty queue."""
    with MnsEmulator("q") as running:
        yield running


def deletions(emulator: MnsEmulator) -> int:
    return sum(request.startswith("DELETE") for request in emulator.requests)


async def test_a_message_is_published_and_deleted(emulator: MnsEmulator) -> None:
    """Raw JSON and Base64 alike, with the MediaId as the key, in one request for many."""
    emulator.put("q", BODY, base64.b64encode(OTHER.encode()).decode())
    before = int(emulator.now() * 1000)
    async with Poll(emulator) as poll:
        await poll.until_empty()

    assert [record[:3] for record in poll.taken.records] == [
        (b"a", BODY.encode(), b"mns"),
        (b"b", OTHER.encode(), b"mns"),
    ]
    assert all(before <= received_at <= emulator.now() * 1000 for *_, received_at in poll.taken.records)
    assert emulator.requests[:2] == [
        "GET /queues/q/messages?numOfMessages=16&waitseconds=30",
        "DELETE /queues/q/messages",
    ]
    assert [poll.count(step) for step in ("received", "published", "deleted")] == [2, 2, 2]
    assert [poll.count(step) for step in ("not_published", "not_deleted")] == [0, 0]
    assert poll.pauses.seconds == []


async def test_the_time_a_message_waited_is_measured_from_its_queue(emulator: MnsEmulator) -> None:
    emulator.put("q", BODY)
    emulator.advance(3600)
    async with Poll(emulator) as poll:
        await poll.until_empty()

    waited = poll.registry.get_sample_value("pipeline_mns_waited_seconds_sum", {"queue": "q"})
    assert waited is not None
    assert 3600 <= waited < 3630


async def test_an_sts_token_is_sent_with_its_key(emulator: MnsEmulator) -> None:
    emulator.put("q", BODY)
    queue = queue_settings(emulator, access_key_id="STS.NU", access_key_secret="s4cret", security_token="t0ken")
    async with Poll(emulator, queue=queue) as poll:
        await poll.until_empty()

    assert poll.taken.bodies == [BODY.encode()]


async def test_nothing_is_deleted_before_it_is_safe(emulator: MnsEmulator) -> None:
    emulator.put("q", BODY)
    async with Poll(emulator) as poll:
        poll.taken.acked.clear()
        await poll.taken.until(1)
        held = emulator.messages("q")
        asked = deletions(emulator)
        poll.taken.acked.set()
        await poll.until_empty()

    assert (held, asked) == ([BODY], 0)


@pytest.mark.parametrize("error", [OverloadedError(), AckTimeoutError(), RefusedError("x")])
async def test_what_kafka_does_not_take_stays_and_comes_again(emulator: MnsEmulator, error: PublishError) -> None:
    """Its neighbours are deleted all the same, and the poller waits before it goes on."""
    emulator.put("q", BODY, OTHER)
    async with Poll(emulator) as poll:
        poll.taken.errors[BODY.encode()] = error
        await poll.pauses.until(1)
        kept = emulator.messages("q")
        poll.taken.errors.clear()
        emulator.advance(30)
        await poll.until_empty()

    assert kept == [BODY]
    assert poll.taken.bodies[-1] == BODY.encode()
    assert 0.5 <= poll.pauses.seconds[0] <= 1
    assert [poll.count(step) for step in ("received", "published", "not_published", "deleted")] == [3, 2, 1, 2]


async def test_what_only_the_spool_has_is_deleted_and_counted_as_spooled(emulator: MnsEmulator) -> None:
    """The spool is as durable as Kafka, but what it holds is not published yet."""
    emulator.put("q", BODY, OTHER)
    async with Poll(emulator) as poll:
        poll.taken.spooled.add(OTHER.encode())
        await poll.until_empty()

    assert [poll.count(step) for step in ("published", "spooled", "deleted")] == [1, 1, 2]


async def test_every_message_received_is_counted_as_one_outcome(emulator: MnsEmulator) -> None:
    """Received is the sum of what became of them, whatever fails; here every outcome there is."""
    spooled, refused = '{"MediaId":"c"}', '{"MediaId":"d"}'
    emulator.put("q", BODY, OTHER, spooled, refused)
    emulator.keep(OTHER, "InternalError")
    async with Poll(emulator) as poll:
        poll.taken.spooled.add(spooled.encode())
        poll.taken.errors[refused.encode()] = AckTimeoutError()
        await poll.pauses.until(1)
        poll.taken.errors.clear()
        emulator.advance(30)
        await poll.until_empty()

    outcomes = ("received", "published", "spooled", "replayed", "not_published")
    assert [poll.count(step) for step in outcomes] == [6, 3, 1, 1, 1]


async def test_a_deletion_that_failed_in_part_is_made_up_for_unread(emulator: MnsEmulator) -> None:
    """The record is safe: when the message comes again it is deleted, not published."""
    emulator.put("q", BODY, OTHER)
    emulator.keep(OTHER, "InternalError")
    async with Poll(emulator) as poll:
        await poll.until(lambda: emulator.messages("q") == [OTHER] and len(emulator.requests) == 3)
        emulator.advance(30)
        await poll.until_empty()

    assert poll.taken.bodies == [BODY.encode(), OTHER.encode()]
    assert [poll.count(step) for step in ("published", "replayed", "not_deleted", "deleted")] == [2, 1, 1, 2]


async def test_a_deletion_that_failed_whole_is_made_up_for_unread(emulator: MnsEmulator) -> None:
    emulator.put("q", BODY)
    emulator.fail("DELETE", Fault.ERROR_500)
    async with Poll(emulator) as poll:
        await poll.pauses.until(1)
        emulator.advance(30)
        await poll.until_empty()

    assert poll.taken.bodies == [BODY.encode()]
    assert [poll.count(step) for step in ("published", "replayed", "not_deleted", "deleted")] == [1, 1, 1, 1]
    assert poll.errors("other") == 1


async def test_what_is_new_is_published_while_deletions_fail(emulator: MnsEmulator) -> None:
    """A key that may receive but not delete: every pass would use up what the dead-letter policy counts."""
    emulator.put("q", BODY)
    emulator.fail("DELETE", *[Fault.ERROR_500] * 20)
    async with Poll(emulator) as poll:
        await poll.pauses.until(1)
        emulator.advance(31)
        emulator.put("q", OTHER)
        await poll.taken.until(2)

    assert poll.taken.bodies == [BODY.encode(), OTHER.encode()]


async def test_expired_receipts_do_not_make_it_go_in_circles(emulator: MnsEmulator) -> None:
    """A queue whose messages are visible again before Kafka answers: each is published once, and then deleted."""
    emulator.put("q", BODY, OTHER)
    async with Poll(emulator) as poll:
        poll.taken.before = lambda: emulator.advance(31)
        await poll.until_empty()

    assert poll.taken.bodies == [BODY.encode(), OTHER.encode()]
    assert poll.count("not_deleted") == 2


async def test_what_is_known_to_be_safe_is_deleted_before_the_rest_is_published(emulator: MnsEmulator) -> None:
    """Else its receipt would expire once more, each time a new message comes with it."""
    third = '{"MediaId":"c"}'
    emulator.put("q", BODY, OTHER)
    async with Poll(emulator) as poll:

        def let_expire() -> None:
            emulator.advance(31)
            if len(poll.taken.records) == 1:
                emulator.put("q", third)

        poll.taken.before = let_expire
        await poll.until_empty()

    assert poll.taken.bodies == [BODY.encode(), OTHER.encode(), third.encode()]
    assert poll.count("not_deleted") == 3  # Each once.


@pytest.mark.parametrize(
    ("sent", "published"),
    [
        ("not json", b"not json"),
        ('[{"MediaId":"a"}]', b'[{"MediaId":"a"}]'),
        ("{broken", b"{broken"),
        ("eA==", b"eA=="),
        ("eA=", b"eA="),
        ("", b""),
        ("\x00\x01]]>&", b"\x00\x01]]>&"),
        ("\x0bcontrol", b"\x0bcontrol"),
    ],
)
async def test_poison_is_published_without_a_key_and_deleted(
    emulator: MnsEmulator, sent: str, published: bytes
) -> None:
    """
    For the worker to reject: it neither stops the poller, nor holds up its neighbours, nor comes again.

    XML has neither control characters nor, to the SDK, empty bodies: such an answer is read all the same.
    """
    emulator.put("q", BODY, sent, OTHER)
    async with Poll(emulator) as poll:
        await poll.until_empty()

    assert sorted(poll.taken.bodies) == sorted([BODY.encode(), published, OTHER.encode()])
    assert {key for key, body, _, _ in poll.taken.records if body == published} == {None}
    assert poll.pauses.seconds == []


@pytest.mark.parametrize(
    ("size", "published"),
    [(65_536, 65_536), (65_537, 65_537), (120 * 1024, 120 * 1024), (120 * 1024 + 1, 120 * 1024), (500_000, 120 * 1024)],
)
async def test_a_body_is_as_long_as_raw_takes_it(emulator: MnsEmulator, size: int, published: int) -> None:
    """Above 64 KiB the worker rejects it whatever it says, so its head is enough where raw does not take all."""
    emulator.put("q", "x" * size)
    async with Poll(emulator) as poll:
        await poll.until_empty()

    assert poll.taken.bodies == [b"x" * published]


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (BODY, BODY.encode()),
        (" \r\n" + BODY, (" \r\n" + BODY).encode()),
        ("eyJNZWRpYUlkIjoiYSJ9", b'{"MediaId":"a"}'),
        ("eyJNZWRp\r\nYUlkIjoiYSJ9\r\n", b'{"MediaId":"a"}'),
        ("IHsiTWVkaWFJZCI6ImEifQ==", b' {"MediaId":"a"}'),
        ('{"a":"é"}', '{"a":"é"}'.encode()),
        ("eyJNZWRpYUlkIjoiYSJ9é", "eyJNZWRpYUlkIjoiYSJ9é".encode()),
        ("test", b"test"),
    ],
)
def test_raw_json_and_base64_are_told_apart(text: str, body: bytes) -> None:
    """A JSON object begins with a brace, Base64 never; a word that happens to be Base64 stays a word."""
    assert body_of(text) == body


async def test_an_immediate_empty_answer_is_followed_by_a_pause(emulator: MnsEmulator) -> None:
    """MNS gives and bills it where too many poll: without the pause this is a busy loop."""
    emulator.fail("GET", *[Fault.EMPTY_NOW] * 3)
    async with Poll(emulator) as poll:
        await poll.pauses.until(3)
        emulator.put("q", BODY)
        await poll.until_empty()

    assert len(poll.pauses.seconds) == 3
    assert all(0.5 < seconds <= 1 for seconds in poll.pauses.seconds)
    assert poll.registry.get_sample_value("pipeline_mns_early_answers_total", {"queue": "q"}) == 3


async def test_an_empty_long_poll_is_followed_by_the_next_at_once(emulator: MnsEmulator) -> None:
    """It waited already."""
    async with Poll(emulator, floor_seconds=0) as poll:
        await poll.until(lambda: emulator.waiting == 1)
        emulator.advance(30)
        await poll.until(lambda: len(emulator.requests) == 2)

    assert poll.pauses.seconds == []
    assert poll.errors("other") == 0


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ([Fault.ERROR_500], "other"),
        ([Fault.HTML_502], "damaged"),
        ([Fault.DROP, Fault.DROP], "network"),  # The SDK repeats such a request once.
    ],
)
async def test_failures_are_retried_ever_more_slowly(emulator: MnsEmulator, faults: list[Fault], reason: str) -> None:
    """1 s, doubled up to 60 s, minus up to a half; after a success it begins anew."""
    emulator.fail("GET", *faults * 8)
    async with Poll(emulator, floor_seconds=0) as poll:
        await poll.pauses.until(8)
        emulator.put("q", BODY)
        await poll.until_empty()
        await poll.until(lambda: emulator.waiting == 1)
        emulator.fail("GET", *faults)
        emulator.advance(30)
        await poll.pauses.until(9)

    longest = [1, 2, 4, 8, 16, 32, 60, 60, 1]
    assert [most / 2 <= seconds <= most for seconds, most in zip(poll.pauses.seconds, longest, strict=False)] == [
        True
    ] * 9
    assert len({seconds / most for seconds, most in zip(poll.pauses.seconds, longest, strict=False)}) == 9
    assert poll.errors(reason) == 9


async def test_after_a_message_retries_begin_anew(emulator: MnsEmulator) -> None:
    emulator.put("q", BODY)
    emulator.fail("GET", Fault.ERROR_500, Fault.ERROR_500, Fault.ERROR_500, None, Fault.ERROR_500)
    async with Poll(emulator) as poll:
        await poll.pauses.until(4)

    longest = [1, 2, 4, 1]
    assert [most / 2 <= seconds <= most for seconds, most in zip(poll.pauses.seconds, longest, strict=True)] == [
        True
    ] * 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"access_key_secret": "wrong"}, "denied"),
        ({"access_key_id": "wrong"}, "denied"),
        ({"security_token": "wrong"}, "denied"),
    ],
)
async def test_what_does_not_mend_itself_is_asked_once_a_minute(
    emulator: MnsEmulator, changes: dict[str, str], reason: str
) -> None:
    async with Poll(emulator, queue=queue_settings(emulator, **changes), pauses=2) as poll:
        await poll.pauses.until(2)

    assert all(30 <= seconds <= 60 for seconds in poll.pauses.seconds)
    assert poll.errors(reason) == 2


async def test_a_queue_that_is_created_later_is_polled_then() -> None:
    with MnsEmulator() as emulator:
        async with Poll(emulator, pauses=2) as poll:
            await poll.pauses.until(2)
            emulator.create("q")
            emulator.put("q", BODY)
            poll.pauses.over.set()
            await poll.until_empty()

    assert all(30 <= seconds <= 60 for seconds in poll.pauses.seconds)
    assert poll.errors("no_queue") == 2


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP])
async def test_a_server_that_falls_silent_or_drips_is_given_up(emulator: MnsEmulator, fault: Fault) -> None:
    """A half-open connection has no end of its own; each dripping byte would start the socket's timeout anew."""
    emulator.fail("GET", fault)
    emulator.put("q", BODY)
    async with Poll(emulator, request_seconds_max=0.5) as poll:
        await poll.until_empty()

    assert poll.errors("timeout") == 1
    assert len(poll.pauses.seconds) == 1


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP])
async def test_a_deletion_that_is_never_answered_is_given_up(emulator: MnsEmulator, fault: Fault) -> None:
    emulator.put("q", BODY)
    emulator.fail("DELETE", fault)
    async with Poll(emulator, delete_seconds_max=0.5) as poll:
        await poll.pauses.until(1)
        emulator.advance(30)
        await poll.until_empty()

    assert poll.errors("timeout") == 1
    assert poll.taken.bodies == [BODY.encode()]


async def test_a_half_open_tls_handshake_is_given_up() -> None:
    """The SDK's own HTTPS connection has no timeout at all: its thread would hang for good."""
    with socket.create_server(("127.0.0.1", 0)) as silent, MnsEmulator("q") as emulator:
        queue = queue_settings(emulator, endpoint=f"https://127.0.0.1:{silent.getsockname()[1]}")
        async with Poll(emulator, queue=queue, pauses=2, connect_seconds_max=0.2) as poll:
            await poll.pauses.until(2)

    assert poll.errors("timeout") == 2


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's TLS for 127.0.0.1, which clients made later trust."""
    authority, trusted = trustme.CA(), tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP])
async def test_over_https_silence_is_given_up_too(tls: ssl.SSLContext, fault: Fault) -> None:
    with MnsEmulator("q", tls=tls) as emulator:
        emulator.put("q", BODY)
        emulator.fail("GET", fault)
        async with Poll(emulator, request_seconds_max=0.5) as poll:
            await poll.until_empty()

    assert poll.errors("timeout") == 1
    assert poll.taken.bodies == [BODY.encode()]


async def test_over_https_a_long_poll_is_stopped_at_once(tls: ssl.SSLContext) -> None:
    with MnsEmulator("q", tls=tls) as emulator:
        started_at = time.monotonic()
        async with Poll(emulator) as poll:
            await poll.until(lambda: len(emulator.requests) == 1)
        stopped_after = time.monotonic() - started_at

    assert stopped_after < STOP_SECONDS_MAX
    assert len(emulator.requests) == 1


def poller_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mns-q")]


async def test_a_stop_ends_a_long_poll_and_its_thread_at_once(emulator: MnsEmulator) -> None:
    """No error is counted for it, and the SDK's own retry does not start another poll."""
    async with Poll(emulator) as poll:
        await poll.until(lambda: len(emulator.requests) == 1)
        (name,) = poller_threads()
    for thread in threading.enumerate():
        if thread.name == name:
            await asyncio.to_thread(thread.join, STOP_SECONDS_MAX)

    assert poller_threads() == []
    assert len(emulator.requests) == 1
    assert [poll.errors(reason) for reason in ("network", "timeout", "other")] == [0, 0, 0]


async def test_a_stop_ends_a_pause_at_once(emulator: MnsEmulator) -> None:
    emulator.fail("GET", Fault.ERROR_500)
    async with Poll(emulator, real_pauses=True, retry_seconds_min=60) as poll:
        await poll.until(lambda: len(emulator.requests) == 1)
        async with asyncio.timeout(STOP_SECONDS_MAX):
            while poll.errors("other") != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # Paces the polling; the counter is what ends it.

    assert len(emulator.requests) == 1


async def test_what_was_received_before_a_stop_is_published_and_deleted(emulator: MnsEmulator) -> None:
    emulator.put("q", BODY)
    async with Poll(emulator) as poll:
        poll.taken.acked.clear()
        await poll.taken.until(1)
        poll.poller.stop()
        poll.taken.acked.set()
        await poll.running

    assert emulator.messages("q") == []
    assert [request.split()[0] for request in emulator.requests] == ["GET", "DELETE"]


@contextlib.asynccontextmanager
async def two_queues(emulator: MnsEmulator, taken: Taken) -> AsyncIterator[CollectorRegistry]:
    registry = CollectorRegistry()
    queues = [queue_settings(emulator, queue=queue) for queue in ("one", "two")]
    async with polling(queues, taken, MnsMetrics(registry, ["one", "two"])):
        yield registry


async def test_a_poller_that_is_cancelled_leaves_the_publishers_futures_alone(emulator: MnsEmulator) -> None:
    """Callbacks over HTTP wait for the same future as a message that was published with them."""
    shared: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    published = asyncio.Event()

    def publish(*_: object, **__: object) -> asyncio.Future[bool]:
        published.set()
        return shared

    emulator.put("q", BODY)
    poller = MnsPoller(queue_settings(emulator), publish, MnsMetrics(CollectorRegistry(), ["q"]))
    running = asyncio.create_task(poller.run())
    await published.wait()
    running.cancel()
    await asyncio.wait({running})

    assert running.cancelled()
    assert not shared.done()


async def test_every_queue_is_polled_by_itself() -> None:
    """One that is refused holds up no other."""
    with MnsEmulator("two") as emulator:
        taken = Taken()
        emulator.put("two", BODY)
        async with two_queues(emulator, taken):
            await taken.until(1)

        assert emulator.messages("two") == []


async def test_a_bug_ends_the_context_and_not_only_its_poller() -> None:
    """A poller that is gone unnoticed would be an outage nobody sees."""
    with MnsEmulator("one", "two") as emulator:
        taken = Taken()
        taken.errors[BODY.encode()] = ZeroDivisionError()
        emulator.put("two", BODY)

        with pytest.RaisesGroup(ZeroDivisionError):
            async with two_queues(emulator, taken):
                await asyncio.Event().wait()

        assert emulator.messages("two") == [BODY]
