"""The rules of the callback port: what each head and body comes to, and that any bytes come to something."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bridge.ingress import Policy, Refusal, admit_body, admit_head
from pipeline.core.signature import Callback, Denial, sign

NOW = 1519375990.5
SIGNED_CALLBACK = Callback(url="https://www.example.com/your/callback", auth_keys=("old", "test123"))
OPEN_CALLBACK = Callback(url="https://www.example.com/secret?token=1", auth_keys=())
# The same path under the URL of before a move to https, with a key of its own.
MOVED_CALLBACK = Callback(url="http://old.example.com/your/callback", auth_keys=("Old1Key",))
POLICY = Policy(
    callbacks={b"/your/callback": (SIGNED_CALLBACK, MOVED_CALLBACK), b"/secret?token=1": (OPEN_CALLBACK,)},
    tolerance_seconds=300,
    body_bytes_max=1024,
)
# The documentation's example.
SIGNED = {b"x-vod-timestamp": b"1519375990", b"x-vod-signature": b"c72b60894140fa98920f1279219b7ed4"}
CHUNKED = {b"transfer-encoding": b"chunked"}


def judged(
    headers: dict[bytes, bytes], *, method: bytes = b"POST", target: bytes = b"/your/callback", now: float = NOW
) -> Callback | Refusal | Denial:
    return admit_head(POLICY, method=method, target=target, headers=headers, now=now)


@pytest.mark.parametrize(
    "target", [b"/your/callback", b"/your/callback?", b"/your/callback#x", b"http://elsewhere/your/callback"]
)
def test_a_signed_head_is_admitted_for_its_callback(target: bytes) -> None:
    assert judged({**SIGNED, **CHUNKED}, target=target) == SIGNED_CALLBACK


@pytest.mark.parametrize(
    ("url", "key", "verdict"),
    [
        (MOVED_CALLBACK.url, "Old1Key", MOVED_CALLBACK),
        (MOVED_CALLBACK.url, "test123", Denial.WRONG),
        (SIGNED_CALLBACK.url, "Old1Key", Denial.WRONG),
    ],
)
def test_on_a_path_of_two_urls_each_counts_with_its_own_key(url: str, key: str, verdict: Callback | Denial) -> None:
    """VOD signs the URL, and a request has the path alone."""
    signature = sign(url, "1519375990", key).encode()

    assert judged({**SIGNED, **CHUNKED, b"x-vod-signature": signature}) == verdict


UNSIGNED = tuple(
    Callback(url=f"{origin}/open", auth_keys=(), entry=origin.encode())
    for origin in (
        "https://first.example",
        "https://A.example",
        "http://b.example:8080",
        "https://u:w@c.example:443",
        "http://c.example",
    )
)


@pytest.mark.parametrize(
    ("host", "entry"),
    [
        (b"a.example", b"https://A.example"),
        (b"A.Example:443", b"https://A.example"),
        (b"a.example:80", b"https://first.example"),
        (b"b.example:8080", b"http://b.example:8080"),
        (b"b.example", b"https://first.example"),
        (b"c.example", b"https://first.example"),
        (b"c.example:443", b"https://u:w@c.example:443"),
        (b"10.0.0.1:8080", b"https://first.example"),
        (b"\xff", b"https://first.example"),
        (b"", b"https://first.example"),
    ],
)
def test_an_unsigned_head_is_for_the_url_with_its_host(host: bytes, entry: bytes) -> None:
    """Where two have it, or a proxy set another, nothing says which: it is the first, and accepted all the same."""
    policy = replace(POLICY, callbacks={b"/open": UNSIGNED})
    headers = {**CHUNKED, b"host": host}

    found = admit_head(policy, method=b"POST", target=b"/open", headers=headers, now=NOW)

    assert isinstance(found, Callback)
    assert found.entry == entry


def test_a_signed_head_is_for_the_url_that_was_signed_whatever_its_host() -> None:
    """A proxy may send its own Host: what VOD signed says more."""
    assert judged({**SIGNED, **CHUNKED, b"host": b"old.example.com"}) == SIGNED_CALLBACK


@pytest.mark.parametrize("target", [b"/secret?token=1", b"http://elsewhere/secret?token=1"])
def test_a_configured_query_is_part_of_the_path(target: bytes) -> None:
    assert judged(CHUNKED, target=target) == OPEN_CALLBACK


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/your/callback/",
        b"/your/callback?a=1",
        b"/secret",
        b"/secret?token=2",
        b"//h/your/callback",
        b"/your%2fcallback",
        b"*",
    ],
)
def test_only_the_configured_paths_exist(target: bytes) -> None:
    assert judged({**SIGNED, **CHUNKED}, target=target) is Refusal.NOT_FOUND


@pytest.mark.parametrize("target", [b"", b"/\xff", b"/your\0/callback", b"x:443", b"http://elsewhere", b"/" * 70_000])
def test_what_is_no_target_is_malformed(target: bytes) -> None:
    """The last one is a target, but longer than any head."""
    assert judged({**SIGNED, **CHUNKED}, target=target) is Refusal.MALFORMED


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"CONNECT", b"post", b""])
def test_only_post_is_allowed(method: bytes) -> None:
    assert judged({**SIGNED, **CHUNKED}, method=method) is Refusal.METHOD_NOT_ALLOWED


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (b"0", SIGNED_CALLBACK),
        (b"1024", SIGNED_CALLBACK),
        (b"0" * 14 + b"1024", SIGNED_CALLBACK),
        (b"1025", Refusal.BODY_TOO_LARGE),
        (b"9" * 18, Refusal.BODY_TOO_LARGE),
        (b"9" * 5000, Refusal.BODY_TOO_LARGE),
        (b"", Refusal.MALFORMED),
        (b"-1", Refusal.MALFORMED),
        ("\u0661".encode(), Refusal.MALFORMED),  # A digit to str.isdigit.
    ],
)
def test_a_length_is_looked_at_before_the_body_is_read(length: bytes, expected: object) -> None:
    assert judged({**SIGNED, b"content-length": length}) == expected


def test_without_a_length_or_chunks_there_is_no_body() -> None:
    """A 200 would tell a sender who thinks otherwise that it is delivered."""
    assert judged(SIGNED) is Refusal.LENGTH_MISSING


@pytest.mark.parametrize(
    ("headers", "denial"),
    [
        ({}, Denial.MISSING),
        ({b"x-vod-timestamp": b"1519375990"}, Denial.MISSING),
        ({**SIGNED, b"x-vod-signature": b"0" * 32}, Denial.WRONG),
        ({**SIGNED, b"x-vod-timestamp": b"15"}, Denial.MALFORMED_TIMESTAMP),
        ({**SIGNED, b"x-vod-timestamp": b"1519375000"}, Denial.STALE),
    ],
)
def test_what_is_not_authentic_is_denied(headers: dict[bytes, bytes], denial: Denial) -> None:
    assert judged({**headers, **CHUNKED}) is denial


def test_a_bodys_length_is_bounded_and_nothing_else_of_it() -> None:
    assert admit_body(POLICY, b"\xff" * 1024) == b"\xff" * 1024
    assert admit_body(POLICY, b"{" * 1025) is Refusal.BODY_TOO_LARGE


NAMES = st.sampled_from(
    [b"x-vod-signature", b"x-vod-timestamp", b"content-length", b"transfer-encoding", b"x-request-id"]
)
VALUES = st.sampled_from([*SIGNED.values(), b"0", b"1024", b"chunked"]) | st.binary(max_size=64)
TARGETS = st.sampled_from([*POLICY.callbacks]) | st.binary(max_size=64) | st.from_regex(rb"(https?://)?[ -~]{0,40}")


@given(
    method=st.just(b"POST") | st.binary(max_size=8),
    target=TARGETS,
    headers=st.dictionaries(NAMES | st.binary(max_size=16), VALUES, max_size=8),
    now=st.just(NOW) | st.floats(0, 1e11),
)
def test_any_head_is_admitted_or_refused(method: bytes, target: bytes, headers: dict[bytes, bytes], now: float) -> None:
    """And what is admitted for a callback with keys has the one right signature, in its time."""
    verdict = judged(headers, method=method, target=target, now=now)

    assert isinstance(verdict, Callback | Refusal | Denial)
    if verdict == SIGNED_CALLBACK:
        assert {name: headers[name].lower() for name in SIGNED} == SIGNED
        assert abs(now - 1519375990) <= 300
    if isinstance(verdict, Callback):
        assert method == b"POST"
        assert headers.get(b"content-length", b"0").isdigit()


@given(body=st.binary(max_size=2048))
def test_any_body_is_published_as_it_is_or_refused(body: bytes) -> None:
    assert admit_body(POLICY, body) == (body if len(body) <= 1024 else Refusal.BODY_TOO_LARGE)
