"""
What a cluster says when it is asked: its topics and their settings, the bounds of logs, a group's offsets.

Every wait is bounded, and no topic comes to be by asking for it. What fails is one line for the operator.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    NoError,
    RetriableError,
    TopicAuthorizationFailedError,
    UnknownBrokerIdError,
    for_code,
)
from kafka.protocol.broker_version_data import BrokerVersionData
from kafka.structs import OffsetAndMetadata

from pipeline.kafka import access
from pipeline.kafka.tools.refusals import cause_of
from pipeline.service.errors import OperatorError
from pipeline.service.plain_text import counted
from pipeline.service.settings import KafkaSettings

CONNECT_TIMEOUT_SECONDS = 10
REQUEST_TIMEOUT_SECONDS = 30
QUORUM_VERSION = (3, 9)  # kafka-python 3.0.12 takes for granted what the answer has since then (KIP-853).
ANSWER_TIMEOUT_SECONDS = 15.0  # It takes Kafka 9 s to miss a broker, and another takes over in under 1 s.
VISIBLE_TIMEOUT_SECONDS = 30  # Takes under 1 s on one node.
POLL_SECONDS = 0.1

READ_COMMITTED = "read_committed"
READ_UNCOMMITTED = "read_uncommitted"


class ClusterError(OperatorError):
    """Kafka cannot be asked, or refuses."""


class UnreachableError(ClusterError):
    """No Kafka answers where it should be."""


class ForbiddenError(ClusterError):
    """Our user may not ask this."""


class Bounds(NamedTuple):
    """The first offset of a partition's log, and the one behind its last record."""

    start: int
    end: int


class CommittedOffset(NamedTuple):
    """What a group committed for a partition: the next offset, and the metadata beside it."""

    offset: int
    metadata: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicDescription:
    """A topic as the brokers describe it; `operations` are those that our user may perform on it."""

    partitions: int
    replication_factor: int
    leaderless: tuple[int, ...]
    operations: frozenset[str]


@contextmanager
def connect(kafka: KafkaSettings, *, timeout_seconds: int | None = None) -> Iterator[Cluster]:
    """
    Open a connection for a `with` block.

    Raises:
        UnreachableError: no Kafka answers within *timeout_seconds*; CONNECT_TIMEOUT_SECONDS by default.
        AccessError: it refuses us, or we refuse it.
    """
    timeout_seconds = timeout_seconds or CONNECT_TIMEOUT_SECONDS
    access.require_now(kafka)
    options = kafka.client_options()
    servers = kafka.bootstrap_servers
    # kafka-python logs every refused attempt and never closes its socket: it is called when a server listens.
    if not _one_listens(options["bootstrap_servers"], timeout_seconds):
        remedy = "start it, or set kafka.bootstrap_servers"
        raise UnreachableError(f"no Kafka answers at {servers} within {timeout_seconds} s: {remedy}")
    try:
        admin = KafkaAdminClient(
            **options,
            bootstrap_timeout_ms=timeout_seconds * 1000,
            request_timeout_ms=REQUEST_TIMEOUT_SECONDS * 1000,
        )
    except KafkaError as error:
        raise UnreachableError(
            f"what listens at {servers} does not answer as Kafka within {timeout_seconds} s: is it the listener for "
            f"kafka.security_protocol {kafka.security_protocol}, and does the broker work?"
        ) from error
    try:
        yield Cluster(kafka, admin)
    finally:
        admin.close()


def _one_listens(servers: Sequence[str], timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while True:
        for server in servers:
            host, _, port = server.strip().rpartition(":")
            with suppress(OSError, ValueError), socket.create_connection((host.strip("[]"), int(port)), timeout=1):
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)


class Cluster:
    """A connection to a cluster; `connect` makes it. All of its methods raise ClusterError."""

    def __init__(self, kafka: KafkaSettings, admin: KafkaAdminClient) -> None:
        self.kafka = kafka
        self._admin = admin

    def version(self) -> tuple[int, ...]:
        """Return which Kafka it is, as far as the requests tell that a broker knows: (3, 3)."""
        return tuple(BrokerVersionData(api_versions=self._ask(self._admin.api_versions)).broker_version)

    def controller_time_ms(self) -> int | None:
        """
        Return the time by the clock of Kafka's controller, ms since the epoch; None if it cannot be asked for.

        The leader of the metadata quorum says of itself that it has caught up "now" (KIP-836): a clock that is read
        without writing anything. Our user may not be allowed to; and of brokers before 3.9 the client cannot read it.
        """
        if self.version() < QUORUM_VERSION:
            return None
        try:
            quorum = self._ask(self._admin.describe_metadata_quorum)["topics"][0]["partitions"][0]
        except ForbiddenError:
            return None
        leader = next(voter for voter in quorum["current_voters"] if voter["replica_id"] == quorum["leader_id"])
        return int(leader["last_caught_up_timestamp"])

    def topics(self, names: Sequence[str]) -> dict[str, TopicDescription]:
        """Describe those of *names* that exist and that our user may see."""
        # kafka-python's admin client, unlike its consumer, asks by name without having the topic created.
        found = self._ask(self._admin.describe_topics, list(names))
        return {topic["name"]: _description(topic) for topic in found if topic["error_code"] == 0}

    def topic_configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return what is in force for each of the topics *names*, which exist, defaults included."""
        if not names:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        configs = self._ask(self._admin.describe_configs, resources, config_filter="all")["topic"]
        return {
            name: {key: entry["value"] for key, entry in config.items() if entry["value"] is not None}
            for name, config in configs.items()
        }

    def create_topic(self, name: str, *, partitions: int, replication_factor: int, config: Mapping[str, str]) -> None:
        """Create a topic, and return when it can be used."""
        topic = {"num_partitions": partitions, "replication_factor": replication_factor, "configs": dict(config)}
        with kafka_answers():
            # Raised as an error, it would be the whole request and the whole answer.
            (answer,) = self._admin.create_topics({name: topic}, raise_errors=False)["topics"]
            if answer["error_code"]:
                kind = for_code(answer["error_code"]).__name__
                raise ClusterError(f"Kafka refuses to create {name}: {kind}: {answer['error_message']}")
            self._admin.wait_for_topics([name], timeout_ms=VISIBLE_TIMEOUT_SECONDS * 1000)

    def set_topic_config(self, name: str, config: Mapping[str, str]) -> None:
        """Set *config*; brokers answer before it is in force."""
        with kafka_answers():
            answer = self._admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, dict(config))])
        result = answer["topic"][name]
        if result != "OK":
            raise ClusterError(f"Kafka refuses to change {name}: {result}")

    def bounds(self, topic: str, *, isolation_level: str = READ_UNCOMMITTED) -> dict[int, Bounds]:
        """
        Return where the log of each partition begins and ends now.

        The end is the high watermark, or with READ_COMMITTED the last stable offset: what an open transaction wrote,
        and all behind that, is left out.
        """
        tps = self._partitions(topic)
        starts = self._offsets(tps, OffsetSpec.EARLIEST)
        ends = self._offsets(tps, OffsetSpec.LATEST, isolation_level)
        return {tp.partition: Bounds(starts[tp].offset, ends[tp].offset) for tp in tps}

    def own_bounds(self, topic: str) -> dict[int, Bounds]:
        """
        Return the same of a topic of the settings.

        Raises:
            ClusterError: it has another number of partitions.
        """
        bounds, partitions = self.bounds(topic), self.kafka.partitions
        if len(bounds) != partitions:
            raise ClusterError(f"{topic} has {counted(len(bounds), 'partition')}, and kafka.partitions is {partitions}")
        return bounds

    def offsets_at(self, topic: str, partitions: Iterable[int], at: int) -> dict[int, int]:
        """Return each partition's first offset whose record has the timestamp *at* (ms) or a later one, if one has."""
        tps = [TopicPartition(topic, partition) for partition in partitions]
        found = self._offsets(tps, max(at, 0))
        return {tp.partition: found[tp].offset for tp in tps if found[tp].offset >= 0}

    def newest_timestamp_ms(self, topic: str) -> int:
        """Return the highest timestamp of any record of *topic*, ms since the epoch; -1 if it has none."""
        newest = self._offsets(self._partitions(topic), OffsetSpec.MAX_TIMESTAMP)
        return max(int(found.timestamp) for found in newest.values())

    def committed(self, group: str, topic: str, partitions: int) -> dict[int, CommittedOffset]:
        """Return what *group* committed for *topic*, by partition; those without an offset are left out."""
        tps = [TopicPartition(topic, partition) for partition in range(partitions)]
        found = self._ask(self._admin.list_group_offsets, {group: tps})[group]
        return {
            tp.partition: CommittedOffset(at.offset, at.metadata or "") for tp, at in found.items() if at.offset >= 0
        }

    def set_committed(self, group: str, topic: str, partition: int, position: CommittedOffset) -> None:
        """Commit *position* for *group*, none of whose members may run."""
        tp = TopicPartition(topic, partition)
        with kafka_answers():
            answer = self._admin.alter_group_offsets(group, {tp: OffsetAndMetadata(*position, -1)})[tp]
        if answer is not NoError:
            raise ClusterError(f"Kafka refused ({answer.__name__}): stop every worker of {group} first")

    def _partitions(self, topic: str) -> list[TopicPartition]:
        (found,) = self._ask(self._admin.describe_topics, [topic])
        if found["error_code"] == TopicAuthorizationFailedError.errno:
            # Kafka answers so whether there is one or not: what may not be seen is not given away.
            user = access.user_of(self.kafka)
            raise ForbiddenError(
                f"user {user} may not DESCRIBE topic {topic}, if there is one: see vod-pipeline doctor"
            )
        if found["error_code"]:
            servers = self.kafka.bootstrap_servers
            raise ClusterError(f"there is no topic {topic} on {servers}: see vod-pipeline topics plan")
        return [TopicPartition(topic, partition) for partition in range(len(found["partitions"]))]

    def _offsets(
        self, tps: Sequence[TopicPartition], spec: int, isolation_level: str = READ_UNCOMMITTED
    ) -> dict[TopicPartition, Any]:
        """Return an offset and a timestamp for each of *tps*, which are of one topic."""
        specs = dict.fromkeys(tps, spec)
        try:
            found = self._ask(self._admin.list_partition_offsets, specs, isolation_level=isolation_level)
        except ClusterError as error:
            for topic, description in self.topics([tp.topic for tp in tps[:1]]).items():
                for partition in description.leaderless:
                    raise ClusterError(f"{topic}[{partition}] has no leader: start a broker that has it") from error
            raise
        return dict(found)

    def _ask(self, question: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Ask what changes nothing: again, where another broker has to take over first."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_SECONDS
        while True:
            with kafka_answers():
                try:
                    return question(*arguments, **options)
                except (RetriableError, UnknownBrokerIdError):
                    if time.monotonic() > deadline:
                        raise
            time.sleep(POLL_SECONDS)


def _description(topic: Mapping[str, Any]) -> TopicDescription:
    partitions = topic["partitions"]
    return TopicDescription(
        partitions=len(partitions),
        replication_factor=min((len(partition["replica_nodes"]) for partition in partitions), default=0),
        leaderless=tuple(each["partition_index"] for each in partitions if each["leader_id"] < 0),
        operations=frozenset(topic["authorized_operations"] or ()),
    )


@contextmanager
def kafka_answers() -> Iterator[None]:
    """Turn what kafka-python raises in a `with` block into ClusterError."""
    try:
        yield
    except KafkaError as error:
        kind = ForbiddenError if isinstance(error, AuthorizationError) else ClusterError
        raise kind(f"Kafka refuses or does not answer: {cause_of(error)}") from error
