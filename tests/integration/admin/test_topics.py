"""The topic contract on a real Kafka."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from pipeline.admin.topics.apply import TopicContractError, apply, plan, reconcile
from pipeline.admin.topics.diff import ChangeConfig, CreateTopic, Problem
from pipeline.kafka.tools.cluster import Cluster, ClusterError, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.service.settings import Settings


@pytest.fixture
def cluster(fresh_settings: Settings) -> Iterator[Cluster]:
    with connect(fresh_settings.kafka) as connected:
        yield connected


def set_config(admin: KafkaAdminClient, topic: str, key: str, value: str) -> None:
    """Change one setting as an operator would, and return when the broker reports it."""
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {key: value})])
    deadline = time.monotonic() + 60
    while get_config(admin, topic, key) != value:
        assert time.monotonic() < deadline, f"{topic}: {key} did not become {value}"


def get_config(admin: KafkaAdminClient, topic: str, key: str) -> str:
    answer = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    value: str = answer["topic"][topic][key]["value"]
    return value


def test_an_empty_kafka_lacks_the_five_topics(cluster: Cluster, fresh_settings: Settings) -> None:
    """The first start has to create everything, and says so."""
    changes = plan(cluster, fresh_settings)

    prefix = fresh_settings.kafka.topic_prefix
    assert [(type(change), change.where.removeprefix(prefix)) for change in changes] == [
        (CreateTopic, "raw"),
        (CreateTopic, "accepted"),
        (CreateTopic, "rejected"),
        (CreateTopic, "partial-counts"),
        (CreateTopic, "failure-rates"),
    ]


def test_after_apply_nothing_is_left_to_do(cluster: Cluster, fresh_settings: Settings) -> None:
    """`up` applies at every start: a second time must change nothing."""
    reconcile(fresh_settings)

    assert plan(cluster, fresh_settings) == ()


def test_what_kafka_refuses_to_create_is_one_short_line(fresh_settings: Settings) -> None:
    """The client's own message is the whole request and answer: 5,530 characters, and the cause after 3,800 of them."""
    three = fresh_settings.kafka.model_copy(update={"replication_factor": 3})

    with pytest.raises(ClusterError) as refused:
        reconcile(fresh_settings.model_copy(update={"kafka": three}))

    message = str(refused.value)
    assert f"Kafka refuses to create {three.topics.raw}: InvalidReplicationFactorError" in message
    assert "only 1 broker(s) are registered" in message
    assert len(message) < 300


def test_raw_carries_the_clock_of_the_broker(admin: KafkaAdminClient, settings: Settings) -> None:
    """Stream time is raw's timestamp: a client must not be able to forge it."""
    raw = settings.kafka.topics.raw

    assert get_config(admin, raw, "message.timestamp.type") == "LogAppendTime"
    assert get_config(admin, raw, "max.message.bytes") == "131072"
    assert get_config(admin, settings.kafka.topics.accepted, "max.message.bytes") == "1048588"
    assert get_config(admin, raw, "compression.type") == "uncompressed"
    assert get_config(admin, raw, "retention.ms") == "604800000"


def test_a_changed_setting_is_set_back(admin: KafkaAdminClient, cluster: Cluster, settings: Settings) -> None:
    """A retention that was shortened loses remembered keys: it is named, then fixed."""
    accepted = settings.kafka.topics.accepted
    set_config(admin, accepted, "retention.ms", "3600000")

    changes = reconcile(settings)

    assert changes == (ChangeConfig(topic=accepted, key="retention.ms", before="3600000", after="2592000000"),)
    assert plan(cluster, settings) == ()


def test_a_longer_retention_is_kept(admin: KafkaAdminClient, cluster: Cluster, settings: Settings) -> None:
    """Setting it back would delete records that were to be kept."""
    set_config(admin, settings.kafka.topics.accepted, "retention.ms", "-1")

    assert plan(cluster, settings) == ()


def test_another_number_of_partitions_is_a_problem_and_nothing_is_done(
    admin: KafkaAdminClient, cluster: Cluster, fresh_settings: Settings
) -> None:
    """New partitions would send remembered keys elsewhere, where they are not remembered."""
    admin.create_topics({fresh_settings.kafka.topics.raw: {"num_partitions": 3, "replication_factor": 1}})
    admin.wait_for_topics([fresh_settings.kafka.topics.raw])
    changes = plan(cluster, fresh_settings)
    problems = [change for change in changes if isinstance(change, Problem)]

    with pytest.raises(TopicContractError, match=r"raw: has 3 partitions, 4 wanted.*kafka\.partitions"):
        apply(cluster, changes)

    assert [problem.where for problem in problems] == [fresh_settings.kafka.topics.raw]
    assert plan(cluster, fresh_settings) == changes
