"""
What a transaction wrote, and Kafka never marked, is ended before a partition is opened.

Kafka forgets markers only in a race (see pipeline/stream/hanging.py), so here the second producer gets the first one's
id and epoch, as if it had been started without Kafka ending the first one's transaction.
"""

from __future__ import annotations

import asyncio
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from prometheus_client import CollectorRegistry

from pipeline.core.records import (
    HEADER_DECISION,
    HEADER_DETAIL,
    HEADER_RAW_OFFSET,
    HEADER_REASON,
    pack_decision,
)
from pipeline.metrics import WorkerMetrics
from pipeline.stream.accept import AcceptStage
from pipeline.stream.hanging import settle
from pipeline.stream.log import Committed, Log
from tests.harness.recount import read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pipeline.settings import Settings

RAW_OFFSET = 7

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def successor(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """A producer whose predecessor's transaction hangs: RAW_OFFSET's record in accepted, and a count."""
    topics = settings.kafka.topics
    options = settings.kafka.client_options()
    first, second = (AIOKafkaProducer(**options, transactional_id=uuid.uuid4().hex) for _ in range(2))
    await first.start()
    await second.start()
    await first.begin_transaction()
    headers = [(HEADER_DECISION, pack_decision(RAW_OFFSET, 1))]
    await first.send_and_wait(topics.accepted, b"event", key=b"a", partition=0, headers=headers)
    await first.send_and_wait(topics.partial_counts, b"count", key=b"b", partition=0)
    ours, theirs = second._txn_manager, first._txn_manager
    ours.transactional_id, ours._pid_and_epoch = theirs.transactional_id, theirs._pid_and_epoch
    second._sender._coordinators.clear()
    yield second
    await second.stop()
    first._sender.sender_task.cancel()  # stop() would abort the transaction that hangs.
    await first.client.close()
    first._closed = True


async def settled(settings: Settings, successor: AIOKafkaProducer, committed: Committed | None) -> list[bytes]:
    """Settle, and return what readers of accepted see."""
    log = Log(settings.kafka.client_options())
    stage = AcceptStage(
        topics=settings.kafka.topics,
        group=settings.worker.group,
        policy=settings.worker.policy,
        metrics=WorkerMetrics(CollectorRegistry()),
    )
    assert len(await log.undecided(TopicPartition(settings.kafka.topics.accepted, 0))) == 1

    await settle(log, successor, stage, 0, committed)

    for tp in stage.owned(0):
        assert await log.undecided(tp) == []
    (shared,) = stage.shared(0)
    async with asyncio.timeout(30):
        while await log.undecided(shared):  # noqa: ASYNC110  # Kafka writes the markers when it likes.
            await asyncio.sleep(0.05)
    return [record.value for record in read(settings, settings.kafka.topics.accepted)[0]]


@pytest.mark.parametrize("committed", [None, Committed(RAW_OFFSET, "")])
async def test_it_is_aborted_if_its_raw_records_will_be_read_again(
    settings: Settings, successor: AIOKafkaProducer, committed: Committed | None
) -> None:
    """The next commit would commit it, too, and the event be there twice."""
    assert await settled(settings, successor, committed) == []


def test_a_rejected_record_is_known_by_the_offset_that_we_gave_it(settings: Settings) -> None:
    """It has all headers of its raw record, and whoever wrote that may have named them like ours."""
    topics = settings.kafka.topics
    stage = AcceptStage(
        topics=topics,
        group=settings.worker.group,
        policy=settings.worker.policy,
        metrics=WorkerMetrics(CollectorRegistry()),
    )
    forged = [(HEADER_DECISION, b""), (HEADER_DECISION, pack_decision(0, 1)), (HEADER_RAW_OFFSET, b"-1")]
    ours = [(HEADER_RAW_OFFSET, b"500"), (HEADER_REASON, b"invalid_json"), (HEADER_DETAIL, b"")]

    rejected = SimpleNamespace(topic=topics.rejected, headers=[*forged, *ours])
    accepted = SimpleNamespace(topic=topics.accepted, headers=[*forged, (HEADER_DECISION, pack_decision(501, 1))])

    assert stage.source_offset(rejected) == 500
    assert stage.source_offset(accepted) == 501


async def test_it_is_committed_if_its_offset_was(settings: Settings, successor: AIOKafkaProducer) -> None:
    """Its raw records will never be read again: the event would be lost."""
    assert await settled(settings, successor, Committed(RAW_OFFSET + 1, "")) == [b"event"]
