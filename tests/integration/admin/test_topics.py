"""The topic contract and the local broker, on a real Kafka."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from pipeline.admin.topics import (
    ChangeConfig,
    CreateTopic,
    Problem,
    TopicsError,
    TopicState,
    apply,
    check,
    compare,
    connect,
    contract,
    plan,
)
from pipeline.local.kafka import LocalKafka, LocalKafkaError, free_port
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings

DAY_SECONDS = 86_400
DAY_MILLISECONDS = 86_400_000
REPOSITORY = Path(__file__).parents[3]
OWNER = """
import pathlib, signal
from pipeline.local.kafka import LocalKafka
broker = LocalKafka(
    jars=pathlib.Path({jars!r}), directory=pathlib.Path({directory!r}), port={port}, controller_port={controller_port}
)
broker.start()
print("started", flush=True)
signal.pause()
"""


def set_config(admin: KafkaAdminClient, topic: str, key: str, value: str) -> None:
    """Change one setting as an operator would, and return when the broker reports it."""
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {key: value})])
    deadline = time.monotonic() + 10
    while get_config(admin, topic, key) != value:
        assert time.monotonic() < deadline, f"{topic}: {key} did not become {value}"


def get_config(admin: KafkaAdminClient, topic: str, key: str) -> str:
    answer = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    value: str = answer["topic"][topic][key]["value"]
    return value


def states_of(settings: Settings, **retention_days: int) -> dict[str, TopicState]:
    """Return the contract's own topics as states, some with another retention."""
    states = {}
    for spec in contract(settings):
        short = spec.name.removeprefix(settings.kafka.topic_prefix).replace("-", "_")
        days = retention_days.get(short)
        config = {**spec.config, **({"retention.ms": str(days * DAY_MILLISECONDS)} if days is not None else {})}
        states[spec.name] = TopicState(
            name=spec.name, partitions=spec.partitions, replication_factor=spec.replication_factor, config=config
        )
    return states


def test_an_empty_kafka_lacks_the_five_topics(admin: KafkaAdminClient, fresh_settings: Settings) -> None:
    """The first start has to create everything, and says so."""
    changes = plan(admin, fresh_settings)

    prefix = fresh_settings.kafka.topic_prefix
    assert [(type(change), change.where.removeprefix(prefix)) for change in changes] == [
        (CreateTopic, "raw"),
        (CreateTopic, "accepted"),
        (CreateTopic, "rejected"),
        (CreateTopic, "partial-counts"),
        (CreateTopic, "failure-rates"),
    ]


def test_after_apply_nothing_is_left_to_do(admin: KafkaAdminClient, fresh_settings: Settings) -> None:
    """`up` applies at every start: a second time must change nothing."""
    apply(admin, plan(admin, fresh_settings))

    assert plan(admin, fresh_settings) == ()


def test_raw_carries_the_clock_of_the_broker(admin: KafkaAdminClient, settings: Settings) -> None:
    """Stream time is raw's timestamp: a client must not be able to forge it."""
    raw = settings.kafka.topics.raw

    assert get_config(admin, raw, "message.timestamp.type") == "LogAppendTime"
    assert get_config(admin, raw, "max.message.bytes") == "131072"
    assert get_config(admin, settings.kafka.topics.accepted, "max.message.bytes") == "1048588"
    assert get_config(admin, raw, "compression.type") == "uncompressed"
    assert get_config(admin, raw, "retention.ms") == "604800000"


def test_a_changed_setting_is_set_back(admin: KafkaAdminClient, settings: Settings) -> None:
    """A retention that somebody shortened loses remembered keys: it is named, then mended."""
    accepted = settings.kafka.topics.accepted
    set_config(admin, accepted, "retention.ms", "3600000")

    changes = plan(admin, settings)
    apply(admin, changes)

    assert changes == (ChangeConfig(topic=accepted, key="retention.ms", before="3600000", after="2592000000"),)
    assert plan(admin, settings) == ()


def test_a_longer_retention_is_kept(admin: KafkaAdminClient, settings: Settings) -> None:
    """Setting it back would delete records that somebody chose to keep."""
    set_config(admin, settings.kafka.topics.accepted, "retention.ms", "-1")

    assert plan(admin, settings) == ()


def test_another_number_of_partitions_is_a_problem_and_nothing_is_done(
    admin: KafkaAdminClient, fresh_settings: Settings
) -> None:
    """New partitions would send remembered keys elsewhere, where they are not remembered."""
    admin.create_topics({fresh_settings.kafka.topics.raw: {"num_partitions": 3, "replication_factor": 1}})
    admin.wait_for_topics([fresh_settings.kafka.topics.raw])
    changes = plan(admin, fresh_settings)
    problems = [change for change in changes if isinstance(change, Problem)]

    with pytest.raises(TopicsError, match=r"raw: has 3 partitions, 4 wanted.*kafka\.partitions"):
        apply(admin, changes)

    assert [problem.where for problem in problems] == [fresh_settings.kafka.topics.raw]
    assert plan(admin, fresh_settings) == changes


def test_raw_kept_so_long_that_state_would_be_lost_is_a_problem() -> None:
    """Raw 22 d + horizon 8 d fit into accepted's 30 d; one day more would be decided without its keys."""
    settings = Settings()
    fitting = compare(settings, states_of(settings, raw=22))
    breaking = compare(settings, states_of(settings, raw=23))

    assert fitting == ()
    assert [change.where for change in breaking] == ["vod-deletions.accepted", "vod-deletions.partial-counts"]
    assert all(isinstance(change, Problem) for change in breaking)


def test_a_longer_accepted_makes_room_for_a_longer_raw() -> None:
    """The law compares what is in force, not the defaults."""
    settings = Settings()

    assert compare(settings, states_of(settings, raw=23, accepted=31, partial_counts=31)) == ()


@pytest.mark.parametrize(("horizon_days", "broken"), [(8, 0), (23, 0), (24, 1)])
def test_a_horizon_that_accepted_does_not_cover_is_refused(horizon_days: int, broken: int) -> None:
    """Accepted 30 d - raw 7 d = 23 d: a longer horizon could not be folded back. partial-counts grows with it."""
    settings = Settings(worker=WorkerSettings(dedupe_horizon_seconds=horizon_days * DAY_SECONDS))

    assert len(check(settings)) == broken


def test_a_kafka_that_is_not_there_is_named() -> None:
    """The operator must see which address was tried, not a traceback of sockets."""
    port = free_port()
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}"))

    with (
        pytest.raises(TopicsError, match=f"no Kafka answers at 127.0.0.1:{port}"),
        connect(settings, timeout_seconds=1),
    ):
        pass


def test_a_broker_whose_owner_was_killed_is_ended_and_its_data_taken_over(tmp_path: Path, kafka: LocalKafka) -> None:
    """`kill -9` of `up` leaves its broker behind, which holds the port: the next start must work all the same."""
    broker = LocalKafka(jars=kafka.jars, directory=tmp_path, port=free_port(), controller_port=free_port())
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers))
    owner_code = OWNER.format(
        jars=str(broker.jars), directory=str(tmp_path), port=broker.port, controller_port=broker.controller_port
    )
    with subprocess.Popen([sys.executable, "-c", owner_code], stdout=subprocess.PIPE, cwd=REPOSITORY) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        with connect(settings) as client:
            apply(client, plan(client, settings))
        owner.kill()

    with broker, connect(settings) as client:
        left_to_do = plan(client, settings)

    assert left_to_do == ()


def test_a_second_owner_of_the_directory_is_refused(kafka: LocalKafka) -> None:
    """Two brokers on one directory would corrupt it; ending the first would surprise whoever runs it."""
    second = LocalKafka(jars=kafka.jars, directory=kafka.directory, port=free_port(), controller_port=free_port())

    with pytest.raises(LocalKafkaError, match="in use by process"):
        second.start()

    assert kafka.is_running


def test_a_taken_port_is_named(tmp_path: Path, kafka: LocalKafka) -> None:
    """Another program on 9092 is the most common reason why the first start fails."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        broker = LocalKafka(jars=kafka.jars, directory=tmp_path, port=port, controller_port=free_port())

        with pytest.raises(LocalKafkaError, match=f"port {port} .*kafka.bootstrap_servers"):
            broker.start()


def test_missing_jars_name_the_command_that_fetches_them(tmp_path: Path) -> None:
    """They are not part of the repository."""
    broker = LocalKafka(jars=tmp_path, directory=tmp_path, port=free_port(), controller_port=free_port())

    with pytest.raises(LocalKafkaError, match="run `make setup`"):
        broker.start()
