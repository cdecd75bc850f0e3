"""What stands behind the callbacks and queues where there is no Kafka: a publisher that obeys the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.bridge.batch import StoredIn
from pipeline.bridge.errors import OverloadedError
from pipeline.bridge.ingress import AdmittedBody
from pipeline.bridge.publisher import Source
from tests.waiting import until


class FakePublisher:
    """
    Records what it gets; a record is durable once `ack` is set.

    It fails with `error`, or with the error of its body when it came; OverloadedError refuses it at once. `is_spooled`
    and `spooled` say where it is.
    """

    def __init__(self) -> None:
        self.records: list[tuple[bytes | None, bytes, bytes, int]] = []
        self.ack = asyncio.Event()
        self.ack.set()
        self.error: Exception | None = None
        self.errors: dict[bytes, Exception] = {}
        self.is_spooled = False
        self.spooled: set[bytes] = set()
        self.before: Callable[[], None] = lambda: None
        self._publishing: set[asyncio.Future[StoredIn]] = set()

    def publish(
        self, key: bytes | None, body: AdmittedBody, *, source: Source, received_at_ms: int
    ) -> asyncio.Future[StoredIn]:
        """Be the publisher's."""
        error = self.errors.get(body)
        if isinstance(refusal := error or self.error, OverloadedError):
            raise refusal
        self.records.append((key, body, source.value, received_at_ms))
        self.before()
        publishing = asyncio.ensure_future(self._durable(error, is_spooled=body in self.spooled))
        self._publishing.add(publishing)
        publishing.add_done_callback(self._publishing.discard)
        return publishing

    async def _durable(self, error: Exception | None, *, is_spooled: bool) -> StoredIn:
        await self.ack.wait()
        if failure := error or self.error:
            raise failure
        return StoredIn.SPOOL if self.is_spooled or is_spooled else StoredIn.KAFKA

    @property
    def bodies(self) -> list[bytes]:
        """What was published."""
        return [body for _, body, _, _ in self.records]

    async def until(self, number: int) -> None:
        """Wait for so many records."""
        await until(lambda: len(self.records) >= number)
