"""
What a raw record says: validated by the schema, or known to be valid because one like it was.

VOD's bodies repeat in everything but MediaId and EventTime. A body without those two is a shape; the schema judges each
shape once, and what follows is two look-ups instead of a parse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import ValidationError

from pipeline.core.event import BODY_BYTES_MAX, Content, content_of, explain, validate
from pipeline.core.outcome import Ignored, Reason, Rejected
from pipeline.core.windows import TimePolicy, parse_time

INSTANTS_CACHED_MAX = 20_000
SHAPES_CACHED_MAX = 8192
SHAPE_BYTES_MAX = 4096  # A body of 64 KiB would be kept as it is, and hardly come again.
LAYOUTS_PER_LENGTH_MAX = 4


class RecordRefusedError(Exception):
    """A record that is not an event of ours; carries why."""

    def __init__(self, outcome: Ignored | Rejected) -> None:
        self.outcome = outcome


def refusal(reason: Reason, detail: str) -> RecordRefusedError:
    """Reject for *reason*."""
    return RecordRefusedError(Rejected(reason, detail))


class Instant(NamedTuple):
    """An EventTime, understood once: ms since the epoch, the same as a key suffix, and the window that contains it."""

    at: int
    suffix: bytes
    window: int


def suffix_of(at: int) -> bytes:
    """Return what distinguishes the events of a MediaId: the time in 8 bytes."""
    return at.to_bytes(8, signed=True)


class _Layout(NamedTuple):
    """Where the two values stand in bodies of one length; the rest of such a body is its shape."""

    time: slice
    media_id: slice
    head: slice
    middle: slice
    tail: slice
    contents: dict[bytes, Content | None]
    """By shape. None: seen once, so it may never come again and is not worth the proof."""

    @classmethod
    def of(cls, body: bytes, time: bytes, media_id: bytes) -> _Layout | None:
        """Find the two values in *body*; None where one is not there exactly once, as it stands."""
        if body.count(time) != 1 or body.count(media_id) != 1:
            return None
        time_at, media_id_at = body.index(time), body.index(media_id)
        places = (slice(time_at, time_at + len(time)), slice(media_id_at, media_id_at + len(media_id)))
        first, second = places if time_at < media_id_at else places[::-1]
        if first.stop > second.start:
            return None
        return cls(
            *places,
            head=slice(0, first.start),
            middle=slice(first.stop, second.start),
            tail=slice(second.stop, None),
            contents={},
        )

    def shape(self, body: bytes) -> bytes:
        return body[self.head] + body[self.middle] + body[self.tail]

    def has(self, body: bytes, time: bytes, media_id: bytes) -> bool:
        return body[self.time] == time and body[self.media_id] == media_id

    def is_proven_by(self, body: bytes) -> bool:
        """Ask the schema about *body* with other values in the two places: are they EventTime and MediaId, then?"""
        other = bytearray(body)
        other[self.time] = b"T" * len(other[self.time])
        other[self.media_id] = (b"J" if body[self.media_id][:1] == b"I" else b"I") * len(other[self.media_id])
        try:
            event = validate(bytes(other))
        except ValidationError:
            return False
        return self.has(bytes(other), event["EventTime"].encode(), event["MediaId"].encode())


@dataclass(slots=True)
class BodyReader:
    """Reads the records of one partition; all it remembers are caches, each bounded."""

    policy: TimePolicy
    instants: dict[bytes, Instant] = field(default_factory=dict)
    _layouts: dict[int, list[_Layout]] = field(default_factory=dict)
    _shapes: int = 0

    def read(self, key: bytes | None, body: bytes | None) -> tuple[bytes, Instant, Content]:
        """
        Return the MediaId, the EventTime and the content of a record.

        Raises:
            RecordRefusedError: the record is none of ours, with the reason.
        """
        if key is None or body is None:
            return self._validate(key, body)
        # This loop is layout.shape() and layout.has() without the calls.
        for time, media_id, head, middle, tail, contents in self._layouts.get(len(body), ()):
            content = contents.get(body[head] + body[middle] + body[tail])
            if content is not None and body[media_id] == key and key.isalnum():
                instant = self.instants.get(body[time])
                if instant is not None:
                    return key, instant, content
        return self._validate(key, body)

    def _validate(self, key: bytes | None, body: bytes | None) -> tuple[bytes, Instant, Content]:
        if body is None:
            raise refusal(Reason.INVALID_JSON, "the record has no body")
        if len(body) > BODY_BYTES_MAX:
            raise refusal(Reason.BODY_TOO_LARGE, f"{len(body)} bytes, at most {BODY_BYTES_MAX}")
        try:
            event = validate(body)
        except ValidationError as error:
            raise RecordRefusedError(explain(error)) from error
        media_id, time = event["MediaId"].encode(), event["EventTime"].encode()
        if media_id != key:
            raise refusal(Reason.INVALID_FIELD, "MediaId: not the record's key")
        instant = self.instants.get(time)
        if instant is None:
            instant = self._understand(event["EventTime"], time)
        try:
            content = content_of(event)
        except ValueError as error:
            raise refusal(Reason.INVALID_JSON, str(error)) from error
        self._learn(body, time, media_id, content)
        return media_id, instant, content

    def _understand(self, text: str, time: bytes) -> Instant:
        try:
            at = parse_time(text)
        except ValueError as error:
            raise refusal(Reason.INVALID_FIELD, f"EventTime: {error}") from error
        if len(self.instants) >= INSTANTS_CACHED_MAX:
            self.instants.clear()
        instant = self.instants[time] = Instant(at, suffix_of(at), self.policy.window_of(at))
        return instant

    def _learn(self, body: bytes, time: bytes, media_id: bytes, content: Content) -> None:
        """
        Remember the shape of a valid body, if its two values can be cut out of it.

        Inside a JSON string, ASCII letters and digits (and an EventTime that was understood) can stand for others
        without changing anything else. That these bytes are the two values, and not text that reads alike (an EventTime
        written with escapes, and again in a message), is proven with the schema itself.
        """
        if not media_id.isalnum() or len(body) > SHAPE_BYTES_MAX:
            return
        if self._shapes >= SHAPES_CACHED_MAX:
            self._layouts.clear()
            self._shapes = 0
        layouts = self._layouts.setdefault(len(body), [])
        layout = next((layout for layout in layouts if layout.has(body, time, media_id)), None)
        if layout is None:
            layout = _Layout.of(body, time, media_id)
            if layout is None or len(layouts) >= LAYOUTS_PER_LENGTH_MAX:
                return
            layouts.append(layout)
        shape = layout.shape(body)
        if shape not in layout.contents:
            layout.contents[shape] = None
            self._shapes += 1
        elif layout.contents[shape] is None and layout.is_proven_by(body):
            layout.contents[shape] = content
