"""
The page's ASGI application: a few files, and a stream of server-sent events. It answers GET and HEAD, and only reads.

Whoever reads slowly is sent the newest state when it can take one; what it missed is not kept. Who may be asked for by
which name is checked, since a foreign site can have its own name resolve to our address (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from pipeline.dashboard.assets import Asset
from pipeline.dashboard.snapshot import Snapshot
from pipeline.settings import DashboardSettings

STREAMS_MAX = 32
RECONNECT_MILLISECONDS = 1000
_TEXT = b"text/plain; charset=utf-8"
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]*)?")  # RFC 9110, 7.2: a name or address, and perhaps a port.
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SECURITY = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
HeaderList = list[tuple[bytes, bytes]]


def allowed_hosts(settings: DashboardSettings) -> frozenset[str] | None:
    """
    Return the names the page may be asked for by; None: any.

    Where it listens on other addresses than loopback, only the operator knows its names: without a list any will do.
    """
    if not settings.allowed_hosts and not _is_loopback(settings.host):
        return None
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return _LOOPBACK | {name.lower() for name in (host, *settings.allowed_hosts)}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class DashboardApp:
    """The ASGI 3 application."""

    def __init__(
        self,
        assets: Mapping[str, Asset],
        snapshot: Snapshot,
        *,
        hosts: frozenset[str] | None,
        problems: Callable[[], list[str]],
        streams_max: int = STREAMS_MAX,
    ) -> None:
        """
        Args:
            hosts: See `allowed_hosts`.
            problems: Why /readyz says 503; empty if it does not.
        """
        self._assets = assets
        self._snapshot = snapshot
        self._hosts = hosts
        self._problems = problems
        self._streams_max = streams_max
        self._streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path = scope["path"]
        if not self._is_ours([value for name, value in scope["headers"] if name == b"host"]):
            await _answer(send, 421, "ask for this page by a name in dashboard.allowed_hosts\n")
        elif scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, "the page only shows\n", [(b"allow", b"GET, HEAD")])
        elif path in self._assets:
            await _file(send, self._assets[path], headers)
        elif path == "/healthz":
            await _answer(send, 200, "alive\n")
        elif path == "/readyz":
            found = self._problems()
            await _answer(send, 503 if found else 200, "\n".join(found or ["ready"]) + "\n")
        elif path != "/events":
            await _answer(send, 404, "there are /, /events, /healthz and /readyz\n")
        elif headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
            await _answer(send, 403, "only this page reads this stream\n")  # A foreign one would hold a place in it.
        elif scope["method"] == "HEAD":
            await _begin(send, 200, _STREAM_HEADERS)
            await send({"type": "http.response.body", "body": b""})
        elif self._streams >= self._streams_max:
            await _answer(send, 503, "too many pages are open\n", [(b"retry-after", b"5")])
        else:
            await self._stream(receive, send)

    def _is_ours(self, hosts: list[bytes]) -> bool:
        if self._hosts is None:
            return True
        found = _HOST.fullmatch(hosts[0].decode("latin-1").lower()) if len(hosts) == 1 else None
        return found is not None and found[1] in self._hosts

    async def _stream(self, receive: Receive, send: Send) -> None:
        self._streams += 1
        pushing = asyncio.create_task(self._push(send), name="stream")
        leaving = asyncio.create_task(_left(receive), name="stream-end")
        try:
            await asyncio.wait([pushing, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._streams -= 1
            leaving.cancel()
            pushing.cancel()
            await asyncio.gather(pushing, leaving, return_exceptions=True)

    async def _push(self, send: Send) -> None:
        await _begin(send, 200, _STREAM_HEADERS)
        await _part(send, b"retry: %d\n\n" % RECONNECT_MILLISECONDS)
        version = 0
        while not self._snapshot.is_closed:
            version, sections = self._snapshot.newer_than(version)
            if sections:
                # Returns once the client has taken most of what came before: this is what slow readers wait in.
                await _part(send, b"".join(_event(name, data) for name, data in sections))
            await self._snapshot.changed_since(version)
        await send({"type": "http.response.body", "body": b""})


_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _begin(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
    # One request a connection: so a connection that asks for nothing is easily told from one that waits.
    every = [*headers, *_SECURITY, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": every})


async def _part(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _answer(send: Send, status: int, text: str, headers: HeaderList | None = None) -> None:
    body = text.encode()
    length = (b"content-length", b"%d" % len(body))
    await _begin(send, status, [(b"content-type", _TEXT), (b"cache-control", b"no-store"), length, *(headers or [])])
    await send({"type": "http.response.body", "body": body})


async def _file(send: Send, asset: Asset, headers: Mapping[bytes, bytes]) -> None:
    # no-cache: the browser keeps it, and asks whether it is still the one; after an upgrade it is not.
    cached = [(b"cache-control", b"no-cache"), (b"etag", asset.tag), (b"vary", b"accept-encoding")]
    if headers.get(b"if-none-match") == asset.tag:
        await _begin(send, 304, cached)
        await send({"type": "http.response.body", "body": b""})
        return
    is_zipped = b"gzip" in headers.get(b"accept-encoding", b"")
    body = asset.zipped if is_zipped else asset.body
    shape = [(b"content-type", asset.type), (b"content-length", b"%d" % len(body))]
    if is_zipped:
        shape.append((b"content-encoding", b"gzip"))
    await _begin(send, 200, [*shape, *cached])
    await send({"type": "http.response.body", "body": body})
