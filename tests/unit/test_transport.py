"""The transport, where it needs no Kafka."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from faust.types import TP

from pipeline.stream.partition import KAFKA_FAILURES
from pipeline.stream.transport import ChunkConsumer

TP0 = TP("raw", 0)


class Thread:
    """A consumer's thread whose loop is closed, or one with a bug."""

    def __init__(self, *, is_closed: bool) -> None:
        self.thread_loop = asyncio.new_event_loop()
        self._is_closed = is_closed

    def seek_here(self, *_: Any) -> None:
        raise AssertionError("nobody calls it")

    async def call_thread(self, function: Any, *arguments: Any) -> None:
        """Do what mode does first."""
        self.thread_loop.close()
        if self._is_closed:
            self.thread_loop.call_soon_threadsafe(function, *arguments)
        self.thread_loop = asyncio.get_running_loop()
        raise RuntimeError("dictionary changed size during iteration")


def consumer_with(thread: Thread) -> ChunkConsumer:
    consumer = object.__new__(ChunkConsumer)  # Faust's own needs an app that runs.
    consumer._thread = thread  # type: ignore[assignment]  # Stands in for it.
    return consumer


async def test_to_seek_with_a_consumer_that_ended_is_a_failure_of_kafkas() -> None:
    """aiokafka's consumer can fail for good while a broker is away; that is no bug of ours."""
    with pytest.raises(KAFKA_FAILURES):
        await consumer_with(Thread(is_closed=True))._seek(TP0, 5)


async def test_another_error_of_seeking_is_still_a_bug() -> None:
    with pytest.raises(RuntimeError, match="changed size"):
        await consumer_with(Thread(is_closed=False))._seek(TP0, 5)
