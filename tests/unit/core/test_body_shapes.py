"""Reading a record: a body that is known by its shape is read exactly as the schema reads it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import body_shapes as module
from pipeline.core import event as event_module
from pipeline.core.body_shapes import INSTANTS_CACHED_MAX, SHAPES_CACHED_MAX, BodyReader, RecordRefusedError
from pipeline.core.outcome import Ignored, Rejected
from pipeline.core.windows import TimePolicy, format_time
from tests.builders import body
from tests.vectors import delete_media_complete as vectors

NOON = 1_704_110_400_000  # 2024-01-01T12:00:00Z.
Said = tuple[bytes, int, int, str] | Ignored | Rejected


def said(reader: BodyReader, key: bytes | None, value: bytes | None) -> Said:
    """What *reader* makes of a record, comparable."""
    try:
        media_id, instant, content = reader.read(key, value)
    except RecordRefusedError as refused:
        return refused.outcome
    return media_id, instant.at, content.fingerprint, content.code


def test_what_is_large_is_not_remembered() -> None:
    """A few thousand bodies of 64 KiB would else stay in memory for good, and hardly one comes again."""
    reader = BodyReader(TimePolicy())
    before = event_module._content.cache_info().currsize

    for size in (1100, 5000, 60_000):
        said(reader, b"a1", body("a1", ErrorMessage="\U0001f600" * min(size, 15_000), x=size))
        said(reader, b"a1", body("a1", JobIds=["j" * size], x=size))
        said(reader, b"a1", body("a1", JobIds="," * size, x=size))
        said(reader, b"a1", body("a1", y="z" * size))

    assert event_module._content.cache_info().currsize == before
    assert max(reader._layouts) < 5000


def a_reader_that_knows(*values: tuple[bytes, bytes]) -> BodyReader:
    reader = BodyReader(TimePolicy())
    for key, value in values * 2:  # The first time is not worth remembering.
        said(reader, key, value)
    return reader


# Everything that could make text look like one of the two values, or one of them look like something else.
IDS = st.sampled_from(["a1", "b2", "II", "JJ", "é1", "a*", 'a"', "a\\", "2024"])
KEYS = st.one_of(IDS, st.just("a1"))
TIMES = st.sampled_from(["2024-01-01T12:00:00Z", "2024-01-01T12:00:01Z", "2024-01-01T12:00:61Z", "x" * 20, "a1"])
TEXTS = st.one_of(IDS, TIMES, st.just("gone"), st.just('"'))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON of an event, fields in any order, some of them twice or with escapes."""
    fields = [
        ("EventType", "DeleteMediaComplete"),
        ("EventTime", draw(TIMES)),
        ("Status", draw(st.sampled_from(["success", "fail"]))),
        ("MediaType", "video"),
        ("DeleteType", "all"),
        ("MediaId", draw(IDS)),
    ]
    if draw(st.booleans()):
        fields.append((draw(st.sampled_from(["ErrorMessage", "Extra", "MediaId", "EventTime"])), draw(TEXTS)))
    members = []
    for name, value in draw(st.permutations(fields)):
        text = json.dumps(value, ensure_ascii=draw(st.booleans()))
        if draw(st.integers(0, 9)) == 0:
            text = '"' + "".join(f"\\u{ord(character):04x}" for character in value) + '"'
        members.append(f'"{name}":{text}')
    return ("{" + ",".join(members) + "}").encode()


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(KEYS, bodies()), min_size=1, max_size=4), st.lists(st.tuples(KEYS, bodies()), max_size=4))
def test_a_remembered_shape_changes_no_answer(known: list[tuple[str, bytes]], then: list[tuple[str, bytes]]) -> None:
    reader = a_reader_that_knows(*((key.encode(), value) for key, value in known))

    for key, value in [*known, *then]:
        assert said(reader, key.encode(), value) == said(BodyReader(TimePolicy()), key.encode(), value)


@pytest.mark.parametrize("value", [vectors.SUCCESS, vectors.FAILURE])
def test_the_documented_bodies_are_known_by_their_shape(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documentation masks its MediaId with asterisks; real ones are 32 hexadecimal digits."""
    masked, first, second = b"1234343b689jsi3ka5422dfe1e47****", b"1" * 32, b"2" * 32
    reader = a_reader_that_knows((first, value.replace(masked, first)))
    monkeypatch.setattr(module, "validate", None)

    media_id, instant, content = reader.read(second, value.replace(masked, second))

    assert (media_id, instant.at) == (second, 1_489_996_157_000)
    assert content.code == ("" if value == vectors.SUCCESS else "InvalidVideo.NotFound")


@pytest.mark.parametrize("media_id", ['a"', "a\\", "a\x00", "a\x7f", "é"])
def test_a_value_that_could_change_the_json_is_left_to_the_schema(media_id: str) -> None:
    """Cut in verbatim where a harmless value of its length stood, so the shape is a known one."""
    length = len(media_id.encode())
    template = body("a" * length)
    reader = a_reader_that_knows((b"a" * length, template))
    value = template.replace(b'"' + b"a" * length + b'"', b'"' + media_id.encode() + b'"')

    assert said(reader, media_id.encode(), value) == said(BodyReader(TimePolicy()), media_id.encode(), value)


def test_a_key_that_is_not_the_media_id_is_refused_in_a_known_shape_too() -> None:
    reader = a_reader_that_knows((b"a1", body("a1")))

    assert isinstance(said(reader, b"a1", body("b2")), Rejected)


def test_text_that_reads_like_the_media_id_is_not_taken_for_it() -> None:
    """The real MediaId is written with escapes; what stands there in plain text is a message."""
    escaped = body("XX", ErrorMessage="II").replace(b'"XX"', b'"\\u0049\\u0049"')
    reader = a_reader_that_knows((b"II", escaped))

    assert isinstance(said(reader, b"a2", escaped.replace(b'"II"', b'"a2"')), Rejected)


def test_an_event_time_is_understood_again_after_the_cache_was_full() -> None:
    """As many distinct seconds as fit, and one more: it must cost time, never an answer."""
    reader = BodyReader(TimePolicy())
    wanted = [NOON - second * 1000 for second in range(INSTANTS_CACHED_MAX + 1)]

    assert [reader.read(b"a1", body("a1", at=format_time(at)))[1].at for at in wanted] == wanted
    assert len(reader.instants) == 1


def test_shapes_that_never_come_again_do_not_pile_up() -> None:
    reader = BodyReader(TimePolicy())

    for number in range(SHAPES_CACHED_MAX + 10):
        assert said(reader, b"a1", body("a1", ErrorMessage=f"{number:06}"))

    assert sum(len(layout.contents) for layouts in reader._layouts.values() for layout in layouts) == 10
