"""
Older Kafkas, from Maven's jars: the brokers that managed clusters still run.

Their jars are fetched on first use, some 80 MB a version. 2.8 has ZooKeeper beside it, which is in the jars, too.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from pipeline.local.kafka import HOST, LocalKafka, LocalKafkaError
from tests.harness.ports import free_port

if TYPE_CHECKING:
    from types import TracebackType

POM = Path("config/kafka/pom.xml")
FETCH_SECONDS = 300
# Since these a node need not name its controllers, and knows the options of a single one.
FORMATS_STANDALONE = (3, 9)
KRAFT = (3, 3)


def jars_of(version: str) -> Path:
    """Return where the jars of *version* are, fetched with Maven if they are not there."""
    jars = Path(f".local/kafka-jars-{version}")
    if (jars / ".fetched").exists():
        return jars
    shutil.rmtree(jars, ignore_errors=True)
    jars.mkdir(parents=True)
    pom = ET.parse(POM)  # noqa: S314  # A file of this tree.
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    found = pom.find("m:dependencies/m:dependency[m:artifactId='kafka_2.13']/m:version", space)
    assert found is not None
    found.text = version
    own = jars / "pom.xml"
    pom.write(own, default_namespace=space["m"])  # Maven wants no prefix.
    command = ["mvn", "-q", "-B", "-f", str(own), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    subprocess.run([*command, f"-DoutputDirectory={jars.absolute()}"], check=True, timeout=FETCH_SECONDS)
    (jars / ".fetched").touch()
    return jars


class OldKafka(LocalKafka):
    """A node of *version*, such as ``3.3.2``, with what it needs beside it."""

    def __init__(self, version: str, directory: Path) -> None:
        self.version = tuple(map(int, version.split(".")))[:2]
        port, controller_port = free_port(), free_port()
        super().__init__(
            jars=jars_of(version), directory=directory, port=port, controller_port=controller_port, extra={}
        )
        self._zookeeper: subprocess.Popen[bytes] | None = None
        self._zookeeper_port = free_port()

    def _properties(self, data: Path) -> dict[str, str]:
        properties = super()._properties(data)
        if self.version >= FORMATS_STANDALONE:
            return properties
        del properties["controller.quorum.bootstrap.servers"]
        if self.version >= KRAFT:
            return properties | {"controller.quorum.voters": f"1@{HOST}:{self.controller_port}"}
        for key in ("process.roles", "node.id", "controller.listener.names"):
            del properties[key]
        return properties | {
            "broker.id": "1",
            "listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT",
            "zookeeper.connect": f"{HOST}:{self._zookeeper_port}",
            # A broker that was killed holds its place until its session ends.
            "zookeeper.session.timeout.ms": "6000",
        }

    def start(self, *, timeout_seconds: float = 60.0) -> None:
        """Start ZooKeeper first, where it is needed."""
        if self.version < KRAFT and self._zookeeper is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            command = self._command(
                self._java(),
                "org.apache.zookeeper.server.ZooKeeperServerMain",
                str(self._zookeeper_port),
                str((self.directory / "zookeeper").absolute()),
            )
            with (self.directory / "zookeeper.log").open("ab") as log:
                self._zookeeper = subprocess.Popen(command, cwd=self.directory, stdout=log, stderr=log)
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                super().start(timeout_seconds=timeout_seconds)
            except LocalKafkaError:
                # ZooKeeper keeps the place of a broker that was killed until its session ends.
                if self._zookeeper is None or time.monotonic() > deadline:
                    raise
            else:
                return

    def _format(self, java: str) -> None:
        if self.version >= KRAFT:
            super()._format(java)
        else:
            (self.directory / "data").mkdir(exist_ok=True)

    def _format_arguments(self) -> list[str]:
        arguments = super()._format_arguments()
        return arguments if self.version >= FORMATS_STANDALONE else arguments[1:]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._zookeeper is not None:
            self._zookeeper.kill()
            self._zookeeper.wait()
