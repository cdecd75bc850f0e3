"""
Fuzz the pure entry points: whatever comes in, they answer, and they answer as a plain version of them does.

``python -m tests.fuzz --minutes 10`` (`make fuzz`) gives each target its share of the time, with a new seed each round.
What fails is shrunk and printed; put it into tests/vectors/fuzz.py, which tests/unit/suite/test_fuzz.py replays.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.audit.reference_rules import ReferenceRules
from pipeline.bridge.mns_answers import MnsError, kept_of, messages_of
from pipeline.bridge.mns_poller import body_of
from pipeline.core.body_shapes import Reader, RefusedError
from pipeline.core.event import BODY_BYTES_MAX, content_of, explain, media_id_of, validate
from pipeline.core.outcome import Ignored, Reason, Rejected
from pipeline.core.signature import Callback, Denial, deny, sign
from pipeline.core.windows import TimePolicy, parse_time
from pipeline.service.settings import WorkerSettings
from tests.builders import ClientRecord
from tests.vectors.delete_media_complete import FAILURE, SUCCESS
from tests.vectors.poison import corpus

ROUND_EXAMPLES = 100
ROUND_SECONDS_MIN = 3
VARIATIONS = 60
POLICY = TimePolicy()
NOW = 1_519_375_990
CALLBACK = Callback(url="https://www.example.com/your/callback", auth_keys=("test123", "Test123"))

Verdict = tuple[bytes, int, bytes, int, int, str] | Ignored | Rejected

BODIES = [
    SUCCESS.replace(b"****", b"0000"),
    FAILURE.replace(b"****", b"0000"),
    *(p.value for p in corpus(datetime(2024, 1, 1, 12, tzinfo=UTC)) if p.value is not None and len(p.value) < 2000),
]
# What a mutation puts in: syntax, values that look like others, and pieces of text that mean something somewhere.
TOKENS = [
    b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\x00", b"\xff", b"\xed\xa0\x80",
    b"\\ud800",
    b"\\u0049", b"\\u0000", b"0", b"-1", b"1e999", b"NaN", b"null", b"true", b'""', b"I", b"J", b"T", b"a1",
    b"\xc3\xa9",
    b'"MediaId":"a1"', b'"EventTime":"2024-01-01T12:00:00Z"', b"2017-03-20T07:49:17Z", b"2024-02-30T00:00:00Z",
    b'"Status":"fail"', b'"JobIds":"a,b"', b'"JobIds":["a","b"]', b'"x":1', b'"ErrorCode":null', b"DeleteMediaComplete",
]  # fmt: skip
KEYS = [b"1234343b689jsi3ka5422dfe1e470000", b"poison", b"a1", b"", b"I" * 32, b"\xff"]

edits = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 12), st.one_of(st.sampled_from(TOKENS), st.binary(max_size=3))),
    max_size=5,
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A body that is nearly one: a known one with some pieces replaced, mostly by as many bytes."""
    body = draw(st.sampled_from(BODIES))
    for position, length, token in draw(edits):
        at = position % (len(body) + 1)
        cut = len(token) if length > 5 else length
        body = body[:at] + token + body[at + cut :]
    return body


def plain(key: bytes | None, body: bytes | None) -> Verdict:  # noqa: PLR0911  # In the reader's order.
    """Read a record with the schema alone: no shape, no cache."""
    if body is None:
        return Rejected(Reason.INVALID_JSON, "the record has no body")
    if len(body) > BODY_BYTES_MAX:
        return Rejected(Reason.BODY_TOO_LARGE, f"{len(body)} bytes, at most {BODY_BYTES_MAX}")
    try:
        event = validate(body)
    except ValidationError as error:
        return explain(error)
    media_id = event["MediaId"].encode()
    if media_id != key:
        return Rejected(Reason.INVALID_FIELD, "MediaId: not the record's key")
    try:
        at = parse_time(event["EventTime"])
    except ValueError as error:
        return Rejected(Reason.INVALID_FIELD, f"EventTime: {error}")
    try:
        content = content_of(event)
    except ValueError as error:
        return Rejected(Reason.INVALID_JSON, str(error))
    return media_id, at, at.to_bytes(8, "big", signed=True), at - at % 60_000, content.fingerprint, content.code


def fast(reader: Reader, key: bytes | None, body: bytes | None) -> Verdict:
    """Read a record as the worker does."""
    try:
        media_id, instant, content = reader.read(key, body)
    except RefusedError as refused:
        return refused.outcome
    return media_id, instant.at, instant.suffix, instant.window, content.fingerprint, content.code


def varied(bodies: list[bytes], number: int, variety: int) -> Iterator[bytes]:
    """Yield *number* variations of *bodies*, most of them as long as the original; Hypothesis takes too long."""
    rnd = random.Random(variety)
    for _ in range(number):
        body = bytearray(rnd.choice(bodies))
        for _ in range(rnd.randrange(3)):
            at, token = rnd.randrange(len(body) + 1), rnd.choice(TOKENS)
            body[at : at + (len(token) if rnd.random() < 0.8 else rnd.randrange(12))] = token
        yield bytes(body)


def the_fast_reader_is_the_plain_one(records: list[tuple[bytes | None, bytes]], variety: int) -> int:
    """Twice over, so that shapes are noticed and proven, and then variations of what is trusted by now."""
    reader, originals = Reader(POLICY), [body for _, body in records]
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


def attack(target: Target, *, examples: int, seed_number: int) -> int:
    """Check *examples* random inputs, shrink what fails and raise it; return how many inputs there were."""
    inputs = 0

    def check(values: tuple[Any, ...]) -> None:
        nonlocal inputs
        inputs += target.check(*values)

    profile = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    seed(seed_number)(profile(given(st.tuples(*target.inputs))(check)))()
    return inputs


def main() -> int:
    """Give each target its share of the time, and say how far it came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", choices=list(TARGETS))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    arguments = parser.parse_args()
    chosen = {name: target for name, target in TARGETS.items() if arguments.only in (None, name)}
    shares = sum(target.share for target in chosen.values())
    print(f"seed {arguments.seed}", flush=True)
    for name, target in chosen.items():
        began, inputs, rounds, examples = time.monotonic(), 0, 0, ROUND_EXAMPLES
        ends = began + arguments.minutes * 60 * target.share / shares
        while time.monotonic() < ends:
            round_began = time.monotonic()
            inputs += attack(target, examples=examples, seed_number=arguments.seed + rounds)
            rounds += 1
            if time.monotonic() - round_began < ROUND_SECONDS_MIN:  # A round has a start that costs the same for any.
                examples *= 2
            if sys.stdout.isatty():
                print(f"\r{name:<12} {inputs:>12,} inputs, {ends - time.monotonic():>4.0f} s left", end="", flush=True)
        print(f"\r{name:<12} {inputs:>12,} inputs in {time.monotonic() - began:.0f} s: no failure", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
