"""
The topics as Kafka must have them: the contract as data, what differs from it, and how to mend it.

Deciding is pure (`contract`, `check`, `compare`); `plan` and `apply` talk to Kafka. What would lose data or break the
mapping of keys to partitions is never mended, only reported. Source: README, "Topics".
"""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError

from pipeline.core.contract import (
    COMPACTION_LAG_SECONDS,
    DAY_SECONDS,
    OUTPUT_MESSAGE_BYTES_MAX,
    OUTPUT_RETENTION_SECONDS,
    RAW_MESSAGE_BYTES_MAX,
    RAW_RETENTION_SECONDS,
    REJECTED_MESSAGE_BYTES_MAX,
)
from pipeline.kafka import access
from pipeline.service.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.service.settings import Settings

CONNECT_TIMEOUT_SECONDS = 10
REQUEST_TIMEOUT_SECONDS = 30
POLL_SECONDS = 0.1
VISIBLE_TIMEOUT_SECONDS = 30  # Takes under 1 s on one node.

# metadata.version 22 is 4.0-IV0, the first that only a 4.0 broker supports (3.9 ends at 21).
# Source: org.apache.kafka.server.common.MetadataVersion.
METADATA_VERSION_4_0 = 22

UNLIMITED = "-1"
NO_LIMIT = str(2**63 - 1)  # What -1 is elsewhere, as Kafka has it for differences of time.
BROKERS_CLOCK = {"message.timestamp.type": "LogAppendTime"}
RETENTION_KEY = "retention.ms"
REPLICAS_KEY = "min.insync.replicas"
# Values that Kafka reports in any order: `compact,delete` is `delete,compact`.
_SET_VALUED = frozenset({"cleanup.policy"})


class TopicsError(OperatorError):
    """The topics can't be compared or mended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """One topic as it must be. Retention and in-sync replicas may be higher than `config` says, never lower."""

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicState:
    """One topic as Kafka has it; `config` is what is in force, defaults included."""

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTopic:
    """The topic is missing; `apply` creates it."""

    spec: TopicSpec

    @property
    def where(self) -> str:
        return self.spec.name

    @property
    def what(self) -> str:
        return f"create with {self.spec.partitions} partitions, {self.spec.replication_factor} replicas"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeConfig:
    """The topic has another value than the contract; `apply` sets it. It never shortens a retention."""

    topic: str
    key: str
    before: str
    after: str

    @property
    def where(self) -> str:
        return self.topic

    @property
    def what(self) -> str:
        return f"{self.key}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that only an operator can decide; `what` says how. `apply` refuses while there is one."""

    where: str
    what: str


Change = CreateTopic | ChangeConfig | Problem


def contract(settings: Settings) -> tuple[TopicSpec, ...]:
    """Return the five topics as README, "Topics" has them, for this prefix, partition and replica count."""
    kafka, topics = settings.kafka, settings.kafka.topics
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
    # Outputs carry the event's time or raw's. Those lie any time back, and ahead where a broker's clock is wrong, or
    # was wrong when it stamped raw. The worker judges them by the log; a second judge would refuse what it decided on
    # until that time has come, and stop the partition for as long.
    create_time = {
        "message.timestamp.type": "CreateTime",
        "message.timestamp.before.max.ms": NO_LIMIT,
        "message.timestamp.after.max.ms": NO_LIMIT,
    }
    delete, compact = {"cleanup.policy": "delete"}, {"cleanup.policy": "compact,delete"}

    def spec(name: str, partitions: int, retention_seconds: int, *configs: Mapping[str, str]) -> TopicSpec:
        config = common | {RETENTION_KEY: _milliseconds(retention_seconds)}
        for more in configs:
            config |= more
        return TopicSpec(
            name=name,
            partitions=partitions,
            replication_factor=kafka.replication_factor,
            config=dict(sorted(config.items())),
        )

    return (
        spec(
            topics.raw,
            kafka.partitions,
            RAW_RETENTION_SECONDS,
            delete,
            # Uncompressed: the broker then checks the size of what is in a batch, not of the batch. A little gzip can
            # hold a record that no transaction could move to rejected, and others' producers may compress.
            BROKERS_CLOCK,
            {"max.message.bytes": str(RAW_MESSAGE_BYTES_MAX), "compression.type": "uncompressed"},
        ),
        spec(topics.accepted, kafka.partitions, OUTPUT_RETENTION_SECONDS, delete, create_time),
        spec(
            topics.rejected,
            kafka.partitions,
            OUTPUT_RETENTION_SECONDS,
            delete,
            create_time,
            {"max.message.bytes": str(REJECTED_MESSAGE_BYTES_MAX)},
        ),
        spec(
            topics.partial_counts,
            1,
            counts_retention_seconds,
            compact,
            BROKERS_CLOCK,  # Nobody reads when a count was written, but compaction and retention go by it.
            {
                "min.compaction.lag.ms": _milliseconds(COMPACTION_LAG_SECONDS),
                # The open segment is never compacted: with the default of 7 d a rebuild would read all of them.
                "segment.ms": _milliseconds(COMPACTION_LAG_SECONDS),
            },
        ),
        spec(topics.failure_rates, 1, OUTPUT_RETENTION_SECONDS, compact, create_time),
    )


def check(settings: Settings) -> tuple[str, ...]:
    """
    Return why the contract of these settings would lose state, one sentence a topic; empty when it would not.

    State is folded from accepted and partial-counts, so both must outlive every raw record that may still be read
    plus the time its key is remembered. Source: README, "Topics".
    """
    specs = {spec.name: spec.config for spec in contract(settings)}
    return tuple(problem.what for problem in _retention_problems(settings, specs))


def compare(settings: Settings, states: Mapping[str, TopicState]) -> tuple[Change, ...]:
    """
    Return what differs between the contract and *states*, in the contract's order: an empty tuple means nothing.

    Args:
        states: What Kafka has, by topic name; other topics are ignored.
    """
    changes: list[Change] = []
    in_force: dict[str, Mapping[str, str]] = {}
    for spec in contract(settings):
        state = states.get(spec.name)
        if state is None:
            changes.append(CreateTopic(spec=spec))
            in_force[spec.name] = spec.config
            continue
        mended = tuple(_config_changes(spec, state))
        changes.extend(_shape_problems(settings, spec, state))
        changes.extend(mended)
        in_force[spec.name] = {**state.config, **{change.key: change.after for change in mended}}
    changes.extend(_retention_problems(settings, in_force))
    return tuple(changes)


def plan(admin: KafkaAdminClient, settings: Settings) -> tuple[Change, ...]:
    """
    Compare Kafka with the contract; change nothing.

    Raises:
        TopicsError: Kafka does not answer or refuses.
    """
    try:
        features = admin.describe_features()
        states = _read_states(admin, [spec.name for spec in contract(settings)])
    except KafkaError as error:
        raise _refused(error) from error
    return (*_version_problems(features), *compare(settings, states))


def apply(admin: KafkaAdminClient, changes: Sequence[Change]) -> None:
    """
    Carry out what `plan` returned, and return when the new topics can be used.

    Raises:
        TopicsError: there is a `Problem` among *changes*: then nothing is done; or Kafka refuses one of them.
    """
    problems = [change for change in changes if isinstance(change, Problem)]
    if problems:
        raise TopicsError("; ".join(f"{problem.where}: {problem.what}" for problem in problems))
    specs = [change.spec for change in changes if isinstance(change, CreateTopic)]
    configs: dict[str, dict[str, str]] = {}
    for change in changes:
        if isinstance(change, ChangeConfig):
            configs.setdefault(change.topic, {})[change.key] = change.after
    try:
        if specs:
            admin.create_topics({spec.name: _creation(spec) for spec in specs})
            admin.wait_for_topics([spec.name for spec in specs], timeout_ms=VISIBLE_TIMEOUT_SECONDS * 1000)
        for topic, config in configs.items():
            answer = admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, config)])
            result = answer["topic"][topic]
            if result != "OK":
                raise TopicsError(f"Kafka refuses to change {topic}: {result}")
        _wait_for_configs(admin, configs)
    except KafkaError as error:
        raise _refused(error) from error


@contextmanager
def connect(settings: Settings, *, timeout_seconds: int = CONNECT_TIMEOUT_SECONDS) -> Iterator[KafkaAdminClient]:
    """
    Open an admin client for a `with` block.

    Raises:
        TopicsError: no Kafka answers within *timeout_seconds*.
        AccessError: it refuses us, or we refuse it.
    """
    access.require_now(settings.kafka)
    servers = settings.kafka.client_options()["bootstrap_servers"]
    missing = f"no Kafka answers at {settings.kafka.bootstrap_servers} within {timeout_seconds} s"
    remedy = "start it, or set kafka.bootstrap_servers"
    # kafka-python logs every refused attempt and never closes its socket: it is called when somebody listens.
    if not _somebody_listens(servers, timeout_seconds):
        raise TopicsError(f"{missing}: {remedy}")
    try:
        admin = KafkaAdminClient(
            **settings.kafka.client_options(),
            bootstrap_timeout_ms=timeout_seconds * 1000,
            request_timeout_ms=REQUEST_TIMEOUT_SECONDS * 1000,
        )
    except KafkaError as error:
        raise TopicsError(f"{missing}: {remedy}") from error
    try:
        yield admin
    finally:
        admin.close()


def _wait_for_configs(admin: KafkaAdminClient, configs: Mapping[str, Mapping[str, str]]) -> None:
    """Return when brokers report *configs*: they answer before the change is in force, and a plan would repeat it."""
    deadline = time.monotonic() + VISIBLE_TIMEOUT_SECONDS
    while True:
        states = _read_states(admin, list(configs))
        waiting = [
            topic
            for topic, config in configs.items()
            if topic not in states
            or any(not _satisfies(key, states[topic].config.get(key, ""), value) for key, value in config.items())
        ]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise TopicsError(f"{waiting[0]} still has its old settings after {VISIBLE_TIMEOUT_SECONDS} s: plan again")
        time.sleep(POLL_SECONDS)


def _somebody_listens(servers: Sequence[str], timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while True:
        for server in servers:
            host, _, port = server.strip().rpartition(":")
            with suppress(OSError, ValueError), socket.create_connection((host.strip("[]"), int(port)), timeout=1):
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)


def _config_changes(spec: TopicSpec, state: TopicState) -> Iterator[ChangeConfig]:
    for key, after in spec.config.items():
        before = state.config.get(key, "")
        if not _satisfies(key, before, after):
            yield ChangeConfig(topic=spec.name, key=key, before=before, after=after)


def _satisfies(key: str, value: str, wanted: str) -> bool:
    if key == RETENTION_KEY:
        # Somebody who keeps records longer has a reason; setting it back would delete them.
        return _retention(value) >= _retention(wanted)
    if key == REPLICAS_KEY:
        return int(value or 0) >= int(wanted)
    if key in _SET_VALUED:
        return set(value.split(",")) == set(wanted.split(","))
    return value == wanted


def _shape_problems(settings: Settings, spec: TopicSpec, state: TopicState) -> Iterator[Problem]:
    if state.partitions != spec.partitions:
        if spec.name in (settings.kafka.topics.partial_counts, settings.kafka.topics.failure_rates):
            remedy = "one agent merges it in order: stop the pipeline, delete the topic and apply again"
        else:
            remedy = (
                f"a key must stay on its partition, so the number never changes: set kafka.partitions to"
                f" {state.partitions} if raw, accepted and rejected all have it, else use another kafka.topic_prefix"
            )
        yield Problem(where=spec.name, what=f"has {state.partitions} partitions, {spec.partitions} wanted; {remedy}")
    if state.replication_factor < spec.replication_factor:
        yield Problem(
            where=spec.name,
            what=f"has {state.replication_factor} replicas, {spec.replication_factor} wanted:"
            " add them with kafka-reassign-partitions.sh",
        )


def _retention_problems(settings: Settings, configs: Mapping[str, Mapping[str, str]]) -> Iterator[Problem]:
    """Check the law retention >= raw's + horizon on *configs*, which hold what is or will be in force by topic name."""
    topics, horizon_seconds = settings.kafka.topics, settings.worker.dedupe_horizon_seconds
    raw = _retention(configs[topics.raw][RETENTION_KEY])
    for name in (topics.accepted, topics.partial_counts):
        kept = _retention(configs[name][RETENTION_KEY])
        if kept < raw + horizon_seconds:
            yield Problem(
                where=name,
                what=f"{name} is kept {_days(kept)}, which is less than the {_days(raw)} of {topics.raw} plus"
                f" worker.dedupe_horizon_seconds ({_days(horizon_seconds)}): keep {topics.raw} shorter or {name} longer"
                " (retention.ms), or lower the horizon",
            )


def _version_problems(features: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    supported = features.get("metadata.version", {}).get("supported", (0, 0))
    if supported[1] < METADATA_VERSION_4_0:
        yield Problem(where="brokers", what="Apache Kafka 4.0 or newer is needed: upgrade the brokers")


def _read_states(admin: KafkaAdminClient, names: Sequence[str]) -> dict[str, TopicState]:
    # All topics are listed: asking for one by name can create it where the brokers create topics automatically.
    found = [topic for topic in admin.describe_topics() if topic["name"] in names]
    if not found:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic["name"]) for topic in found]
    configs = admin.describe_configs(resources, config_filter="all")["topic"]
    return {topic["name"]: _state(topic, configs[topic["name"]]) for topic in found}


def _state(topic: Mapping[str, Any], config: Mapping[str, Mapping[str, Any]]) -> TopicState:
    partitions = topic["partitions"]
    return TopicState(
        name=topic["name"],
        partitions=len(partitions),
        replication_factor=min((len(partition["replica_nodes"]) for partition in partitions), default=0),
        config={key: entry["value"] for key, entry in config.items() if entry["value"] is not None},
    )


def _creation(spec: TopicSpec) -> dict[str, Any]:
    return {
        "num_partitions": spec.partitions,
        "replication_factor": spec.replication_factor,
        "configs": dict(spec.config),
    }


def _refused(error: KafkaError) -> TopicsError:
    return TopicsError(f"Kafka refuses or does not answer: {error}")


def _milliseconds(seconds: int) -> str:
    return str(seconds * 1000)


def _retention(milliseconds: str) -> float:
    """Return seconds; for ever is infinite, and so is as good as any number that is wanted."""
    return float("inf") if milliseconds == UNLIMITED else int(milliseconds or 0) / 1000


def _days(seconds: float) -> str:
    return "for ever" if seconds == float("inf") else f"{seconds / DAY_SECONDS:.3g} days"
