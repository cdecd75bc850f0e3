"""
Kafka for the fault suite: one node or three, which clients reach directly or through a proxy each.

A node has a listener for everybody, one for the bridge and one for the worker. The last two advertise the ports of
proxies, which the test runs: a client that bootstraps there stays there.
"""

from __future__ import annotations

import uuid
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pipeline.local.kafka import HOST, LocalKafka
from tests.harness.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

PROXIED = ("BRIDGE", "WORKER")
START_TIMEOUT_SECONDS = 180.0  # Three nodes, and tests beside them, share what processors there are.


class Node(LocalKafka):
    """A node of a cluster whose members are known from the start (a static KRaft quorum), broker and controller."""

    def __init__(self, *, cluster_id: str, jars: Path, directory: Path, port: int, controller_port: int) -> None:
        super().__init__(jars=jars, directory=directory, port=port, controller_port=controller_port)
        self._cluster_id = cluster_id
        self.listeners = {name: free_port() for name in PROXIED}
        self.proxies = {name: free_port() for name in PROXIED}

    def start(self, *, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Start as LocalKafka does, with more time."""
        super().start(timeout_seconds=timeout_seconds)

    def join(self, number: int, voters: str, count: int) -> None:
        """Become node *number* of *count*; *voters* names all their controllers."""
        replicas = str(min(count, 3))
        protocols = "".join(f",{name}:PLAINTEXT" for name in PROXIED)
        self._extra |= {
            "node.id": str(number),
            "controller.quorum.voters": voters,
            "listeners": self._listeners(self.listeners) + f",CONTROLLER://{HOST}:{self.controller_port}",
            "advertised.listeners": self._listeners(self.proxies),
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}",
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": "2" if count > 2 else "1",
            "min.insync.replicas": "2" if count > 2 else "1",
            # 30 s by default: how long a dead follower may hold back what waits for all replicas in sync.
            "replica.lag.time.max.ms": "6000",
            # Retention and clean-up are the scenarios' own to cause.
            "log.retention.check.interval.ms": "3600000",
        }

    def _listeners(self, ports: dict[str, int]) -> str:
        named = [f"{name}://{HOST}:{port}" for name, port in ports.items()]
        return ",".join([f"PLAINTEXT://{HOST}:{self.port}", *named])

    def _format_arguments(self) -> list[str]:
        return [f"--cluster-id={self._cluster_id}"]


class Cluster:
    """
    Nodes that form one Kafka.

    Args:
        jars: Where Kafka is.
        directory: Gets a directory for each node.
        nodes: 1 or 3. Of three, topics have three replicas, and two of them must have a record.
    """

    def __init__(self, jars: Path, directory: Path, *, nodes: int = 1) -> None:
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self.nodes = [
            Node(
                cluster_id=cluster_id,
                jars=jars,
                directory=directory / f"kafka-{number}",
                port=free_port(),
                controller_port=free_port(),
            )
            for number in range(1, nodes + 1)
        ]
        voters = ",".join(f"{number}@{HOST}:{node.controller_port}" for number, node in enumerate(self.nodes, 1))
        for number, node in enumerate(self.nodes, 1):
            node.join(number, voters, nodes)

    @property
    def kafka(self) -> Node:
        """The only node, or the first."""
        return self.nodes[0]

    def bootstrap_servers(self, name: str | None = None) -> str:
        """Return where to connect: directly, or through the proxies of one of PROXIED."""
        return ",".join(f"{HOST}:{node.proxies[name] if name else node.port}" for node in self.nodes)

    def start(self) -> None:
        """Start the nodes that do not run; at once, as none answers before a majority is there."""
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(lambda node: node.start(), self.nodes))

    def stop(self) -> None:
        """End all nodes: what is tested is over, so no node waits for the others."""
        for node in self.nodes:
            node.kill()

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
