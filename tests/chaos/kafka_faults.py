"""
One round of each fault of Kafka itself: of its topics and offsets, and of a cluster of three brokers.

As in faults.py, a round that returns says nothing of lost or doubled records.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from pipeline.admin import offsets
from pipeline.core.offset_metadata import owner_of
from pipeline.kafka.tools.cluster import ClusterError, connect
from pipeline.worker.exits import ExitCode
from tests.chaos.faults import until
from tests.harness.admin import admin_of

if TYPE_CHECKING:
    from tests.chaos.system import System
    from tests.harness.cluster import Node

UNREAD_RECORDS = 100
# Too small for a rejected record, but not for the 78 bytes of a transaction's marker: a topic that cannot take those
# leaves Kafka 4.3's coordinator in a state that only its restart ends ("fatal error while sending txn marker").
TOO_SMALL = "100"


async def run_retention(system: System) -> None:
    """While no worker runs, retention takes raw records that no one has read: those are lost and counted."""
    await system.moment()
    stopped = list(system.workers)
    for worker in stopped:
        await system.remove_worker(worker)
    before = len(system.load.sent.taken)
    await until(lambda: len(system.load.sent.taken) >= before + UNREAD_RECORDS)
    raw = await system.keep_raw()
    positions = await asyncio.to_thread(offsets.positions, system.settings)
    cuts = {}
    for position in positions:
        read = position.committed or 0
        cuts[position.partition] = system.chance.randint(read, raw[position.partition][-1].offset)
        gone = [record for record in raw[position.partition] if record.offset < min(read, cuts[position.partition])]
        system.past.records[position.partition] += gone
    await asyncio.to_thread(_delete_records, system, cuts)
    # One of them, as a partition that moves before its first commit is opened, and what it lost counted, twice.
    system.add_worker(stopped[0].log.stem, is_static=False)
    await system.progress()
    wanted = sum(cuts[position.partition] - (position.committed or 0) for position in positions)
    lost = system.workers[0].lost_to_retention()
    for worker in stopped[1:]:
        system.add_worker(worker.log.stem, is_static=False)
    assert lost == wanted, f"{lost} records counted as lost instead of {wanted}"


def _delete_records(system: System, cuts: dict[int, int]) -> None:
    raw = system.settings.kafka.topics.raw
    with admin_of(system.settings) as admin:
        admin.delete_records({TopicPartition(raw, number): offset for number, offset in cuts.items()})


async def recreate_raw(system: System) -> None:
    """Someone deletes raw and makes it anew: the worker stops and says so, and goes on after `offsets reset`."""
    await system.moment()
    system.watch.pause()
    await system.load.pause()
    await until(lambda: all(position.committed == position.end for position in offsets.positions(system.settings)))
    raw = await system.keep_raw()
    for number, records in enumerate(raw):
        system.past.records[number] += records
    with system.expecting(ExitCode.OFFSET_AHEAD_OF_LOG):
        await asyncio.to_thread(_delete_raw, system)
        system.load.resume()
        system.watch.resume()
        await asyncio.to_thread(system.make_topics)
        stopped = list(system.workers)
        endings = len(system.endings)
        await until(lambda: len(system.endings) > endings)
        assert system.endings[-1][1] == ExitCode.OFFSET_AHEAD_OF_LOG, f"{system.endings}; {stopped[0].tail()}"
        for worker in stopped:
            await system.abandon(worker)
    for number in range(system.settings.kafka.partitions):
        # The dead worker is a member until its session ends; the command says so until then.
        await until(lambda number=number: _is_reset(system, number))  # type: ignore[misc]
    for worker in stopped:
        system.add_worker(worker.log.stem, is_static=False)
    await system.progress()


def _delete_raw(system: System) -> None:
    with admin_of(system.settings) as admin:
        admin.delete_topics([system.settings.kafka.topics.raw])


def _is_reset(system: System, number: int) -> bool:
    try:
        offsets.reset(system.settings, number, "earliest")
    except ClusterError:
        return False
    return True


async def make_rejected_unwritable(system: System) -> None:
    """The topic takes no record any more, for a reason that repeating may fix or for one that it can't."""
    broken = system.deal("rejected", [{"max.message.bytes": TOO_SMALL}, {"min.insync.replicas": "2"}])
    await system.moment()
    before = await asyncio.to_thread(_alter_rejected, system, broken)
    await asyncio.sleep(system.chance.uniform(3, 10))
    await asyncio.to_thread(_alter_rejected, system, before)
    await system.progress()


def _alter_rejected(system: System, config: dict[str, str]) -> dict[str, str]:
    """Set *config* and return what it was."""
    topic = system.settings.kafka.topics.rejected
    with admin_of(system.settings) as admin:
        found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, dict[str, Any](config))])
    return {key: found["topic"][topic][key]["value"] for key in config}


async def lose_one_of_three(system: System) -> None:
    """One broker of three is gone: two have every record and go on."""
    await system.moment()
    node = system.chance.choice(system.cluster.nodes)
    node.kill()
    await system.progress()
    await asyncio.to_thread(node.start)
    await all_in_sync(system)
    await system.progress()


async def lose_two_of_three(system: System) -> None:
    """No quorum and no second replica: everything stands still, and goes on in full when they are back."""
    await system.moment()
    gone = system.chance.sample(system.cluster.nodes, 2)
    for node in gone:
        node.kill()
    await asyncio.sleep(system.chance.uniform(5, 10))
    await asyncio.to_thread(system.cluster.start)
    await all_in_sync(system)
    await system.progress()


async def kill_coordinator(system: System) -> None:
    """Kill the broker that leads the transaction log's partition of one of the accept stage's producers."""
    await system.moment()
    node = await asyncio.to_thread(_coordinator, system)
    node.kill()
    await system.progress()
    await asyncio.to_thread(node.start)
    await all_in_sync(system)


def _coordinator(system: System) -> Node:
    """Return the node that coordinates the transactions of the worker that a random partition belongs to."""
    number = system.chance.randrange(system.settings.kafka.partitions)
    kafka, worker = system.settings.kafka, system.settings.worker
    with connect(kafka) as cluster:
        committed = cluster.committed(worker.group, kafka.topics.raw, kafka.partitions)
    transactional_id = owner_of(committed[number].metadata)
    with admin_of(system.settings) as admin:
        (topic,) = admin.describe_topics(["__transaction_state"])
        partitions = topic["partitions"]
        # Kafka: TransactionStateManager.partitionFor, the absolute value of Java's String.hashCode modulo their number.
        wanted = _java_hash(transactional_id) % len(partitions)
        leader = next(entry["leader_id"] for entry in partitions if entry["partition_index"] == wanted)
    return system.cluster.nodes[int(leader) - 1]


def _java_hash(text: str) -> int:
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return abs(value - (1 << 32) if value >= 1 << 31 else value)


async def all_in_sync(system: System) -> None:
    """Wait until every replica has caught up: a second broker that goes now takes no record along."""

    def is_in_sync() -> bool:
        with admin_of(system.settings) as admin:
            topics = admin.describe_topics()
        return all(
            len(partition["isr_nodes"]) == len(partition["replica_nodes"])
            for topic in topics
            for partition in topic["partitions"]
        )

    await until(is_in_sync, seconds=120)
