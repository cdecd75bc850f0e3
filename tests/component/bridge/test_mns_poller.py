"""The MNS poller against a real HTTP server: nothing is deleted before it is safe, and each message is counted once."""

from __future__ import annotations

import base64

import pytest

from pipeline.bridge.errors import AckTimeoutError, KafkaFailedError, OverloadedError, PublishError
from pipeline.bridge.mns_poller import body_of
from tests.harness.mns import MnsEmulator
from tests.harness.mns_poll import BODY, OTHER, Poll, deletions, queue_settings
from tests.harness.mns_queues import Fault


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

    waited = poll.registry.get_sample_value("vod_pipeline_mns_waited_seconds_sum", {"queue": "q"})
    assert waited is not None
    assert 3600 <= waited < 3630


async def test_a_message_that_does_not_say_since_when_it_waited_is_not_measured(emulator: MnsEmulator) -> None:
    """It did not wait since 1970."""
    emulator.put("q", BODY, is_dated=False)
    async with Poll(emulator) as poll:
        await poll.until_empty()

    assert poll.taken.bodies == [BODY.encode()]
    assert poll.registry.get_sample_value("vod_pipeline_mns_waited_seconds_count", {"queue": "q"}) == 0


async def test_an_sts_token_is_sent_with_its_key(emulator: MnsEmulator) -> None:
    emulator.put("q", BODY)
    queue = queue_settings(emulator, access_key_id="STS.NU", access_key_secret="s4cret", security_token="t0ken")
    async with Poll(emulator, queue=queue) as poll:
        await poll.until_empty()

    assert poll.taken.bodies == [BODY.encode()]


async def test_nothing_is_deleted_before_it_is_safe(emulator: MnsEmulator) -> None:
    emulator.put("q", BODY)
    async with Poll(emulator) as poll:
        poll.taken.ack.clear()
        await poll.taken.until(1)
        held = emulator.messages("q")
        asked = deletions(emulator)
        poll.taken.ack.set()
        await poll.until_empty()

    assert (held, asked) == ([BODY], 0)


@pytest.mark.parametrize("error", [OverloadedError(), AckTimeoutError(), KafkaFailedError("x")])
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

    outcomes = ("received", "published", "spooled", "repeated", "not_published")
    assert [poll.count(step) for step in outcomes] == [6, 3, 1, 1, 1]


async def test_a_deletion_that_failed_in_part_is_made_up_for_unread(emulator: MnsEmulator) -> None:
    """The record is safe: when the message comes again it is deleted, not published."""
    emulator.put("q", BODY, OTHER)
    emulator.keep(OTHER, "InternalError")
    async with Poll(emulator) as poll:
        await poll.until(lambda: emulator.messages("q") == [OTHER] and len(emulator.requests) == 3)
        remembered = poll.registry.get_sample_value("vod_pipeline_mns_remembered_messages", {"queue": "q"})
        emulator.advance(30)
        await poll.until_empty()

    assert poll.taken.bodies == [BODY.encode(), OTHER.encode()]
    assert [poll.count(step) for step in ("published", "repeated", "not_deleted", "deleted")] == [2, 1, 1, 2]
    assert remembered == 1
    assert poll.registry.get_sample_value("vod_pipeline_mns_remembered_messages", {"queue": "q"}) == 0


async def test_a_deletion_that_failed_whole_is_made_up_for_unread(emulator: MnsEmulator) -> None:
    emulator.put("q", BODY)
    emulator.fail("DELETE", Fault.ERROR_500)
    async with Poll(emulator) as poll:
        await poll.pauses.until(1)
        emulator.advance(30)
        await poll.until_empty()

    assert poll.taken.bodies == [BODY.encode()]
    assert [poll.count(step) for step in ("published", "repeated", "not_deleted", "deleted")] == [1, 1, 1, 1]
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


async def test_a_deletion_made_up_for_that_fails_is_an_error_although_the_next_succeeds(emulator: MnsEmulator) -> None:
    emulator.put("q", BODY)
    emulator.fail("DELETE", Fault.ERROR_500, Fault.ERROR_500, None)
    async with Poll(emulator) as poll:
        await poll.pauses.until(1)
        emulator.put("q", OTHER)
        emulator.advance(31)
        await poll.until(lambda: emulator.messages("q") == [BODY])
        await poll.pauses.until(2)
        emulator.advance(31)
        await poll.until_empty()

    assert poll.taken.bodies == [BODY.encode(), OTHER.encode()]
    assert poll.errors("other") == 2


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

    XML cannot carry control characters: an answer with one is read all the same.
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
        ("\udcff", b"\xff"),
    ],
)
def test_raw_json_and_base64_are_distinguished(text: str, body: bytes) -> None:
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
    assert poll.registry.get_sample_value("vod_pipeline_mns_early_answers_total", {"queue": "q"}) == 3


async def test_an_empty_long_poll_is_followed_by_the_next_at_once(emulator: MnsEmulator) -> None:
    """It waited already."""
    async with Poll(emulator, floor_seconds=0) as poll:
        await poll.until(lambda: emulator.waiting == 1)
        emulator.advance(30)
        await poll.until(lambda: len(emulator.requests) == 2)

    assert poll.pauses.seconds == []
    assert poll.errors("other") == 0
