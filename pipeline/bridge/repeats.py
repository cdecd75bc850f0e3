"""
Requests that came before: answered like the first, published once.

The body of a callback is not signed, so those who saw one may send it again for as long as its timestamp is tolerated.
The accept stage would recognise the copy; here it costs neither Kafka nor the spool anything.
"""

from __future__ import annotations

import asyncio

from pipeline.bridge.batch import StoredIn

# A request as far as it differs from another: its timestamp and its body.
Request = tuple[bytes, bytes]

ENTRY_BYTES = 300  # What the dictionary, the tuple, its strings and the future cost beside the bytes, roughly.


class Recent:
    """
    Maps requests to the future of their durability, two generations of them, each of half the bytes allowed.

    A request counts as seen once its future has a result; one whose future failed is forgotten.
    """

    def __init__(self, bytes_max: int) -> None:
        self._generation_bytes = bytes_max // 2
        self._bytes = self._old_bytes = 0
        self._young: dict[Request, asyncio.Future[StoredIn]] = {}
        self._old: dict[Request, asyncio.Future[StoredIn]] = {}

    @property
    def bytes(self) -> int:
        """What is remembered, keys and values."""
        return self._bytes + self._old_bytes

    def get(self, request: Request) -> asyncio.Future[StoredIn] | None:
        """Return the future of an earlier, equal request that is durable or may become so."""
        durable = self._young.get(request) or self._old.get(request)
        if durable is not None and durable.done() and (durable.cancelled() or durable.exception() is not None):
            return None
        return durable

    def add(self, request: Request, durable: asyncio.Future[StoredIn]) -> None:
        """Remember *request*, and forget the oldest ones for it where there is no room."""
        if self._generation_bytes == 0:
            return
        if self._bytes >= self._generation_bytes:
            self._old, self._young = self._young, {}
            self._old_bytes, self._bytes = self._bytes, 0
        self._young[request] = durable
        self._bytes += len(request[0]) + len(request[1]) + ENTRY_BYTES


class Bursts:
    """
    Notices a signature that is used for more bodies in a second than a platform deletes media.

    VOD's signature covers the URL and the second alone: a stolen one is good for any body until the timestamp is stale.
    """

    def __init__(self, bodies_max: int) -> None:
        self._bodies_max = bodies_max
        self._second = 0
        self._bodies: dict[bytes, int] = {}

    def add(self, signature: bytes, now: float) -> bool:
        """
        Count a body under *signature*; return True for the first one above the limit in the second of *now*.

        Its digits may be written large or small, and mean the same.
        """
        signature = signature.lower()
        second = int(now)
        if second != self._second:
            self._second = second
            self._bodies.clear()
        count = self._bodies[signature] = self._bodies.get(signature, 0) + 1
        return count == self._bodies_max + 1
