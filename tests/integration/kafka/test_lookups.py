"""Looking changes nothing: where Kafka makes a topic for who asks for it, nothing of ours makes one by asking."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pipeline.local.kafka import LocalKafka
from pipeline.service.settings import Settings
from tests.builders import own_settings
from tests.conftest import KAFKA_JARS
from tests.harness.admin import admin_of
from tests.harness.bridge import BridgeProcess
from tests.harness.commands import IDS, commands
from tests.harness.dashboard import DashboardProcess
from tests.harness.ports import free_port
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND_SECONDS_MAX = 90
RATES_SECONDS = 5  # It asks within the first, and never ends.


@pytest.fixture(scope="module")
def creating_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker with Kafka's own default, which makes what is asked for."""
    with LocalKafka(
        jars=KAFKA_JARS,
        directory=tmp_path_factory.mktemp("kafka"),
        port=free_port(),
        controller_port=free_port(),
        extra={"auto.create.topics.enable": "true"},
    ) as broker:
        yield broker


@pytest.fixture
def bare_settings(creating_kafka: LocalKafka) -> Settings:
    """Settings whose topics do not exist."""
    return own_settings(creating_kafka.bootstrap_servers, session_timeout_seconds=6)


def created(settings: Settings) -> list[str]:
    with closing(admin_of(settings)) as admin:
        return [topic for topic in admin.list_topics() if topic.startswith(settings.kafka.topic_prefix)]


def logged(path: Path, text: str) -> list[str]:
    """Return nothing once the log at *path* has *text* twice, else what is missing: a session began anew."""
    return [] if path.exists() and path.read_text().count(text) > 1 else [f"not twice in {path}: {text}"]


def test_the_bridge_waits_for_its_topic(bare_settings: Settings, tmp_path: Path) -> None:
    bridge = BridgeProcess(bare_settings, tmp_path)
    bridge.launch()
    try:
        eventually(lambda: logged(bridge.log, "UnknownTopicOrPartitionError"))
    finally:
        bridge.kill()

    assert created(bare_settings) == []


def test_the_live_page_waits_for_its_topics(bare_settings: Settings, tmp_path: Path) -> None:
    with DashboardProcess(bare_settings, tmp_path) as page:
        eventually(lambda: [] if "there is no topic" in page.log.read_text() else ["not read"])

    assert created(bare_settings) == []


ASKS = [
    "topics plan",
    "topics migrate --old-prefix {prefix}old.",
    "doctor",
    "audit",
    "find a",
    "failures",
    f"reconcile --ids {IDS}",
    "rates",
    "offsets show",
    "offsets reset --partition 0",
    "rejected list",
    "rejected show 0:0",
    "rejected replay 0:0 --yes",
    "rejected replay --reason conflict --yes",
]
OTHERS = {
    "bridge": "above",
    "dashboard": "above",
    "worker": "tests/integration/worker/test_start.py",
    "topics apply": "makes them, as it says",
    "up": "makes them, as it says",
    "config check": "asks no Kafka",
    "config show": "asks no Kafka",
    "files export": "asks no Kafka",
    "simulate": "asks no Kafka",
    "spool status": "asks no Kafka",
}


def test_every_command_is_tried_or_may_make_topics() -> None:
    """A new one has to be thought about."""
    found = {" ".join(words) for words, command in commands() if not hasattr(command, "commands")}
    tried = {name for name in found if any(f"{asked} ".startswith(f"{name} ") for asked in ASKS)}

    assert found == tried | OTHERS.keys()
    assert tried.isdisjoint(OTHERS)


@pytest.mark.parametrize("command", ASKS)
def test_no_command_makes_a_topic_by_asking(command: str, bare_settings: Settings) -> None:
    kafka = bare_settings.kafka
    environ = {
        **os.environ,
        "VOD_PIPELINE_CONFIG": os.devnull,
        "VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "VOD_PIPELINE_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        "VOD_PIPELINE_WORKER__GROUP": bare_settings.worker.group,
    }
    arguments = command.format(prefix=kafka.topic_prefix).split()
    seconds = RATES_SECONDS if command == "rates" else COMMAND_SECONDS_MAX
    with contextlib.suppress(subprocess.TimeoutExpired):
        run = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            env=environ,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
        print(run.returncode, run.stdout.decode(), run.stderr.decode())

    assert created(bare_settings) == []
