"""
To another number of partitions, or another Kafka prefix: the new topics are given the memory of the old ones.

The number of partitions of raw never changes, as a key would then be deduplicated on a partition that does not
remember it. So more partitions mean new topics. What the old `accepted` holds is published to the new raw: there it
is accepted once more, and with that known. Whatever order old and new arrive in, the second one is the duplicate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.core.contract import Headers, Topics
from pipeline.kafka.tools.cluster import connect
from pipeline.kafka.tools.raw_writer import write_raw
from pipeline.kafka.tools.reader import Reader
from pipeline.service.settings import Settings

EXPIRY_MARGIN_MS = 3_600_000
"""What would be forgotten within the hour is left out: it could be expired, and so rejected, when its turn comes."""


def carry_over(settings: Settings, *, old_prefix: str, now_ms: int, progress: Callable[[], None]) -> int:
    """
    Publish what was accepted under *old_prefix*, and is not older than the dedupe horizon, to raw of *settings*.

    Args:
        settings: Those of the new topics.
        old_prefix: In front of the old topics' names; their partitions may be any number.
        now_ms: The time, ms since the epoch.
        progress: Called after each record.

    Returns:
        How many records were published, all acknowledged.

    Raises:
        ClusterError: the old topic can't be read, or raw not written. To do it again is harmless.
    """
    since_ms = now_ms - settings.worker.dedupe_horizon_seconds * 1000 + EXPIRY_MARGIN_MS
    return write_raw(settings.kafka, _accepted(settings, old_prefix, since_ms), progress)


def _accepted(settings: Settings, prefix: str, since_ms: int) -> Iterator[tuple[bytes | None, Headers]]:
    with connect(settings.kafka) as cluster:
        for record in Reader(cluster).read_since(Topics.with_prefix(prefix).accepted, since_ms):
            if record.timestamp >= since_ms:
                yield record.value, record.headers
