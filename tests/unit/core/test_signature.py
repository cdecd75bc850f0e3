"""Callback authentication: the documented vectors, both of them, and every way to be denied."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.signature import Callback, Denial, deny, sign

URL = "https://www.example.com/your/callback"
TIMESTAMP = b"1519375990"
SIGNATURE = b"c72b60894140fa98920f1279219b7ed4"
NOW = 1519375990.0
CALLBACK = Callback(url=URL, auth_keys=("test123",))


def judge(
    signature: bytes | None = SIGNATURE,
    timestamp: bytes | None = TIMESTAMP,
    *,
    callback: Callback = CALLBACK,
    now: float = NOW,
) -> Denial | None:
    return deny(callback, signature, timestamp, now=now, tolerance_seconds=300)


@pytest.mark.parametrize(
    ("auth_key", "expected"),
    [("test123", "c72b60894140fa98920f1279219b7ed4"), ("Test123", "c587b80d2d0ede300e8967937da7219b")],
)
def test_the_documented_example_has_the_documented_signature(auth_key: str, expected: str) -> None:
    """VOD's page changed the key to Test123 and kept the hash of test123; the algorithm is right, the page is not."""
    assert sign(URL, "1519375990", auth_key) == expected


def test_a_right_signature_is_not_denied() -> None:
    assert judge() is None


def test_the_signature_may_be_upper_case() -> None:
    """The documentation does not say which case it is."""
    assert judge(SIGNATURE.upper()) is None


@pytest.mark.parametrize("auth_keys", [("test123", "Test123"), ("Test123", "test123")])
def test_during_a_rotation_either_key_may_sign(auth_keys: tuple[str, ...]) -> None:
    callback = Callback(url=URL, auth_keys=auth_keys)

    assert judge(callback=callback) is None
    assert judge(b"c587b80d2d0ede300e8967937da7219b", callback=callback) is None


def test_a_dropped_key_signs_no_more() -> None:
    assert judge(callback=Callback(url=URL, auth_keys=("Test123",))) is Denial.WRONG


def test_a_signature_of_another_url_is_wrong() -> None:
    assert judge(callback=Callback(url=URL + "/", auth_keys=("test123",))) is Denial.WRONG


def test_without_keys_anything_is_accepted() -> None:
    assert judge(None, None, callback=Callback(url=URL, auth_keys=())) is None


@pytest.mark.parametrize(
    ("signature", "timestamp"), [(None, TIMESTAMP), (SIGNATURE, None), (b"", TIMESTAMP), (None, None)]
)
def test_a_missing_header_is_said_to_be_missing(signature: bytes | None, timestamp: bytes | None) -> None:
    assert judge(signature, timestamp) is Denial.MISSING


#      tolerance 300 s:  [-300 ........ now ........ +300]
@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOW - 301, Denial.STALE),
        (NOW - 300, None),
        (NOW + 300, None),
        (NOW + 300.5, Denial.STALE),
        (NOW + 301, Denial.STALE),
    ],
)
def test_the_timestamp_may_lie_within_the_tolerance_either_way(now: float, expected: Denial | None) -> None:
    assert judge(now=now) is expected


@pytest.mark.parametrize(
    "timestamp",
    [b"151937599", b"15193759900", b"151937599x", b"-519375990", b"1519375 90", "१५१९३७५९९०".encode(), b"\xb2" * 10],
)
def test_a_timestamp_is_ten_ascii_digits(timestamp: bytes) -> None:
    assert judge(timestamp=timestamp) is Denial.MALFORMED_TIMESTAMP


@pytest.mark.parametrize("signature", [b"\xff" * 32, "é".encode() * 16, b"0" * 32, SIGNATURE[:-1], SIGNATURE + b"0"])
def test_a_wrong_signature_of_any_bytes_is_wrong(signature: bytes) -> None:
    """hmac.compare_digest raises for str that is not ASCII; bytes are compared, so nothing does."""
    assert judge(signature) is Denial.WRONG


@given(signature=st.none() | st.binary(max_size=64), timestamp=st.none() | st.binary(max_size=16))
def test_hostile_headers_are_denied_and_never_raise(signature: bytes | None, timestamp: bytes | None) -> None:
    assert isinstance(judge(signature, timestamp), Denial)


@given(signature=st.binary(min_size=1, max_size=64))
def test_no_signature_but_the_right_one_is_accepted(signature: bytes) -> None:
    assert (judge(signature) is None) == (signature.lower() == b"c72b60894140fa98920f1279219b7ed4")
