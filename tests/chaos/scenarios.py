"""The scenarios: what is built, which faults hit it in which order, and how often in the long run."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tests.chaos import faults, kafka_faults
from tests.chaos.system import System
from tests.conftest import KAFKA_JARS
from tests.harness.clock import BridgeClock
from tests.harness.cluster import Cluster
from tests.harness.disk import Disk

if TYPE_CHECKING:
    from pathlib import Path

SPOOL_DISK_BYTES = 24 << 20  # Of it the spool keeps 8 MiB in reserve.
KAFKA_DISK_BYTES = 256 << 20

Fault = Callable[[System], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """
    One row of the table.

    `faults` take turns, in an order that the seed decides; each is one round. Static workers go on at once when they
    were killed, others hand over to those that are left.
    """

    name: str
    faults: tuple[Fault, ...]
    rounds: int
    workers: int = 1
    static: bool = True
    brokers: int = 1
    proxied: bool = False
    disk: Literal["spool", "kafka"] | None = None
    own_clock: bool = False
    per_second: float = 200


SCENARIOS = (
    Scenario(name="bridge killed", faults=(faults.kill_bridge,), rounds=20),
    Scenario(name="worker killed", faults=(faults.kill_worker,), rounds=20, workers=2),
    Scenario(name="report owner killed", faults=(faults.kill_report_owner,), rounds=20, workers=2, static=False),
    Scenario(name="broker killed", faults=(faults.kill_broker,), rounds=20),
    Scenario(name="worker paused", faults=(faults.pause_worker,), rounds=10, workers=2, static=False),
    Scenario(name="broker paused", faults=(faults.pause_broker,), rounds=10),
    Scenario(name="1-2-3-1 workers", faults=(faults.rebalance,), rounds=10, static=False),
    Scenario(name="network of the bridge", faults=(faults.hurt_network_of_bridge,), rounds=20, proxied=True),
    Scenario(
        name="resets under load", faults=(faults.reset_connections_of_bridge,), rounds=10, proxied=True, per_second=2000
    ),
    Scenario(name="network of the worker", faults=(faults.hurt_network_of_worker,), rounds=20, proxied=True),
    Scenario(name="spool's disk full", faults=(faults.fill_disk_of_spool,), rounds=10, disk="spool"),
    Scenario(name="broker's disk full", faults=(faults.fill_disk_of_broker,), rounds=10, disk="kafka"),
    Scenario(name="worker killed rebuilding", faults=(faults.kill_while_rebuilding,), rounds=20, proxied=True),
    Scenario(name="retention ran", faults=(kafka_faults.run_retention,), rounds=10, static=False),
    Scenario(name="raw recreated", faults=(kafka_faults.recreate_raw,), rounds=10, static=False),
    Scenario(name="rejected unwritable", faults=(kafka_faults.make_rejected_unwritable,), rounds=10),
    Scenario(name="bridge's clock jumps", faults=(faults.jump_clock_of_bridge,), rounds=20, own_clock=True),
    Scenario(name="coordinator restarted", faults=(faults.restart_coordinator,), rounds=20),
    Scenario(name="3 brokers, coordinator killed", faults=(kafka_faults.kill_coordinator,), rounds=10, brokers=3),
    Scenario(name="3 brokers, one down", faults=(kafka_faults.lose_one_of_three,), rounds=10, brokers=3),
    Scenario(name="3 brokers, two down", faults=(kafka_faults.lose_two_of_three,), rounds=5, brokers=3),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a scenario; `problems` is empty if the promise was kept."""

    scenario: str
    seed: int
    rounds: int
    events: int
    lost: int
    doubled: int
    stall_seconds: float
    problems: tuple[str, ...]


async def play(
    scenario: Scenario, directory: Path, *, seed: int, rounds: int | None = None, cluster: Cluster | None = None
) -> Result:
    """
    Play *scenario* from *seed*, and judge it.

    Args:
        directory: Gets all data and logs; empty.
        rounds: Instead of the scenario's own.
        cluster: A running Kafka that may be hurt; by default one is made.

    Raises:
        AssertionError: a round did not end as it should, such as a stall of minutes.
    """
    with _built(scenario, directory, seed, cluster) as system:
        async with system:
            await system.start()
            count = rounds or scenario.rounds
            for _ in range(count):
                fault = system.deal("faults", list(scenario.faults))
                await fault(system)
            verdict = await system.verdict()
            return Result(
                scenario=scenario.name,
                seed=seed,
                rounds=count,
                events=len(system.load.sent.taken),
                lost=verdict.lost,
                doubled=verdict.doubled,
                stall_seconds=system.watch.stall_seconds,
                problems=verdict.problems,
            )


@contextlib.contextmanager
def _built(scenario: Scenario, directory: Path, seed: int, cluster: Cluster | None) -> Iterator[System]:
    """Build what *scenario* hurts: its disk, its Kafka unless *cluster* is one, and the system with its workers."""
    with contextlib.ExitStack() as stack:
        disk = None
        if scenario.disk is not None:
            size = SPOOL_DISK_BYTES if scenario.disk == "spool" else KAFKA_DISK_BYTES
            disk = stack.enter_context(Disk(directory / "disk", size_bytes=size).mounted())
        if cluster is None:
            home = disk.directory if disk is not None and scenario.disk == "kafka" else directory
            cluster = stack.enter_context(Cluster(KAFKA_JARS, home, nodes=scenario.brokers))
        system = System(
            cluster,
            directory,
            name=scenario.name,
            seed=seed,
            per_second=scenario.per_second,
            proxied=scenario.proxied,
            disk=disk,
            clock=BridgeClock(directory / "clock") if scenario.own_clock else None,
        )
        for number in range(scenario.workers):
            system.add_worker(f"worker-{number}", is_static=scenario.static)
        yield system
