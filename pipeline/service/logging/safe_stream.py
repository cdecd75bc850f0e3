"""Where log lines go, without a chance to do harm."""

from __future__ import annotations

from contextlib import suppress
from typing import TextIO


class UnfailingStream:
    """
    *stream*, but what cannot be written is dropped.

    A log file on a full disk makes every line an OSError, which would end whatever wrote that line: the bridge's
    publisher, and with it the bridge, when Kafka is away; or a worker's transaction.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write *text*, or drop it."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be."""
        with suppress(OSError):
            self._stream.flush()
