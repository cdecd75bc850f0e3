"""The event schema: both sides of every border, and what a record's key is."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from pipeline.core.event import OTHER_EVENT_TYPES, Content, content_of, explain, media_id_of, validate
from pipeline.core.outcome import Ignored, Reason, Rejected
from tests.builders import body, with_text
from tests.vectors.delete_media_complete import SUCCESS

DEPTH_MAX = 200  # Of pydantic's parser: it refuses what is nested deeper, so nothing of ours recurses without limit.


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in json.loads(body()).items() if key != name}).encode()


def judge(raw: bytes) -> Content | Ignored | Rejected:
    """Do what the accept stage does with a body."""
    try:
        event = validate(raw)
    except ValidationError as error:
        return explain(error)
    return content_of(event)


def reason_of(raw: bytes) -> Reason | None:
    verdict = judge(raw)
    return verdict.reason if isinstance(verdict, Rejected) else None


@pytest.mark.parametrize(
    ("media_id", "is_valid"),
    [("", False), ("m", True), ("m" * 256, True), ("m" * 257, False), ("é" * 256, True), ("é" * 257, False)],
    ids=["0", "1", "256", "257", "256 of two bytes", "257 of two bytes"],
)
def test_a_media_id_has_1_to_256_characters(media_id: str, is_valid: bool) -> None:
    """It is a record key and remembered for days, so it is bounded; characters, as the documentation counts."""
    assert (reason_of(body(MediaId=media_id)) is None) is is_valid


@pytest.mark.parametrize(("length", "is_valid"), [(0, True), (1, True), (128, True), (129, False)])
def test_an_error_code_has_at_most_128_characters(length: int, is_valid: bool) -> None:
    """It is part of keys of partial-counts, so it is bounded; empty is no worse than missing."""
    assert (reason_of(body(Status="fail", ErrorCode="c" * length)) is None) is is_valid


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Status", value) for value in ("success", "fail")),
        *(("MediaType", value) for value in ("video", "image", "attached")),
        *(("DeleteType", value) for value in ("all", "mezzanine", "stream")),
    ],
)
def test_every_documented_value_is_valid(name: str, value: str) -> None:
    """The documentation's closed sets, whole."""
    assert reason_of(body(**{name: value})) is None


@pytest.mark.parametrize("name", ["Status", "MediaType", "DeleteType"])
@pytest.mark.parametrize("value", ["", "Success", "success ", "failed", "videos", "ALL", "streams"])
def test_any_other_value_is_rejected(name: str, value: str) -> None:
    """These become metric labels: a near miss (IMS says Success) must not open the set."""
    assert reason_of(body(**{name: value})) is Reason.INVALID_FIELD


@pytest.mark.parametrize("value", ["", "a", "a,b", [], ["a", "b"], ["a,b"]])
def test_job_ids_are_a_string_or_an_array_of_strings(value: object) -> None:
    """The documentation has no example: both forms exist in the product's other callbacks."""
    assert reason_of(body(JobIds=value)) is None


@pytest.mark.parametrize("value", [None, 1, True, {}, [1], ["a", None], [["a"]]])
def test_job_ids_of_another_form_are_rejected(value: object) -> None:
    """Nothing of a guess: what is neither form is shown to the operator."""
    assert reason_of(body(JobIds=value)) is Reason.INVALID_FIELD


FIELDS = ["EventType", "EventTime", "Status", "MediaType", "DeleteType", "MediaId"]


@pytest.mark.parametrize("name", [*FIELDS, "ErrorCode", "ErrorMessage"])
@pytest.mark.parametrize("value", [None, 1, 1.5, True, [], {}, ["success"]])
def test_a_known_field_that_is_not_a_string_is_rejected_by_name(name: str, value: object) -> None:
    """Strict: 1 is not "1". The detail names the field, as an operator has to find it."""
    verdict = judge(body(**{name: value}))

    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.INVALID_FIELD
    assert verdict.detail.startswith(f"{name}: ")


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_field_is_rejected_by_name(name: str) -> None:
    """All six are documented as required."""
    assert judge(without(name)) == Rejected(Reason.INVALID_FIELD, f"{name}: Field required")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"  ",
        b"{",
        b"nope",
        b"NaN",
        b"\x00" * 8,
        SUCCESS[:-1],
        SUCCESS + b"x",
        SUCCESS.replace(b'"', b"'"),
        b"\xef\xbb\xbf" + SUCCESS,
        SUCCESS.decode().encode("utf-16"),
        with_text(b'"x":"\xff"'),
        with_text(b'"x":"\xed\xa0\x80"'),
        with_text(b'"x":"\\ud800"'),
        with_text(b'"\\udfff":1'),
        with_text(b'"x":"\x00"'),
        with_text(b'"x":01'),
        with_text(b'"x":' + b"9" * 10_000),
        with_text(b'"x":' + b"[" * 5000 + b"]" * 5000),
        with_text(b'"x":' + b"[" * 100_000 + b"]" * 100_000),
        with_text(b'"x":' + b'{"x":' * 100_000 + b"1" + b"}" * 100_000),
        b"[" * 100_000,
        with_text(b'"Status":NaN'),
        with_text(b""),
    ],
)  # fmt: skip
def test_a_body_that_is_not_json_in_utf_8_is_rejected(raw: bytes) -> None:
    """Whatever the parser dislikes has one reason: a retry cannot repair it."""
    assert reason_of(raw) is Reason.INVALID_JSON


@pytest.mark.parametrize(
    ("raw", "kind"),
    [(b"null", "NoneType"), (b"[]", "list"), (b'"x"', "str"), (b"1", "int"), (b"1.5", "float"), (b"true", "bool")],
)
def test_json_that_is_not_an_object_is_rejected(raw: bytes, kind: str) -> None:
    """Its own reason: the sender is not VOD at all."""
    assert judge(raw) == Rejected(Reason.NOT_AN_OBJECT, f"the body is a JSON {kind}")


def test_a_body_of_many_wrong_job_ids_costs_one_error() -> None:
    """As many as fit into a body: an error each would take 80 ms, and a sender of those could stop a partition."""
    job_ids = b"0," * 30_000 + b"0"

    with pytest.raises(ValidationError) as caught:
        validate(SUCCESS[:-1] + b',"JobIds":[' + job_ids + b"]}")

    assert caught.value.error_count() == 2  # Not a string, and not a list of strings.
    assert explain(caught.value) == Rejected(Reason.INVALID_FIELD, "JobIds.str: Input should be a valid string")


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_a_body_that_is_no_json_number_is_no_json(number: bytes) -> None:
    """Pydantic reads them; a reader downstream, or of rejected, need not."""
    assert reason_of(number) is Reason.INVALID_JSON


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e99999", b"-1e99999"])
def test_a_number_that_json_cannot_hold_has_no_content(number: bytes) -> None:
    """The parser lets them through in unknown fields; written back they would not be JSON. The docstring says how."""
    event = validate(with_text(b'"x":' + number))

    with pytest.raises(ValueError, match="not JSON compliant"):
        content_of(event)


def test_a_number_of_4300_digits_is_kept_and_one_of_4301_is_no_json() -> None:
    """Python refuses to print longer integers: were one parsed, the fingerprint would fail."""
    assert reason_of(with_text(b'"x":' + b"9" * 4300)) is None
    assert reason_of(with_text(b'"x":' + b"9" * 4301)) is Reason.INVALID_JSON


def test_nesting_up_to_the_parsers_limit_has_content_and_deeper_is_no_json() -> None:
    """What the parser accepts, the canonical form must be able to write without overflowing the stack."""
    assert reason_of(with_text(b'"x":' + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)) is None
    assert reason_of(with_text(b'"x":' + b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1))) is Reason.INVALID_JSON


@pytest.mark.parametrize("raw", [with_text(b'"x":"\\u0000"'), with_text(b'"x":"\\ud83d\\ude00"')])
def test_an_escaped_nul_and_a_surrogate_pair_are_text(raw: bytes) -> None:
    """Both are valid JSON, however odd."""
    assert reason_of(raw) is None


@pytest.mark.parametrize("event_type", sorted(OTHER_EVENT_TYPES))
def test_a_documented_event_of_another_type_is_ignored_by_name(event_type: str) -> None:
    """One URL gets them all (EventTypeList=ALL): they are counted by type, and no error."""
    assert judge(b'{"EventType":"%b","MediaId":"m"}' % event_type.encode()) == Ignored(event_type)


@pytest.mark.parametrize("event_type", ["", "Foo", "deletemediacomplete", "DeleteMediaComplete ", "é|\x00", "F" * 9999])
def test_an_undocumented_event_type_is_ignored_as_other(event_type: str) -> None:
    """It becomes a metric label, so the set is closed."""
    assert judge(body(EventType=event_type)) == Ignored("other")


def test_another_event_type_is_ignored_before_anything_else_is_looked_at() -> None:
    """Other events have other fields: Status may be Succeed, MediaId may be missing."""
    assert judge(b'{"EventType":"WorkflowTaskComplete","Status":5,"EventTime":[]}') == Ignored("WorkflowTaskComplete")


def test_of_a_doubled_key_the_last_counts() -> None:
    """JSON leaves it open; what matters is that key and content are read alike, or an event had two identities."""
    raw = with_text(b'"MediaId":"n","Status":"fail"')

    assert media_id_of(raw) == b"n"
    assert validate(raw)["MediaId"] == "n"
    assert content_of(validate(raw)).status == "fail"
    assert judge(with_text(b'"EventType":"TranscodeComplete"')) == Ignored("TranscodeComplete")


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (SUCCESS, b"1234343b689jsi3ka5422dfe1e47****"),
        (b'{"MediaId":"\xc3\xa9"}', b"\xc3\xa9"),
        (b'{"MediaId":"\\u00e9"}', b"\xc3\xa9"),
        (b'{"MediaId":"m","x":NaN}', b"m"),
        (b'{"MediaId":""}', None),
        (b'{"MediaId":5}', None),
        (b'{"MediaId":null}', None),
        (b'{"VideoId":"m"}', None),
        (b"[]", None),
        (b"", None),
        (b"\xff", None),
        (b"\x00" * 1000, None),
        (b'{"MediaId":"m\x00"}', None),
        (b'{"MediaId":"\\u0000"}', b"\x00"),
        (b'{"MediaId":"\\ud800"}', None),
        (b'{"MediaId":"\xff"}', None),
        (b'{"MediaId":"a","MediaId":"b"}', b"b"),
        (b'{"MediaId":"a","MediaId":5}', None),
        (b'{"MediaId":' + b"9" * 4300 + b"}", None),
        (b'{"MediaId":' + b"9" * 10_000 + b"}", None),
        (b'{"MediaId":"m","x":' + b"9" * 10_000 + b"}", None),
        (b'{"MediaId":"m","x":1e' + b"9" * 10_000 + b"}", b"m"),
        (b'{"MediaId":"m","x":' + b"[" * 100_000, None),
        (b'{"MediaId":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
        (b'{"MediaId":' * 100_000, None),
        (b"[" * 100_000, None),
    ],
    ids=lambda value: f"{value[:24]!r} of {len(value)}" if value else "none",
)
def test_the_record_key_is_the_media_id_or_none(raw: bytes, key: bytes | None) -> None:
    """Equal ids must reach one partition however they are escaped; no id is no reason to lose the body."""
    assert media_id_of(raw) == key
