"""Bodies that are nearly one, and the verdict on them in the plainest way."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime

from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.core.body_shapes import BodyReader, RecordRefusedError
from pipeline.core.event import BODY_BYTES_MAX, content_of, explain, validate
from pipeline.core.outcome import Ignored, Reason, Rejected
from pipeline.core.windows import TimePolicy, parse_time
from tests.vectors.delete_media_complete import FAILURE, SUCCESS
from tests.vectors.poison import corpus

VARIATIONS = 60
POLICY = TimePolicy()
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


def fast(reader: BodyReader, key: bytes | None, body: bytes | None) -> Verdict:
    """Read a record as the worker does."""
    try:
        media_id, instant, content = reader.read(key, body)
    except RecordRefusedError as refused:
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
