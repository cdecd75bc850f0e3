"""What the commands say when Kafka is not there, is another, or refuses."""

from __future__ import annotations

import gc
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from pipeline.admin.topics.apply import apply, plan
from pipeline.cli import app
from pipeline.kafka.tools import cluster as kafka_cluster
from pipeline.kafka.tools.cluster import ClusterError, UnreachableError, connect
from pipeline.local.kafka import LocalKafka
from pipeline.service.errors import OperatorError
from pipeline.service.settings import KafkaSettings, Settings
from tests.harness.admin import admin_of
from tests.harness.commands import IDS
from tests.harness.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

ASKING: dict[str, tuple[str, ...]] = {
    "topics plan": (),
    "offsets show": (),
    "rejected list": (),
    "topics migrate": ("--old-prefix", "old."),
    "audit": (),
    "rates": (),
    "find": ("a",),
    "failures": (),
    "reconcile": ("--ids", str(IDS)),
}


def test_what_kafka_refuses_is_one_line_with_its_cause(fresh_settings: Settings) -> None:
    """Else it is 5,500 characters of requests and answers, the cause behind them."""
    three = KafkaSettings(**fresh_settings.kafka.model_dump() | {"replication_factor": 3})
    settings = fresh_settings.model_copy(update={"kafka": three})

    with connect(three) as cluster, pytest.raises(ClusterError) as caught:
        apply(cluster, plan(cluster, settings))

    assert "only 1 broker(s) are registered" in str(caught.value)
    assert len(str(caught.value)) < 350


@pytest.mark.parametrize("command", ASKING)
def test_each_command_says_in_one_line_that_no_kafka_answers(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    servers = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS", servers)
    monkeypatch.setattr(kafka_cluster, "CONNECT_TIMEOUT_SECONDS", 1)

    done = CliRunner().invoke(app, [*command.split(), *ASKING[command]])

    assert isinstance(done.exception, UnreachableError)
    assert str(done.exception) == (
        f"no Kafka answers at {servers} within 1 s: start it, or set kafka.bootstrap_servers"
    )


@pytest.mark.parametrize("command", ASKING)
def test_each_command_says_that_what_listens_does_not_answer_as_it_is_asked(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """As a listener with passwords does, asked without one: 'start it' leads astray."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        servers = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS", servers)
        monkeypatch.setattr(kafka_cluster, "CONNECT_TIMEOUT_SECONDS", 1)

        done = CliRunner().invoke(app, [*command.split(), *ASKING[command]])

    assert isinstance(done.exception, UnreachableError)
    assert str(done.exception) == (
        f"what listens at {servers} does not answer as Kafka within 1 s: is it the listener for"
        " kafka.security_protocol PLAINTEXT, and does the broker work?"
    )
    del done
    gc.collect()


@pytest.mark.parametrize(
    "command", ["offsets show", "rejected list", "rates", "topics migrate", "find", "failures", "reconcile"]
)
def test_each_command_says_that_a_topic_is_not_there(
    fresh_settings: Settings, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """As with a wrong prefix."""
    monkeypatch.setenv("VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS", fresh_settings.kafka.bootstrap_servers)
    monkeypatch.setenv("VOD_PIPELINE_KAFKA__TOPIC_PREFIX", fresh_settings.kafka.topic_prefix)

    done = CliRunner().invoke(app, [*command.split(), *ASKING[command]])

    assert isinstance(done.exception, OperatorError)
    assert str(done.exception).startswith("there is no topic ")
    assert len(str(done.exception)) < 200


def test_looking_makes_no_topic(tmp_path: Path, kafka: LocalKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka's default is to make one that is asked for, with settings of its own."""
    broker = LocalKafka(
        jars=kafka.jars,
        directory=tmp_path,
        port=free_port(),
        controller_port=free_port(),
        extra={"auto.create.topics.enable": "true"},
    )
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers))
    monkeypatch.setenv("VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS", broker.bootstrap_servers)

    with broker:
        for command in sorted(ASKING.keys() - {"audit", "reconcile"}):
            CliRunner().invoke(app, [*command.split(), *ASKING[command]])
        with closing(admin_of(settings)) as admin:
            found = [topic["name"] for topic in admin.describe_topics() if topic["name"].startswith("vod-")]

    assert found == []
