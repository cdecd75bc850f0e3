"""A poller that runs here: a real one, on the MNS that runs here, with a publisher that obeys the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from pipeline.bridge.mns_poller import MnsPoller, PollPolicy
from pipeline.service.entries import MnsSettings
from pipeline.service.metrics.mns import MnsMetrics
from tests.harness.mns import MnsEmulator
from tests.harness.publisher import FakePublisher

BODY = '{"MediaId":"a","EventType":"DeleteMediaComplete"}'
OTHER = '{"MediaId":"b"}'
STOP_SECONDS_MAX = 20.0  # A long poll lasts 30 s: a stop that waits for it shows.


class Pauses:
    """Records how long the poller wanted to wait, and lets it go on at once, up to a number of times."""

    def __init__(self, number_max: int = 100) -> None:
        self.seconds: list[float] = []
        self.over = asyncio.Event()
        self._number_max = number_max
        self._changed = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self._changed.set()
        if len(self.seconds) >= self._number_max:
            await self.over.wait()

    async def until(self, number: int) -> None:
        async with asyncio.timeout(60):
            while len(self.seconds) < number:
                await self._changed.wait()
                self._changed.clear()


class Poll:
    """A running poller with everything around it."""

    def __init__(self, emulator: MnsEmulator, *, pauses: int = 100, real_pauses: bool = False, **how: Any) -> None:
        self.emulator = emulator
        self.taken = FakePublisher()
        self.pauses = Pauses(pauses)
        self.registry = CollectorRegistry()
        queue = how.pop("queue", None) or queue_settings(emulator)
        self.labels = dict(zip(("entry", "queue"), queue.labels, strict=True))
        self.poller = MnsPoller(
            queue,
            self.taken.publish,
            MnsMetrics(self.registry, [queue.labels]),
            policy=PollPolicy(**how),
            pause=None if real_pauses else self.pauses,
            clock=emulator.now,
        )

    async def __aenter__(self) -> Poll:
        self.running = asyncio.create_task(self.poller.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.poller.stop()
        self.pauses.over.set()
        self.taken.ack.set()
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await self.running
        became = [self.count(step) or 0 for step in ("published", "spooled", "repeated", "not_published")]
        assert self.count("received") == sum(became)

    async def until(self, condition: Callable[[], bool]) -> None:
        await asyncio.to_thread(self.emulator.until, condition)

    async def until_empty(self) -> None:
        await self.until(lambda: not self.emulator.messages("q"))

    def count(self, step: str) -> float | None:
        return self.registry.get_sample_value("vod_pipeline_mns_messages_total", {**self.labels, "step": step})

    def errors(self, reason: str) -> float | None:
        return self.registry.get_sample_value("vod_pipeline_mns_errors_total", {**self.labels, "reason": reason})


def queue_settings(emulator: MnsEmulator, **changes: str) -> MnsSettings:
    entry = {
        "queue": "q",
        "access_key_id": "LTAI5t",
        "access_key_secret": "s3cret",
        "endpoint": emulator.endpoint,
    }
    return MnsSettings.model_validate(entry | changes)


def deletions(emulator: MnsEmulator) -> int:
    return sum(request.startswith("DELETE") for request in emulator.requests)
