"""A question about media that our user may not ask is refused: it does not look as if there were nothing."""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaProducer
from kafka.admin import ACLOperation, KafkaAdminClient, ResourceType

from pipeline.admin import media
from pipeline.admin.reconciliation import reconcile
from pipeline.admin.topics.apply import reconcile as make_topics
from pipeline.kafka.tools.cluster import ClusterError, ForbiddenError, connect
from pipeline.service.settings import KafkaSettings, Settings, load
from tests.conftest import KAFKA_JARS
from tests.harness.secured_kafka import AUTHORIZER, USER, SecuredKafka, acl
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


def invisible(settings: Settings) -> list[str]:
    """Brokers hear of a permission a little later."""
    try:
        with connect(settings.kafka) as cluster:
            cluster.bounds(settings.kafka.topics.accepted)
    except ClusterError as error:
        return [str(error)]
    return []


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings whose user may see their topics, read none, and not see `hidden`; accepted holds a record."""
    with SecuredKafka(KAFKA_JARS, tmp_path_factory.mktemp("rights"), extra=AUTHORIZER).running() as secured:
        prefix = f"rights-{uuid.uuid4().hex[:8]}."
        settings = load(None, {**secured.environ("SCRAM-SHA-512"), "VOD_PIPELINE_KAFKA__TOPIC_PREFIX": prefix})
        servers = secured.kafka.bootstrap_servers
        make_topics(Settings(kafka=KafkaSettings(bootstrap_servers=servers, topic_prefix=prefix)))
        with closing(KafkaProducer(bootstrap_servers=servers)) as producer:
            producer.send(settings.kafka.topics.accepted, b"{}", key=b"a")
        with closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
            see = acl(ResourceType.TOPIC, prefix, ACLOperation.DESCRIBE, is_prefix=True)
            assert admin.create_acls([see])["failed"] == []
            admin.create_topics({"hidden": {"num_partitions": 1, "replication_factor": 1}})
        eventually(lambda: invisible(settings))
        yield settings


@pytest.mark.parametrize("topic", ["hidden", "nowhere"])
def test_a_topic_that_may_not_be_seen_is_not_said_to_be_missing(looking: Settings, topic: str) -> None:
    """Kafka's answer is the same whether there is one or not."""
    with connect(looking.kafka) as cluster, pytest.raises(ForbiddenError) as caught:
        cluster.bounds(topic)

    assert str(caught.value) == f"user {USER} may not DESCRIBE topic {topic}, if there is one: see vod-pipeline doctor"


def test_a_topic_that_may_be_seen_is_said_to_be_missing(looking: Settings) -> None:
    missing = f"{looking.kafka.topic_prefix}nothing"
    with connect(looking.kafka) as cluster, pytest.raises(ClusterError, match=f"there is no topic {missing} on "):
        cluster.bounds(missing)


def test_a_topic_that_may_not_be_read_is_named(looking: Settings) -> None:
    with pytest.raises(ForbiddenError, match=r"TopicAuthorizationFailedError.*accepted") as caught:
        list(media.failures(looking.kafka, since_ms=None, code=None, progress=lambda done, total: None))

    assert len(str(caught.value)) < 350


def test_a_group_that_may_not_be_looked_at_is_named(looking: Settings) -> None:
    with pytest.raises(ForbiddenError, match=r"GroupAuthorizationFailedError.*vod-pipeline") as caught:
        reconcile(looking, {b"a": None}, since_ms=None, progress=lambda done, total: None)

    assert len(str(caught.value)) < 350
