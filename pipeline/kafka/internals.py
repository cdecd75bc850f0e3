"""
Every private name of a library that this product uses, and the versions it was read in: each is a debt.

Why there are any: aiokafka and Faust hand out single records, and have no place to ask what their transactions, fetches
and memberships are at. tests/contract/test_internals.py looks each name up in the installed library; an upgrade that
moves one fails there, and not in production.
"""

from __future__ import annotations

from importlib.metadata import version

VERSIONS = {"faust-streaming": "0.15.3", "aiokafka": "0.14.0", "kafka-python": "3.0.12"}

# Attributes and methods, by the class that has them. Methods that are overridden here are among them.
PRIVATE_NAMES = {
    "aiokafka.client.AIOKafkaClient": ("_sync_task",),
    "aiokafka.consumer.consumer.AIOKafkaConsumer": ("_closed", "_coordinator", "_fetcher", "_subscription"),
    "aiokafka.consumer.fetcher.FetchResult": ("_partition_records",),
    "aiokafka.consumer.fetcher.Fetcher": ("_create_fetch_waiter", "_fetch_task", "_records", "_subscriptions"),
    "aiokafka.consumer.fetcher.PartitionRecords": (
        "_aborted_producers", "_consume_aborted_up_to", "_contains_abort_marker", "_records", "_tp"
    ),
    "aiokafka.producer.message_accumulator.BatchBuilder": (
        "_builder", "_relative_offset", "_set_producer_state"
    ),
    "faust.app.base.App": ("_create_directories",),
    "faust.transport.conductor.Conductor": ("_flag_changes",),
    "faust.transport.consumer.Consumer": ("_read_offset",),
    "faust.transport.drivers.aiokafka.AIOKafkaConsumerThread": (
        "_assignor", "_create_worker_consumer", "_ensure_consumer", "_fetch_records"
    ),
    "faust.transport.drivers.aiokafka.Consumer": ("_new_consumer_thread", "_seek", "_thread", "_to_message"),
}  # fmt: skip


def check_versions(*names: str) -> None:
    """Refuse to run on versions whose internals were not read; raises RuntimeError."""
    for name in names:
        if version(name) != VERSIONS[name]:
            raise RuntimeError(f"{name} is {version(name)}, but this was written for {VERSIONS[name]}")
