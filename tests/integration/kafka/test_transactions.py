"""
What a transaction wrote, and Kafka never marked, is ended before a partition is opened, and before the next one begins.

Kafka forgets markers only in a race (see pipeline/kafka/transactions.py), so here the second producer has the id and
epoch of the first, as if it had been opened without Kafka ending the first one's transaction.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import NotLeaderForPartitionError
from aiokafka.structs import OffsetAndMetadata
from prometheus_client import CollectorRegistry

from pipeline.core.contract import (
    HEADER_DECISION,
    HEADER_DETAIL,
    HEADER_RAW_OFFSET,
    HEADER_REASON,
    Topics,
    pack_count_key,
    pack_decision,
    pack_watermark_key,
)
from pipeline.kafka.reader import LogReader
from pipeline.kafka.requests import Committed, ProducerId
from pipeline.kafka.takeover import Takeovers
from pipeline.kafka.transaction_client import TransactionClient
from pipeline.kafka.transactions import TransactionalProducer
from pipeline.service.metrics.worker import WorkerMetrics
from pipeline.worker.accept import AcceptStage
from pipeline.worker.clock import KafkaClock
from tests.harness.recount import read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from pipeline.service.settings import Settings

RAW_OFFSET = 7
METADATA = '{"stream_time":5000,"watermark":1000,"totals":{}}'


@dataclass(slots=True)
class Hanging:
    """A stage, and a producer whose predecessor's transaction is open though Kafka takes it for ended."""

    settings: Settings
    reader: LogReader
    stage: AcceptStage
    producer: TransactionalProducer
    client: Moving
    predecessor: AIOKafkaProducer

    @property
    def takeovers(self) -> Takeovers:
        """Those of a worker."""
        return Takeovers(self.client, self.reader, self.settings.worker.group)

    @property
    def outputs(self) -> tuple[TopicPartition, ...]:
        """Accepted, rejected and partial-counts."""
        return (*self.stage.exclusive_outputs(0), *self.stage.shared_outputs(0))

    async def write(self, topic: str, value: bytes, *, key: bytes = b"a", headers: Sequence[Any] = ()) -> None:
        """Have the predecessor write a record to the first partition of *topic*."""
        await self.predecessor.send_and_wait(topic, value, key=key, partition=0, headers=headers)

    async def write_event(self) -> None:
        """Have it write RAW_OFFSET's event, and a count."""
        headers = [(HEADER_DECISION, pack_decision(RAW_OFFSET, 1))]
        await self.write(self.settings.kafka.topics.accepted, b"event", headers=headers)
        await self.write(self.settings.kafka.topics.partial_counts, b"1", key=pack_count_key(0, 0, ""))

    async def resolve(self, committed: Committed | None) -> None:
        """End it, as opening the partition does; raises AssertionError if something hangs then."""
        tps, raw = self.outputs, TopicPartition(self.settings.kafka.topics.raw, 0)
        lock = await TransactionalProducer.open(self.client, uuid.uuid4().hex)
        await self.takeovers.resolve(self.producer, lock, raw, self.stage, committed)

        assert await self.unmarked() == set()
        for tp in tps:
            assert await self.reader.undecided(tp) == []

    async def unmarked(self) -> set[TopicPartition]:
        """Return where any producer has something open."""
        return {tp for tp, _ in await self.client.open_transactions(self.outputs)}

    def values(self, topic: str) -> list[bytes]:
        """Return what read_committed readers of *topic* get."""
        return [record.value for record in read(self.settings, topic)[0]]


@pytest.fixture
async def hanging(settings: Settings) -> AsyncIterator[Hanging]:
    options = settings.kafka.client_options()
    first = AIOKafkaProducer(**options, transactional_id=uuid.uuid4().hex)
    await first.start()
    await first.begin_transaction()
    known, topics = first._txn_manager, settings.kafka.topics
    client = Moving(options, (topics.accepted, topics.rejected, topics.partial_counts))
    second = TransactionalProducer(client, ProducerId(known.transactional_id, known.producer_id, known.producer_epoch))
    yield Hanging(settings, LogReader(options), stage_of(settings), second, client, first)
    await client.close()
    first._sender.sender_task.cancel()  # stop() would abort the transaction that hangs.
    await first.client.close()
    first._closed = True


class Moving(TransactionClient):
    """Does not find its leaders at the first *misses* attempts."""

    misses = 0

    async def open_transactions(self, tps: Iterable[TopicPartition]) -> set[tuple[TopicPartition, int]]:
        if self.misses:
            self.misses -= 1
            raise NotLeaderForPartitionError
        return await super().open_transactions(tps)


def stage_of(settings: Settings) -> AcceptStage:
    return AcceptStage(
        topics=settings.kafka.topics,
        group=settings.worker.group,
        policy=settings.worker.policy,
        metrics=WorkerMetrics(CollectorRegistry()),
        clock=KafkaClock(),
    )


@pytest.mark.parametrize("committed", [None, Committed(RAW_OFFSET, "")])
async def test_it_is_aborted_if_its_raw_records_will_be_read_again(
    hanging: Hanging, topics: Topics, committed: Committed | None
) -> None:
    """The next commit would commit it, too, and the event be there twice."""
    await hanging.write_event()

    await hanging.resolve(committed)

    assert hanging.values(topics.accepted) == hanging.values(topics.partial_counts) == []


async def test_it_is_committed_if_its_offset_was(hanging: Hanging, topics: Topics) -> None:
    """Its raw records will never be read again: the event would be lost."""
    await hanging.write_event()

    await hanging.resolve(Committed(RAW_OFFSET + 1, ""))

    assert hanging.values(topics.accepted) == [b"event"]
    assert hanging.values(topics.partial_counts) == [b"1"]


@pytest.mark.parametrize(
    ("watermark", "metadata", "is_committed"),
    [
        (999, METADATA, True),
        (1000, METADATA, True),
        (1001, METADATA, False),
        (1001, "", True),  # An operator set the offset: nothing is known, and counts may be repeated.
    ],
)
async def test_a_watermark_that_hangs_alone_is_committed_if_it_is_in_the_metadata(
    hanging: Hanging, topics: Topics, watermark: int, metadata: str, is_committed: bool
) -> None:
    """An idle tick writes nothing else, and Kafka may have marked the other partitions."""
    value = b'{"watermark":%d,"expiry":0}' % watermark
    await hanging.write(topics.partial_counts, b"5", key=pack_count_key(0, 0, ""))
    await hanging.write(topics.partial_counts, value, key=pack_watermark_key(0))

    await hanging.resolve(Committed(RAW_OFFSET, metadata))

    assert hanging.values(topics.partial_counts) == ([b"5", value] if is_committed else [])


async def test_another_partitions_watermark_tells_nothing(hanging: Hanging, topics: Topics) -> None:
    """All partitions write to partial-counts."""
    await hanging.write(topics.partial_counts, b"5", key=pack_count_key(0, 0, ""))
    await hanging.write(topics.partial_counts, b'{"watermark":9000,"expiry":0}', key=pack_watermark_key(1))

    await hanging.resolve(Committed(RAW_OFFSET, METADATA))

    assert len(hanging.values(topics.partial_counts)) == 2


async def test_no_transaction_begins_before_the_one_before_it_is_marked(
    hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What aborts the next one would abort it, too, though its offset was committed."""
    monkeypatch.setattr("pipeline.kafka.transactions.MARKED_SECONDS", 0.2)
    await hanging.write_event()
    accepted, _, counts = tps = hanging.outputs

    with pytest.raises(TimeoutError):
        await hanging.producer.until_marked(tps)

    assert await hanging.unmarked() == {accepted, counts}
    await hanging.producer.commit_hanging(tps, {}, hanging.settings.worker.group)
    monkeypatch.setattr("pipeline.kafka.transactions.MARKED_SECONDS", 30)
    await hanging.producer.until_marked(tps)


async def test_the_offset_goes_back_first_and_forward_with_what_hangs(
    hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is killed in between has it aborted by the next one, who reads its raw records again."""
    group, raw = hanging.settings.worker.group, TopicPartition(hanging.settings.kafka.topics.raw, 0)
    owner = await TransactionalProducer.open(hanging.client, uuid.uuid4().hex)
    await owner.commit([], {raw: OffsetAndMetadata(RAW_OFFSET + 1, METADATA)}, group)
    await hanging.write_event()

    async def killed(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(hanging.producer, "commit_hanging", killed)
        with pytest.raises(ConnectionError):
            await hanging.resolve(Committed(RAW_OFFSET + 1, METADATA))
    between = await owner.position(group, raw)
    await hanging.resolve(Committed(RAW_OFFSET + 1, METADATA))

    assert between == (RAW_OFFSET, '{"owner":""}')
    assert await owner.position(group, raw) == (RAW_OFFSET + 1, METADATA)


async def test_what_hangs_under_an_id_that_no_offset_names_is_found(hanging: Hanging, topics: Topics) -> None:
    """The group was forgotten: what wrote it is asked of the brokers."""
    await hanging.write_event()
    raw = TopicPartition(topics.raw, 0)

    await hanging.takeovers.begin(raw, uuid.uuid4().hex, hanging.stage, owner="ours")

    assert await hanging.unmarked() == set()
    assert hanging.values(topics.accepted) == hanging.values(topics.partial_counts) == []


async def test_what_hangs_where_brokers_do_not_tell_whose_it_is_is_an_error_instead_of_overlooked(
    hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore ends before it, so that what comes behind would be accepted once more at the next opening."""

    async def older_than_kafka_3(*_: object, **__: object) -> list[str]:
        return []

    monkeypatch.setattr("pipeline.kafka.takeover.REQUEST_TIMEOUT_MS", 1000)
    monkeypatch.setattr(hanging.client, "transactional_ids", older_than_kafka_3)
    await hanging.write_event()

    raw = TopicPartition(hanging.settings.kafka.topics.raw, 0)
    with pytest.raises(TimeoutError):
        await hanging.takeovers.begin(raw, uuid.uuid4().hex, hanging.stage, owner="ours")


async def test_a_partition_without_leader_is_asked_again(hanging: Hanging) -> None:
    """A leader that moves is no reason to restore the state."""
    await hanging.write_event()
    await hanging.producer.commit_hanging(hanging.outputs, {}, hanging.settings.worker.group)
    hanging.client.misses = 2

    await hanging.producer.until_marked(hanging.outputs)

    assert hanging.client.misses == 0


def test_a_rejected_record_is_known_by_the_offset_that_we_gave_it(settings: Settings) -> None:
    """It has all headers of its raw record, and its writer may have named them like ours."""
    stage, topics = stage_of(settings), settings.kafka.topics
    forged = [(HEADER_DECISION, b""), (HEADER_DECISION, pack_decision(0, 1)), (HEADER_RAW_OFFSET, b"-1")]
    ours = [(HEADER_RAW_OFFSET, b"500"), (HEADER_REASON, b"invalid_json"), (HEADER_DETAIL, b"")]

    rejected = cast("Any", SimpleNamespace(topic=topics.rejected, headers=[*forged, *ours]))
    accepted = cast(
        "Any", SimpleNamespace(topic=topics.accepted, headers=[*forged, (HEADER_DECISION, pack_decision(501, 1))])
    )

    known = [[stage.is_committed(r, 0, Committed(end, "")) for end in (500, 501, 502)] for r in (rejected, accepted)]
    assert known == [[False, True, True], [False, False, True]]
