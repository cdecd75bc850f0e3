"""
Follows Kafka and the bridge, and keeps the snapshot at what they say. It never writes, and joins no group.

Whatever goes wrong with Kafka ends the session; the snapshot keeps the last numbers, the status says what is wrong, and
the next session starts from nothing.
"""

from __future__ import annotations

import asyncio
import json
import time

import structlog

from pipeline.core.contract import OUTPUT_RETENTION_SECONDS
from pipeline.dashboard.rates import Windows
from pipeline.dashboard.rejections import REJECTIONS_MAX, Rejections
from pipeline.dashboard.snapshot import Snapshot
from pipeline.dashboard.stats import Raw, Spooled, read_spooled, stats_of
from pipeline.kafka import AdminClient, Consumer, KafkaError, TopicPartition, access
from pipeline.kafka.reader import live_clients
from pipeline.service.probe import ask, url_of
from pipeline.service.settings import Settings

PUSH_SECONDS = 0.25  # Between two looks: what changes more often is shown as of the last one.
STATS_SECONDS = 1.0
REQUEST_SECONDS_MAX = 5.0
RETRY_SECONDS = 1.0
CATCH_UP_SECONDS_MAX = 15.0  # An open transaction can hold back the end of a topic for as long.
FETCH_BYTES = 4 << 20  # Together; a rejected body has up to 128 KiB.
SPOOL_SECONDS_MAX = 1.0

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _TopicMissingError(Exception):
    """A topic is not there; the message is one line for the operator."""


class SnapshotSource:
    """Reads everything the page shows. `run` it once."""

    def __init__(self, settings: Settings, snapshot: Snapshot) -> None:
        self._settings = settings
        self._kafka = settings.kafka
        self._snapshot = snapshot
        self._spooled: Spooled | None = None
        self._read_at: int | None = None
        self._problem: str | None = None

    @property
    def is_current(self) -> bool:
        """Whether Kafka has been read, and the last attempt did not fail."""
        return self._read_at is not None and self._problem is None

    async def run(self) -> None:
        """Follow Kafka until cancelled."""
        while True:
            try:
                await self._session()
            except _TopicMissingError as error:
                self._use_problem(str(error), error)
            except (KafkaError, OSError, TimeoutError) as error:
                refused = await access.refusal(self._kafka)
                self._use_problem(refused or f"Kafka at {self._kafka.bootstrap_servers} does not answer", error)
            await asyncio.sleep(RETRY_SECONDS)

    def _use_problem(self, problem: str | None, error: Exception | None = None) -> None:
        """Take over what is wrong now (None: nothing); an outage is one line in the log, however long it lasts."""
        if problem is not None and problem != self._problem:
            logger.warning("kafka_unreadable", problem=problem, error=repr(error))
        elif problem is None and self._problem is not None:
            logger.info("kafka_readable")
        self._problem = problem

    async def tell_status(self) -> None:
        """Say once a second that the page runs, and how current its numbers are, until cancelled."""
        while True:
            status = {"now": int(time.time() * 1000), "read_at": self._read_at, "problem": self._problem}
            self._snapshot.show("status", json.dumps(status).encode())
            await asyncio.sleep(STATS_SECONDS)

    async def watch_spool(self) -> None:
        """Ask the bridge once a second what waits on its disk, until cancelled."""
        bridge = self._settings.bridge
        url = url_of(bridge.metrics_host, bridge.metrics_port, "/metrics")
        while True:
            if bridge.spool_directory is not None:
                self._spooled = await asyncio.to_thread(_ask_for_spool, url)
            await asyncio.sleep(STATS_SECONDS)

    async def _session(self) -> None:
        """Read Kafka from the first record that can matter, and on as it grows; ends by raising only."""
        windows, rejections = Windows(windows_max=self._settings.dashboard.windows), Rejections()
        rates = TopicPartition(self._kafka.topics.failure_rates, 0)
        async with live_clients(self._kafka, request_seconds_max=REQUEST_SECONDS_MAX, fetch_bytes=FETCH_BYTES) as (
            reader,
            asker,
            admin,
        ):
            ends = await self._seek(reader, asker, rates)
            stats_due = 0.0
            began = time.monotonic()
            while True:
                looked = time.monotonic()
                found = await reader.getmany(timeout_ms=int(PUSH_SECONDS * 1000))
                for tp, records in found.items():
                    if tp == rates:
                        for record in records:
                            windows.add(record.value)
                    else:
                        rejections.add(records)
                if ends and looked - began < CATCH_UP_SECONDS_MAX:
                    ends = {tp: end for tp, end in ends.items() if await reader.position(tp) < end}
                    continue
                self._snapshot.show("rates", windows.shown().to_json())
                self._snapshot.show("rejections", rejections.to_json())
                if looked >= stats_due:
                    stats_due = looked + STATS_SECONDS
                    await self._show_stats(asker, admin)
                await asyncio.sleep(PUSH_SECONDS - (time.monotonic() - looked))

    async def _seek(self, reader: Consumer, asker: Consumer, rates: TopicPartition) -> dict[TopicPartition, int]:
        """Put *reader* before the first records that can matter; return where the topics end now."""
        topics = self._kafka.topics
        rejected = [TopicPartition(topics.rejected, number) for number in range(self._kafka.partitions)]
        async with asyncio.timeout(REQUEST_SECONDS_MAX):
            known = await asker.topics()
            for topic in (topics.failure_rates, topics.rejected, topics.raw):
                if topic not in known:
                    raise _TopicMissingError(f"there is no topic {topic}: vod-pipeline topics apply creates it")
            ends: dict[TopicPartition, int] = await asker.end_offsets([rates, *rejected])
            starts = await asker.beginning_offsets(rejected)
            first = await self._first_of_windows(asker, rates, ends[rates])
            reader.assign([rates, *rejected])
            reader.seek(rates, first)
            for tp in rejected:
                # A transaction of one rejection takes two offsets: the record's, and the commit's.
                reader.seek(tp, max(starts[tp], ends[tp] - 2 * REJECTIONS_MAX))
        return ends

    async def _first_of_windows(self, asker: Consumer, rates: TopicPartition, end: int) -> int:
        """
        Return where to begin so that the newest windows are read whole.

        A row's timestamp is its window's start. The newest is unknown, and may be old: twice as far back each time.
        """
        now = int(time.time() * 1000)
        shown = self._settings.dashboard.windows * self._settings.worker.window_seconds * 1000
        back = shown
        while (await asker.offsets_for_times({rates: max(0, now - back)}))[rates] is None:
            if back > OUTPUT_RETENTION_SECONDS * 1000:
                return end
            back *= 2
        first = (await asker.offsets_for_times({rates: max(0, now - back - shown)}))[rates]
        return int(first.offset)

    async def _show_stats(self, asker: Consumer, admin: AdminClient) -> None:
        tps = [TopicPartition(self._kafka.topics.raw, number) for number in range(self._kafka.partitions)]
        async with asyncio.timeout(REQUEST_SECONDS_MAX):
            # At once: what is decided on between two questions would be counted into the lag.
            committed, ends, starts = await asyncio.gather(
                admin.list_consumer_group_offsets(self._settings.worker.group, partitions=tps),
                asker.end_offsets(tps),
                asker.beginning_offsets(tps),
            )
        if len(committed) < len(tps):
            return  # The group's coordinator is moving (see kafka/reader.py): what was shown is still the newest known.
        raws = [
            Raw(tp.partition, starts[tp], ends[tp], offset if offset >= 0 else None, metadata)
            for tp in tps
            for offset, metadata in [committed[tp]]
        ]
        stats = stats_of(raws, self._spooled, self._settings.worker.policy)
        self._snapshot.show("stats", stats.to_json())
        self._read_at = int(time.time() * 1000)
        self._use_problem(None)


def _ask_for_spool(url: str) -> Spooled | None:
    try:
        return read_spooled(ask(url, seconds=SPOOL_SECONDS_MAX)[1])
    except (OSError, ValueError):  # Who listens there may be another program.
        return None
