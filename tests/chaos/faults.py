"""
One round of each fault: inject it at a random moment, let it last, take it away, and see every partition go on.

A round that returns says nothing of lost or doubled records: the verdict at the end does.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from tests.harness.proxy import Fault
from tests.harness.recount import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.system import System
    from tests.harness.worker import WorkerProcess

# Past the session (6 s) and the transaction timeout (15 s), after which Kafka fences its producer.
PAUSE_SECONDS = 20.0
SLOW_ACK_SECONDS = 2.0  # Longer than a callback waits for Kafka.
RESETS = 40
BROKER_PAUSE_SECONDS = 25.0  # And past the clients' requests, of 20 s at most.


async def until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait for what has no event; raises AssertionError after *seconds*."""
    await asyncio.to_thread(eventually, lambda: [] if condition() else ["not yet"], seconds=seconds)


async def kill_bridge(system: System) -> None:
    """Kill it while it publishes, or, with Kafka standing still, while it spools."""
    with_spool = system.chance.random() < 0.4
    if with_spool:
        system.cluster.kafka.pause()
    await system.moment(2.5 if with_spool else 1)
    system.kill(system.bridge)
    if with_spool:
        system.cluster.kafka.resume()
    await system.progress()


async def kill_worker(system: System) -> None:
    """Kill any worker."""
    await system.moment()
    system.kill(system.chance.choice(system.workers))
    await system.progress()


async def kill_report_owner(system: System) -> None:
    """Kill the worker that has the report agent's partition; the rows show whether the next one took over in full."""
    owner: list[WorkerProcess] = []

    def is_found() -> bool:
        owner[:] = [worker for worker in system.workers if worker.owns_report()]
        return bool(owner)

    await until(is_found)
    await system.moment()
    system.kill(owner[0])
    await system.progress()


async def kill_broker(system: System) -> None:
    """Kill it, and start it again at once or a little later."""
    await system.moment()
    system.cluster.kafka.kill()
    await system.moment(2)
    await asyncio.to_thread(system.cluster.kafka.start)
    await system.progress()


async def restart_coordinator(system: System) -> None:
    """Stop the broker in order, which hands its coordinators to no other, and start it again."""
    await system.moment()
    await asyncio.to_thread(system.cluster.kafka.restart)
    await system.progress()


async def pause_worker(system: System) -> None:
    """Freeze a worker past every timeout: its successor fences it, and it wakes with chunks and a producer of old."""
    await system.moment()
    zombie = system.chance.choice(system.workers)
    zombie.pause()
    try:
        await asyncio.sleep(PAUSE_SECONDS)
    finally:
        zombie.resume()
    await system.progress()


async def pause_broker(system: System) -> None:
    """Freeze the broker past every timeout: the coordinator ends the sole owners' transactions and fences them."""
    await system.moment()
    system.cluster.kafka.pause()
    try:
        await asyncio.sleep(BROKER_PAUSE_SECONDS)
    finally:
        system.cluster.kafka.resume()
    await system.progress()


def _is_ready(worker: WorkerProcess) -> bool:
    return worker.readiness() == "ready"


async def rebalance(system: System) -> None:
    """Two workers join, one after the other, and any two leave: one in order, and one killed for good."""
    for name in ("second", "third"):
        worker = system.add_worker(name, is_static=False)
        await until(partial(_is_ready, worker))
        await system.progress()
    first, second = system.chance.sample(system.workers, 2)
    await system.remove_worker(first)
    await system.moment()
    await system.abandon(second)
    await system.progress()


async def _hurt_network(system: System, client: str) -> None:
    fault = system.deal(client, [fault for fault in Fault if fault is not Fault.NONE])
    await system.moment()
    for proxy in system.proxies[client]:
        proxy.delay_seconds = SLOW_ACK_SECONDS if fault is Fault.DELAY_ACK else system.chance.uniform(0.05, 0.5)
    system.hurt(client, fault)
    await system.moment(8)
    system.hurt(client, Fault.NONE)
    await system.progress()


async def hurt_network_of_bridge(system: System) -> None:
    """Delay, cut, reset or silence what passes between bridge and Kafka, or delay or drop its acknowledgements."""
    await _hurt_network(system, "BRIDGE")


async def reset_connections_of_bridge(system: System) -> None:
    """Reset them again and again: one in about 60 is reset just before something is written."""
    for _ in range(RESETS):
        for proxy in system.proxies["BRIDGE"]:
            proxy.reset()
        await system.moment(0.1)
    await system.progress()


async def hurt_network_of_worker(system: System) -> None:
    """Do the same between the worker and Kafka."""
    await _hurt_network(system, "WORKER")


async def fill_disk_of_spool(system: System) -> None:
    """Kafka stands still, and the spool's disk fills up: 503 until there is room, whichever comes back first."""
    disk, broker = system.disk, system.cluster.kafka
    refused = len(system.load.sent.refused)
    broker.pause()
    await system.moment(3)
    disk.fill(system.bridge.process_id)
    try:
        await until(lambda: len(system.load.sent.refused) > refused)
        await system.moment()
        if system.chance.random() < 0.5:
            broker.resume()
            await system.moment(2)
    finally:
        disk.free(system.bridge.process_id)
        broker.resume()
    await system.progress()


async def fill_disk_of_broker(system: System) -> None:
    """The broker gives up its log when it cannot write, and so ends; with room again it is started."""
    disk, broker = system.disk, system.cluster.kafka
    await system.moment()
    assert broker.process_id is not None
    disk.fill(broker.process_id)
    try:
        await until(lambda: not broker.is_running)
    finally:
        disk.free(broker.process_id)
    broker.kill()
    await asyncio.to_thread(broker.start)
    await system.progress()


async def kill_while_rebuilding(system: System) -> None:
    """Kill a worker that has its partitions and rebuilds their state; delayed answers make that take longer."""
    worker = system.workers[0]
    system.hurt("WORKER", Fault.DELAY)
    system.kill(worker)
    await until(lambda: "opening" in worker.readiness())
    await system.moment(2)
    system.kill(worker)
    system.hurt("WORKER", Fault.NONE)
    await system.progress()


async def jump_clock_of_bridge(system: System) -> None:
    """Set the bridge's clock, and later back: within the tolerance it goes on, beyond it refuses."""
    taken = len(system.load.sent.taken)
    jump_seconds = system.deal("clock", [-250, 250, -3600, 3600, -30 * 86_400, 30 * 86_400])
    await system.moment()
    system.clock.set(jump_seconds)
    if abs(jump_seconds) <= 250:
        await system.progress()
    else:
        refused = len(system.load.sent.refused)
        await until(lambda: len(system.load.sent.refused) > refused)
        await system.moment()
    system.clock.set(0)
    await system.progress()
    assert len(system.load.sent.taken) > taken
