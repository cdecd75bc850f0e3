"""What is delivered to the model: records of raw, as they were meant."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipeline.core.windows import format_time

CODES = (None, "Forbidden", "Gone")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A record of raw as it was meant. `media` and `content` are numbers; no media: not a deletion of ours."""

    media: int | None
    at: int
    content: int
    body: bytes

    @property
    def code(self) -> str:
        return CODES[self.content] or ""


def deletion(media: int, at: int, content: int) -> Delivery:
    """Build a deletion: *content* says whether, and with which code, it failed."""
    code = CODES[content]
    event = {
        "EventType": "DeleteMediaComplete",
        "EventTime": format_time(at),
        "Status": "fail" if code else "success",
        "MediaType": "video",
        "DeleteType": "all",
        "MediaId": f"m{media}",
        **({"ErrorCode": code} if code else {}),
    }
    return Delivery(media, at, content, json.dumps(event).encode())


BROKEN = Delivery(None, 0, 0, b"{")
FOREIGN = Delivery(None, 0, 1, b'{"EventType":"TranscodeComplete"}')
