"""Load on the real bridge: callbacks at a steady rate, each tried three times as VOD does, and every answer kept."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from tests.harness.bridge import KEY, Client, Sent
from tests.harness.load import mixture

if TYPE_CHECKING:
    from collections.abc import Iterator

SENDERS_MIN = 8
SENDER_PER_SECOND_MAX = 50  # Of one sender, which waits for each answer.
ATTEMPTS = 3  # VOD's: https://help.aliyun.com/document_detail/55627.html
ANSWER_SECONDS = 5.0  # VOD's, likewise.
PAUSE_SECONDS = 0.1  # Between attempts; VOD waits 1 s.
MIXTURE = 1000


class Callbacks:
    """
    Sends callbacks to *port* until it is stopped; `sent` has the answers.

    The bodies come from *seed*: deletions, duplicates, conflicts, malformed, foreign and expired ones.
    """

    def __init__(self, port: int, *, seed: str, per_second: float) -> None:
        self.sent = Sent()
        self._port = port
        self._bodies = self._mix(random.Random(seed))
        self._senders = max(SENDERS_MIN, round(per_second / SENDER_PER_SECOND_MAX))
        self._interval_seconds = self._senders / per_second
        self._may_send = asyncio.Event()
        self._busy = 0
        self._tasks: list[asyncio.Task[None]] = []

    @staticmethod
    def _mix(chance: random.Random) -> Iterator[bytes]:
        while True:
            for raw in mixture(MIXTURE, seed=chance.getrandbits(32)):
                yield raw.value

    def start(self) -> None:
        """Begin to send."""
        self._may_send.set()
        self._tasks = [asyncio.create_task(self._send()) for _ in range(self._senders)]

    async def pause(self) -> None:
        """Send nothing new; returns once everything sent is answered or given up."""
        self._may_send.clear()
        while self._busy:  # noqa: ASYNC110  # A handful of senders, each bounded by ATTEMPTS times ANSWER_SECONDS.
            await asyncio.sleep(0.01)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._may_send.set()

    async def stop(self) -> None:
        """End, whether or not everything is answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        connection: tuple[asyncio.WriteTransport, Client] | None = None
        due = loop.time()
        try:
            while True:
                await self._may_send.wait()
                self._busy += 1
                connection = await self._deliver(next(self._bodies), connection)
                self._busy -= 1
                due = max(due + self._interval_seconds, loop.time() - 1)  # What an outage delayed is no burst later.
                await asyncio.sleep(due - loop.time())
        finally:
            if connection is not None:
                connection[0].close()

    async def _deliver(
        self, body: bytes, connection: tuple[asyncio.WriteTransport, Client] | None
    ) -> tuple[asyncio.WriteTransport, Client] | None:
        """Try to get *body* answered, whatever the answer; returns the connection to go on with."""
        for _ in range(ATTEMPTS):
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    connection = connection or await self._connect()
                    await connection[1].post(connection[0], body)
            except (OSError, TimeoutError):
                if connection is not None:
                    connection[0].close()
                connection = None
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                break
        return connection

    async def _connect(self) -> tuple[asyncio.WriteTransport, Client]:
        loop = asyncio.get_running_loop()
        return await loop.create_connection(lambda: Client(self.sent, KEY), "127.0.0.1", self._port)
