"""The five topics as docs/contract.md, "Topics" has them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipeline.core.contract import (
    COMPACTION_LAG_SECONDS,
    OUTPUT_MESSAGE_BYTES_MAX,
    OUTPUT_RETENTION_SECONDS,
    RAW_MESSAGE_BYTES_MAX,
    RAW_RETENTION_SECONDS,
    REJECTED_MESSAGE_BYTES_MAX,
)
from pipeline.service.settings import Settings

UNLIMITED = "-1"
NO_LIMIT = str(2**63 - 1)  # What -1 is elsewhere, as Kafka has it for differences of time.
RETENTION_KEY = "retention.ms"
REPLICAS_KEY = "min.insync.replicas"

_DELETE = {"cleanup.policy": "delete"}
_COMPACT = {"cleanup.policy": "compact,delete"}
# Outputs carry the event's time or raw's. Those lie any time back, and ahead where a broker's clock is wrong, or was
# wrong when it stamped raw. The worker judges them by the log; a second judge would refuse what it decided on until
# that time has come, and stop the partition for as long.
_CREATE_TIME = {
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": NO_LIMIT,
    "message.timestamp.after.max.ms": NO_LIMIT,
}
# The first that has both limits (KIP-937). Before, one key is for both; since 4.0 that is gone.
TWO_LIMITS_VERSION = (3, 6)
_ONE_LIMIT_KEY, _TWO_LIMITS_KEYS = "message.timestamp.difference.max.ms", tuple(_CREATE_TIME)[1:]
_BROKERS_CLOCK = {"message.timestamp.type": "LogAppendTime"}
_RAW = _BROKERS_CLOCK | {
    "max.message.bytes": str(RAW_MESSAGE_BYTES_MAX),
    # Uncompressed: the broker then checks the size of what is in a batch, not of the batch. A little gzip can hold a
    # record that no transaction could move to rejected, and others' producers may compress.
    "compression.type": "uncompressed",
}
_REJECTED = {"max.message.bytes": str(REJECTED_MESSAGE_BYTES_MAX)}
# The open segment is never compacted: with the default of 7 d opening the report would read all of them.
_SHORT_SEGMENTS = {"segment.ms": str(COMPACTION_LAG_SECONDS * 1000)}
_PARTIAL_COUNTS = _BROKERS_CLOCK | {  # When a count was written is of no use but to compaction and retention.
    "min.compaction.lag.ms": str(COMPACTION_LAG_SECONDS * 1000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """One topic as it must be. Retention and in-sync replicas may be higher than `config` says, never lower."""

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str]


def fitting(spec: TopicSpec, version: tuple[int, ...]) -> TopicSpec:
    """Return *spec* with the settings that brokers of *version* know."""
    if version >= TWO_LIMITS_VERSION or _TWO_LIMITS_KEYS[0] not in spec.config:
        return spec
    kept = {key: value for key, value in spec.config.items() if key not in _TWO_LIMITS_KEYS}
    return replace(spec, config=dict(sorted((kept | {_ONE_LIMIT_KEY: NO_LIMIT}).items())))


def contract(settings: Settings) -> tuple[TopicSpec, ...]:
    """Return the five topics for this prefix, partition and replica count, and dedupe horizon."""
    kafka, topics = settings.kafka, settings.kafka.topics
    partitions = topics.partitions(kafka.partitions)
    horizon_seconds = settings.worker.dedupe_horizon_seconds
    counts_retention_seconds = max(OUTPUT_RETENTION_SECONDS, RAW_RETENTION_SECONDS + horizon_seconds)
    common = {
        # The cluster's own defaults may differ, so what matters is written down.
        "retention.bytes": UNLIMITED,  # A limit by size would end retention early under load.
        REPLICAS_KEY: "2" if kafka.replication_factor > 2 else "1",
        "unclean.leader.election.enable": "false",  # An unclean leader drops acknowledged records.
        "max.message.bytes": str(OUTPUT_MESSAGE_BYTES_MAX),
        "compression.type": "producer",  # Ours compresses nothing; zstd, lz4 and snappy have no decoder here.
    }

    def spec(name: str, retention_seconds: int, *configs: Mapping[str, str]) -> TopicSpec:
        config = common | {RETENTION_KEY: str(retention_seconds * 1000)}
        for more in configs:
            config |= more
        return TopicSpec(
            name=name,
            partitions=partitions[name],
            replication_factor=kafka.replication_factor,
            config=dict(sorted(config.items())),
        )

    return (
        spec(topics.raw, RAW_RETENTION_SECONDS, _DELETE, _RAW),
        spec(topics.accepted, OUTPUT_RETENTION_SECONDS, _DELETE, _CREATE_TIME),
        spec(topics.rejected, OUTPUT_RETENTION_SECONDS, _DELETE, _CREATE_TIME, _REJECTED),
        spec(topics.partial_counts, counts_retention_seconds, _COMPACT, _SHORT_SEGMENTS, _PARTIAL_COUNTS),
        spec(topics.failure_rates, OUTPUT_RETENTION_SECONDS, _COMPACT, _SHORT_SEGMENTS, _CREATE_TIME),
    )
