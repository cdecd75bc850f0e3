"""What doctor finds at a real Kafka, one with an authorizer included: every permission that is missing has its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
)

from pipeline.admin.doctor import CheckResult, Level
from pipeline.admin.doctor.kafka import examine
from pipeline.admin.topics.apply import reconcile
from pipeline.cli.terminal import USAGE_EXIT_CODE
from pipeline.local.kafka import LocalKafka
from pipeline.service.settings import KafkaSettings, Settings, load
from tests.conftest import KAFKA_JARS
from tests.harness.ports import free_port
from tests.harness.secured_kafka import PASSWORD, USER, SecuredKafka
from tests.harness.worker import WorkerProcess
from tests.waiting import eventually

AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}


def bad(settings: Settings) -> list[CheckResult]:
    return [finding for finding in examine(settings) if finding.level is not Level.OK]


def test_a_kafka_with_the_topics_is_well(settings: Settings) -> None:
    assert bad(settings) == []


def test_missing_topics_fail_and_stay_missing(fresh_settings: Settings, admin: KafkaAdminClient) -> None:
    """It looks, and changes nothing."""
    before = {topic["name"] for topic in admin.describe_topics()}

    findings = bad(fresh_settings)

    assert [(finding.check, finding.level) for finding in findings] == [("topics", Level.FAIL)] * 5
    assert all("vod-pipeline topics apply" in finding.fix for finding in findings)
    assert {topic["name"] for topic in admin.describe_topics()} - {"__transaction_state", "__consumer_offsets"} == (
        before - {"__transaction_state", "__consumer_offsets"}
    )


def test_a_topic_that_differs_is_named(settings: Settings, admin: KafkaAdminClient) -> None:
    fewer = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"partitions": 2})})

    findings = bad(fewer)

    assert {finding.check for finding in findings} == {"topics"}
    assert any(f"{settings.kafka.topics.raw}: has 4 partitions, 2 wanted" in finding.what for finding in findings)


def test_kafka_that_is_away_is_one_finding_within_seconds() -> None:
    began = time.monotonic()
    findings = bad(Settings(kafka=KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}")))

    assert [(finding.check, finding.level) for finding in findings] == [("kafka", Level.FAIL)]
    assert f"{findings[0].what} {findings[0].fix}".count("kafka.bootstrap_servers") == 1
    assert time.monotonic() - began < 30


def test_the_command_says_all_as_json_and_its_exit_code_is_that_of_the_failures(settings: Settings) -> None:
    environ = {
        **os.environ,
        "VOD_PIPELINE_CONFIG": os.devnull,
        "VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "VOD_PIPELINE_BRIDGE__PORT": str(free_port()),
        "VOD_PIPELINE_BRIDGE__METRICS_PORT": str(free_port()),
        "VOD_PIPELINE_WORKER__METRICS_PORT": str(free_port()),
    }

    def run(*arguments: str, **more: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "pipeline", "doctor", *arguments]
        done = subprocess.run(command, env={**environ, **more}, capture_output=True, text=True, check=False, timeout=60)
        assert done.stderr == ""
        return done.returncode, done.stdout

    prefix = {"VOD_PIPELINE_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix}
    well_code, well = run("--json", **prefix)
    ill_code, ill = run("--json", VOD_PIPELINE_KAFKA__TOPIC_PREFIX="nowhere.")
    shown_code, shown = run(VOD_PIPELINE_KAFKA__TOPIC_PREFIX="nowhere.")
    wrong_code, wrong = run("--json", VOD_PIPELINE_KAFKA__PARTITIONS="many")

    findings: list[dict[str, Any]] = json.loads(well)
    assert (well_code, {finding["level"] for finding in findings}) == (0, {"ok", "warn"})
    assert {"settings", "callbacks", "limits", "spool", "ports", "kafka", "topics", "permissions", "clock"} == {
        finding["check"] for finding in findings
    }
    assert ill_code == shown_code == 1
    assert sum(finding["level"] == "fail" for finding in json.loads(ill)) == 5
    assert "nowhere.raw is missing" in shown
    assert (wrong_code, [finding["check"] for finding in json.loads(wrong)]) == (1, ["settings"])
    assert "kafka.partitions" in wrong


def acl(kind: ResourceType, name: str, operation: ACLOperation, *, is_prefix: bool = False) -> ACL:
    pattern = ACLResourcePatternType.PREFIXED if is_prefix else ACLResourcePatternType.LITERAL
    return ACL(f"User:{USER}", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name, pattern))


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
    ids = [f"{raw}-vod-pipeline-{stage}-0" for stage in ("accept", "report")]
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


def test_a_worker_that_may_not_read_raw_says_so_and_can_be_stopped(guarded: Guarded, tmp_path: Path) -> None:
    worker = WorkerProcess(guarded.settings, tmp_path)
    worker.environ.update(guarded.secured.environ("SCRAM-SHA-512"))
    guarded.revoke(guarded.raw_read)
    try:
        eventually(lambda: [] if guarded.found() else ["not yet revoked"])
        with worker:
            eventually(lambda: [] if "TopicAuthorizationFailedError" in worker.log.read_text() else [worker.tail()])
            code = worker.terminate()
    finally:
        guarded.grant(guarded.raw_read)

    assert code == 0, worker.tail()
    eventually(guarded.found)


def test_a_worker_that_may_not_use_its_group_says_so_and_ends(guarded: Guarded, tmp_path: Path) -> None:
    worker = WorkerProcess(guarded.settings, tmp_path)
    worker.environ.update(guarded.secured.environ("SCRAM-SHA-512"))
    guarded.revoke(guarded.group_read)
    try:
        eventually(lambda: [] if guarded.found() else ["not yet revoked"])
        with worker:
            code = worker.wait()
    finally:
        guarded.grant(guarded.group_read)
    assert code == USAGE_EXIT_CODE, worker.tail()
    assert "our user may not use vod-pipeline" in worker.log.read_text()
    eventually(guarded.found)


def test_a_wrong_password_is_the_only_finding_and_names_the_setting(guarded: Guarded) -> None:
    environ = guarded.secured.environ("SCRAM-SHA-512")
    del environ["VOD_PIPELINE_KAFKA__PASSWORD_FILE"]
    settings = load(None, {**environ, "VOD_PIPELINE_KAFKA__PASSWORD": "Sesame-4713-wrong"})

    findings = bad(settings)

    assert [(finding.check, finding.level) for finding in findings] == [("kafka", Level.FAIL)]
    assert "see kafka.username and kafka.password" in findings[0].what


def test_a_kafka_that_stands_still_is_found_within_seconds(settings: Settings, kafka: LocalKafka) -> None:
    """The port is open, and nothing answers."""
    kafka.pause()
    try:
        began = time.monotonic()
        findings = bad(settings)
    finally:
        kafka.resume()

    assert [(finding.check, finding.level) for finding in findings] == [("kafka", Level.FAIL)]
    assert time.monotonic() - began < 45
