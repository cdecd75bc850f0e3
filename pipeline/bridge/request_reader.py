"""
Requests out of bytes: HTTP/1.1 by httptools, with a bound for everything that httptools leaves unbounded.

How long any of it may take, what becomes of a request, and what is answered, this does not know.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

import httptools

# VOD's heads have 300 bytes; proxies add some more, and allow as much themselves.
HEAD_BYTES_MAX = 16 * 1024
# 16 KiB of "a:b" would be 3,276 headers, and many times as much memory. Trailers have the same bound.
HEADERS_MAX = 100
# The largest body in chunks of one byte takes 393,216. Extensions of chunks and trailers are counted here only.
REQUEST_BYTES_MAX = 1024 * 1024


class Unreadable(Enum):
    """Why the rest of a connection's bytes is not read."""

    MALFORMED = auto()
    HEAD_TOO_LARGE = auto()
    BODY_TOO_LARGE = auto()
    STOPPED = auto()
    """The receiver raised StoppedError."""


class StoppedError(Exception):
    """Raised by a receiver that wants nothing more."""


class _BoundError(Exception):
    """A bound is passed."""

    def __init__(self, unreadable: Unreadable) -> None:
        self.unreadable = unreadable


class RequestReceiver(Protocol):
    """What a reader calls: a connection."""

    def head_arrived(self, method: bytes, target: bytes, headers: dict[bytes, bytes], expects_continue: bool) -> None:
        """Headers are by lower-case name, of repeated ones the first. The body comes next."""

    def request_arrived(self, body: bytes, is_last: bool) -> None:
        """All of it has; with the answer to one that *is_last* the connection is to end."""


class RequestReader:
    """Reads the requests of one connection; hold it no longer than that, as its parser holds it, too."""

    __slots__ = (
        "_body", "_body_bytes_max", "_earlier_bytes", "_has_completed", "_has_head", "_headers", "_is_last",
        "_parser", "_read_bytes", "_receiver", "target",
    )  # fmt: skip

    def __init__(self, receiver: RequestReceiver, *, body_bytes_max: int) -> None:
        self._receiver = receiver
        self._body_bytes_max = body_bytes_max
        self._parser = httptools.HttpRequestParser(self)
        self._read_bytes = 0
        self._earlier_bytes = 0  # Of the request that is arriving, in reads before this one.
        self._has_completed = False  # Whether a request ended in this read.
        self._is_last = False
        self.forget()

    def forget(self) -> None:
        """Hold nothing of the request that is arriving."""
        self._has_head = False  # Whether a head is complete, and its body is not.
        self._body: bytes | bytearray = b""
        self._forget_head()

    def _forget_head(self) -> None:
        self.target = b""
        """Of the head that is arriving; empty before it does."""
        self._headers: list[tuple[bytes, bytes]] = []  # Or trailers; with lower-case names.

    def close(self) -> None:
        """Let go of the parser, and be used no more."""
        del self._parser, self._receiver

    def read(self, data: bytes) -> Unreadable | None:
        """
        Read on; the receiver is called meanwhile, and what it raises but for StoppedError is raised here.

        Returns:
            Why this was the last time, or None.
        """
        self._read_bytes = len(data)
        self._has_completed = False
        while True:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserCallbackError as error:
                return _unreadable(error)
            except httptools.HttpParserError:
                return Unreadable.MALFORMED
        if self._has_completed:
            return None  # Of the next request, this read brought something at most.
        self._earlier_bytes += self._read_bytes
        if not self._has_head:
            return Unreadable.HEAD_TOO_LARGE if self._earlier_bytes > HEAD_BYTES_MAX else None
        return Unreadable.BODY_TOO_LARGE if self._earlier_bytes > REQUEST_BYTES_MAX else None

    def _without_upgrade(self) -> bytes:
        """
        Return the head that has just come, without its offer to upgrade, for a new parser.

        A server may ignore the offer (RFC 9110, 7.8), but httptools takes no body behind it.
        """
        first = b"POST %b HTTP/%b" % (self.target, self._parser.get_http_version().encode())
        lines = [b"%b: %b" % line for line in self._headers if line[0] != b"upgrade"]
        self._forget_head()
        self._parser = httptools.HttpRequestParser(self)
        return b"\r\n".join([first, *lines, b"", b""])

    # What the parser calls.

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self._headers
        if len(headers) >= HEADERS_MAX:
            raise _BoundError(Unreadable.HEAD_TOO_LARGE)
        headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        # A read that is longer than any head may have a body; a request that begins behind another is looked at, too.
        if self._earlier_bytes + self._read_bytes > HEAD_BYTES_MAX:
            head_bytes = len(self.target) + sum(len(name) + len(value) + 4 for name, value in self._headers)
            if head_bytes > HEAD_BYTES_MAX:
                raise _BoundError(Unreadable.HEAD_TOO_LARGE)
        parser = self._parser
        method = parser.get_method()
        if parser.should_upgrade() and method == b"POST":
            return  # It is read again: see _without_upgrade.
        target, headers = self.target, dict(reversed(self._headers))
        self.target = b""  # Held no longer: the next request may be a while, or never come.
        self._headers.clear()
        self._has_head = True
        self._is_last = not parser.should_keep_alive()
        expects_continue = False
        if b"connection" in headers or b"expect" in headers or b"proxy-connection" in headers:
            if parser.get_http_version() == "1.0":
                self._is_last = True  # It would want to be answered that the connection stays.
            else:
                expects_continue = headers.get(b"expect", b"").lower() == b"100-continue"
        self._receiver.head_arrived(method, target, headers, expects_continue)

    def on_body(self, part: bytes) -> None:
        if not self._body:
            self._body = part
        elif isinstance(self._body, bytes):
            self._body = bytearray(self._body) + part
        else:
            self._body += part
        if len(self._body) > self._body_bytes_max:
            raise _BoundError(Unreadable.BODY_TOO_LARGE)

    def on_message_complete(self) -> None:
        if not self._has_head:
            return  # It is read again: see _without_upgrade.
        body = self._body if isinstance(self._body, bytes) else bytes(self._body)
        self._body = b""
        if self._headers:
            self._forget_head()
        self._has_head = False
        self._has_completed = True
        self._earlier_bytes = 0
        self._receiver.request_arrived(body, self._is_last)


def _unreadable(error: httptools.HttpParserCallbackError) -> Unreadable:
    """Return what a callback stopped the parser for; raise what it did not raise for that."""
    cause = error.__context__
    if isinstance(cause, StoppedError):
        return Unreadable.STOPPED
    if isinstance(cause, _BoundError):
        return cause.unreadable
    raise cause or error
