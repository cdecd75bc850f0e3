"""When two bodies say the same, and the fingerprint that stands for it."""

from __future__ import annotations

import json

import pytest

from pipeline.core.event import Content, content_of, validate
from tests.builders import body, fields_of, with_text
from tests.vectors.delete_media_complete import FAILURE, SUCCESS


def content(raw: bytes) -> Content:
    return content_of(validate(raw))


def test_the_documented_success_is_an_event() -> None:
    """
    The example of the documentation is the one body that must pass.

    The fingerprint is stored in `accepted`, so it is a literal: another value would make every known event a conflict.
    It is the first 8 bytes of blake2b over `["success","video","all",null,null,null,null]`.
    """
    assert fields_of(content(SUCCESS)) == (3973961277112153619, "", b"", "success", "video", "all")


def test_the_documented_failure_counts_under_its_code() -> None:
    """The one documented ErrorCode; its fingerprint is a literal for the same reason."""
    assert fields_of(content(FAILURE)) == (
        16776715926900260005,
        "InvalidVideo.NotFound",
        b"InvalidVideo.NotFound",
        "fail",
        "video",
        "all",
    )


def test_fingerprints_of_optional_and_unknown_fields_never_change() -> None:
    """Stored as well: JobIds and unknown fields take the other path through content_of."""
    assert content(body(JobIds="a,b")).fingerprint == 16816985246576814368
    assert content(body(x=1)).fingerprint == 17236036741144163156


def test_order_and_spacing_say_nothing() -> None:
    """A retry through a proxy may be written differently, and is still a duplicate."""
    reordered = json.dumps(dict(reversed(json.loads(FAILURE).items())), indent=4).encode()

    assert fields_of(content(reordered)) == fields_of(content(FAILURE))
    assert content(body(x={"a": 1, "b": [1]})).fingerprint == content(with_text(b'"x" : {"b":[ 1],"a":1}')).fingerprint


@pytest.mark.parametrize(
    ("text", "array"), [("a,b", ["a", "b"]), ("a", ["a"]), ("", [""]), ("a,,b", ["a", "", "b"]), ("é", ["é"])]
)
def test_job_ids_as_a_string_equal_the_array(text: str, array: list[str]) -> None:
    """The form is not documented, so a retry must not become a conflict over it."""
    assert content(body(JobIds=text)).fingerprint == content(body(JobIds=array)).fingerprint


def test_a_content_that_left_the_cache_is_the_same_again() -> None:
    """8,192 contents are kept; a message per event must cost time, never a duplicate."""
    before = fields_of(content(FAILURE))

    for number in range(8193):
        content(with_text(b'"ErrorMessage":"%d"' % number))

    assert fields_of(content(FAILURE)) == before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (body(), body(JobIds=[])),
        (body(JobIds=[]), body(JobIds="")),
        (body(JobIds="a,b"), body(JobIds="b,a")),
        (body(JobIds=["a,b"]), body(JobIds=["a", "b"])),
        (body(), body(ErrorMessage="")),
        (body(ErrorCode="x"), body(ErrorMessage="x")),
        (body(Status="fail"), body(Status="fail", ErrorCode="unknown")),
        (body(), body(x=None)),
        (body(x=1), body(y=1)),
        (body(x=1), body(x="1")),
        (body(x=1), body(x=True)),
        (body(x=1), body(x=1.0)),
        (body(x=[1, 2]), body(x=[2, 1])),
        (body(MediaType="video"), body(MediaType="image")),
        (body(DeleteType="all"), body(DeleteType="stream")),
    ],
)
def test_any_other_difference_is_one(one: bytes, other: bytes) -> None:
    """Two real events can share MediaId and second: to take them for a duplicate would lose one."""
    assert content(one).fingerprint != content(other).fingerprint


def test_an_error_code_on_a_success_is_content_but_no_failure() -> None:
    """It is valid whatever the Status, and must not count under the code."""
    odd = content(body(ErrorCode="InvalidVideo.NotFound"))

    assert (odd.code, odd.status) == ("", "success")
    assert odd.fingerprint != content(SUCCESS).fingerprint


@pytest.mark.parametrize("raw", [body(Status="fail"), body(Status="fail", ErrorCode="")])
def test_a_failure_without_a_code_counts_as_unknown(raw: bytes) -> None:
    """The empty code is where successes are counted."""
    assert (content(raw).code, content(raw).code_bytes) == ("unknown", b"unknown")
