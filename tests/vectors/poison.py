"""
Hostile raw records, each with what must become of it: a reason of `rejected`, or ``ignored/<type>``.

They are what could stand in raw, no matter who wrote it; the bridge lets through any body of up to 64 KiB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from pipeline.core.event import media_id_of

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MEDIA_ID = "poison"
BRACKETS = 30_000  # Twice as many fit into a body.


class Poison(NamedTuple):
    """A raw record. `timestamp` is the broker's, in ms; None: now. A header's value can be null."""

    name: str
    outcome: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp: int | None


def poison(name: str, outcome: str, value: bytes | None, **changed: object) -> Poison:
    """Make a record with the key that the bridge would give it."""
    plain = Poison(name, outcome, media_id_of(value or b""), value, [("source", b"http")], None)
    return plain._replace(**changed)  # type: ignore[arg-type]  # A shorthand for the table below.


class Body:
    """The bodies of one moment: a valid one, and ways to spoil it."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.fields = {
            "EventType": '"DeleteMediaComplete"',
            "EventTime": f'"{self.time()}"',
            "Status": '"success"',
            "MediaType": '"video"',
            "DeleteType": '"all"',
            "MediaId": f'"{MEDIA_ID}"',
        }

    def time(self, **apart: int) -> str:
        """Write the time that is *apart* (see timedelta) from now."""
        return f"{self.now + timedelta(**apart):%Y-%m-%dT%H:%M:%SZ}"

    def having(self, **fields: str) -> bytes:
        """Return the valid body with some fields' JSON replaced or added."""
        members = (f'"{name}":{value}' for name, value in (self.fields | fields).items())
        return ("{" + ",".join(members) + "}").encode(errors="surrogatepass")

    def without(self, name: str) -> bytes:
        """Return the valid body without a field."""
        members = (f'"{other}":{value}' for other, value in self.fields.items() if other != name)
        return ("{" + ",".join(members) + "}").encode()

    def and_then(self, fragment: bytes) -> bytes:
        """Return the valid body with *fragment* in front of its closing brace."""
        return self.having()[:-1] + fragment + b"}"


def honest(now: datetime, media_id: str = MEDIA_ID) -> tuple[bytes, bytes]:
    """Return key and body of a deletion that must be accepted; the conflicts below are conflicts with it."""
    return media_id.encode(), Body(now).having(MediaId=json.dumps(media_id))


WRONG_VALUES = ["null", "true", "0", "1.5", "-1e400", "[]", "{}", '["success"]', '{"a":"b"}', "18446744073709551616"]

WRONG_TIMES = [
    "", " ", "now", "0", "1704110400", "1704110400000", "2024-01-01", "12:00:00Z", "2024-01-01T12:00:00",
    "2024-01-01 12:00:00Z", "2024-01-01t12:00:00Z", "2024-01-01T12:00:00z", "2024-01-01T12:00:00ZZ",
    "2024-01-01T12:00:00Z ", " 2024-01-01T12:00:00Z", "2024-01-01T12:00:00Z\n", "2024-01-01T12:00:00.000Z",
    "2024-01-01T12:00:00,5Z", "2024-01-01T12:00Z", "2024-01-01T12:00:00+00:00", "2024-01-01T12:00:00+08:00",
    "2024-01-01T12:00:00-00:00", "2024-1-1T12:00:00Z", "24-01-01T12:00:00Z", "02024-01-01T12:00:00Z",
    "+2024-01-01T12:00:00Z", "-2024-01-01T12:00:00Z", "20240101T120000Z", "2024-W01-1T12:00:00Z",
    "2024-001T12:00:00Z", "2024/01/01T12:00:00Z", "2024-01-01T12-00-00Z", "2024-00-01T12:00:00Z",
    "2024-13-01T12:00:00Z", "2024-01-00T12:00:00Z", "2024-01-32T12:00:00Z", "2023-02-29T12:00:00Z",
    "2024-02-30T12:00:00Z", "2024-01-01T24:00:00Z", "2024-01-01T25:00:00Z", "2024-01-01T12:60:00Z",
    "2016-12-31T23:59:60Z", "2024-01-01T12:00:61Z", "0000-01-01T00:00:00Z", "9999-99-99T99:99:99Z",
    "\uff12\uff10\uff12\uff14-01-01T12:00:00Z", "2024\u201001\u201001T12:00:00Z",
    "2024-01-01T12:00:00\u200bZ", "2024-01-01T12:00:00Z\x00",
    "\u0662\u0660\u0662\u0664-01-01T12:00:00Z", "Mon, 01 Jan 2024 12:00:00 GMT", "2024-01-01T12:00:00Z" * 1000,
    "\ufeff2024-01-01T12:00:00Z",
]  # fmt: skip

NOT_OBJECTS = [
    b"null", b"true", b"false", b"0", b"-1", b"1e3", b'""', b'"DeleteMediaComplete"', b"[]", b"[{}]", b"[[[[]]]]",
    b" [1,2,3] ", b'"' + b"x" * 60_000 + b'"', b"12345678901234567890123456789", b'["EventType","TranscodeComplete"]',
]  # fmt: skip

NOT_JSON = [
    b"", b" ", b"\n", b"\x00", b"\xff", b"{", b"}", b"[", b"]", b'"', b"'", b"nul", b"True", b"None", b"undefined",
    b"{]", b"[}", b"{}{}", b"{},", b"{,}", b"{1:2}", b"{a:1}", b"{'a':1}", b'{"a"}', b'{"a":}', b'{"a":1,}',
    b'{"a" 1}', b'{"a":1 "b":2}', b"[1,]", b"[1 2]", b"01", b"+1", b"1.", b".5", b"0x1f", b"1e", b"--1", b"NaN",
    b"Infinity", b"-Infinity", b'{"a":1}//', b'/*{}*/{"a":1}', b'"\\x41"', b'"\\u12"', b'"\n"', b'"\t"',
    b"<?xml version='1.0'?><Message/>", b"EventType=DeleteMediaComplete", b"a: 1\n", b"\x1f\x8b\x08\x00", b"(dp0\n.",
    b"eyJFdmVudFR5cGUiOiJEZWxldGVNZWRpYUNvbXBsZXRlIn0=", b"\x80\x04\x95", b"<html><body>502 Bad Gateway</body></html>",
]  # fmt: skip


def _wrong_fields(body: Body) -> Iterator[Poison]:
    for name in body.fields:
        yield poison(f"no {name}", "invalid_field", body.without(name))
        for value in WRONG_VALUES:
            # A number that overflows is none that JSON can hold.
            outcome = "invalid_json" if value == "-1e400" else "invalid_field"
            yield poison(f"{name} {value}", outcome, body.having(**{name: value}))
    for name in ("JobIds", "ErrorCode", "ErrorMessage"):
        for value in ("null", "true", "0", "{}", "[0]", '["a",null]', '[["a"]]'):
            yield poison(f"{name} {value}", "invalid_field", body.having(**{name: value}))
    for name, value in [
        ("Status", "Success"), ("Status", "failed"), ("Status", ""), ("Status", "success "), ("Status", "成功"),
        ("MediaType", "VIDEO"), ("MediaType", "audio"), ("DeleteType", "All"), ("DeleteType", "\x00all"),
        ("MediaId", ""), ("MediaId", "m" * 257), ("MediaId", "m" * 60_000), ("MediaId", "é" * 257),
        ("ErrorCode", "c" * 129), ("ErrorCode", "c" * 60_000),
    ]:  # fmt: skip
        yield poison(f"{name} {value[:20]!r} ({len(value)})", "invalid_field", body.having(**{name: json.dumps(value)}))
    yield poison("30,000 wrong JobIds", "invalid_field", body.having(JobIds="[" + "0," * 30_000 + "0]"))
    yield poison("names in lower case", "invalid_field", body.having().lower())
    yield poison("translated names", "invalid_field", '{"ステータス":"success","メディアID":"m"}'.encode())
    yield poison("a name that ends in NUL", "invalid_field", body.having().replace(b'"Status"', b'"Status\\u0000"'))
    yield poison("an empty object", "invalid_field", b"{}")
    yield poison("an empty name", "invalid_field", b'{"":1}')
    yield poison("an array around nothing we know", "invalid_field", b'{"EventType":["DeleteMediaComplete"]}')
    yield poison("20,000 empty lists", "invalid_field", body.having(Status="0", x="[" + "[]," * 20_000 + "0]"))
    yield poison("Status twice, the last wrong", "invalid_field", body.and_then(b',"Status":"gone"'))
    yield poison("MediaId twice, the last empty", "invalid_field", body.and_then(b',"MediaId":""'))


def _times(body: Body) -> Iterator[Poison]:
    for text in WRONG_TIMES:
        yield poison(f"EventTime {text[:40]!r}", "invalid_field", body.having(EventTime=json.dumps(text)))
    for text, outcome in [
        (body.time(minutes=20), "event_time_in_future"), (body.time(days=1), "event_time_in_future"),
        ("9999-12-31T23:59:59Z", "event_time_in_future"), (body.time(days=-9), "event_time_expired"),
        ("1970-01-01T00:00:00Z", "event_time_expired"), ("1969-12-31T23:59:59Z", "event_time_expired"),
        ("0001-01-01T00:00:00Z", "event_time_expired"),
    ]:  # fmt: skip
        yield poison(f"EventTime {text}", outcome, body.having(EventTime=f'"{text}"'))
    # Only a topic without LogAppendTime could have these.
    for timestamp, outcome in [
        (INT64_MAX, "event_time_expired"), (INT64_MAX - 1, "event_time_expired"), (2**53, "event_time_expired"),
        (INT64_MIN, "event_time_in_future"), (-1, "event_time_in_future"), (0, "event_time_in_future"),
    ]:  # fmt: skip
        yield poison(f"timestamp {timestamp}", outcome, body.having(), timestamp=timestamp)


def _not_json(body: Body) -> Iterator[Poison]:
    for value in NOT_JSON:
        yield poison(f"no JSON {value[:30]!r}", "invalid_json", value)
    text = body.having().decode()
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7-ish"):
        value = text.encode(encoding) if encoding != "utf-7-ish" else b"+AHs-" + text[1:].encode()
        yield poison(encoding, "invalid_json", value)
    for name, fragment in [
        ("a lone leading surrogate", b',"x":"\\ud800"'), ("a lone trailing surrogate", b',"x":"\\udc00"'),
        ("a surrogate as a name", b',"\\udfff":1'), ("surrogates the wrong way round", b',"x":"\\udc00\\ud800"'),
        ("a surrogate in UTF-8", b',"x":"\xed\xa0\x80"'), ("NUL in UTF-8 of two bytes", b',"x":"\xc0\x80"'),
        ("a code point over 10FFFF", b',"x":"\xf4\x90\x80\x80"'), ("half a character", b',"x":"\xc3"'),
        ("Latin-1", b',"x":"\xe9"'), ("NUL", b',"x":"\x00"'), ("a line break", b',"x":"\n"'),
        ("NUL after the text", b"}\x00"), ("two objects", b"}{"), ("NaN", b',"x":NaN'), ("Infinity", b',"x":Infinity'),
        ("-Infinity", b',"x":[-Infinity]'), ("a number over a double", b',"x":1e400'),
        ("a number with zeros", b',"x":00'),
        ("10,000 digits", b',"x":' + b"9" * 10_000), ("10,000 digits below zero", b',"x":-' + b"9" * 10_000),
        ("30,000 open brackets", b',"x":' + b"[" * BRACKETS),
        ("30,000 brackets", b',"x":' + b"[" * BRACKETS + b"]" * BRACKETS),
        ("10,000 objects deep", b',"x":' + b'{"":' * 10_000 + b"0" + b"}" * 10_000), ("a trailing comma", b","),
        ("an unknown escape", b',"x":"\\q"'), ("a string without end", b',"x":"'), ("a comment", b"/**/"),
    ]:  # fmt: skip
        yield poison(name, "invalid_json", body.and_then(fragment))
    for length in (1, 20, len(text) // 2, len(text) - 1):
        yield poison(f"cut after {length} bytes", "invalid_json", text[:length].encode())
    yield poison("60,000 open brackets", "invalid_json", b"[" * 60_000)
    yield poison("60,000 open objects", "invalid_json", b'{"":' * 15_000)


def _records(body: Body) -> Iterator[Poison]:
    """What is wrong with the record, whatever is in it."""
    valid = body.having()
    yield poison("a tombstone", "invalid_json", None, key=MEDIA_ID.encode())
    yield poison("neither key nor value", "invalid_json", None, key=None)
    for name, key in [
        ("no key", None), ("an empty key", b""), ("another key", b"other"), ("the key in upper case", b"POISON"),
        ("a key with a space", b"poison "), ("a key that is no UTF-8", b"\xff\xfe"), ("a key with NUL", b"poison\x00"),
        ("a key of 60,000 bytes", b"k" * 60_000), ("a quoted key", b'"poison"'),
    ]:  # fmt: skip
        yield poison(name, "invalid_field", valid, key=key)
    for size in (65_537, 100_000, 120_000):
        yield poison(f"{size} bytes", "body_too_large", b" " * (size - len(valid)) + valid, key=MEDIA_ID.encode())
    yield poison("100,000 brackets", "body_too_large", b"[" * 100_000)
    yield poison("100,000 bytes of another type", "body_too_large", b'{"EventType":"X"}' + b" " * 100_000)
    spoiled = body.having(Status='"gone"')
    for name, headers in [
        ("no headers", []),
        ("a header of 100,000 bytes", [("h", b"x" * 100_000)]),
        ("a header name of 10,000 letters", [("h" * 10_000, b"")]),
        ("5,000 headers", [("h", b"x")] * 5000),
        ("a null header", [("received-at", None), ("source", None)]),
        ("an empty header name", [("", b"")]),
        ("our own headers", [("reason", b"conflict"), ("detail", b"forged"), ("raw-offset", b"-1"), ("decision", b"")]),
        ("a received-at that is no number", [("received-at", b"\xb2\xff")]),
        ("a received-at with 10,000 digits", [("received-at", b"9" * 10_000)]),
    ]:  # fmt: skip
        yield poison(name, "invalid_field", spoiled, headers=headers)
    for name, field, value in [
        ("another status", "Status", '"fail"'), ("another type", "DeleteType", '"stream"'),
        ("an unknown field", "x", "1"), ("an unknown field that is null", "x", "null"),
        ("an ErrorMessage of 60,000 bytes", "ErrorMessage", json.dumps("x" * 60_000)), ("JobIds", "JobIds", '"a,b"'),
    ]:  # fmt: skip
        yield poison(f"the same event with {name}", "conflict", body.having(**{field: value}))


def _ignored(body: Body) -> Iterator[Poison]:
    for text, label in [
        ("TranscodeComplete", "TranscodeComplete"), ("MediaBaseChangeComplete", "MediaBaseChangeComplete"),
        ("", "other"), ("deletemediacomplete", "other"), ("DeleteMediaComplete ", "other"), ("\u0000", "other"),
        ("DeleteMediaComplete\u0000", "other"), ("\uff24eleteMediaComplete", "other"), ("x" * 60_000, "other"),
        ("transcodecomplete", "other"), ("other", "other"), ("|,\n\u2028\u202e", "other"),
    ]:  # fmt: skip
        yield poison(f"EventType {text[:30]!r}", f"ignored/{label}", body.having(EventType=json.dumps(text)))
    foreign = b'"EventType":"TranscodeComplete"'
    yield poison("another type alone", "ignored/TranscodeComplete", b"{" + foreign + b"}")
    yield poison("another type, and everything wrong", "ignored/TranscodeComplete", b'{"MediaId":0,' + foreign + b"}")
    yield poison("another type last", "ignored/TranscodeComplete", body.and_then(b"," + foreign))
    yield poison("another type under a wrong key", "ignored/TranscodeComplete", b"{" + foreign + b"}", key=b"\xff")


def corpus(now: datetime) -> list[Poison]:
    """Return the whole table; *now* is when the records arrive, to the second, and when `honest` was accepted."""
    body = Body(now)
    return [
        *_wrong_fields(body),
        *_times(body),
        *((poison(f"no object {value[:30]!r}", "not_an_object", value)) for value in NOT_OBJECTS),
        *_not_json(body),
        *_records(body),
        *_ignored(body),
    ]
