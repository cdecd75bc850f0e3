"""What the spool is emptied into, without Kafka: it takes what is sent, or fails as it should."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from pipeline.kafka.producer import BatchRefusedError
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from prometheus_client import CollectorRegistry

    from pipeline.bridge.drain import Send
    from pipeline.core.contract import RawRecord


def record(number: int) -> RawRecord:
    return b"key", b"%d" % number, b"http", number, b""


def partition_of(record: RawRecord) -> int:
    """Return where it goes here: the odd ones to partition 1."""
    return record[3] % 2


class Kafka:
    """Takes what is sent, or fails as it should; more than `at_once` records are too many for it."""

    def __init__(self) -> None:
        self.is_up = asyncio.Event()
        self.is_up.set()
        self.taken: list[RawRecord] = []
        self.sizes: list[int] = []
        self.at_once = 10_000
        self.too_many: Exception = TimeoutError()
        self.never: set[RawRecord] = set()
        self.leaderless: set[int] = set()
        self.failures: list[Exception] = []
        self.seen = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Send]:
        await self.is_up.wait()
        yield self.send

    async def send(self, records: Sequence[RawRecord], passed_over: set[int]) -> list[int]:
        self.sizes.append(len(records))
        if self.failures:
            raise self.failures.pop()
        if len(records) > self.at_once:
            raise self.too_many
        if self.never & set(records):
            raise BatchRefusedError("MESSAGE_TOO_LARGE")
        passed_over |= self.leaderless & {partition_of(record) for record in records}
        async with self.seen:
            self.taken += [record for record in records if partition_of(record) not in passed_over]
            self.seen.notify_all()
        return [place for place, record in enumerate(records) if partition_of(record) in passed_over]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60), self.seen:
            await self.seen.wait_for(lambda: len(self.taken) >= count)


async def until_shown(registry: CollectorRegistry, name: str, value: float) -> None:
    await until(lambda: registry.get_sample_value(name) == value)
