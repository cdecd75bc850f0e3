"""Ctrl-C, once, ends a command at once, whatever it waits for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaProducer

from pipeline.admin.topics.apply import reconcile
from pipeline.local.kafka import LocalKafka
from pipeline.service.settings import KafkaSettings, Settings
from tests.conftest import KAFKA_JARS
from tests.harness.commands import IDS, commands
from tests.harness.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROW = (
    '{"window_start": "2026-11-27T00:00:00Z", "window_end": "2026-11-27T00:01:00Z", "error_code": null, '
    '"failures": 1, "total": 1, "rate": 1.0, "complete": false, "revision": 0, "late": 0}'
)
STARTS_SECONDS = 100
ENDS_SECONDS = 60  # One that only gave up on Kafka ends with another code.

ASKS = {
    "audit": (),
    "doctor": (),
    "failures": (),
    "find": ("a",),
    "offsets reset": ("--partition", "0"),
    "offsets show": (),
    "rates": (),
    "reconcile": ("--ids", str(IDS)),
    "rejected list": (),
    "rejected replay": ("--reason", "conflict", "--yes"),
    "rejected show": ("0:0",),
    "simulate": (),
    "topics apply": (),
    "topics migrate": ("--old-prefix", "old."),
    "topics plan": (),
}
OTHERS = {
    "bridge": "a service: it stops in order",
    "config check": "asks no one",
    "config show": "asks no one",
    "dashboard": "a service",
    "files export": "asks no one",
    "spool status": "asks no one",
    "up": "stops what it started: tests/integration/local/test_up.py",
    "worker": "a service",
}


class Silent:
    """A server that takes what it is sent, and never answers: to a client, a Kafka whose process is frozen."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # It is closed.
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while connection.recv(4096):  # One that only looks whether it listens says nothing.
                self.is_asked.set()

    def close(self) -> None:
        for each in (self._listener, *self._connections):
            each.close()


@contextmanager
def started(directory: Path, command: str, bootstrap_servers: str, **options: str) -> Iterator[subprocess.Popen[str]]:
    environ = {
        "VOD_PIPELINE_CONFIG": os.devnull,
        "VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "VOD_PIPELINE_BRIDGE__PORT": bootstrap_servers.rpartition(":")[2],
        **options,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *command.split(), *ASKS[command]],
        cwd=directory,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_every_command_is_interrupted_or_stops_in_order() -> None:
    """A new one has to be thought about."""
    found = {" ".join(words) for words, command in commands() if not hasattr(command, "commands")}

    assert found == ASKS.keys() | OTHERS.keys()


@pytest.mark.parametrize("command", ASKS)
def test_one_interrupt_ends_a_command_that_waits_for_kafka(command: str, tmp_path: Path) -> None:
    with closing(Silent()) as silent, started(tmp_path, command, f"127.0.0.1:{silent.port}") as process:
        assert silent.is_asked.wait(STARTS_SECONDS), process.communicate()

        process.send_signal(signal.SIGINT)

        assert process.wait(ENDS_SECONDS) == -signal.SIGINT  # So that a shell's loop ends, too.
        assert process.stdout is not None
        assert "Traceback" not in process.stdout.read()


def test_one_interrupt_ends_a_command_whose_kafka_froze_meanwhile(tmp_path: Path) -> None:
    with LocalKafka(
        jars=KAFKA_JARS, directory=tmp_path / "kafka", port=free_port(), controller_port=free_port()
    ) as kafka:
        settings = Settings(kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap_servers))
        reconcile(settings)
        with closing(KafkaProducer(**settings.kafka.client_options())) as producer:
            producer.send(settings.kafka.topics.failure_rates, ROW.encode(), key=b"2026-11-27T00:00:00Z|")
        with started(tmp_path, "rates", kafka.bootstrap_servers) as process:
            assert process.stdout is not None
            while "100.00%" not in (line := process.stdout.readline()):
                assert line, process.wait()
            kafka.pause()

            process.send_signal(signal.SIGINT)

            assert process.wait(ENDS_SECONDS) == -signal.SIGINT
