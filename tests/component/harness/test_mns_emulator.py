"""The MNS emulator, proved by the official SDK as its client, untouched: what holds here can be built upon."""

from __future__ import annotations

import hashlib
import http.client
import threading
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from mns.account import Account
from mns.mns_exception import MNSClientNetworkException, MNSServerException
from mns.queue import Message, Queue

from tests.harness.mns import MnsEmulator
from tests.harness.mns_queues import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = '{"MediaId":"a","Extra":"<&é\'\\">"}'


class QueueOf(Protocol):
    def __call__(
        self,
        emulator: MnsEmulator,
        *,
        queue: str = "q",
        key_id: str = "LTAI5t",
        secret: str = "s3cret",
        token: str = "",
        encoding: bool = False,
    ) -> Queue: ...


@pytest.fixture
def queue_of() -> Iterator[QueueOf]:
    """Builds clients, whose connections are closed at the end."""
    clients = []

    def build(
        emulator: MnsEmulator,
        *,
        queue: str = "q",
        key_id: str = "LTAI5t",
        secret: str = "s3cret",
        token: str = "",
        encoding: bool = False,
    ) -> Queue:
        account = Account(emulator.endpoint, key_id, secret, token)
        clients.append(account.get_client())
        built = account.get_queue(queue)
        built.set_encoding(encoding)
        return built

    yield build
    for client in clients:
        client.close_connection()


def code_of(caught: pytest.ExceptionInfo[MNSServerException]) -> str:
    return str(caught.value.type)


def test_what_is_sent_is_peeked_received_and_deleted(emulator: MnsEmulator, queue_of: QueueOf) -> None:
    queue = queue_of(emulator, encoding=True)
    sent = queue.send_message(Message(BODY))
    peeked = queue.peek_message()
    received = queue.receive_message(1)

    assert peeked.message_body == received.message_body == BODY.encode()
    assert peeked.message_id == received.message_id == sent.message_id
    assert received.message_body_md5 == sent.message_body_md5 == received.message_body_md5.upper()
    assert received.dequeue_count == 1
    assert received.next_visible_time - received.first_dequeue_time == 30_000
    queue.delete_message(received.receipt_handle)
    assert emulator.messages("q") == []


def test_raw_bodies_come_as_they_are(emulator: MnsEmulator, queue_of: QueueOf) -> None:
    queue = queue_of(emulator)
    emulator.put("q", BODY)

    (message,) = queue.batch_receive_message(16)

    assert message.message_body == BODY
    assert message.message_body_md5 == hashlib.md5(BODY.encode()).hexdigest().upper()  # noqa: S324  # MNS's choice.


def test_a_batch_has_sixteen_messages_at_most_and_hides_them(emulator: MnsEmulator, queue_of: QueueOf) -> None:
    queue = queue_of(emulator)
    emulator.put("q", *map(str, range(20)))

    sizes = [len(queue.batch_receive_message(16)), len(queue.batch_receive_message(16))]

    assert sizes == [16, 4]
    with pytest.raises(MNSServerException) as caught:
        queue.batch_receive_message(16)
    assert code_of(caught) == "MessageNotExist"


def test_a_receipt_expires_and_a_new_one_replaces_the_old(emulator: MnsEmulator, queue_of: QueueOf) -> None:
    queue = queue_of(emulator)
    emulator.put("q", "a")
    first = queue.receive_message()
    emulator.advance(30)
    with pytest.raises(MNSServerException) as expired:
        queue.delete_message(first.receipt_handle)
    second = queue.receive_message()
    with pytest.raises(MNSServerException) as replaced:
        queue.delete_message(first.receipt_handle)
    third = queue.change_message_visibility(second.receipt_handle, 100)
    with pytest.raises(MNSServerException) as changed:
        queue.delete_message(second.receipt_handle)
    emulator.advance(99)
    queue.delete_message(third.receipt_handle)

    assert (code_of(expired), code_of(replaced), code_of(changed)) == ("MessageNotExist",) * 3
    assert second.dequeue_count == 2
    assert emulator.messages("q") == []


def test_a_batch_deletion_fails_in_part(emulator: MnsEmulator, queue_of: QueueOf) -> None:
    queue = queue_of(emulator)
    emulator.put("q", "a", "b", "c")
    receipts = [message.receipt_handle for message in queue.batch_receive_message(16)]
    emulator.keep("b", "InternalError")

    with pytest.raises(MNSServerException) as caught:
        queue.batch_delete_message([*receipts, "forged"])

    assert [(error["ReceiptHandle"], error["ErrorCode"]) for error in caught.value.sub_errors] == [
        (receipts[1], "InternalError"),
        ("forged", "ReceiptHandleError"),
    ]
    assert emulator.messages("q") == ["b"]
    queue.batch_delete_message([receipts[1]])
    assert emulator.messages("q") == []


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"secret": "wrong"}, "SignatureDoesNotMatch"),
        ({"key_id": "wrong"}, "InvalidAccessKeyId"),
        ({"key_id": "STS.NU", "secret": "s4cret"}, "InvalidAccessKeyId"),
        ({"key_id": "STS.NU", "secret": "s4cret", "token": "wrong"}, "InvalidAccessKeyId"),
        ({"queue": "other"}, "QueueNotExist"),
    ],
)
def test_wrong_credentials_and_queues_are_refused(
    emulator: MnsEmulator, queue_of: QueueOf, wrong: dict[str, Any], code: str
) -> None:
    with pytest.raises(MNSServerException) as caught:
        queue_of(emulator, **wrong).send_message(Message("x"))

    assert code_of(caught) == code


def test_an_sts_token_is_accepted_with_its_key(emulator: MnsEmulator, queue_of: QueueOf) -> None:
    queue_of(emulator, key_id="STS.NU", secret="s4cret", token="t0ken", encoding=True).send_message(Message("x"))

    assert emulator.messages("q") == ["eA=="]


def test_a_request_is_signed_and_dated(emulator: MnsEmulator) -> None:
    """The documented example's signature, made by hand: its date is years ago, so it is right and expired."""
    emulator.secrets["id"] = ("TestAccessSecret", None)
    headers = {"Date": "Thu, 09 Jul 2015 03:01:34 GMT", "x-mns-version": "2015-06-06"}
    connection = http.client.HTTPConnection(emulator.endpoint.removeprefix("http://"))
    statuses = []
    for signature in ("uwx3yeWoILzgmvesW0BQSgfM7b8=", "uwx3yeWoILzgmvesW0BQSgfM7b9="):
        connection.request("GET", "/MyQueue", headers={**headers, "Authorization": f"MNS id:{signature}"})
        answer = connection.getresponse()
        statuses.append((answer.status, b"TimeExpired" in answer.read()))
    connection.request("GET", "/MyQueue", headers=headers)
    unsigned = connection.getresponse().read()
    connection.close()

    assert statuses == [(408, True), (403, False)]
    assert b"MissingAuthorizationHeader" in unsigned


def test_a_long_poll_ends_with_the_first_message(emulator: MnsEmulator, queue_of: QueueOf) -> None:
    queue = queue_of(emulator)
    received: list[str] = []
    polling = threading.Thread(target=lambda: received.append(queue.receive_message(30).message_body))
    polling.start()
    emulator.until(lambda: len(emulator.requests) == 1)
    emulator.put("q", "late")
    polling.join(10)

    assert received == ["late"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.EMPTY_NOW, MNSServerException),
        (Fault.ERROR_500, MNSServerException),
        (Fault.HTML_502, MNSClientNetworkException),
        (Fault.OTHER_XML, MNSClientNetworkException),
        (Fault.REDIRECT, MNSClientNetworkException),
        (Fault.RESET, MNSClientNetworkException),
        (Fault.HALF, MNSClientNetworkException),
    ],
)
def test_faults_are_met_once(emulator: MnsEmulator, queue_of: QueueOf, fault: Fault, error: type[Exception]) -> None:
    queue = queue_of(emulator)
    emulator.put("q", "a")
    emulator.fail("GET", fault)

    with pytest.raises(error):
        queue.receive_message(30)
    assert queue.receive_message(30).message_body == "a"


def test_the_sdk_repeats_a_request_whose_connection_was_dropped(emulator: MnsEmulator, queue_of: QueueOf) -> None:
    """Its own single retry, as aiohttp has one."""
    queue = queue_of(emulator)
    emulator.put("q", "a")
    emulator.fail("GET", Fault.DROP)

    assert queue.receive_message().message_body == "a"
    assert len(emulator.requests) == 2
