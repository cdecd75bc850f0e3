"""Laws of the event schema, for any bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.core.event import content_of, explain, media_id_of, validate
from pipeline.core.outcome import Ignored, Reason, Rejected
from tests.builders import body, fields_of
from tests.vectors.delete_media_complete import SUCCESS

if TYPE_CHECKING:
    from random import Random

EVENT: dict[str, object] = json.loads(SUCCESS)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
members = st.dictionaries(st.sampled_from([*EVENT, "JobIds", "ErrorCode", "ErrorMessage", "x"]), json_values)
hostile_bodies = st.one_of(
    st.binary(max_size=300),
    st.text(st.characters(codec=None), max_size=50).map(lambda text: text.encode("utf-8", "surrogatepass")),
    json_values.map(lambda value: json.dumps(value).encode()),
    members.map(lambda some: body(**some)),
    st.builds(lambda at, junk: SUCCESS[:at] + junk + SUCCESS[at + 1 :], st.integers(0, len(SUCCESS)), st.binary()),
)


@settings(max_examples=100, deadline=None)
@given(hostile_bodies)
def test_any_bytes_have_a_verdict(raw: bytes) -> None:
    """An exception no one expects stops the partition for ever: only the two documented ones may come out."""
    try:
        event = validate(raw)
    except ValidationError as error:
        verdict = explain(error)
        is_no_json = error.errors()[0]["type"] == "json_invalid"

        assert isinstance(verdict, Ignored | Rejected)
        assert not is_no_json or verdict == Rejected(Reason.INVALID_JSON, verdict.detail)  # type: ignore[union-attr]
        return
    try:
        found = content_of(event)
    except ValueError:
        return
    assert 0 <= found.fingerprint < 2**64


@settings(max_examples=100, deadline=None)
@given(hostile_bodies)
def test_any_bytes_have_a_record_key_or_none(raw: bytes) -> None:
    """The bridge calls it before anything is safe: it must be total, and agree with the validated event."""
    key = media_id_of(raw)

    assert key is None or 1 <= len(key.decode()) <= 256
    try:
        assert validate(raw)["MediaId"].encode() == key
    except ValidationError:
        return


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=4), st.randoms(use_true_random=False))
def test_content_does_not_depend_on_the_order_of_members(extras: dict[str, object], random: Random) -> None:
    """Unknown fields count, but a sender may order them as it likes."""
    fields = list({**extras, **EVENT}.items())
    shuffled = random.sample(fields, len(fields))
    one, other = (json.dumps(dict(items)).encode() for items in (fields, shuffled))
    try:
        expected = content_of(validate(one))
    except ValueError:
        return

    assert fields_of(content_of(validate(other))) == fields_of(expected)
