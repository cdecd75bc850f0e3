"""Hostile requests, and what becomes of each: a table for tests of one connection and of a served port."""

from __future__ import annotations

from typing import NamedTuple

from tests.harness.bridge_server import SIGNED, head, post

BODY = b'{"MediaId":"m"}'
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNKS = b"f\r\n" + BODY + b"\r\n0\r\n\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
MEGABYTE = b"x" * 1_000_000


class Case(NamedTuple):
    """What a client sends, and what becomes of it."""

    name: str
    sent: bytes
    answers: tuple[int, ...]
    counted: dict[str, int]
    published: tuple[bytes, ...] = ()
    half_closes: bool = False  # The client, after it has sent everything.
    stays_open: bool = False  # The connection, after the last answer.


def target(target: bytes, *, version: bytes = b"HTTP/1.1", method: bytes = b"POST") -> bytes:
    return head(LENGTH, first=b" ".join((method, target, version))) + BODY


def taken(name: str, sent: bytes, *bodies: bytes, answers: tuple[int, ...] = (), stays_open: bool = True) -> Case:
    published = bodies or (BODY,)
    answers = answers or (200,) * len(published)
    return Case(name, sent, answers, {"published": len(published)}, published, stays_open=stays_open)


def malformed(name: str, sent: bytes) -> Case:
    return Case(name, sent, (400,), {"malformed": 1})


def refused(name: str, sent: bytes, status: int, outcome: str) -> Case:
    return Case(name, sent, (status,), {outcome: 1})


LENGTHS_AND_CODINGS = [
    malformed("length, then chunked", head(LENGTH, CHUNKED) + CHUNKS),
    malformed("chunked, then length", head(CHUNKED, LENGTH) + CHUNKS),
    malformed("two equal lengths", head(LENGTH, LENGTH) + BODY),
    malformed("two lengths", head(LENGTH, b"content-length: 0\r\n") + BODY),
    malformed("a list of lengths", head(b"content-length: 15, 15\r\n") + BODY),
    malformed("a negative length", head(b"content-length: -15\r\n") + BODY),
    malformed("a length with a plus", head(b"content-length: +15\r\n") + BODY),
    malformed("a length in hex", head(b"content-length: 0xf\r\n") + BODY),
    malformed("an empty length", head(b"content-length:\r\n") + BODY),
    malformed("a length with a gap", head(b"content-length: 1 5\r\n") + BODY),
    malformed("a space before the colon", head(b"content-length : 15\r\n") + BODY),
    malformed("a length over 64 bits", head(b"content-length: 18446744073709551616\r\n") + BODY),
    refused("a length of 64 bits", head(b"content-length: 18446744073709551615\r\n") + BODY, 413, "body_too_large"),
    taken("a length with zeros in front", head(b"content-length: 000015\r\n") + BODY),
    malformed("identity", head(b"transfer-encoding: identity\r\n") + BODY),
    malformed("chunked, but not last", head(b"transfer-encoding: chunked, identity\r\n") + CHUNKS),
    malformed("nearly chunked", head(b"transfer-encoding: xchunked\r\n") + CHUNKS),
    malformed("chunked behind a vertical tab", head(b"transfer-encoding: \x0bchunked\r\n") + CHUNKS),
    malformed("chunked on a line continued", head(b"transfer-encoding:\r\n chunked\r\n") + CHUNKS),
    malformed("chunked twice", head(CHUNKED, CHUNKED) + CHUNKS),
    taken("CHUNKED", head(b"Transfer-Encoding: CHUNKED\r\n") + CHUNKS),
    taken("chunked in HTTP/1.0", head(CHUNKED, first=b"POST /your/callback HTTP/1.0") + CHUNKS, stays_open=False),
    # Not even decoded: what was gzipped stays so, is no JSON, and reaches the dead letters as it came.
    taken("gzip, chunked", head(b"transfer-encoding: gzip, chunked\r\n") + CHUNKS),
    refused("neither length nor coding", head(), 411, "length_missing"),
    refused("neither, and a body", head(b"connection: close\r\n") + BODY, 411, "length_missing"),
    refused(
        "neither, and a body, in HTTP/1.0", head(first=b"POST /your/callback HTTP/1.0") + BODY, 411, "length_missing"
    ),
]
BODIES = [
    taken("a chunk for each byte", head(CHUNKED) + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"),
    taken(
        "the largest body, a chunk for each byte", head(CHUNKED) + b"1\r\nx\r\n" * 65_536 + b"0\r\n\r\n", b"x" * 65_536
    ),
    taken("chunk extensions", head(CHUNKED) + b'f;a=b;c="d"\r\n' + BODY + b"\r\n0;x\r\n\r\n"),
    malformed("a chunk extension that ends in LF", head(CHUNKED) + b"f;a\n" + BODY + b"\r\n0\r\n\r\n"),
    malformed("a chunk size over 64 bits", head(CHUNKED) + b"FFFFFFFFFFFFFFFFF\r\n" + BODY),
    refused("a chunk size of 64 bits", head(CHUNKED) + b"FFFFFFFFFFFFFFFF\r\n" + BODY, 408, "body_timeout"),
    malformed("a negative chunk size", head(CHUNKED) + b"-f\r\n" + BODY + b"\r\n0\r\n\r\n"),
    malformed("a chunk size with 0x", head(CHUNKED) + b"0xf\r\n" + BODY + b"\r\n0\r\n\r\n"),
    malformed("a chunk size and a space", head(CHUNKED) + b"f \r\n" + BODY + b"\r\n0\r\n\r\n"),
    malformed("a chunk longer than its size", head(CHUNKED) + b"e\r\n" + BODY + b"\r\n0\r\n\r\n"),
    malformed("chunks in bare LF", head(CHUNKED) + CHUNKS.replace(b"\r", b"")),
    taken("a trailer", head(CHUNKED) + CHUNKS[:-2] + b"x: y\r\n\r\n"),
    taken("an upgrade in a trailer", head(CHUNKED) + CHUNKS[:-2] + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"),
    refused("a signature in a trailer", head(CHUNKED, signed=b"") + CHUNKS[:-2] + SIGNED + b"\r\n", 403, "denied"),
    malformed("a length in a trailer", head(CHUNKED) + CHUNKS[:-2] + b"content-length: 0\r\n\r\n"),
    refused("an endless trailer", head(CHUNKED) + CHUNKS[:-2] + b"x: " + MEGABYTE * 2, 413, "body_too_large"),
    refused("endless trailers", head(CHUNKED) + CHUNKS[:-2] + b"a:b\r\n" * 400_000, 431, "head_too_large"),
    taken("100 trailers", head(CHUNKED) + CHUNKS[:-2] + b"a:b\r\n" * 100 + b"\r\n"),
    refused("101 trailers", head(CHUNKED) + CHUNKS[:-2] + b"a:b\r\n" * 101 + b"\r\n", 431, "head_too_large"),
    refused("an endless chunk extension", head(CHUNKED) + b"1;" + MEGABYTE * 2, 413, "body_too_large"),
    refused(
        "chunks over the cap together",
        head(CHUNKED) + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 17,
        413,
        "body_too_large",
    ),
    refused("a chunk over the cap", head(CHUNKED) + b"10001\r\n" + b"x" * 65_537, 413, "body_too_large"),
    taken("a body at the cap", post(b"x" * 65_536), b"x" * 65_536),
    refused("a body over the cap", post(b"x" * 65_537), 413, "body_too_large"),
    refused("a body of megabytes", post(MEGABYTE * 4), 413, "body_too_large"),
    refused("a body shorter than announced", head(b"content-length: 16\r\n") + BODY, 408, "body_timeout"),
    Case("the same, and half closed", head(b"content-length: 16\r\n") + BODY, (), {"client_gone": 1}, (), True),
    Case(
        "a body longer than announced",
        head(LENGTH) + BODY + b"more",
        (200, 400),
        {"published": 1, "malformed": 1},
        (BODY,),
    ),
    taken("a body with a line break too many", post(BODY) + b"\r\n"),
    taken("an empty body", post(b""), b""),
    taken("a body of null bytes", post(b"\0" * 1000), b"\0" * 1000),
    taken("a body that is not UTF-8", post(b'{"MediaId":"\xff\xfe"}'), b'{"MediaId":"\xff\xfe"}'),
    taken("a body in UTF-16", post(BODY.decode().encode("utf-16")), BODY.decode().encode("utf-16")),
    taken("JSON 60,000 brackets deep", post(b"[" * 60_000), b"[" * 60_000),
    taken("an id 5,000 objects deep", post(b'{"MediaId":' * 5000), b'{"MediaId":' * 5000),
    refused("JSON 100,000 brackets deep", post(b"[" * 100_000), 413, "body_too_large"),
    taken("a repeated key", post(b'{"MediaId":"a","MediaId":"b"}'), b'{"MediaId":"a","MediaId":"b"}'),
    taken(
        "a number of 10,000 digits", post(b'{"MediaId":' + b"9" * 10_000 + b"}"), b'{"MediaId":' + b"9" * 10_000 + b"}"
    ),
    taken("an exponent of 10,000 digits", post(b'{"x":1e' + b"9" * 10_000 + b"}"), b'{"x":1e' + b"9" * 10_000 + b"}"),
]
FIRST_LINES = [
    refused("GET", target(b"/your/callback", method=b"GET"), 405, "method_not_allowed"),
    refused("HEAD", target(b"/your/callback", method=b"HEAD"), 405, "method_not_allowed"),
    refused("TRACE", target(b"/your/callback", method=b"TRACE"), 405, "method_not_allowed"),
    refused("OPTIONS *", target(b"*", method=b"OPTIONS"), 404, "not_found"),
    malformed("lower-case post", target(b"/your/callback", method=b"post")),
    malformed("a method no one knows", target(b"/your/callback", method=b"BREW")),
    malformed("CONNECT to a host", target(b"x:443", method=b"CONNECT")),
    refused("CONNECT to a path", target(b"/your/callback", method=b"CONNECT"), 405, "method_not_allowed"),
    taken("absolute form", target(b"http://elsewhere:99/your/callback")),
    malformed("absolute form without a path", target(b"http://elsewhere")),
    malformed("absolute form with a port over 65,535", target(b"http://elsewhere:99999/your/callback")),
    refused("two slashes", target(b"//your/callback"), 404, "not_found"),
    refused("a dot segment", target(b"/./your/callback"), 404, "not_found"),
    refused("an encoded dot segment", target(b"/%2e/your/callback"), 404, "not_found"),
    refused("an encoded letter", target(b"/%79our/callback"), 404, "not_found"),
    refused("an encoded byte that is not UTF-8", target(b"/your/callback%ff"), 404, "not_found"),
    refused("an encoded NUL", target(b"/your/callback%00"), 404, "not_found"),
    refused("a query no one configured", target(b"/your/callback?x"), 404, "not_found"),
    taken("an empty query", target(b"/your/callback?")),
    taken("a fragment", target(b"/your/callback#fragment")),
    malformed("a NUL in the path", target(b"/your\0/callback")),
    malformed("a byte that is not ASCII in the path", target(b"/your/callb\xe4ck")),
    malformed("no path", target(b"")),
    malformed("a relative path", target(b"your/callback")),
    malformed("tabs for spaces", target(b"/your/callback").replace(b" ", b"\t", 2)),
    refused("a path of 10,000 bytes", target(b"/" + b"x" * 10_000), 404, "not_found"),
    refused("a path of 60,000 bytes", target(b"/" + b"x" * 60_000), 431, "head_too_large"),
    refused("a path of 100,000 bytes", target(b"/" + b"x" * 100_000), 431, "head_too_large"),
    refused("a path without an end", b"POST /" + MEGABYTE * 2, 431, "head_too_large"),
    taken("HTTP/1.0", target(b"/your/callback", version=b"HTTP/1.0"), stays_open=False),
    taken(
        "HTTP/1.0 that wants to stay",
        head(LENGTH, b"connection: keep-alive\r\n", first=b"POST /your/callback HTTP/1.0") + BODY,
        stays_open=False,
    ),
    refused("HTTP/0.9", b"POST /your/callback\r\n", 408, "head_timeout"),
    refused("HTTP/0.9 with two line ends", b"POST /vod\r\n\r\n", 411, "length_missing"),
    malformed("HTTP/1.2", target(b"/your/callback", version=b"HTTP/1.2")),
    malformed("HTTP/11.1", target(b"/your/callback", version=b"HTTP/11.1")),
    malformed("http/1.1", target(b"/your/callback", version=b"http/1.1")),
    malformed("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    malformed("a TLS client hello", bytes.fromhex("16030100c8010000c40303") + b"r" * 150),
    malformed("a RESP command", b"*1\r\n$4\r\nPING\r\n"),
    malformed("random bytes", bytes(range(256)) * 4),
    refused("nothing but line breaks", b"\r\n" * 100_000, 431, "head_too_large"),
    taken("two line breaks in front", b"\r\n\r\n" + post(BODY)),
]
HEADERS = [
    malformed("lines that end in LF", post(BODY).replace(b"\r", b"")),
    malformed("one line that ends in LF", head(b"x: y\n", LENGTH) + BODY),
    malformed("a CR in a value", head(b"x: y\rz: 1\r\n", LENGTH) + BODY),
    malformed("a line continued", head(b"x: y\r\n z\r\n", LENGTH) + BODY),
    malformed("a first line continued", b"POST /vod HTTP/1.1\r\n host: x\r\n" + LENGTH + b"\r\n" + BODY),
    malformed("a NUL in a value", post(BODY, b"x: a\0b\r\n")),
    malformed("a NUL in a name", post(BODY, b"x\0: a\r\n")),
    malformed("a name that is not ASCII", post(BODY, b"x\xff: a\r\n")),
    malformed("a line without a colon", post(BODY, b"colon\r\n")),
    malformed("a header without a name", post(BODY, b": a\r\n")),
    taken("a value that is not ASCII", post(BODY, b"x: \xff\xfe\xc3\x28\r\n")),
    taken("no host", b"POST /vod HTTP/1.1\r\n" + LENGTH + b"\r\n" + BODY),
    taken("two hosts", post(BODY, b"host: elsewhere\r\n")),
    taken("a head just under 16 KiB", post(BODY, b"x: " + b"y" * 16_100 + b"\r\n")),
    refused("a head just over 16 KiB", post(BODY, b"x: " + b"y" * 16_384 + b"\r\n"), 431, "head_too_large"),
    refused("a header of 100 KB", post(BODY, b"x: " + b"y" * 100_000 + b"\r\n"), 431, "head_too_large"),
    refused("a header's name of 100 KB", post(BODY, b"x" * 100_000 + b": y\r\n"), 431, "head_too_large"),
    taken("100 headers", post(BODY, b"a:b\r\n" * 96)),
    refused("101 headers", post(BODY, b"a:b\r\n" * 97), 431, "head_too_large"),
    refused("5,000 headers", post(BODY, b"x-1234: 56789012345\r\n" * 5000), 431, "head_too_large"),
    refused("headers without an end", head()[:-2] + b"a:b\r\n" * 400_000, 431, "head_too_large"),
    refused("a header without an end", head()[:-2] + b"x: " + MEGABYTE * 2, 431, "head_too_large"),
    refused("a head that is not finished", head()[:-2], 408, "head_timeout"),
    refused("silence", b"", 408, "head_timeout"),
    refused("no signature", head(LENGTH, signed=b"") + BODY, 403, "denied"),
    refused("a signature that is not ASCII", head(LENGTH, signed=SIGNED[:-4] + b"\xff\xff\r\n") + BODY, 403, "denied"),
    refused(
        "a timestamp of 10,000 digits",
        head(LENGTH, signed=SIGNED.replace(b"1519375990", b"9" * 10_000)) + BODY,
        403,
        "denied",
    ),
    taken("expecting 100", head(LENGTH, b"expect: 100-continue\r\n") + BODY, answers=(100, 200)),
    refused("expecting 100, unsigned", head(LENGTH, b"expect: 100-continue\r\n", signed=b""), 403, "denied"),
    taken("expecting what no one knows", post(BODY, b"expect: 200-ok\r\n")),
    taken("upgrading to a web socket", post(BODY, b"connection: upgrade\r\nupgrade: websocket\r\n")),
    taken("upgrading to HTTP/2, as Java's client offers", post(BODY, H2C)),
    taken("the same, in chunks", head(CHUNKED, H2C) + CHUNKS),
    taken("the same, three at once", post(b"1", H2C) + post(b"2", H2C) + post(b"3"), b"1", b"2", b"3"),
    taken("the same, expecting 100", head(LENGTH, H2C, b"expect: 100-continue\r\n") + BODY, answers=(100, 200)),
    taken("the same, and closing", post(BODY, H2C.replace(b"Upgrade,", b"close, Upgrade,")), stays_open=False),
    taken(
        "the same in HTTP/1.0",
        target(b"/your/callback", version=b"HTTP/1.0").replace(LENGTH, LENGTH + H2C),
        stays_open=False,
    ),
    taken("an upgrade that the connection does not name", post(BODY, b"upgrade: h2c\r\n")),
    taken("two upgrades", post(BODY, b"connection: upgrade\r\nupgrade: a\r\nupgrade: b\r\n")),
    refused("upgrading with nothing to upgrade", head(H2C), 411, "length_missing"),
    refused("upgrading, unsigned", head(LENGTH, H2C, signed=b"") + BODY, 403, "denied"),
    refused("upgrading a GET", target(b"/vod", method=b"GET").replace(LENGTH, LENGTH + H2C), 405, "method_not_allowed"),
    refused("upgrading in 16 KiB", post(BODY, H2C, b"upgrade: %b\r\n" % (b"y" * 16_384)), 431, "head_too_large"),
    malformed("upgrading, and two lengths", head(LENGTH, H2C, b"content-length: 0\r\n") + BODY),
    malformed("upgrading, and a coding that is not chunked", head(H2C, b"transfer-encoding: identity\r\n") + BODY),
    malformed("upgrading, and chunked twice", head(H2C, CHUNKED, CHUNKED) + CHUNKS),
    taken("empty values", post(BODY, b"x:\r\ny: \r\nz:\t\r\n")),
    taken("a proxy's connection header", post(BODY, b"proxy-connection: keep-alive\r\n")),
    taken(
        "HTTP/1.0 with a proxy's connection header",
        target(b"/your/callback", version=b"HTTP/1.0").replace(LENGTH, LENGTH + b"proxy-connection: keep-alive\r\n"),
        stays_open=False,
    ),
    taken("upgrading to nothing", post(BODY, b"connection: upgrade\r\n")),
]
PIPELINES = [
    taken("three requests at once", post(b"1") + post(b"2") + post(b"3"), b"1", b"2", b"3"),
    taken("a request after the last", post(BODY, b"connection: close\r\n") + post(b"smuggled"), stays_open=False),
    Case("a denied one first", head(LENGTH, signed=b"") + BODY + post(BODY), (403,), {"denied": 1}),
    Case(
        "a request in a denied body", head(b"content-length: 9999\r\n", signed=b"") + post(BODY), (403,), {"denied": 1}
    ),
    taken("a request in a body", post(post(b"smuggled")), post(b"smuggled")),
    taken("16 sent ahead", post(BODY) * 17, *[BODY] * 17),
    Case("17 sent ahead", post(BODY) * 18, (*[200] * 17, 503), {"published": 17, "overloaded": 1}, (BODY,) * 17),
    refused("a megabyte of tiny requests", b"POST /vod HTTP/1.1\r\n\r\n" * 50_000, 411, "length_missing"),
    Case(
        "a megabyte of tiny callbacks",
        b"POST /vod HTTP/1.1\r\ncontent-length: 0\r\n\r\n" * 25_000,
        (*[200] * 17, 503),
        {"published": 17, "overloaded": 1},
        (b"",) * 17,
    ),
    Case(
        "a request behind one that is not taken",
        post(BODY) + head(LENGTH, signed=b"") + post(BODY),
        (200, 403),
        {"published": 1, "denied": 1},
        (BODY,),
    ),
]
CASES = [*LENGTHS_AND_CODINGS, *BODIES, *FIRST_LINES, *HEADERS, *PIPELINES]
