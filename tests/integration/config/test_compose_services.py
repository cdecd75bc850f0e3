"""
docker-compose.yml, run on this machine without Docker: each service's exact command, environment and health check.

Only addresses, ports and paths are others. Kafka gets the server.properties that the image's own program makes of the
environment (kafka.docker.KafkaDockerWrapper is part of Kafka). Where this machine lets us, our services run as the
image's user, without capabilities, on a file system that is read-only but for what stands for their volumes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.service.settings import KafkaSettings, Settings
from tests.conftest import KAFKA_JARS
from tests.harness.bridge import KEY, URL, Sent, send
from tests.harness.compose import IMAGE_USER, ROOT, Here, HostService, can_confine, read
from tests.harness.ports import free_port
from tests.harness.recount import read as read_topic
from tests.harness.tools import PROMETHEUS
from tests.waiting import eventually

SERVICES = read()["services"]
BODY = {
    "EventTime": "2026-11-22T20:24:05Z", "EventType": "DeleteMediaComplete", "Status": "success", "MediaType": "video",
    "DeleteType": "all", "MediaId": "compose-1",
}  # fmt: skip


class ComposedKafka:
    """The broker of docker-compose.yml, its data in *directory*."""

    def __init__(self, directory: Path) -> None:
        self.port, self.spec = free_port(), SERVICES["kafka"]
        self.here = Here(
            {
                "kafka:9092": f"127.0.0.1:{self.port}",
                "0.0.0.0:9092": f"127.0.0.1:{self.port}",
                "127.0.0.1:9092": f"127.0.0.1:{self.port}",
                "127.0.0.1:9093": f"127.0.0.1:{free_port()}",
                "/var/lib/kafka/data": str(directory / "data"),
                "/etc/kafka/log4j2.properties": str(ROOT / "config/kafka/log4j2.properties"),
                # What the image's scripts do; their classes are Kafka's.
                "/opt/kafka/bin/kafka-configs.sh": f"java -Xmx64m -cp '{KAFKA_JARS}/*' kafka.admin.ConfigCommand",
            }
        )
        self.environ = self.here.environ(self.spec)
        self.log = directory / "kafka.log"
        self.final = directory / "config"
        for name in ("default", "mounted", "config"):
            (directory / name).mkdir()
        # The image keeps the distribution's defaults here. In the container, all of /opt/kafka/config is empty, too.
        for name in ("server.properties", "log4j2.yaml", "tools-log4j2.yaml"):
            (directory / "default" / name).write_text("")
        self._java(
            "kafka.docker.KafkaDockerWrapper", "setup", "--default-configs-dir", str(directory / "default"),
            "--mounted-configs-dir", str(directory / "mounted"), "--final-configs-dir", str(self.final),
        ).wait(60)  # fmt: skip
        self.process = self._java("kafka.Kafka", str(self.final / "server.properties"))

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        options = [*self.environ["KAFKA_HEAP_OPTS"].split(), *self.environ["KAFKA_LOG4J_OPTS"].split()]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                ["java", *options, "-cp", f"{KAFKA_JARS}/*", *arguments],  # noqa: S607  # As the image's scripts do.
                env=self.environ, stdout=log, stderr=log,
            )  # fmt: skip

    def problems(self) -> list[str]:
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                return ["no one listens"]
        done = self.here.health(self.spec, self.environ)
        return [] if done.returncode == 0 else [done.stderr]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposedKafka]:
    """The broker, healthy by its own check."""
    kafka = ComposedKafka(tmp_path_factory.mktemp("composed"))
    try:
        eventually(kafka.problems, seconds=120)
        yield kafka
    finally:
        if kafka.process.poll() is None:
            kafka.process.kill()
            kafka.process.wait()


class Stack:
    """Our services against *broker*."""

    def __init__(self, broker: ComposedKafka, directory: Path) -> None:
        self.is_confined = can_confine()
        self.directory = directory
        self.spool, self.secret = directory / "spool", directory / "callbacks.json"
        self.spool.mkdir()
        self.secret.write_text(json.dumps([{"url": URL, "auth_keys": [KEY]}]))
        self.secret.chmod(0o444)
        if self.is_confined:  # pytest's directories are closed to others; the image made this one for its user.
            os.chown(self.spool, int(IMAGE_USER), int(IMAGE_USER))
            for parent in (directory, *directory.parents[:3]):
                parent.chmod(parent.stat().st_mode | 0o011)
        self.broker = broker
        self.started: list[HostService] = []

    def service(self, name: str) -> HostService:
        port, metrics_port = free_port(), free_port()
        section = "WORKER" if name == "worker" else "BRIDGE"
        more = {f"VOD_PIPELINE_{section}__METRICS_PORT": str(metrics_port), "VOD_PIPELINE_BRIDGE__PORT": str(port)}
        places = {
            "kafka:9092": f"127.0.0.1:{self.broker.port}",
            "0.0.0.0": "127.0.0.1",  # noqa: S104  # It is what is replaced.
            "/var/lib/vod-pipeline/spool": str(self.spool),
            "/run/secrets/callbacks": str(self.secret),
            "8081": str(metrics_port),
            "8082": str(metrics_port),
        }
        writable = [self.spool] if name == "bridge" else []
        found = HostService(name, Here(places, writable=writable), self.directory, is_confined=self.is_confined, **more)
        self.started.append(found)
        return found

    def up(self, name: str) -> HostService:
        """Start a service, and return it once its health check passes."""
        found = self.service(name)
        found.start()
        eventually(found.health, seconds=90)
        return found


@pytest.fixture
def stack(broker: ComposedKafka, tmp_path: Path) -> Iterator[Stack]:
    built = Stack(broker, tmp_path)
    try:
        yield built
    finally:
        for service in built.started:
            service.kill()


def test_the_environment_becomes_the_properties_of_a_broker_that_keeps_what_it_acknowledges(
    broker: ComposedKafka,
) -> None:
    lines = set((broker.final / "server.properties").read_text().split())

    assert {"process.roles=broker,controller", "log.flush.interval.messages=1", "node.id=1"} <= lines
    assert {"transaction.state.log.min.isr=1", "auto.create.topics.enable=false"} <= lines
    assert not any(line.startswith(("heap", "log4j", "opts", "version")) for line in lines), lines


async def test_a_callback_goes_through_the_composed_services(stack: Stack) -> None:
    """Topics, bridge, two workers that share an environment: healthy, working, in JSON lines, stopped in time."""
    done = await asyncio.to_thread(stack.service("topics").run)
    assert done.returncode == 0, done.stdout + done.stderr
    bridge, worker, replica = [await asyncio.to_thread(stack.up, name) for name in ("bridge", "worker", "worker")]
    body = json.dumps({**BODY, "EventTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}).encode()
    sent = Sent()
    await send(int(bridge.environ["VOD_PIPELINE_BRIDGE__PORT"]), [body, body], sent)
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=f"127.0.0.1:{stack.broker.port}"))
    topic = settings.kafka.topics.accepted

    def missing() -> list[str]:
        values = [record.value for partition in read_topic(settings, topic) for record in partition]
        return [] if values == [body] else [f"{values}"]

    await asyncio.to_thread(eventually, missing)
    codes = [await asyncio.to_thread(service.stop) for service in (replica, worker, bridge)]

    assert (sent.taken, sent.refused) == ([body, body], [])
    assert codes == [0, 0, 0]
    for service in (bridge, worker, replica):
        lines = service.log.read_text().splitlines()
        assert all(isinstance(json.loads(line), dict) for line in lines)
        assert KEY not in service.log.read_text()
        assert "compose-1" not in service.log.read_text()
    opened = [json.loads(line) for line in worker.log.read_text().splitlines() if "partition_opened" in line]
    assert {(line["topic"], line["offset"]) for line in opened} >= {("vod-deletions.raw", 0)}
    assert any(stack.spool.iterdir())


def test_a_service_that_is_not_ready_is_unhealthy_and_says_why(stack: Stack) -> None:
    worker = stack.service("worker")
    worker.start()
    complaint = worker.health()
    worker.kill()

    assert "no answer at port" in complaint[0] or "starting" in complaint[0], complaint


def test_a_confined_service_can_write_to_its_volumes_alone(stack: Stack) -> None:
    """If it could, the test above would prove nothing."""
    if not stack.is_confined:
        pytest.skip("needs root and the right to mount: without them, services run unconfined here")
    bridge = stack.service("bridge")
    program = "import pathlib, sys; print(pathlib.os.getuid()); [pathlib.Path(p, 'x').touch() for p in sys.argv[1:]]"
    prefix = bridge.command[: bridge.command.index("--") + 1]
    confined = bridge.command[len(prefix) : bridge.command.index("--bounding-set=-all") + 1]
    python = [*prefix, *confined, os.sys.executable, "-c", program]  # type: ignore[attr-defined]
    allowed = subprocess.run([*python, str(stack.spool)], capture_output=True, text=True, check=False)
    refused = subprocess.run([*python, "/var/tmp"], capture_output=True, text=True, check=False)  # noqa: S108

    assert (allowed.returncode, allowed.stdout) == (0, f"{IMAGE_USER}\n"), allowed.stderr
    assert "Read-only file system" in refused.stderr


def test_prometheus_takes_its_command_and_is_healthy_by_its_check(tmp_path: Path) -> None:
    port = free_port()
    here = Here(
        {
            "/etc/prometheus": str(ROOT / "config/prometheus"),
            "=/prometheus": f"={tmp_path}",
            "127.0.0.1:9090": f"127.0.0.1:{port}",
        }
    )
    spec = SERVICES["prometheus"]
    command = [str(PROMETHEUS), *map(here.text, spec["command"]), f"--web.listen-address=127.0.0.1:{port}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:

        def problems() -> list[str]:
            assert process.poll() is None, (tmp_path / "log").read_text()
            done = here.health(spec, here.environ(spec))
            return [] if done.returncode == 0 else [done.stderr]

        eventually(problems)
    finally:
        process.terminate()
        code = process.wait(60)

    assert code == 0
