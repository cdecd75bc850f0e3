"""What MNS answers, read: the messages around one that XML cannot carry, that one too, and errors without bodies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.bridge.mns_answers import Message, MnsError, kept_of, messages_of
from pipeline.service.metrics.mns import MnsProblem

Read = Callable[[int, bytes], object]  # One of the two.
XMLNS = 'xmlns="http://mns.aliyuncs.com/doc/v1/"'


def message(body: str, number: int = 1, *, enqueued_at: str = "1700000000123") -> str:
    return (
        f"<Message><MessageId>{number}</MessageId><ReceiptHandle>{number}-r==</ReceiptHandle>"
        f"<MessageBody>{body}</MessageBody><EnqueueTime>{enqueued_at}</EnqueueTime><Priority>8</Priority></Message>"
    )


def answer(*messages: str) -> bytes:
    text = f'<?xml version="1.0" ?>\n<Messages {XMLNS}>{"".join(messages)}</Messages>'
    return text.encode("utf-8", "surrogateescape")


def error(code: str, message: str = "Why.") -> bytes:
    return f"<Error {XMLNS}><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def test_messages_are_read() -> None:
    assert messages_of(200, answer(message("{&quot;a&quot;:&lt;é&gt;}"), message("", 2))) == [
        Message(message_id="1", receipt="1-r==", text='{"a":<é>}', enqueued_at_ms=1_700_000_000_123),
        Message(message_id="2", receipt="2-r==", text="", enqueued_at_ms=1_700_000_000_123),
    ]


def test_a_namespace_or_none_is_all_the_same() -> None:
    assert messages_of(200, answer(message("a")).replace(XMLNS.encode(), b"")) == messages_of(200, answer(message("a")))


def test_an_empty_queue_is_no_error() -> None:
    """As documented, and as an empty list."""
    assert messages_of(404, error("MessageNotExist")) == ()
    assert messages_of(200, answer()) == []


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ("\x0bcontrol", "\x0bcontrol"),
        ("a\x00&lt;&amp;lt;", "a\x00<&lt;"),
        ("&#11;", "\x0b"),
        ("&#xB;&#65;&#x1F600;", "\x0bA\U0001f600"),
        ("&#133;\x01", "\x85\x01"),
        ("&#xD800;&#x110000;&#9999999;&nbsp;&;", "&#xD800;&#x110000;&#9999999;&nbsp;&;"),
        ("\udcff", "\udcff"),
        ("a & b", "a & b"),
        ("\x01]]>", "\x01]]>"),
    ],
)
def test_what_xml_cannot_carry_is_read_beside_its_neighbours(sent: str, text: str) -> None:
    """As it was sent: what is no UTF-8, and references to what is no character, too."""
    read = messages_of(200, answer(message("{}"), message(sent, 2), message("&lt;", 3)))

    assert [(each.text, each.receipt) for each in read] == [("{}", "1-r=="), (text, "2-r=="), ("<", "3-r==")]


def test_of_an_answer_that_was_cut_off_only_whole_messages_are_read() -> None:
    """Half a body is not the body; its message comes again."""
    whole = answer(message("{}"), message('{"a":"b"}', 2))

    assert [each.text for each in messages_of(200, whole[: whole.index(b'"b"')])] == ["{}"]


@pytest.mark.parametrize("enqueued_at", ["", "x", "-1", "²", "\u0663", "9" * 5000])
def test_a_time_that_is_no_number_is_none(enqueued_at: str) -> None:
    (read,) = messages_of(200, answer(message("a", enqueued_at=enqueued_at)))

    assert read.enqueued_at_ms is None


@pytest.mark.parametrize("receipt", ["", " ", "a b", "\x01", "é", "r" * 1025])
def test_a_message_that_cannot_be_deleted_holds_up_no_other(receipt: str) -> None:
    """In a request to delete it might spoil the others."""
    without = message("a").replace("1-r==", receipt)

    assert [each.text for each in messages_of(200, answer(without, message("b", 2)))] == ["b"]
    with pytest.raises(MnsError, match="not what MNS sends"):
        messages_of(200, answer(without))


BOMB = '<!DOCTYPE Messages [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\xff\xfe",
        b"<html><body>Bad Gateway<br></body></html>",
        b"<html><body>Sign in</body></html>",
        b"<Other>" + message("secret").encode() + b"</Other>",
        b"<Message>secret",
        BOMB.encode() + answer(message("&b;secret")),
        b'<!DOCTYPE Messages SYSTEM "file:///etc/passwd">' + answer(message("secret")),
    ],
)
@pytest.mark.parametrize("read", [messages_of, kept_of])
def test_what_mns_does_not_send_is_damaged(read: Read, damaged: bytes) -> None:
    """No entity is expanded; and what is wrong is not cited, as it may be a body."""
    for status in (200, 404) if read is messages_of else (404, 500):
        with pytest.raises(MnsError) as caught:
            read(status, damaged)

        assert caught.value.problem is MnsProblem.DAMAGED
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "problem"),
    [
        (403, "AccessDenied", MnsProblem.DENIED),
        (403, "InvalidAccessKeyId", MnsProblem.DENIED),
        (403, "SignatureDoesNotMatch", MnsProblem.DENIED),
        (403, "InvalidSecurityToken", MnsProblem.DENIED),
        (403, "SecurityTokenExpired", MnsProblem.DENIED),
        (404, "QueueNotExist", MnsProblem.NO_QUEUE),
        (503, "QpsLimitExceeded", MnsProblem.THROTTLED),
        (408, "TimeExpired", MnsProblem.OTHER),
        (500, "InternalError", MnsProblem.OTHER),
    ],
)
@pytest.mark.parametrize("read", [messages_of, kept_of])
def test_an_error_has_its_class_and_mnss_words(read: Read, status: int, code: str, problem: MnsProblem) -> None:
    with pytest.raises(MnsError, match=f"^{code}: Why[.]") as caught:
        read(status, error(code))

    assert caught.value.problem is problem


def test_an_error_is_a_line_and_not_a_page() -> None:
    with pytest.raises(MnsError) as caught:
        messages_of(500, error("InternalError", "x" * 10_000))

    assert len(str(caught.value)) == 200


def test_what_was_not_deleted_is_named_with_its_reason() -> None:
    kept = "".join(
        f"<Error><ErrorCode>{code}</ErrorCode><ErrorMessage>m</ErrorMessage>"
        f"<ReceiptHandle>{receipt}</ReceiptHandle></Error>"
        for code, receipt in [("MessageNotExist", "1-r=="), ("ReceiptHandleError", "2-r==")]
    )

    assert kept_of(404, f"<Errors {XMLNS}>{kept}</Errors>".encode()) == {
        "1-r==": "MessageNotExist",
        "2-r==": "ReceiptHandleError",
    }
    assert kept_of(204, b"") == {}


@pytest.mark.parametrize(
    "errors", ["", "<Error><ErrorCode>InternalError</ErrorCode></Error>", "<Error><ReceiptHandle/></Error>"]
)
def test_a_deletion_that_failed_for_no_known_message_failed_whole(errors: str) -> None:
    with pytest.raises(MnsError, match="not what MNS sends"):
        kept_of(404, f"<Errors {XMLNS}>{errors}</Errors>".encode())
