"""
The page's ASGI application: a few files, and a stream of server-sent events. It answers GET and HEAD, and only reads.

A slow reader is sent the newest state when it can take one; what it missed is not kept. By which name the page is asked
for is checked, since a foreign site can have its own name resolve to our address (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.dashboard.assets import Asset
from pipeline.dashboard.snapshot import Snapshot
from pipeline.service.settings import DashboardSettings

STREAMS_MAX = 32
RECONNECT_MILLISECONDS = 1000
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]*)?")  # RFC 9110, 7.2: a name or address, and perhaps a port.
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_EVERY_ANSWER = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    # One request a connection: after its head, a client owes nothing but to read.
    "connection": "close",
}
_STREAM = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}


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


def build_app(
    assets: Mapping[str, Asset],
    snapshot: Snapshot,
    *,
    hosts: frozenset[str] | None,
    problems: Callable[[], list[str]],
    streams_max: int = STREAMS_MAX,
) -> Starlette:
    """
    Build the application.

    Args:
        assets: The files, by path.
        snapshot: What the stream sends, until it is closed.
        hosts: See `allowed_hosts`.
        problems: Why /readyz says 503; empty if it does not.
        streams_max: How many streams there may be at once.
    """

    async def healthz(_: Request) -> Response:
        return _text(200, "alive")

    async def readyz(_: Request) -> Response:
        found = problems()
        return _text(503 if found else 200, "\n".join(found or ["ready"]))

    async def not_found(_: Request, __: Exception) -> Response:
        return _text(404, "there are /, /events, /healthz and /readyz")

    async def not_allowed(_: Request, __: Exception) -> Response:
        return _text(405, "the page only shows", {"allow": "GET, HEAD"})

    app = Starlette(
        routes=[
            *(Route(path, partial(_file, asset)) for path, asset in assets.items()),
            Route("/events", _Events(snapshot, streams_max), methods=["GET"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ],
        middleware=[Middleware(_Front, hosts=hosts)],
        exception_handlers={404: not_found, 405: not_allowed},
    )
    app.router.redirect_slashes = False
    return app


_HEALTH = ("/healthz", "/readyz")


class _Front:
    """Refuses what asks for the page by a foreign name, and gives every answer the headers that all have."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_EVERY_ANSWER)
            await send(message)

        # A load balancer asks whether it is alive by whatever name; that is no secret.
        is_ours = scope.get("path") in _HEALTH or self._is_ours(Headers(scope=scope).getlist("host"))
        app = self._app if is_ours else _text(421, "ask for this page by a name in dashboard.allowed_hosts")
        await app(scope, receive, send_with_headers)

    def _is_ours(self, hosts: list[str]) -> bool:
        if self._hosts is None:
            return True
        found = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        return found is not None and found[1] in self._hosts


class _Events:
    """The stream, as an ASGI application of its own: its place is free again however the stream ends."""

    def __init__(self, snapshot: Snapshot, streams_max: int) -> None:
        self._snapshot = snapshot
        self._streams_max = streams_max
        self._streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if Headers(scope=scope).get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            # A foreign page would hold a place in it.
            await _text(403, "only this page reads this stream")(scope, receive, send)
        elif self._streams >= self._streams_max:
            await _text(503, "too many pages are open", {"retry-after": "5"})(scope, receive, send)
        else:
            self._streams += 1
            try:
                async with aclosing(self._parts(is_empty=scope["method"] == "HEAD")) as parts:
                    await StreamingResponse(parts, headers=_STREAM)(scope, receive, send)
            finally:
                self._streams -= 1

    async def _parts(self, *, is_empty: bool) -> AsyncGenerator[bytes]:
        if is_empty:
            return
        yield b"retry: %d\n\n" % RECONNECT_MILLISECONDS
        version = 0
        while not self._snapshot.is_closed:
            version, sections = self._snapshot.newer_than(version)
            if sections:
                # Goes on once the client has taken most of what came before: this is what slow readers wait in.
                yield b"".join(b"event: %s\ndata: %s\n\n" % (name.encode(), data) for name, data in sections)
            await self._snapshot.changed_since(version)


def _text(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{text}\n", status, {"cache-control": "no-store", **(headers or {})})


async def _file(asset: Asset, request: Request) -> Response:
    # no-cache: the browser keeps it, and asks whether it is still the one; after an upgrade it is not.
    headers = {"cache-control": "no-cache", "etag": asset.tag, "vary": "accept-encoding"}
    if asset.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(asset.body, headers=headers, media_type=asset.type)
    return Response(asset.zipped, headers={**headers, "content-encoding": "gzip"}, media_type=asset.type)
