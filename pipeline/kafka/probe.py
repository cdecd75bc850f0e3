"""Whether a broker is up, asked with one request of our own: a client leaves a socket behind for each that fails."""

from __future__ import annotations

import socket
import struct

TIMEOUT_SECONDS = 1

# Key 3 (Metadata), version 4, correlation 1, no client id; no topics, none to be created.
# Source: https://kafka.apache.org/protocol, Metadata version 4.
_METADATA_REQUEST = struct.pack(">hhihi?", 3, 4, 1, -1, 0, False)
_METADATA_ANSWER_HEAD = struct.Struct(">iiii")  # Length, correlation, throttle time, number of brokers.


def knows_a_live_broker(host: str, port: int) -> bool:
    """Return whether the broker there names at least one live broker, itself: before that, it takes no records."""
    try:
        with socket.create_connection((host, port), TIMEOUT_SECONDS) as connection, connection.makefile("rb") as answer:
            connection.sendall(struct.pack(">i", len(_METADATA_REQUEST)) + _METADATA_REQUEST)
            head = answer.read(_METADATA_ANSWER_HEAD.size)
    except OSError:
        return False
    if len(head) < _METADATA_ANSWER_HEAD.size:
        return False
    _, _, _, brokers = _METADATA_ANSWER_HEAD.unpack(head)
    return bool(brokers > 0)
