"""A transaction of our own requests, on a real Kafka: what is lost on the way is sent again, and written once."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaConnectionError, ProducerFenced, TopicAuthorizationFailedError
from aiokafka.structs import OffsetAndMetadata

from pipeline.kafka.requests import Committed
from pipeline.kafka.transaction_client import FAILURES_MAX, TransactionClient
from pipeline.kafka.transactions import TransactionalProducer, output
from tests.harness.recount import read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from pipeline.service.settings import Settings

REQUESTS = ["init_producer", "add_partitions", "add_group", "produce", "commit_offsets", "end", "open_transactions"]


class Losing(TransactionClient):
    """Loses the answer to the next request named *loses*: it took effect."""

    loses = ""
    raises: type[Exception] = KafkaConnectionError

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return partial(self._lost, found, name) if name in REQUESTS else found

    async def _lost(self, request: Callable[..., Awaitable[Any]], name: str, *arguments: Any, **named: Any) -> Any:
        answer = await request(*arguments, **named)
        if name != self.loses:
            return answer
        self.loses = ""
        error = self.raises(f"the answer to {name} is lost")
        if name == "produce":
            return dict.fromkeys(answer, error)
        raise error


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Losing]:
    topics = settings.kafka.topics
    client = Losing(settings.kafka.client_options(), (topics.accepted, topics.partial_counts))
    yield client
    await client.close()


async def opened(client: TransactionClient) -> TransactionalProducer:
    return await TransactionalProducer.open(client, uuid.uuid4().hex)


async def commit(producer: TransactionalProducer, settings: Settings, number: int, *, size: int = 1) -> None:
    """Write a record to each of three partitions, and the offset."""
    topics, source = settings.kafka.topics, TopicPartition(settings.kafka.topics.raw, 0)
    value = b"%d" % number * size
    tps = [
        TopicPartition(topics.accepted, 0),
        TopicPartition(topics.accepted, 1),
        TopicPartition(topics.partial_counts, 0),
    ]
    outputs = [output(tp, [(b"key", value, 1, [])] * 2) for tp in tps]
    await producer.commit(outputs, {source: OffsetAndMetadata(number, "")}, settings.worker.group)
    await producer.until_marked(tps)


def values(settings: Settings) -> list[list[bytes]]:
    return [[record.value for record in found] for found in read(settings, settings.kafka.topics.accepted)[:2]]


async def position(client: TransactionClient, settings: Settings) -> Committed | None:
    tp = TopicPartition(settings.kafka.topics.raw, 0)
    return await (await opened(client)).position(settings.worker.group, tp)


@pytest.mark.parametrize("lost", REQUESTS)
async def test_what_is_not_answered_is_asked_again_and_written_once(
    settings: Settings, client: Losing, lost: str
) -> None:
    """In the first of three transactions; the second is of another epoch, as the lost one may still be on its way."""
    producer = await opened(client)
    epoch = producer._producer.epoch
    client.loses = lost
    for number in (1, 2, 3):
        await commit(producer, settings, number)

    assert client.loses == ("init_producer" if lost == "init_producer" else "")
    assert values(settings) == [[b"1", b"1", b"2", b"2", b"3", b"3"]] * 2
    assert await position(client, settings) == Committed(3, "")
    assert producer._producer.epoch == epoch + (lost != "init_producer")


async def test_an_epoch_that_is_asked_for_twice_is_begun_once(settings: Settings, client: Losing) -> None:
    """The broker knows who asks (KIP-360)."""
    producer = await opened(client)
    first = producer._producer
    client.loses = "init_producer"

    await producer.renew(settings.worker.group)
    await commit(producer, settings, 1)

    assert producer._producer.epoch == first.epoch + 1
    await producer.renew(settings.worker.group)
    with pytest.raises((InvalidProducerEpoch, ProducerFenced)):
        await TransactionalProducer(client, first).renew(settings.worker.group)


async def test_what_is_larger_than_a_batch_is_written_in_several_and_keeps_its_order(
    settings: Settings, client: Losing
) -> None:
    producer = await opened(client)
    tp, source = TopicPartition(settings.kafka.topics.accepted, 0), TopicPartition(settings.kafka.topics.raw, 0)
    expected = [b"%d" % number * 1000 for number in range(1000)]
    rows = output(tp, [(b"key", value, 1, []) for value in expected], bytes_max=100_000)
    assert len(rows.batches) > 10

    await producer.commit([rows], {source: OffsetAndMetadata(1, "")}, settings.worker.group)
    await producer.until_marked([tp])

    assert values(settings)[0] == expected


async def test_what_was_aborted_is_written_again_in_another_epoch(settings: Settings, client: Losing) -> None:
    """The same batches, with other numbers."""
    producer, group = await opened(client), settings.worker.group
    tp, source = TopicPartition(settings.kafka.topics.accepted, 0), TopicPartition(settings.kafka.topics.raw, 0)
    await commit(producer, settings, 1)
    rows = output(tp, [(b"key", b"again", 1, [])] * 2)
    end = client.end

    async def late(*_: Any, **__: Any) -> None:
        raise TimeoutError

    client.end = late  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        await producer.commit([rows], {source: OffsetAndMetadata(2, "")}, group)
    client.end = end  # type: ignore[method-assign]
    await producer.renew(group)
    await producer.commit([rows], {source: OffsetAndMetadata(2, "")}, group)
    await producer.until_marked([tp])

    assert values(settings)[0] == [b"1", b"1", b"again", b"again"]


async def test_a_successor_fences_it_at_each_request(settings: Settings, client: Losing) -> None:
    """And aborts what it had open."""
    for place in ("add_partitions", "add_group", "produce", "commit_offsets", "end"):
        producer = await opened(client)
        successor: list[TransactionalProducer] = []
        request = getattr(client, place)

        async def fence_first(
            *arguments: Any, request: Any = request, producer: Any = producer, successor: Any = successor, **named: Any
        ) -> Any:
            if not successor:
                successor.append(await TransactionalProducer.open(client, producer._producer.transactional_id))
            return await request(*arguments, **named)

        setattr(client, place, fence_first)
        with pytest.raises((InvalidProducerEpoch, ProducerFenced)):
            await commit(producer, settings, 1)
        delattr(client, place)

    assert values(settings) == [[], []]
    assert await position(client, settings) is None


async def test_after_failures_without_an_answer_it_begins_at_the_bootstrap_servers(
    settings: Settings, client: Losing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All brokers may have other addresses."""
    producer = await opened(client)
    first = client._client
    assert first is not None

    async def refused(*_: Any, **__: Any) -> Any:
        raise KafkaConnectionError("moved")

    monkeypatch.setattr(first, "send", refused)
    monkeypatch.setattr("pipeline.kafka.transactions.RETRY_SECONDS", 0.001)
    await commit(producer, settings, 1)

    assert FAILURES_MAX > 1
    assert client._client is not first
    assert values(settings) == [[b"1", b"1"]] * 2


async def test_what_is_forbidden_is_not_asked_again(settings: Settings, client: Losing) -> None:
    producer = await opened(client)
    client.loses, client.raises = "add_partitions", TopicAuthorizationFailedError

    with pytest.raises(TopicAuthorizationFailedError):
        await commit(producer, settings, 1)
