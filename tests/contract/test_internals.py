"""The libraries still have the private names that pipeline/kafka/internals.py lists, with the signatures we rely on."""

from __future__ import annotations

import ast
import importlib
import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pipeline.kafka.internals import PRIVATE_NAMES, VERSIONS

# Of the methods that are called or overridden: what is passed, and in which order.
SIGNATURES = {
    "aiokafka.consumer.fetcher.Fetcher._create_fetch_waiter": ["self"],
    "aiokafka.consumer.fetcher.PartitionRecords._consume_aborted_up_to": ["self", "batch_offset"],
    "aiokafka.consumer.fetcher.PartitionRecords._contains_abort_marker": ["self", "next_batch"],
    "aiokafka.producer.message_accumulator.BatchBuilder._set_producer_state": [
        "self", "producer_id", "producer_epoch", "base_sequence"
    ],
    "faust.app.base.App._create_directories": ["self"],
    "faust.transport.conductor.Conductor._flag_changes": ["self"],
    "faust.transport.drivers.aiokafka.AIOKafkaConsumerThread._create_worker_consumer": ["self", "transport"],
    "faust.transport.drivers.aiokafka.AIOKafkaConsumerThread._ensure_consumer": ["self"],
    "faust.transport.drivers.aiokafka.AIOKafkaConsumerThread._fetch_records": [
        "self", "consumer", "active_partitions", "timeout", "max_records"
    ],
    "faust.transport.drivers.aiokafka.Consumer._new_consumer_thread": ["self"],
    "faust.transport.drivers.aiokafka.Consumer._seek": ["self", "partition", "offset"],
    "faust.transport.drivers.aiokafka.Consumer._to_message": ["self", "tp", "record"],
}  # fmt: skip
NAMES = [(owner, name) for owner, names in PRIVATE_NAMES.items() for name in names]


def class_of(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def assigned(owner: type) -> set[str]:
    """Return the attributes that the class, or one it is derived from, gives its instances in its source."""
    found: set[str] = set()
    for base in owner.__mro__[:-1]:
        for node in ast.walk(ast.parse(Path(inspect.getfile(base)).read_text())):
            match node:
                case ast.Attribute(value=ast.Name(id="self"), ctx=ast.Store()):
                    found.add(node.attr)
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(name)
    return found


@pytest.mark.parametrize("name", VERSIONS)
def test_the_versions_are_those_that_were_read(name: str) -> None:
    """The worker refuses to start on any other."""
    assert version(name) == VERSIONS[name]


@pytest.mark.parametrize(("owner", "name"), NAMES)
def test_a_private_name_is_there(owner: str, name: str) -> None:
    """An attribute, or a method."""
    found = class_of(owner)

    assert hasattr(found, name) or name in assigned(found)


def test_every_method_has_its_signature_here() -> None:
    """A method that is listed without one could take other arguments unseen."""
    methods = {f"{owner}.{name}" for owner, name in NAMES if callable(getattr(class_of(owner), name, None))}

    assert methods == set(SIGNATURES)


@pytest.mark.parametrize("method", SIGNATURES)
def test_a_method_takes_what_it_is_given(method: str) -> None:
    """By name: a renamed parameter is a sign of a changed meaning."""
    owner, _, name = method.rpartition(".")

    assert list(inspect.signature(getattr(class_of(owner), name)).parameters) == SIGNATURES[method]
