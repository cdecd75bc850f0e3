"""
Callback authentication: is this request from someone who knows a key of this callback URL?

Pure: no clock, no HTTP. Source of the algorithm: ApsaraVideo VOD, "HTTP callback authentication":
``X-VOD-SIGNATURE = md5(<callback URL>|<X-VOD-TIMESTAMP>|<AuthKey>)``, the URL as configured. The body is not signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import md5
from hmac import compare_digest

TIMESTAMP_DIGITS = 10
SIGNATURES_CACHED_MAX = 2048


class Denial(StrEnum):
    """Why a request is answered 403: a metric label, never part of the answer."""

    MISSING = "signature_missing"
    MALFORMED_TIMESTAMP = "timestamp_malformed"
    STALE = "timestamp_out_of_tolerance"
    WRONG = "signature_wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """
    One configured callback: the exact URL string given to VOD, and every key that may sign it (old and new).

    No keys: unsigned callbacks are accepted.
    """

    url: str
    auth_keys: tuple[str, ...]
    entry: bytes = b""
    """The name of its entry in the settings, as its events carry it."""


def sign(url: str, timestamp: str, auth_key: str) -> str:
    """Return the signature VOD sends: 32 lower-case hex digits."""
    return md5(f"{url}|{timestamp}|{auth_key}".encode(), usedforsecurity=False).hexdigest()


# VOD signs the URL and the second, not the body: one second's callbacks share their signature, whatever they carry.
@lru_cache(maxsize=SIGNATURES_CACHED_MAX)
def _expected(url: str, timestamp: bytes, auth_key: str) -> bytes:
    return sign(url, timestamp.decode(), auth_key).encode()


def deny(
    callback: Callback, signature: bytes | None, timestamp: bytes | None, *, now: float, tolerance_seconds: int
) -> Denial | None:
    """
    Return why the request is not authentic, or None if it is.

    Args:
        callback: What the request's path was configured as; its URL is never rebuilt from the request.
        signature: The X-VOD-SIGNATURE header as received.
        timestamp: The X-VOD-TIMESTAMP header as received: ten digits, seconds since the epoch.
        now: The receiver's clock, seconds since the epoch.
        tolerance_seconds: How far the timestamp may lie from *now*, either way.

    Total: any bytes have an answer. Every key is tried, in constant time, so the answer's timing names none.
    """
    if not callback.auth_keys:
        return None
    if not signature or not timestamp:
        return Denial.MISSING
    if len(timestamp) != TIMESTAMP_DIGITS or not timestamp.isdigit():
        return Denial.MALFORMED_TIMESTAMP
    if abs(now - int(timestamp)) > tolerance_seconds:
        return Denial.STALE
    given = signature.lower()
    is_right = False
    for key in callback.auth_keys:
        is_right |= compare_digest(given, _expected(callback.url, timestamp, key))
    return None if is_right else Denial.WRONG
