"""The properties of the pure entry points, and what each is fed."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st

from pipeline.audit.reference_rules import ReferenceRules
from pipeline.bridge.mns_answers import MnsError, kept_of, messages_of
from pipeline.bridge.mns_poller import body_of
from pipeline.core.body_shapes import BodyReader
from pipeline.core.event import BODY_BYTES_MAX, media_id_of
from pipeline.core.outcome import Ignored, Rejected
from pipeline.core.signature import Callback, Denial, deny, sign
from pipeline.service.settings import WorkerSettings
from tests.builders import ClientRecord
from tests.fuzz.bodies import KEYS, POLICY, VARIATIONS, Verdict, bodies, fast, plain, varied

NOW = 1_519_375_990
CALLBACK = Callback(url="https://www.example.com/your/callback", auth_keys=("test123", "Test123"))


def the_fast_reader_is_the_plain_one(records: list[tuple[bytes | None, bytes]], variety: int) -> int:
    """Twice over, so that shapes are noticed and proven, and then variations of what is trusted by now."""
    reader, originals = BodyReader(POLICY), [body for _, body in records]
    again = [*records, *((media_id_of(body), body) for body in originals)] * 2
    rnd = random.Random(variety)
    more = [
        (rnd.choice([media_id_of(body), media_id_of(originals[0]), *KEYS]), body)
        for body in varied(originals, VARIATIONS, variety)
    ]
    for key, body in again + more:
        assert fast(reader, key, body) == plain(key, body), (key, body)
    return len(again) + len(more)


def a_verdict_on_any_bytes(original: bytes, variety: int) -> int:
    """Total, for the body and variations of it."""
    for body in (original, *varied([original], VARIATIONS, variety)):
        _is_a_verdict(body)
    return VARIATIONS + 1


def _is_a_verdict(body: bytes) -> None:
    """Accepted is JSON with the six fields, in any order and spacing; ignored is another type; a key is the MediaId."""
    key, verdict = media_id_of(body), plain(media_id_of(body), body)
    _is_the_audits(key, body, verdict)
    if isinstance(verdict, Rejected):
        assert verdict.detail, body
        verdict.detail.encode(errors="replace")
        return
    parsed = json.loads(body)
    if isinstance(verdict, Ignored):
        assert parsed["EventType"] != "DeleteMediaComplete", body
        return
    assert parsed["EventType"] == "DeleteMediaComplete", body
    assert parsed["MediaId"].encode() == key == verdict[0], body
    spaced = json.dumps(dict(reversed(parsed.items())), indent=1).encode()
    assert len(spaced) > BODY_BYTES_MAX or plain(key, spaced) == verdict, body


def _is_the_audits(key: bytes | None, body: bytes, verdict: Verdict) -> None:
    """The audit decides with code of its own."""
    at = 0
    if isinstance(verdict, tuple):
        at, outcome = verdict[1], "accepted"
    else:
        outcome = "ignored" if isinstance(verdict, Ignored) else verdict.reason.value
    if at >= 0:  # It arrived when its event happened, and no broker stamps a record with a time before 1970.
        found = ReferenceRules.of(WorkerSettings()).decide(ClientRecord(key, body, at)).outcome
        assert found == outcome, (key, body)


def a_signature_is_right_or_denied(signature: bytes | None, timestamp: bytes | None, tolerance_seconds: int) -> int:
    """Authentic is what one of the keys gives for a timestamp of ten ASCII digits that is not too far away."""
    denial = deny(CALLBACK, signature, timestamp, now=NOW, tolerance_seconds=tolerance_seconds)
    right = [sign(CALLBACK.url, (timestamp or b"").decode("latin-1"), key).encode() for key in CALLBACK.auth_keys]
    is_right = (
        timestamp is not None
        and len(timestamp) == 10
        and all(byte in b"0123456789" for byte in timestamp)
        and abs(NOW - int(timestamp)) <= tolerance_seconds
        and (signature or b"").lower() in right
    )
    assert (denial is None) is is_right
    assert denial is None or isinstance(denial, Denial)
    return 1


def an_mns_body_is_json_base64_or_itself(text: str) -> int:
    """What begins with a brace stays as it is; Base64 of such is decoded, spaces or not; the rest is left alone."""
    body = body_of(text)
    assert body == text.encode() or (body.lstrip().startswith(b"{") and not text.lstrip().startswith("{"))
    raw = b"{" + text.encode()
    coded = base64.b64encode(raw).decode()
    assert body_of("{" + text) == raw
    assert body_of(coded) == raw
    assert body_of(f" {coded[:7]}\n{coded[7:]}\r\n") == raw
    return 4


def an_mns_answer_is_messages_or_an_error(status: int, answer: bytes) -> int:
    """No answer stops the poller; what is read has a body to publish and a receipt that fits a request to delete."""
    with contextlib.suppress(MnsError):
        for message in messages_of(status, answer):
            assert message.message_id
            assert message.receipt.isascii()
            assert message.receipt.isprintable()
            assert message.enqueued_at_ms is None or message.enqueued_at_ms >= 0
            assert isinstance(body_of(message.text), bytes)
    with contextlib.suppress(MnsError):
        assert all(kept_of(status, answer))
    return 1


class Target(NamedTuple):
    """A property, and what it is fed; it returns how many inputs that were."""

    check: Callable[..., int]
    inputs: tuple[st.SearchStrategy[Any], ...]
    share: int = 1


VALID = [sign(CALLBACK.url, str(NOW), key).encode() for key in CALLBACK.auth_keys]
TAGS = st.sampled_from(
    [*(tag for name in ("Messages", "Message", "MessageId", "ReceiptHandle", "MessageBody", "EnqueueTime", "Error",
                        "Errors", "Code") for tag in (f"<{name}>".encode(), f"</{name}>".encode())),
     b"<MessageId>1</MessageId><ReceiptHandle>r</ReceiptHandle>", b"<!DOCTYPE a>", b"<![CDATA[", b"&lt;", b"&#0;",
     b"&#xD800;", b"&#x110000;", b"&a;", b"1", b"9" * 5000, b"\xc2\xb2", b"\xd9\xa3", b"]]>", b"\xff", b"\x0b"]
)  # fmt: skip
VARIETY = st.integers(0, 2**32)
TARGETS = {
    "reader": Target(
        the_fast_reader_is_the_plain_one,
        (st.lists(st.tuples(st.one_of(st.none(), st.sampled_from(KEYS)), bodies()), min_size=1, max_size=4), VARIETY),
        share=5,
    ),
    "validate": Target(a_verdict_on_any_bytes, (st.one_of(bodies(), st.binary(max_size=300)), VARIETY), share=2),
    "signature": Target(
        a_signature_is_right_or_denied,
        (
            st.one_of(st.none(), st.sampled_from([*VALID, VALID[0].upper()]), st.binary(max_size=40)),
            st.one_of(
                st.none(),
                st.integers(NOW - 400, NOW + 400).map(lambda at: b"%d" % at),
                st.binary(max_size=12),
                st.text(alphabet="0123456789\u0663\u00b2 +-", min_size=9, max_size=11).map(str.encode),
            ),
            st.sampled_from([1, 300]),
        ),
    ),
    "mns body": Target(
        an_mns_body_is_json_base64_or_itself,
        (
            st.one_of(
                st.text(), bodies().map(lambda body: body.decode(errors="replace")), st.text(alphabet="ey{}J=+/ \n")
            ),
        ),
    ),
    "mns answer": Target(
        an_mns_answer_is_messages_or_an_error,
        (st.sampled_from([200, 204, 404]), st.lists(st.one_of(TAGS, st.binary(max_size=5))).map(b"".join)),
    ),
}
