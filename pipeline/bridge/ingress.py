"""
The rules of the callback port: a request is published, or refused and why. Its head is judged first, then its body.

Pure and total: any bytes have an outcome. It knows no clock, no network, no counter, and no HTTP status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import NewType

import httptools

from pipeline.core.signature import Callback, Denial, deny

LENGTH_DIGITS_MAX = 18  # More digits than this is a length over any cap, and int() refuses thousands of them.

# A body that may be published: of a signed callback, of one that is configured without keys, or out of an MNS queue.
# Only the ingress that it came by makes one.
AdmittedBody = NewType("AdmittedBody", bytes)


class Refusal(Enum):
    """Why a request is refused; that its sender is not authentic is a Denial."""

    MALFORMED = auto()
    NOT_FOUND = auto()
    METHOD_NOT_ALLOWED = auto()
    LENGTH_MISSING = auto()
    BODY_TOO_LARGE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is configured: the callbacks by their path (with the query, if their URLs have one), and the bounds."""

    callbacks: Mapping[bytes, tuple[Callback, ...]]
    tolerance_seconds: int
    body_bytes_max: int


def admit_head(
    policy: Policy, *, method: bytes, target: bytes, headers: Mapping[bytes, bytes], now: float
) -> Callback | Refusal | Denial:
    """
    Judge the head of a request; its body may come if this returns the callback that it is for.

    Args:
        policy: What is configured.
        method: As it came.
        target: As it came: a path with or without a query, or a URL.
        headers: By lower-case name; of repeated ones the first. Which one is no question of safety, as no value makes
            a request authentic but a right signature; what a proxy appends to the sender's is not the sender's.
        now: The receiver's clock, seconds since the epoch.
    """
    callbacks = policy.callbacks.get(target)
    if callbacks is None:
        by_url = _by_url(policy.callbacks, target)
        if isinstance(by_url, Refusal):
            return by_url
        callbacks = by_url
    if method != b"POST":
        return Refusal.METHOD_NOT_ALLOWED
    length = headers.get(b"content-length")
    if length is None:
        # RFC 9112, 6.3: without either there is no body, whatever follows. A 200 would lose what the sender thought
        # was one. What arrives in chunks is counted as it comes.
        if b"transfer-encoding" not in headers:
            return Refusal.LENGTH_MISSING
    elif not length.isdigit():
        return Refusal.MALFORMED
    elif len(length) > LENGTH_DIGITS_MAX or int(length) > policy.body_bytes_max:
        return Refusal.BODY_TOO_LARGE
    signature, timestamp = headers.get(b"x-vod-signature"), headers.get(b"x-vod-timestamp")
    authentic: Callback | None = None
    denial: Denial | None = None
    for callback in callbacks:  # All of them, so that the answer's timing names none.
        found = deny(callback, signature, timestamp, now=now, tolerance_seconds=policy.tolerance_seconds)
        if found is None:
            authentic = callback
        else:
            denial = denial or found
    return authentic or denial or Refusal.NOT_FOUND


def admit_body(policy: Policy, body: bytes) -> AdmittedBody | Refusal:
    """
    Judge the body of a request whose head was admitted: it is published unless it is refused.

    By its length only: what it says is for the accept stage to judge.
    """
    return Refusal.BODY_TOO_LARGE if len(body) > policy.body_bytes_max else AdmittedBody(body)


def _by_url(callbacks: Mapping[bytes, tuple[Callback, ...]], target: bytes) -> tuple[Callback, ...] | Refusal:
    """Find the callbacks of a target that is not just its path: with a host, an empty query, a fragment."""
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return Refusal.MALFORMED
    if url.path is None:
        return Refusal.MALFORMED
    path = url.path + b"?" + url.query if url.query else url.path
    return callbacks.get(path, Refusal.NOT_FOUND)
