"""
The Faust application: two agents, each a loop that hands its partition's chunks to the stage.

Built as often as wanted in one process; nothing here runs at import.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import faust
import structlog
from faust.app import BootStrategy
from faust.types import TP, StreamT
from yarl import URL

from pipeline.core.contract import transactional_prefix
from pipeline.kafka import TopicPartition
from pipeline.kafka.internals import check_versions
from pipeline.kafka.reader import LogReader
from pipeline.kafka.takeover import Takeovers
from pipeline.kafka.transaction_client import TransactionClient
from pipeline.kafka.transactions import TransactionalProducer
from pipeline.service.metrics.worker import WorkerMetrics
from pipeline.service.settings import Settings
from pipeline.worker.accept import AcceptStage
from pipeline.worker.chunk import CHUNK_RECORDS_MAX, split
from pipeline.worker.clock import KafkaClock
from pipeline.worker.committer import Committer
from pipeline.worker.exits import Crash, ExitCode
from pipeline.worker.feed import Feed
from pipeline.worker.partition import Partition
from pipeline.worker.report import ReportStage
from pipeline.worker.stage import Stage
from pipeline.worker.transport import ChunkConsumer, ChunkTransport

FEEDS_MAX = 1000  # In Faust's queue of an agent, which holds one, or a few while partitions move.
FETCH_BYTES = 4 << 20
HEARTBEATS_PER_SESSION = 5
# aiokafka leaves the group if nothing is fetched for so long, as where all a worker has is paused. Its heartbeats say
# that it lives, and partitions whose transactions fail again and again end it.
MAX_POLL_SECONDS = 20 * 86_400.0
# How long members have to join again. Handing over takes HANDOVER_SECONDS and the bounded stop of a producer.
REBALANCE_SECONDS = 15.0
# A connection that swallows everything is given up after this. Longer than a join may take, which is one request.
# Faust's own 90 s are as long a stall of every partition.
REQUEST_SECONDS = 20.0

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WorkerApp:
    """The Faust application, the partitions its agents have, and the client that all of them write with."""

    faust: faust.App
    partitions: dict[TP, Partition[Any]]
    transactions: TransactionClient
    committer: Committer

    async def close(self) -> None:
        """Close what Faust does not know of."""
        await self.committer.close()
        await self.transactions.close()

    @property
    def is_member(self) -> bool:
        """Whether the group has given us our share of the partitions: none, where it has more members than those."""
        return not self.faust.rebalancing and cast("ChunkConsumer", self.faust.consumer).is_member

    def problems(self) -> list[str]:
        """Say why the worker is not ready: not a member yet, or still restoring the state of what it owns."""
        if not self.is_member:
            return ["no partitions assigned (yet)"]
        return [problem for tp in sorted(self.faust.consumer.assignment()) if (problem := self._problem(tp))]

    def _problem(self, tp: TP) -> str | None:
        partition = self.partitions.get(tp)
        if partition is not None and partition.paused:
            return f"{tp.topic}[{tp.partition}] is paused: {partition.paused}"
        return None if partition is not None and partition.is_open else f"opening {tp.topic}[{tp.partition}]"


class Runner:
    """Runs the partitions that Faust's actors are given, one actor each."""

    def __init__(self, settings: Settings, app: faust.App, crash: Crash) -> None:
        self.partitions: dict[TP, Partition[Any]] = {}
        topics, options = settings.kafka.topics, settings.kafka.client_options()
        written = (topics.accepted, topics.rejected, topics.partial_counts, topics.failure_rates)
        self.transactions = TransactionClient(options, written)
        group = settings.worker.group
        self.committer = Committer(group, partial(_open_producer, self.transactions, topics.raw, group))
        self._reader = LogReader(options)
        self._takeovers = Takeovers(self.transactions, self._reader, group)
        self._app = app
        self._crash = crash

    async def consume(self, stage: Stage[Any], stream: StreamT[Any]) -> None:
        """
        Take what comes of a partition, for as long as it is assigned: an actor has one partition.

        A cancellation is how Faust takes the partition away. It ends here: raised on, Faust's supervisor would take the
        actor for crashed, start it again for a partition that is another worker's, and in the end give up the process.

        Any other error is a bug and ends the process: Faust would start the actor again, but has forgotten its channel.
        """
        with suppress(asyncio.CancelledError):
            try:
                async for feed in stream:
                    if not feed.is_taken:
                        feed.is_taken = True
                        await self._take_all(stage, feed)
            except Exception:  # What Kafka may do is dealt with by the partition.
                logger.exception("bug", topic=stage.source)
                self._crash(ExitCode.BUG, f"{stage.source}: unexpected error, see the traceback above")

    async def _take_all(self, stage: Stage[Any], feed: Feed) -> None:
        """Hand each chunk of *feed* to the partition, until it is assigned anew."""
        partition = self.partitions[feed.tp] = Partition(
            stage,
            feed.tp.partition,
            reader=self._reader,
            takeovers=self._takeovers,
            committer=self.committer,
            seek=self._seek,
            crash=self._crash,
        )
        try:
            while (chunk := await feed.take(partition.committing)) is not None:
                for part in split(chunk, records_max=CHUNK_RECORDS_MAX):
                    await partition.handle(part)
                feed.tick_seconds = partition.tick_seconds()
        finally:
            await _uninterrupted(partition.close())

    async def _seek(self, tp: TopicPartition, offset: int) -> None:
        await self._app.consumer.seek(TP(tp.topic, tp.partition), offset)


def build_app(settings: Settings, metrics: WorkerMetrics, crash: Crash) -> WorkerApp:
    """
    Wire the agents.

    Args:
        settings: Where Kafka is and what the worker is called.
        metrics: What the stages count into.
        crash: Ends the process; see exits.Crash.
    """
    check_versions("faust-streaming", "aiokafka")
    app = _app(settings)
    clock = KafkaClock()
    app.transport = _transport(app, settings, clock, crash)
    topics, group, policy = settings.kafka.topics, settings.worker.group, settings.worker.policy
    accept_stage = AcceptStage(
        topics=topics,
        group=group,
        policy=policy,
        metrics=metrics,
        clock=clock,
        rejection_limit=settings.worker.rejection_limit,
    )
    report_stage = ReportStage(
        topics=topics, group=group, partitions=settings.kafka.partitions, window_ms=policy.window, metrics=metrics
    )

    runner = Runner(settings, app, crash)

    @app.agent(_source(app, topics.raw), name="accept", isolated_partitions=True)
    async def accept(stream: StreamT[Any]) -> None:
        await runner.consume(accept_stage, stream)

    @app.agent(_source(app, topics.partial_counts), name="report", isolated_partitions=True)
    async def report(stream: StreamT[Any]) -> None:
        await runner.consume(report_stage, stream)

    return WorkerApp(app, runner.partitions, runner.transactions, runner.committer)


async def _open_producer(client: TransactionClient, raw: str, group: str) -> TransactionalProducer:
    """Open a producer for this process, until it is fenced: its name is never used again."""
    return await TransactionalProducer.open(client, f"{transactional_prefix(raw, group, 'worker')}{uuid.uuid4().hex}")


async def _uninterrupted(bounded: Coroutine[Any, Any, None]) -> None:
    """Finish *bounded*, which must be just that, however often this task is cancelled: Faust does it twice."""
    task = asyncio.create_task(bounded)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)


class _BootStrategy(BootStrategy):
    """Start no producer of Faust's: the stages have transactional ones, and it would connect without credentials."""

    enable_kafka_producer = False


class _App(faust.App):
    """A Faust application without tables, which therefore needs no directories."""

    BootStrategy = _BootStrategy

    def _create_directories(self) -> None:
        """Leave the working directory alone: it may be read-only."""


def _app(settings: Settings) -> faust.App:
    worker = settings.worker
    return _App(
        worker.group,
        broker=[URL(f"kafka://{server}") for server in settings.kafka.client_options()["bootstrap_servers"]],
        broker_session_timeout=worker.session_timeout_seconds,
        broker_max_poll_interval=MAX_POLL_SECONDS,
        broker_heartbeat_interval=worker.session_timeout_seconds / HEARTBEATS_PER_SESSION,
        broker_request_timeout=REQUEST_SECONDS,
        broker_rebalance_timeout=REBALANCE_SECONDS,
        consumer_group_instance_id=worker.instance_id,
        consumer_max_fetch_size=FETCH_BYTES,
        stream_buffer_maxsize=FEEDS_MAX,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        autodiscover=False,
    )


def _source(app: faust.App, topic: str) -> Any:
    """Declare a source without acks: offsets are committed in the stage's transactions alone."""
    return app.topic(topic, value_type=bytes, value_serializer="raw", key_serializer="raw", acks=False)


def _transport(app: faust.App, settings: Settings, clock: KafkaClock, crash: Crash) -> ChunkTransport:
    def on_membership_lost() -> None:
        crash(
            ExitCode.MEMBERSHIP_LOST,
            f"worker.instance_id {settings.worker.instance_id!r} is another process's, too, and was taken over by "
            "it twice: each worker needs an id of its own",
        )

    transport = ChunkTransport(app.conf.broker_consumer, app)
    transport.client_options = settings.kafka.client_options()
    transport.now = clock.now
    transport.on_membership_lost = on_membership_lost
    return transport
