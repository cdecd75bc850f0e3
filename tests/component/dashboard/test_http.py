"""The live page's port, on real sockets: what it answers, to whom, and what slow or silent clients cost it."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from pipeline.dashboard import assets
from pipeline.service.web import REQUEST_BYTES_MAX
from tests.harness.dashboard_server import SECONDS_MAX, STREAMS_MAX, serving

LIBRARY = "/chart.umd.js"
EVERYWHERE = "0.0.0.0"  # noqa: S104  # Given as a setting; the test itself listens on loopback.


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
async def test_the_files_of_the_page_are_served_with_their_types(path: str, kind: str) -> None:
    """`nosniff` makes a wrong type an empty page."""
    async with serving() as page:
        answer = await page.get(path)

    assert (answer.status, answer.headers["content-type"]) == (200, kind)
    assert answer.body == assets.load()[path].body


async def test_every_answer_forbids_foreign_scripts_frames_and_connections() -> None:
    """A hostile text in a record that somehow became markup could still load and send nothing."""
    async with serving() as page:
        answers = [await page.get(path) for path in ("/", "/nothing", "/page.js")]

    for answer in answers:
        assert answer.headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


async def test_the_chart_library_travels_compressed_and_once() -> None:
    """It has 210 KB; a browser that has it need not take it again."""
    async with serving() as page:
        zipped = await page.get(LIBRARY, accept_encoding="gzip, br")
        plain = await page.get(LIBRARY)
        again = await page.get(LIBRARY, if_none_match=plain.headers["etag"])

    assert zipped.headers["content-encoding"] == "gzip"
    assert gzip.decompress(zipped.body) == plain.body
    assert len(zipped.body) < 80_000
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/events"])
async def test_nothing_can_be_changed(method: str, path: str) -> None:
    """Read-only is a promise."""
    async with serving() as page:
        answer = await page.get(path, method=method)

    assert (answer.status, answer.headers["allow"]) == (405, "get, head")


@pytest.mark.parametrize("path", ["/", "/events", "/healthz"])
async def test_head_is_answered_without_a_body(path: str) -> None:
    async with serving() as page:
        answer = await page.get(path, method="HEAD")

    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    "path", ["/nothing", "/../settings.py", "//", "/events/", "/static/page.js", "/%2e%2e/page.js"]
)
async def test_any_other_path_is_not_found(path: str) -> None:
    """Files are looked up by name, never on the disk."""
    async with serving() as page:
        assert (await page.get(path)).status == 404


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8083", "localhost:8083", "LOCALHOST", "[::1]:8083"])
async def test_on_loopback_its_own_names_are_answered(host: str) -> None:
    async with serving() as page:
        assert (await page.get("/", host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    ["page.example", "127.0.0.1.evil.example", "evil.example:8083", "[::1].evil", "localhost@evil.example", "", "[::1"],
)
async def test_on_loopback_no_other_name_is_answered(host: str) -> None:
    """A foreign site whose name resolves to 127.0.0.1 would read the page with the reader's own browser otherwise."""
    async with serving() as page:
        assert (await page.get("/", host=host)).status == 421


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_load_balancer_may_ask_by_any_name_whether_it_is_alive(path: str) -> None:
    async with serving() as page:
        assert (await page.get(path, host="10.1.2.3:8083")).status == 200
        assert (await page.get(path, host="")).status == 200


async def test_a_proxys_name_can_be_allowed_and_elsewhere_than_on_loopback_any_name_is() -> None:
    """Only the operator knows by which names a public address is asked for."""
    async with serving(allowed_hosts=("ops.example",)) as page:
        assert (await page.get("/", host="ops.example")).status == 200
        assert (await page.get("/", host="other.example")).status == 421
    async with serving(host=EVERYWHERE) as page:
        assert (await page.get("/", host="anything.example")).status == 200
    async with serving(host=EVERYWHERE, allowed_hosts=("ops.example",)) as page:
        assert (await page.get("/", host="anything.example")).status == 421


async def test_a_foreign_site_cannot_hold_a_place_in_the_stream() -> None:
    """It could not read it, but 32 hidden images would lock the operator out."""
    async with serving() as page:
        assert (await page.get("/events", sec_fetch_site="cross-site")).status == 403


async def test_the_stream_begins_with_what_is_shown_and_goes_on_as_it_changes() -> None:
    """Pushed, not polled."""
    async with serving() as page:
        page.snapshot.show("rates", b"[1]")
        stream = await page.open("/events", sec_fetch_site="same-origin")
        head = await stream.until(b"\r\n\r\n")
        await stream.until(b"retry: 1000\n\n")
        await stream.until(b"event: rates\ndata: [1]\n\n")
        page.snapshot.show("rates", b"[2]")
        await stream.until(b"event: rates\ndata: [2]\n\n")
        page.snapshot.close()
        rest = await asyncio.wait_for(stream.reader.read(), SECONDS_MAX)

    assert b"content-type: text/event-stream" in head
    assert b"event" not in rest


async def test_streams_are_bounded_and_a_place_is_free_again_when_a_page_is_closed() -> None:
    """Two places here: a third page is asked to come again."""
    async with serving() as page:
        first, second = [await page.open("/events") for _ in range(STREAMS_MAX)]
        for stream in (first, second):
            await stream.until(b"retry: 1000\n\n")
        refused = await page.get("/events")
        first.writer.close()
        async with asyncio.timeout(SECONDS_MAX):
            while b" 200 " not in await (await page.open("/events")).until(b"\r\n"):
                pass

    assert (refused.status, refused.headers["retry-after"]) == (503, "5")


async def test_a_client_that_stops_reading_is_cut_off_and_the_others_go_on() -> None:
    """What it did not read is neither kept nor waited for."""
    async with serving(silence_seconds_max=0.5) as page:
        stuck, other = await page.open("/events"), await page.open("/events")
        await stuck.until(b"retry: 1000\n\n")
        stuck.stop_reading()
        number = 0
        async with asyncio.timeout(SECONDS_MAX):
            while page.connections == 2:
                number += 1
                page.snapshot.show("rates", b'"%d%s"' % (number, b"x" * 1_000_000))
                await other.until_state(number)

        assert page.connections == 1
        page.snapshot.show("rates", b'"%dx"' % (number + 1))
        await other.until_state(number + 1)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"\r\n\r\n", b"\r\n\r\nGET / HT"])
async def test_a_connection_that_asks_for_nothing_is_cut_off(sent: bytes) -> None:
    """It would hold a descriptor for ever. Empty lines before a request are allowed (RFC 9112, 2.2), and are none."""
    async with serving(silence_seconds_max=0.2) as page:
        assert await page.sent(sent) == b""


async def test_a_head_without_end_is_cut_off() -> None:
    """uvicorn would keep all of it."""
    async with serving() as page:
        assert await page.sent(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * REQUEST_BYTES_MAX) == b""


async def test_connections_beyond_the_bound_are_cut_off() -> None:
    """A connection costs a descriptor before it asks for anything."""
    async with serving(connections_max=2) as page:
        for _ in range(2):
            await (await page.open("/events")).until(b"retry: 1000\n\n")

        assert await page.sent(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
        assert page.connections == 2
