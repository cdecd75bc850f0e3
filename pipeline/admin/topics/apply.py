"""Asks Kafka for its topics, and carries out what differs from the contract."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from pipeline.admin.topics.contract import contract
from pipeline.admin.topics.diff import (
    Change,
    ChangeConfig,
    CreateTopic,
    Problem,
    TopicState,
    compare,
    satisfies,
    version_problems,
)
from pipeline.kafka.tools.cluster import Cluster, connect
from pipeline.service.errors import OperatorError
from pipeline.service.settings import Settings

POLL_SECONDS = 0.1
VISIBLE_TIMEOUT_SECONDS = 30  # Takes under 1 s on one node.


class TopicContractError(OperatorError):
    """The topics cannot be brought to the contract."""


def plan(cluster: Cluster, settings: Settings) -> tuple[Change, ...]:
    """
    Compare Kafka with the contract; change nothing.

    Raises:
        ClusterError: Kafka does not answer or refuses.
    """
    states = _states(cluster, [spec.name for spec in contract(settings)])
    version = cluster.version()
    return (*version_problems(version), *compare(settings, states, version=version))


def apply(cluster: Cluster, changes: Sequence[Change]) -> None:
    """
    Carry out what `plan` returned, and return when the new topics can be used.

    Raises:
        TopicContractError: there is a `Problem` among *changes*: then nothing is done.
        ClusterError: Kafka refuses one of them.
    """
    problems = [change for change in changes if isinstance(change, Problem)]
    if problems:
        raise TopicContractError("; ".join(f"{problem.where}: {problem.what}" for problem in problems))
    configs: dict[str, dict[str, str]] = {}
    for change in changes:
        if isinstance(change, CreateTopic):
            spec = change.spec
            cluster.create_topic(
                spec.name, partitions=spec.partitions, replication_factor=spec.replication_factor, config=spec.config
            )
        elif isinstance(change, ChangeConfig):
            configs.setdefault(change.topic, {})[change.key] = change.after
    for topic, config in configs.items():
        cluster.set_topic_config(topic, config)
    _wait_for_configs(cluster, configs)


def reconcile(settings: Settings) -> tuple[Change, ...]:
    """
    Bring the topics of *settings* to the contract, and return what that took.

    Raises:
        TopicContractError, ClusterError, AccessError: as `apply` and `connect` do.
    """
    with connect(settings.kafka) as cluster:
        changes = plan(cluster, settings)
        apply(cluster, changes)
    return changes


def _wait_for_configs(cluster: Cluster, configs: Mapping[str, Mapping[str, str]]) -> None:
    """Return when brokers report *configs*: they answer before the change is in force, and a plan would repeat it."""
    deadline = time.monotonic() + VISIBLE_TIMEOUT_SECONDS
    while True:
        found = cluster.topic_configs(list(configs))
        waiting = [
            topic
            for topic, config in configs.items()
            if any(not satisfies(key, found[topic].get(key, ""), value) for key, value in config.items())
        ]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise TopicContractError(
                f"{waiting[0]} still has its old settings after {VISIBLE_TIMEOUT_SECONDS} s: plan again"
            )
        time.sleep(POLL_SECONDS)


def _states(cluster: Cluster, names: Sequence[str]) -> dict[str, TopicState]:
    found = cluster.topics(names)
    configs = cluster.topic_configs(list(found))
    return {
        name: TopicState(
            name=name,
            partitions=topic.partitions,
            replication_factor=topic.replication_factor,
            config=configs[name],
        )
        for name, topic in found.items()
    }
