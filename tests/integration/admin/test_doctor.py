"""What doctor finds at a real Kafka, or at none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from kafka.admin import KafkaAdminClient

from pipeline.admin.doctor import CheckResult, Level
from pipeline.admin.doctor.kafka import examine
from pipeline.local.kafka import LocalKafka
from pipeline.service.settings import KafkaSettings, Settings
from tests.harness.ports import free_port


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
