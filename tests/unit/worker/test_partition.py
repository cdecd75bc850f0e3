"""A partition where Kafka never answers, or a client breaks; the model of Kafka in tests/laws has everything else."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError

from pipeline.worker.chunk import Chunk
from pipeline.worker.consumer_thread import ChunkThread
from pipeline.worker.exits import ExitCode
from pipeline.worker.partition import Partition

CHUNK = Chunk("raw", 0, 0, 0, [], idle=True, now=0, behind=0)


class DiedError(BaseException):
    """The worker ended itself."""


def crash(code: ExitCode, message: str) -> NoReturn:
    raise DiedError(code.name, message)


class Stage:
    """Counts what is reported to it."""

    name, source, group, transactional_prefix = "accept", "raw", "group", "prefix-"

    def __init__(self) -> None:
        self.failures = asyncio.Semaphore(0)

    def on_failed(self) -> None:
        self.failures.release()

    def on_paused(self, *_: Any) -> None:
        pass

    def on_closed(self, _: int) -> None:
        pass


class Kafka:
    """Stands for committer, takeovers and reader, and gives no name to claim under: waits for ever, or raises."""

    def __init__(self, error: BaseException | None = None, seconds: float = 0) -> None:
        self.error = error
        self.seconds = seconds
        self.asked = asyncio.Semaphore(0)

    async def owner(self, _: TopicPartition) -> str:
        self.asked.release()
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()
        return ""

    def is_named(self, _: str) -> bool:
        return True


def partition_with(stage: Stage, kafka: Kafka) -> Partition[Any]:
    async def seek(*_: Any) -> None:
        raise AssertionError("nothing to seek")

    any_stage, any_kafka = cast("Any", stage), cast("Any", kafka)
    return Partition(any_stage, 0, reader=any_kafka, takeovers=any_kafka, committer=any_kafka, seek=seek, crash=crash)


async def test_a_partition_that_is_being_opened_is_given_up_at_once() -> None:
    """They are taken away one after the other, without a heartbeat: three seconds each, and the session is over."""
    kafka = Kafka()
    handling = asyncio.create_task(partition_with(Stage(), kafka).handle(CHUNK))
    await kafka.asked.acquire()

    handling.cancel()
    done, _ = await asyncio.wait([handling], timeout=60)

    assert done == {handling}
    assert handling.cancelled()


async def test_a_runtime_error_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="changed size") as raised:
        await partition_with(Stage(), Kafka(RuntimeError("dictionary changed size"))).handle(CHUNK)

    assert raised.value.__notes__ == ["TopicPartition(topic='raw', partition=0), chunk at 0"]


async def test_a_bug_is_raised_though_the_partition_is_being_taken_away() -> None:
    """Instead of the cancellation, which the handover swallows."""
    kafka = Kafka(RuntimeError("dictionary changed size"), seconds=0.01)
    partition = partition_with(Stage(), kafka)
    handling = asyncio.create_task(partition.handle(CHUNK))
    await kafka.asked.acquire()
    partition._session = cast(
        "Any", SimpleNamespace(committing=None, owner="ours")
    )  # Open, so that it may finish what it does.

    handling.cancel()

    with pytest.raises(RuntimeError, match="changed size"):
        await handling


async def test_a_cancellation_that_a_client_lets_out_does_not_end_a_partition_in_silence() -> None:
    """It would stay assigned, and never be read."""
    with pytest.raises(DiedError, match="KAFKA_UNUSABLE"):
        await partition_with(Stage(), Kafka(asyncio.CancelledError())).handle(CHUNK)


async def test_a_consumer_whose_task_ended_is_not_polled_on() -> None:
    """A busy worker would go on under an assignment that the group took from it long ago."""

    def check_errors() -> None:
        raise KafkaError("Unexpected error during coordination")

    running, ended = (asyncio.get_running_loop().create_future() for _ in range(2))
    ended.set_exception(ValueError("x"))
    dead: Any = SimpleNamespace(
        _coordinator=SimpleNamespace(check_errors=check_errors), _fetcher=SimpleNamespace(_fetch_task=running)
    )
    broken: Any = SimpleNamespace(
        _coordinator=SimpleNamespace(check_errors=lambda: None), _fetcher=SimpleNamespace(_fetch_task=ended)
    )

    with pytest.raises(KafkaError, match="coordination"):
        ChunkThread._require_life(dead)
    with pytest.raises(KafkaConnectionError, match="ValueError"):
        ChunkThread._require_life(broken)
