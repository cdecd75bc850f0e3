"""Follows what is decided, as any consumer of the output would, and notes how long nothing came."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

if TYPE_CHECKING:
    from pipeline.service.settings import Settings


class Watch:
    """
    Reads accepted and rejected with read_committed while the load lasts.

    `decided` counts records by raw partition. `stall_seconds` is the longest time in which any partition had no newly
    decided record; while the watch is paused, as nothing is offered, no time passes.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.decided: Counter[int] = Counter()
        self.stall_seconds = 0.0
        self._seen_at: dict[int, float] = {}
        self._is_paused = True
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to read; time passes from `resume` on."""
        topics = self._settings.kafka.topics
        consumer = AIOKafkaConsumer(
            **self._settings.kafka.client_options(),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            metadata_max_age_ms=2000,  # A leader that is dead is known to be so soon.
            request_timeout_ms=10_000,
        )
        await consumer.start()
        partitions = range(self._settings.kafka.partitions)
        consumer.assign(
            [TopicPartition(topic, number) for topic in (topics.accepted, topics.rejected) for number in partitions]
        )
        self._task = asyncio.create_task(self._follow(consumer))

    async def stop(self) -> None:
        """End."""
        self.pause()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def pause(self) -> None:
        """Stop the clock."""
        if not self._is_paused:
            for partition in self._seen_at:
                self._note(partition)
        self._is_paused = True

    def resume(self) -> None:
        """Let the clock go on."""
        self._is_paused = False
        now = time.monotonic()
        self._seen_at = dict.fromkeys(range(self._settings.kafka.partitions), now)

    async def progress(self, records: int, *, seconds: float) -> None:
        """Wait until each partition has *records* more; raises AssertionError after *seconds*."""
        wanted = {number: self.decided[number] + records for number in range(self._settings.kafka.partitions)}
        deadline = time.monotonic() + seconds
        while any(self.decided[number] < count for number, count in wanted.items()):
            assert time.monotonic() < deadline, f"stalled for {seconds} s: {dict(self.decided)} instead of {wanted}"
            await asyncio.sleep(0.05)  # Between two looks, not instead of one.

    def _note(self, partition: int) -> None:
        now = time.monotonic()
        if not self._is_paused:
            self.stall_seconds = max(self.stall_seconds, now - self._seen_at[partition])
            self._seen_at[partition] = now

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        try:
            while True:
                try:
                    found = await consumer.getmany(timeout_ms=100)
                except KafkaError:
                    await asyncio.sleep(0.1)  # A broker that is away is what some scenarios are about.
                    continue
                for tp, records in found.items():
                    self.decided[tp.partition] += len(records)
                    self._note(tp.partition)
        finally:
            await consumer.stop()
