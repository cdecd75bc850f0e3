"""What our user may not do on a real Kafka with an authorizer: doctor names each permission, and a worker says it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka.admin import ACL, ACLOperation, KafkaAdminClient, ResourceType

from pipeline.admin.doctor import Level
from pipeline.admin.topics.apply import reconcile
from pipeline.cli.terminal import USAGE_EXIT_CODE
from pipeline.service.settings import KafkaSettings, Settings, load
from pipeline.worker.exits import ExitCode
from tests.conftest import KAFKA_JARS
from tests.harness.secured_kafka import AUTHORIZER, PASSWORD, SecuredKafka, acl
from tests.harness.worker import WorkerProcess
from tests.integration.admin.test_doctor import bad
from tests.waiting import eventually


class Guarded:
    """A broker with an authorizer, the topics, and a user who may do what the pipeline does."""

    def __init__(self, secured: SecuredKafka) -> None:
        self.secured = secured
        prefix = f"guarded-{uuid.uuid4().hex[:8]}."
        environ = {**secured.environ("SCRAM-SHA-512"), "VOD_PIPELINE_KAFKA__TOPIC_PREFIX": prefix}
        self.settings = load(None, environ)
        plain = KafkaSettings(bootstrap_servers=secured.kafka.bootstrap_servers, topic_prefix=prefix)
        reconcile(Settings(kafka=plain))
        self.admin = KafkaAdminClient(bootstrap_servers=secured.kafka.bootstrap_servers)
        topics, operation = self.settings.kafka.topics, ACLOperation
        self.raw_write = acl(ResourceType.TOPIC, topics.raw, operation.WRITE)
        self.accepted_read = acl(ResourceType.TOPIC, topics.accepted, operation.READ)
        self.rates = [acl(ResourceType.TOPIC, topics.failure_rates, each) for each in (operation.READ, operation.WRITE)]
        self.rates.append(acl(ResourceType.TOPIC, topics.failure_rates, operation.DESCRIBE_CONFIGS))
        self.group_read = acl(ResourceType.GROUP, "vod-pipeline", operation.READ)
        self.ids = acl(ResourceType.TRANSACTIONAL_ID, f"{topics.raw}-vod-pipeline-", operation.WRITE, is_prefix=True)
        self.cluster = acl(ResourceType.CLUSTER, "kafka-cluster", operation.DESCRIBE)
        self.raw_read = acl(ResourceType.TOPIC, topics.raw, operation.READ)
        rest = [self.raw_read, acl(ResourceType.TOPIC, topics.accepted, operation.WRITE)]
        for name in (topics.rejected, topics.partial_counts):
            rest += [acl(ResourceType.TOPIC, name, each) for each in (operation.READ, operation.WRITE)]
        rest += [
            acl(ResourceType.TOPIC, name, operation.DESCRIBE_CONFIGS)
            for name in (topics.raw, topics.accepted, topics.rejected, topics.partial_counts)
        ]
        single = [self.raw_write, self.accepted_read, *self.rates, self.group_read, self.ids, self.cluster]
        self.grant(*single, *rest)

    def grant(self, *acls: ACL) -> None:
        assert self.admin.create_acls(list(acls))["failed"] == []

    def revoke(self, *acls: ACL) -> None:
        self.admin.delete_acls(list(acls))

    @contextmanager
    def worker_without(self, revoked: ACL, directory: Path) -> Iterator[WorkerProcess]:
        """Run a worker whose user lacks a permission, which it has again in the end."""
        worker = WorkerProcess(self.settings, directory)
        worker.environ.update(self.secured.environ("SCRAM-SHA-512"))
        self.revoke(revoked)
        try:
            eventually(lambda: [] if self.found() else ["not yet revoked"])
            with worker:
                yield worker
        finally:
            self.grant(revoked)
            eventually(self.found)

    def found(self, *expected: tuple[str, Level, str]) -> list[str]:
        """Return what is wrong with the findings: brokers hear of a change a little later."""
        findings = bad(self.settings)
        found = [(finding.check, finding.level, finding.what) for finding in findings]
        assert PASSWORD not in repr(findings)
        return [] if found == list(expected) else [repr(found)]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with SecuredKafka(KAFKA_JARS, tmp_path_factory.mktemp("guarded"), extra=AUTHORIZER).running() as secured:
        built = Guarded(secured)
        try:
            eventually(built.found)
            yield built
        finally:
            built.admin.close()


def test_a_user_with_all_permissions_has_no_finding(guarded: Guarded) -> None:
    assert guarded.found() == []


@pytest.mark.parametrize(
    ("revoked", "what"),
    [
        ("raw_write", "user pipeline may not WRITE topic {raw}"),
        ("accepted_read", "user pipeline may not READ topic {accepted}"),
        ("group_read", "user pipeline may not READ group vod-pipeline"),
    ],
)
def test_a_missing_permission_is_named(guarded: Guarded, revoked: str, what: str) -> None:
    topics = guarded.settings.kafka.topics
    expected = ("permissions", Level.FAIL, what.format(raw=topics.raw, accepted=topics.accepted))
    guarded.revoke(getattr(guarded, revoked))
    try:
        eventually(lambda: guarded.found(expected))
        fix = next(finding.fix for finding in bad(guarded.settings) if finding.check == "permissions")
    finally:
        guarded.grant(getattr(guarded, revoked))

    assert fix.startswith("kafka-acls.sh ")
    assert "--allow-principal User:pipeline --operation " in fix
    eventually(guarded.found)


@pytest.mark.parametrize("is_described", [False, True])
def test_a_transactional_id_that_may_only_be_described_is_not_enough(guarded: Guarded, is_described: bool) -> None:
    """Finding the coordinator needs Describe; what a worker does needs Write."""
    raw = guarded.settings.kafka.topics.raw
    describe = acl(ResourceType.TRANSACTIONAL_ID, f"{raw}-vod-pipeline-", ACLOperation.DESCRIBE, is_prefix=True)
    if is_described:
        guarded.grant(describe)
    guarded.revoke(guarded.ids)
    ids = [f"{raw}-vod-pipeline-{stage}-0" for stage in ("accept", "report", "worker")]
    try:
        eventually(
            lambda: guarded.found(
                *[("permissions", Level.FAIL, f"user pipeline may not WRITE transactional id {name}") for name in ids]
            ),
        )
    finally:
        guarded.grant(guarded.ids)
        guarded.revoke(describe)

    eventually(guarded.found)


def test_a_topic_that_may_not_be_seen_is_missing_or_hidden(guarded: Guarded) -> None:
    name = guarded.settings.kafka.topics.failure_rates
    guarded.revoke(*guarded.rates)
    try:
        eventually(lambda: guarded.found(("topics", Level.FAIL, f"{name} is missing")))
    finally:
        guarded.grant(*guarded.rates)

    eventually(guarded.found)


def test_without_the_clusters_permission_the_clock_is_not_fully_known(guarded: Guarded) -> None:
    guarded.revoke(guarded.cluster)
    try:
        what = "that it is not ahead is not known: our user may not describe the cluster"
        eventually(lambda: guarded.found(("clock", Level.WARN, what)))
    finally:
        guarded.grant(guarded.cluster)

    eventually(guarded.found)


def test_a_worker_that_may_not_read_raw_says_so_and_ends(guarded: Guarded, tmp_path: Path) -> None:
    with guarded.worker_without(guarded.raw_read, tmp_path) as worker:
        code = worker.wait()

    assert code == ExitCode.KAFKA_UNUSABLE, worker.tail()
    raw = guarded.settings.kafka.topics.raw
    assert f"TopicAuthorizationFailedError('{raw}'); see `vod-pipeline doctor`" in worker.tail()


def test_a_worker_that_may_not_use_its_group_says_so_and_ends(guarded: Guarded, tmp_path: Path) -> None:
    """Its consumer would wait for two minutes, and say nothing."""
    with guarded.worker_without(guarded.group_read, tmp_path) as worker:
        code = worker.wait()

    assert code == USAGE_EXIT_CODE, worker.tail()
    assert "error: our user may not READ group vod-pipeline: `vod-pipeline doctor` has" in worker.tail()


def test_a_worker_that_waits_for_its_permissions_can_be_stopped(guarded: Guarded, tmp_path: Path) -> None:
    with guarded.worker_without(guarded.ids, tmp_path) as worker:
        eventually(lambda: [] if "permissions_missing" in worker.log.read_text() else [worker.tail()])
        code = worker.terminate()

    assert code == 0, worker.tail()
    raw = guarded.settings.kafka.topics.raw
    assert f"our user may not WRITE transactional id {raw}-vod-pipeline-accept-0, WRITE" in worker.log.read_text()
    assert "worker_stop_cut_short" not in worker.log.read_text()


def test_a_wrong_password_is_the_only_finding_and_names_the_setting(guarded: Guarded) -> None:
    environ = guarded.secured.environ("SCRAM-SHA-512")
    del environ["VOD_PIPELINE_KAFKA__PASSWORD_FILE"]
    settings = load(None, {**environ, "VOD_PIPELINE_KAFKA__PASSWORD": "Sesame-4713-wrong"})

    findings = bad(settings)

    assert [(finding.check, finding.level) for finding in findings] == [("kafka", Level.FAIL)]
    assert "see kafka.username and kafka.password" in findings[0].what
