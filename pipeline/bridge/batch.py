"""A batch: records that become durable together, and what their waiters share."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from pipeline.core.contract import RawRecord

# A batch that waits (for those in flight, or for Kafka) is closed to newcomers after this long, as its records share
# one deadline: this is how much too early the last of them may be given up.
LINGER_SECONDS = 0.1


class StoredIn(Enum):
    """Where a durable record is; what is in the spool gets to Kafka later."""

    KAFKA = auto()
    SPOOL = auto()


class _Ack(asyncio.Future[StoredIn]):
    """What all waiters of a batch share; one waiter that is cancelled must not cancel it for the others."""

    def cancel(self, msg: Any = None) -> bool:
        return False


class PendingBatch:
    """Records that are acknowledged, spooled or given up together."""

    __slots__ = ("acked", "closes_at", "deadline", "is_spooling", "records", "timer")

    def __init__(
        self, expire: Callable[[PendingBatch], None], loop: asyncio.AbstractEventLoop, ack_timeout_seconds: float
    ) -> None:
        """*expire* is called with the batch once *ack_timeout_seconds* have passed."""
        self.is_spooling = False
        now = loop.time()
        self.records: list[RawRecord] = []
        self.acked = _Ack(loop=loop)
        self.closes_at = now + min(LINGER_SECONDS, ack_timeout_seconds / 2)
        self.deadline = now + ack_timeout_seconds
        self.timer = loop.call_at(self.deadline, expire, self)

    def close(self) -> None:
        """Let no further record join."""
        self.closes_at = -math.inf

    @property
    def is_over(self) -> bool:
        """Whether no caller waits for Kafka to take it any more."""
        return self.is_spooling or self.acked.done()
