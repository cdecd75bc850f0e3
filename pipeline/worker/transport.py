"""
A Faust transport that gives an agent the feed of its partition, which brings whole chunks.

Why: stock Faust spends some 80 us an event before any work is done, a chunk costs less than 1 us an event. Offsets are
committed in the stage's transactions, so the agents' topics are declared with `acks=False` and Faust commits nothing.

The private names used here are Faust's; kafka/internals.py lists them, and its version is asserted at start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from aiokafka.errors import KafkaConnectionError
from faust.transport.conductor import Conductor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from pipeline.worker.consumer_thread import ChunkThread
from pipeline.worker.feed import Feed


class ChunkConsumer(driver.Consumer):
    """Turns a feed into the one message that Faust carries to its agent."""

    logger = driver.logger

    def _new_consumer_thread(self) -> ChunkThread:
        return ChunkThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def is_member(self) -> bool:
        """See ChunkThread.is_member."""
        return cast("ChunkThread", self._thread).is_member

    async def perform_seek(self) -> None:
        """
        Leave the positions alone after a rebalance.

        aiokafka begins at the committed offset, and a partition has what it misses fetched again. Faust's would ask for
        all offsets once more; where that takes longer than a request may, it gives up in silence, and fetches nothing.
        """

    async def _seek(self, partition: TP, offset: int) -> None:
        thread = cast("ChunkThread", self._thread)
        try:
            await thread.call_thread(thread.seek_here, partition, offset)
        except RuntimeError as error:
            if not thread.thread_loop.is_closed():
                raise
            # Faust ended it, as aiokafka's consumer failed (an assertion of its coordinator's, after a broker was away
            # for long): no bug of who seeks. The worker ends for that within a second.
            raise KafkaConnectionError("the consumer has ended") from error

    def _to_message(self, tp: TP, feed: Feed) -> ConsumerMessage:
        self._read_offset.pop(tp, None)  # Faust would drop what lies below the offset that it read last.
        return ConsumerMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=0,
            timestamp=0.0,
            timestamp_type=0,
            headers=[],
            key=None,
            value=cast("Any", feed),
            checksum=None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )


class FixedConductor(Conductor):
    """
    Routes what was fetched to the agents' channels, and keeps to the topics that it subscribed to at the start.

    Faust's subscribes anew 45 s after an actor ended, to the topics of the channels that are read just then. Where the
    only actor of a topic ended, that topic is read by no member of the group; where all did, the process crashes.
    """

    def _flag_changes(self) -> None:
        """Leave the subscription alone: the agents never change."""


class ChunkTransport(driver.Transport):
    """Faust's aiokafka transport with chunks; `build_app` fills in what it needs to know."""

    Conductor = FixedConductor
    Consumer = ChunkConsumer

    client_options: dict[str, Any]
    now: Callable[[], int | None]
    on_membership_lost: Callable[[], None]
