"""What the bridge counts of the queues that it polls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from prometheus_client import CollectorRegistry

from pipeline.service.metrics.table import Table, counter, gauge, histogram

WAITED_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 3600, 21_600, 86_400, 345_600, 604_800)  # MNS: 7 days.


class MnsStep(StrEnum):
    """What became of a message: the `step` label of vod_pipeline_mns_messages_total."""

    RECEIVED = "received"
    PUBLISHED = "published"
    SPOOLED = "spooled"
    REPEATED = "repeated"
    NOT_PUBLISHED = "not_published"
    DELETED = "deleted"
    NOT_DELETED = "not_deleted"


class MnsProblem(StrEnum):
    """Why a request to MNS failed: the `reason` label of vod_pipeline_mns_errors_total."""

    TIMEOUT = "timeout"
    NETWORK = "network"
    DENIED = "denied"
    NO_QUEUE = "no_queue"
    THROTTLED = "throttled"
    DAMAGED = "damaged"
    OTHER = "other"


class MnsMetrics(Table):
    """What the bridge counts of the queues it polls."""

    messages = counter(
        "vod_pipeline_mns_messages",
        "Messages by step; received is the sum of published, spooled, repeated (came again, although safe, and are "
        "only deleted) and not_published (come again); not_deleted: safe, but come again, too.",
        "entry",
        "queue",
        "step",
    )
    errors = counter(
        "vod_pipeline_mns_errors",
        "Requests to MNS that failed; denied and no_queue last: compare the settings.",
        "entry",
        "queue",
        "reason",
    )
    early = counter(
        "vod_pipeline_mns_early_answers",
        "Long polls that MNS ended at once without a message; a rise means others poll the queue as well.",
        "entry",
        "queue",
    )
    remembered = gauge(
        "vod_pipeline_mns_remembered_messages",
        "Messages that are safe but not deleted, remembered to be deleted unread when they come again; of more than "
        "4,096 the oldest are forgotten, and published a second time.",
        "entry",
        "queue",
    )
    waited_seconds = histogram(
        "vod_pipeline_mns_waited_seconds",
        "From a message entering its queue to its record being safe; a rise means the bridge was away, or Kafka.",
        "entry",
        "queue",
        buckets=WAITED_BUCKETS,
    )

    def __init__(self, registry: CollectorRegistry, queues: Iterable[Sequence[str]]) -> None:
        """*queues*: the name of each entry, and its queue's, which another region may have, too."""
        super().__init__(registry)
        for entry, queue in queues:
            for step in MnsStep:
                self.messages.labels(entry, queue, step.value)
            for problem in MnsProblem:
                self.errors.labels(entry, queue, problem.value)
            self.early.labels(entry, queue)
            self.remembered.labels(entry, queue)
            self.waited_seconds.labels(entry, queue)
