"""
Reading a partition back: what a stage is restored from.

Every client option that matters is written down; every wait is bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaTimeoutError

from pipeline.service.lifecycle import close
from pipeline.service.settings import KafkaSettings

REQUEST_TIMEOUT_MS = 10_000
STOP_SECONDS = 2.0
FETCH_BYTES = 4 << 20


class LogReader:
    """Reads partitions of one cluster, with a client of its own for each question."""

    def __init__(self, client_options: dict[str, Any]) -> None:
        self._options = client_options

    async def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """Return the log start and the log end offset of *tp*."""
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            consumer = await self._reader(tp)
            try:
                return (await consumer.beginning_offsets([tp]))[tp], (await consumer.end_offsets([tp]))[tp]
            finally:
                await close(consumer.stop(), seconds=STOP_SECONDS)

    async def undecided(self, tp: TopicPartition) -> list[ConsumerRecord]:
        """Return the records of *tp* from the first on whose transaction is neither committed nor aborted."""
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            consumer = await self._reader(tp)
            try:
                stable = (await consumer.end_offsets([tp]))[tp]
            finally:
                await close(consumer.stop(), seconds=STOP_SECONDS)
        found = []
        async for records in self.read(tp, start=stable, isolation_level="read_uncommitted"):
            found += records
        return found

    async def value_at(self, tp: TopicPartition, offset: int) -> bytes | None:
        """Return the value of the record at *offset* of *tp*; None if there is none, or none any more."""
        async for records in self.read(tp, start=offset, until=offset + 1):
            for record in records:
                if record.offset == offset:
                    value: bytes | None = record.value
                    return value
        return None

    async def has_newer(self, tp: TopicPartition, than: int, start: int, *, until: int) -> bool:
        """Return whether a committed record of *tp* in [*start*, *until*) has a timestamp (ms) above *than*."""
        async for records in self.read(tp, since=than + 1, start=start, until=until):
            if any(record.timestamp > than for record in records):
                return True
        return False

    async def read(
        self,
        tp: TopicPartition,
        *,
        since: int | None = None,
        start: int | None = None,
        until: int | None = None,
        isolation_level: str = "read_committed",
    ) -> AsyncIterator[list[ConsumerRecord]]:
        """
        Yield the committed records of *tp*, in order.

        Args:
            since: Start at the first record with at least this timestamp (ms), but not before *start*; None: there.
            start: Start at this offset; None: at the log start.
            until: Stop before this offset; None: at the end the log has now.
            isolation_level: "read_uncommitted" yields every record.
        """
        consumer = await self._reader(tp, isolation_level)
        try:
            end = (await consumer.end_offsets([tp]))[tp]
            end = end if until is None else min(end, until)
            if since is not None:
                found = (await consumer.offsets_for_times({tp: since}))[tp]
                consumer.seek(tp, max(found.offset if found else end, start or 0))
            elif start is not None:
                consumer.seek(tp, start)
            else:
                await consumer.seek_to_beginning(tp)
            progress = time.monotonic()
            position = await self._position(consumer, tp)
            while position < end:
                records = (await consumer.getmany(tp, timeout_ms=200)).get(tp, [])
                before, position = position, await self._position(consumer, tp)
                if position > before:
                    progress = time.monotonic()
                elif time.monotonic() - progress > REQUEST_TIMEOUT_MS / 1000:
                    raise KafkaTimeoutError(f"{tp} cannot be read on from {position}")
                if records and records[-1].offset >= end:
                    records = [record for record in records if record.offset < end]
                if records:
                    yield records
        finally:
            await close(consumer.stop(), seconds=STOP_SECONDS)

    async def _reader(self, tp: TopicPartition, isolation_level: str = "read_committed") -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            **self._options,
            isolation_level=isolation_level,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        try:
            await consumer.start()
        except BaseException:
            await close(consumer.stop(), seconds=STOP_SECONDS)
            raise
        consumer.assign([tp])
        return consumer

    @staticmethod
    async def _position(consumer: AIOKafkaConsumer, tp: TopicPartition) -> int:
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            return int(await consumer.position(tp))


@asynccontextmanager
async def live_clients(
    kafka: KafkaSettings, *, request_seconds_max: float, fetch_bytes: int
) -> AsyncIterator[tuple[AIOKafkaConsumer, AIOKafkaConsumer, AIOKafkaAdminClient]]:
    """
    Yield what it takes to follow topics: a consumer to read with, one to ask for offsets with, and an admin client.

    Two consumers, as a broker answers a connection in order: a question would wait behind a fetch for new records.

    Args:
        kafka: Where Kafka is.
        request_seconds_max: For a request, and for all three to start.
        fetch_bytes: What a fetch brings at most, of all partitions together.
    """
    options = kafka.client_options() | {"request_timeout_ms": int(request_seconds_max * 1000)}
    reader, asker = (
        AIOKafkaConsumer(
            **options,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_bytes=fetch_bytes,
        )
        for _ in range(2)
    )
    admin = AIOKafkaAdminClient(**options)
    try:
        async with asyncio.timeout(request_seconds_max):
            for client in (reader, asker, admin):
                await client.start()
        yield reader, asker, admin
    finally:
        for stop in (reader.stop, asker.stop, admin.close):
            await close(stop(), seconds=request_seconds_max)
