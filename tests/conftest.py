"""Fixtures of every tier; on a real Kafka, one broker for the whole run, and names of its own for every test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from pipeline.admin.topics.apply import reconcile
from pipeline.kafka import clients, lenient_decoding
from pipeline.local.kafka import LocalKafka
from pipeline.service.settings import Settings
from tests.builders import own_settings
from tests.harness.admin import admin_of
from tests.harness.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kafka.admin import KafkaAdminClient

    from pipeline.core.contract import Topics

# The tests' own clients do what the product's do.
lenient_decoding.install()
clients.install()

# Set in the shell, it would hide from every test that a command does not flush what it writes to a pipe.
os.environ.pop("PYTHONUNBUFFERED", None)

KAFKA_JARS = Path(__file__).parent.parent / ".local" / "kafka-jars"


def new_kafka(directory: Path) -> LocalKafka:
    """Build, but do not start, a broker on free ports."""
    return LocalKafka(jars=KAFKA_JARS, directory=directory, port=free_port(), controller_port=free_port())


@pytest.fixture
def registry() -> CollectorRegistry:
    """One a test: nothing is global."""
    return CollectorRegistry()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """The broker that all tests share. A test that pauses or stops it, resumes or starts it before the test ends."""
    with new_kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def fresh_settings(kafka: LocalKafka) -> Settings:
    """Settings with a topic prefix and a group that no other test has; the topics do not exist yet."""
    return own_settings(kafka.bootstrap_servers)


@pytest.fixture
def settings(fresh_settings: Settings) -> Settings:
    """Settings whose topics exist as the contract has them."""
    reconcile(fresh_settings)
    return fresh_settings


@pytest.fixture
def topics(settings: Settings) -> Topics:
    """The names of this test's own topics, which exist."""
    return settings.kafka.topics


@pytest.fixture
def admin(fresh_settings: Settings) -> Iterator[KafkaAdminClient]:
    """An admin client of the shared broker."""
    with admin_of(fresh_settings) as client:
        yield client
