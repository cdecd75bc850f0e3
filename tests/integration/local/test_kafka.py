"""The local broker."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.admin.topics.apply import plan, reconcile
from pipeline.kafka.tools.cluster import connect
from pipeline.local.kafka import LocalKafka, LocalKafkaError
from pipeline.service.settings import KafkaSettings, Settings
from tests.harness.ports import free_port

REPOSITORY = Path(__file__).parents[3]
OWNER = """
import pathlib, signal
from pipeline.local.kafka import LocalKafka
broker = LocalKafka(
    jars=pathlib.Path({jars!r}), directory=pathlib.Path({directory!r}), port={port}, controller_port={controller_port}
)
broker.start()
print("started", flush=True)
signal.pause()
"""


def test_a_broker_whose_owner_was_killed_is_ended_and_its_data_taken_over(tmp_path: Path, kafka: LocalKafka) -> None:
    """`kill -9` of `up` leaves its broker behind, which holds the port: the next start must work all the same."""
    broker = LocalKafka(jars=kafka.jars, directory=tmp_path, port=free_port(), controller_port=free_port())
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers))
    owner_code = OWNER.format(
        jars=str(broker.jars), directory=str(tmp_path), port=broker.port, controller_port=broker.controller_port
    )
    with subprocess.Popen([sys.executable, "-c", owner_code], stdout=subprocess.PIPE, cwd=REPOSITORY) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        reconcile(settings)
        owner.kill()

    with broker, connect(settings.kafka) as cluster:
        left_to_do = plan(cluster, settings)

    assert left_to_do == ()


def test_a_second_owner_of_the_directory_is_refused(kafka: LocalKafka) -> None:
    """Two brokers on one directory would corrupt it; ending the first would surprise who runs it."""
    second = LocalKafka(jars=kafka.jars, directory=kafka.directory, port=free_port(), controller_port=free_port())

    with pytest.raises(LocalKafkaError, match="in use by process"):
        second.start()

    assert kafka.is_running


def test_a_taken_port_is_named(tmp_path: Path, kafka: LocalKafka) -> None:
    """Another program on 9092 is the most common reason why the first start fails."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        broker = LocalKafka(jars=kafka.jars, directory=tmp_path, port=port, controller_port=free_port())

        with pytest.raises(LocalKafkaError, match=f"port {port} .*kafka.bootstrap_servers"):
            broker.start()


def test_missing_jars_name_the_command_that_fetches_them(tmp_path: Path) -> None:
    """They are not part of the repository."""
    broker = LocalKafka(jars=tmp_path, directory=tmp_path, port=free_port(), controller_port=free_port())

    with pytest.raises(LocalKafkaError, match="set up a checkout of the product, which fetches them, or name a Kafka"):
        broker.start()
