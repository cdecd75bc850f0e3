"""
Records on their way into one topic: packed into batches, and one request for each leader with all its partitions.

aiokafka's client keeps connections, metadata, TLS and passwords. Its producer is not used: it costs several times as
much, and a lost batch breaks its sequence. Here nothing is numbered, as a doubled raw record is harmless: the accept
stage deduplicates. It knows nothing of deadlines and of who waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial

import structlog
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from pipeline.core.contract import HEADER_RECEIVED_AT, HEADER_SOURCE, RAW_MESSAGE_BYTES_MAX, RawRecord
from pipeline.kafka import requests
from pipeline.kafka.batches import Batches
from pipeline.kafka.clients import close_client, leader_of, reach
from pipeline.kafka.murmur2 import partitions_of
from pipeline.service.settings import KafkaSettings

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

CONNECT_SECONDS_MAX = 10.0
RETRY_SECONDS = 0.1  # An election takes about as long.
ELECTION_SECONDS_MAX = 2.0  # Longer takes one that waits for a broker.
CLOSE_SECONDS_MAX = 2.0  # A TLS connection to a silent broker closes when that says so.

# Why Kafka refuses a batch for its own sake. Source: https://kafka.apache.org/protocol#protocol_error_codes; aiokafka
# does not know them all.
BATCH_REFUSALS = {
    2: "CORRUPT_MESSAGE",
    10: "MESSAGE_TOO_LARGE",
    18: "RECORD_LIST_TOO_LARGE",
    32: "INVALID_TIMESTAMP",
    87: "INVALID_RECORD",
}

# What is sent together: a batch for each partition.
_Round = Mapping[int, bytes]


class BatchRefusedError(KafkaError):  # type: ignore[misc]  # aiokafka is untyped.
    """Kafka refuses a batch for its own sake; others it takes, over the same connection."""


class Producer:
    """
    Our connections to one cluster.

    Once anything raised but BatchRefusedError, close it and make another: what is broken goes with it.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, *, request_timeout_seconds: float) -> None:
        """
        Args:
            kafka: Where Kafka is.
            topic: Where every record goes.
            request_timeout_seconds: How long one answer may take; its connection is closed then.
        """
        self._topic = topic
        self._request_timeout_ms = round(request_timeout_seconds * 1000)
        self._client = AIOKafkaClient(**kafka.client_options(), request_timeout_ms=self._request_timeout_ms)
        self._partitions = 0
        self._turn = 0

    async def connect(self) -> int:
        """
        Reach the cluster, and return how many partitions the topic has.

        Raises:
            KafkaError: no broker can be reached, or there is no such topic for us.
            TimeoutError: that is not known after CONNECT_SECONDS_MAX.
        """
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            await reach(self._client, [self._topic])
        partitions = self._client.cluster.partitions_for_topic(self._topic)
        if not partitions:
            is_forbidden = self._topic in self._client.cluster.unauthorized_topics
            raise (TopicAuthorizationFailedError if is_forbidden else UnknownTopicOrPartitionError)(self._topic)
        self._partitions = len(partitions)
        return self._partitions

    async def send(self, records: Sequence[RawRecord], *, waits_for_leaders: bool = True) -> list[int]:
        """
        Return once Kafka has acknowledged *records* (acks=all); those of a partition keep their order.

        Tries again for as long as the failure may pass, so the caller sets a limit.

        Args:
            records: What is sent.
            waits_for_leaders: Whether it waits until all have a leader. Otherwise it returns the places of those whose
                partition Kafka knows no leader for, and does not have them.

        Raises:
            BatchRefusedError: Kafka refuses a batch for its own sake; the others may or may not be in the topic.
            KafkaError: it refuses them for another reason that will not pass.
        """
        partitions = self._partitions_of(records)
        passed_over: set[int] = set()
        gives_up = self._is_leaderless if not waits_for_leaders else lambda _: False
        for batches in self._rounds(records, partitions):
            await self._send_round(batches, passed_over, gives_up)
        return _places(partitions, passed_over)

    async def offer(self, records: Sequence[RawRecord], passed_over: set[int]) -> list[int]:
        """
        Send *records* to the partitions that take them now; return the places of those that Kafka does not have.

        Args:
            records: As for `send`.
            passed_over: Partitions that get nothing, so that their records keep their order. One that does not take
                what it is sent within ELECTION_SECONDS_MAX is added.

        Raises:
            BatchRefusedError, KafkaError: as `send` does.
        """
        partitions = self._partitions_of(records)
        for batches in self._rounds(records, partitions):
            is_late = partial(_is_past, asyncio.get_running_loop().time() + ELECTION_SECONDS_MAX)
            await self._send_round(batches, passed_over, is_late)
        return _places(partitions, passed_over)

    async def close(self) -> None:
        """Close the connections, within bounds; no answer on them is waited for any more."""
        await close_client(self._client, seconds=CLOSE_SECONDS_MAX)

    def _partitions_of(self, records: Sequence[RawRecord]) -> list[int]:
        """Return the partition of each of *records*: its key's, or the next one's turn."""
        found = partitions_of([key for key, _, _, _ in records if key is not None], self._partitions)
        if len(found) == len(records):
            return found
        keyed = iter(found)
        return [self._next_turn() if key is None else next(keyed) for key, _, _, _ in records]

    def _next_turn(self) -> int:
        self._turn = (self._turn + 1) % self._partitions
        return self._turn

    def _rounds(self, records: Sequence[RawRecord], partitions: Sequence[int]) -> Iterator[_Round]:
        """Pack *records* into batches, none larger than a topic takes; a request takes one batch a partition."""
        filling: dict[int, Batches] = {}
        for (key, body, source, received_at_ms), partition in zip(records, partitions, strict=True):
            if partition not in filling:
                tp = TopicPartition(self._topic, partition)
                filling[partition] = Batches(tp, bytes_max=RAW_MESSAGE_BYTES_MAX, is_transactional=False)
            filling[partition].append((key, body, received_at_ms, _headers(source, received_at_ms)))
        for number in range(max(len(filled.batches) for filled in filling.values())):
            yield {
                partition: filled.batches[number].build()
                for partition, filled in filling.items()
                if number < len(filled.batches)
            }

    async def _send_round(self, batches: _Round, passed_over: set[int], gives_up: Callable[[int], bool]) -> None:
        """Send *batches* but those of *passed_over*, again and again; add a partition that is given up to these."""
        left = batches
        while left := await self._send({key: batch for key, batch in left.items() if key not in passed_over}):
            await asyncio.sleep(RETRY_SECONDS)
            await self._client.force_metadata_update()
            passed_over |= set(filter(gives_up, left))

    def _is_leaderless(self, partition: int) -> bool:
        return self._leader(partition) is None

    def _leader(self, partition: int) -> int | None:
        return leader_of(self._client, TopicPartition(self._topic, partition))

    async def _send(self, batches: _Round) -> _Round:
        """Send *batches* to their leaders, and return those that have to be sent again."""
        by_leader: dict[int, dict[int, bytes]] = {}
        for partition, batch in batches.items():
            leader = self._leader(partition)
            if leader is not None:
                by_leader.setdefault(leader, {})[partition] = batch
        asked = (self._ask(leader, shares) for leader, shares in by_leader.items())
        answers = await asyncio.gather(*asked, return_exceptions=True)  # None is in flight any more if one raises.
        done = set()
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            done |= answer
        return {partition: batch for partition, batch in batches.items() if partition not in done}

    async def _ask(self, leader: int, shares: _Round) -> set[int]:
        """Send one request, and return the partitions whose batch is acknowledged."""
        batches = {TopicPartition(self._topic, partition): batch for partition, batch in shares.items()}
        request = requests.produce(None, batches, timeout_ms=self._request_timeout_ms)
        try:
            appended = await self._client.send(leader, request)
        except KafkaError as error:
            if not error.retriable:
                raise
            logger.warning("produce_failed", broker=leader, error=repr(error))
            return set()
        codes = {tp.partition: outcome.code for tp, outcome in appended.items()}
        for partition, code in codes.items():
            if code in BATCH_REFUSALS:
                raise BatchRefusedError(BATCH_REFUSALS[code])
            if code != 0:
                refusal = for_code(code)()
                if not refusal.retriable:
                    raise refusal
                logger.warning("produce_failed", broker=leader, partition=partition, error=repr(refusal))
        return {partition for partition, code in codes.items() if code == 0}


def _is_past(deadline: float, _: int) -> bool:
    return asyncio.get_running_loop().time() >= deadline


def _places(partitions: Sequence[int], passed_over: set[int]) -> list[int]:
    return [place for place, partition in enumerate(partitions) if partition in passed_over]


@lru_cache(maxsize=16)  # What arrives within a millisecond shares them.
def _headers(source: bytes, received_at_ms: int) -> list[tuple[str, bytes]]:
    return [(HEADER_SOURCE, source), (HEADER_RECEIVED_AT, b"%d" % received_at_ms)]
