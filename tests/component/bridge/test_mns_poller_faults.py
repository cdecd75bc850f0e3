"""The MNS poller when something fails: it asks again, ever more slowly, ends when it shall, and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from pipeline.bridge.batch import StoredIn
from pipeline.bridge.mns_poller import MnsPoller, polling
from pipeline.service.metrics.mns import MnsMetrics
from tests.harness.mns import MnsEmulator
from tests.harness.mns_poll import BODY, STOP_SECONDS_MAX, Poll, queue_settings
from tests.harness.mns_queues import Fault
from tests.harness.publisher import FakePublisher
from tests.waiting import until

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

# A peer that is silent does not answer TLS's goodbye, either, which uvloop waits for when the test is over.
silent_tls = pytest.mark.filterwarnings("ignore:unclosed resource <TCPTransport:ResourceWarning")


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ([Fault.ERROR_500], "other"),
        ([Fault.HTML_502], "damaged"),
        ([Fault.OTHER_XML], "damaged"),
        ([Fault.REDIRECT], "damaged"),
        ([Fault.HUGE], "damaged"),
        ([Fault.HALF], "network"),
        ([Fault.DROP, Fault.DROP], "network"),  # Such a request is repeated once.
        ([Fault.RESET, Fault.RESET], "network"),
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
    assert [most / 2 <= seconds <= most for seconds, most in zip(poll.pauses.seconds, longest, strict=True)] == [
        True
    ] * 9
    assert len({seconds / most for seconds, most in zip(poll.pauses.seconds, longest, strict=True)}) == 9
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
async def test_wrong_credentials_are_tried_once_a_minute(
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


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP, Fault.DRIP_BODY])
async def test_a_server_that_falls_silent_or_drips_is_given_up(emulator: MnsEmulator, fault: Fault) -> None:
    """A half-open connection has no end of its own; each dripping byte would start the socket's timeout anew."""
    emulator.fail("GET", fault)
    emulator.put("q", BODY)
    async with Poll(emulator, request_seconds_max=0.5) as poll:
        await poll.until_empty()

    assert poll.errors("timeout") == 1
    assert len(poll.pauses.seconds) == 1


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP, Fault.DRIP_BODY])
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
    """Connecting ends with the handshake, not before."""
    with socket.create_server(("127.0.0.1", 0)) as silent, MnsEmulator("q") as emulator:
        queue = queue_settings(emulator, endpoint=f"https://127.0.0.1:{silent.getsockname()[1]}")
        async with Poll(emulator, queue=queue, pauses=2, connect_seconds_max=0.2) as poll:
            await poll.pauses.until(2)

    assert poll.errors("timeout") == 2


@silent_tls
@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP, Fault.DRIP_BODY])
async def test_over_https_silence_is_given_up_too(tls: ssl.SSLContext, fault: Fault) -> None:
    with MnsEmulator("q", tls=tls) as emulator:
        emulator.put("q", BODY)
        emulator.fail("GET", fault)
        async with Poll(emulator, request_seconds_max=0.5) as poll:
            await poll.until_empty()

    assert poll.errors("timeout") == 1
    assert poll.taken.bodies == [BODY.encode()]


@silent_tls
async def test_over_https_a_long_poll_is_stopped_at_once(tls: ssl.SSLContext) -> None:
    with MnsEmulator("q", tls=tls) as emulator:
        started_at = time.monotonic()
        async with Poll(emulator) as poll:
            await poll.until(lambda: len(emulator.requests) == 1)
        stopped_after = time.monotonic() - started_at

    assert stopped_after < STOP_SECONDS_MAX
    assert len(emulator.requests) == 1


async def test_a_stop_ends_a_long_poll_at_once(emulator: MnsEmulator) -> None:
    """No error is counted for it, no other poll follows, and no task is left."""
    async with Poll(emulator) as poll:
        await poll.until(lambda: len(emulator.requests) == 1)

    assert len(emulator.requests) == 1
    assert [poll.errors(reason) for reason in ("network", "timeout", "other")] == [0, 0, 0]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("passes", range(8))
async def test_a_message_that_comes_with_the_stop_is_deleted_or_comes_again(emulator: MnsEmulator, passes: int) -> None:
    """It waits in the socket; how often the loop turned before the stop decides."""
    async with Poll(emulator) as poll:
        await poll.until(lambda: emulator.waiting == 1)
        emulator.put("q", BODY)
        emulator.until(lambda: emulator.answers == 1)  # The loop stands still meanwhile.
        for _ in range(passes):
            await asyncio.sleep(0)
        poll.poller.stop()

    assert emulator.messages("q") == ([] if poll.taken.bodies else [BODY])
    emulator.advance(30)
    async with Poll(emulator) as after:
        await after.until_empty()
    assert poll.taken.bodies + after.taken.bodies == [BODY.encode()]


async def test_a_message_handed_out_to_a_poll_that_was_stopped_comes_again(emulator: MnsEmulator) -> None:
    """MNS notices that the connection is gone when it writes to it."""
    async with Poll(emulator) as poll:
        await poll.until(lambda: emulator.waiting == 1)
    emulator.put("q", BODY)
    emulator.until(lambda: emulator.waiting == 0)
    emulator.advance(30)
    async with Poll(emulator) as after:
        await after.until_empty()

    assert (poll.taken.bodies, after.taken.bodies) == ([], [BODY.encode()])


async def test_a_stop_ends_a_pause_at_once(emulator: MnsEmulator) -> None:
    emulator.fail("GET", Fault.ERROR_500)
    async with Poll(emulator, real_pauses=True, retry_seconds_min=60) as poll:
        await poll.until(lambda: len(emulator.requests) == 1)
        await until(lambda: poll.errors("other") == 1)

    assert len(emulator.requests) == 1


async def test_what_was_received_before_a_stop_is_published_and_deleted(emulator: MnsEmulator) -> None:
    emulator.put("q", BODY)
    async with Poll(emulator) as poll:
        poll.taken.ack.clear()
        await poll.taken.until(1)
        poll.poller.stop()
        poll.taken.ack.set()
        await poll.running

    assert emulator.messages("q") == []
    assert [request.split()[0] for request in emulator.requests] == ["GET", "DELETE"]


@contextlib.asynccontextmanager
async def two_queues(emulator: MnsEmulator, taken: FakePublisher) -> AsyncIterator[CollectorRegistry]:
    registry = CollectorRegistry()
    queues = [queue_settings(emulator, queue=queue) for queue in ("one", "two")]
    async with polling(queues, taken.publish, MnsMetrics(registry, ["one", "two"])):
        yield registry


async def test_a_poller_that_is_cancelled_leaves_the_publishers_futures_alone(emulator: MnsEmulator) -> None:
    """Callbacks over HTTP wait for the same future as a message that was published with them."""
    shared: asyncio.Future[StoredIn] = asyncio.get_running_loop().create_future()
    published = asyncio.Event()

    def publish(*_: object, **__: object) -> asyncio.Future[StoredIn]:
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
        taken = FakePublisher()
        emulator.put("two", BODY)
        async with two_queues(emulator, taken):
            await taken.until(1)

        assert emulator.messages("two") == []


async def test_a_bug_ends_the_context_and_not_only_its_poller() -> None:
    """A poller that is gone unnoticed would be an outage no one sees."""
    with MnsEmulator("one", "two") as emulator:
        taken = FakePublisher()
        taken.errors[BODY.encode()] = ZeroDivisionError()
        emulator.put("two", BODY)

        with pytest.RaisesGroup(ZeroDivisionError):
            async with two_queues(emulator, taken):
                await asyncio.Event().wait()

        assert emulator.messages("two") == [BODY]
