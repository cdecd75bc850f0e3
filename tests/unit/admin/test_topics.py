"""The topic contract as data: what differs from it, and the law of retention."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.admin.topics.contract import contract
from pipeline.admin.topics.diff import CreateTopic, Problem, TopicState, check, compare, version_problems
from pipeline.service.settings import Settings, WorkerSettings

DAY_SECONDS = 86_400
DAY_MILLISECONDS = 86_400_000


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


@pytest.mark.parametrize("topic", ["partial-counts", "failure-rates"])
def test_what_the_report_is_opened_from_has_short_segments(topic: str) -> None:
    """Kafka never compacts the open segment: with its default of 7 d, opening the report reads a week of rows."""
    settings = Settings()
    states = states_of(settings)
    old = states[f"vod-deletions.{topic}"]
    states[old.name] = dataclasses.replace(old, config={**old.config, "segment.ms": "604800000"})

    (change,) = compare(settings, states)

    assert (change.where, change.what) == (old.name, "segment.ms: 604800000 -> 3600000")


@pytest.mark.parametrize(("horizon_days", "broken"), [(8, 0), (23, 0), (24, 1)])
def test_a_horizon_that_accepted_does_not_cover_is_refused(horizon_days: int, broken: int) -> None:
    """Accepted 30 d - raw 7 d = 23 d: a longer horizon could not be restored. partial-counts grows with it."""
    settings = Settings(worker=WorkerSettings(dedupe_horizon_seconds=horizon_days * DAY_SECONDS))

    assert len(check(settings)) == broken


@pytest.mark.parametrize(
    ("version", "limits"),
    [
        ((2, 8), ["message.timestamp.difference.max.ms"]),
        ((3, 5), ["message.timestamp.difference.max.ms"]),
        ((3, 6), ["message.timestamp.after.max.ms", "message.timestamp.before.max.ms"]),
        ((4, 3), ["message.timestamp.after.max.ms", "message.timestamp.before.max.ms"]),
    ],
)
def test_outputs_have_no_limit_for_timestamps_by_what_the_brokers_know(
    version: tuple[int, ...], limits: list[str]
) -> None:
    """An older one refuses a topic for a setting that it does not know."""
    created = [change.spec for change in compare(Settings(), {}, version=version) if isinstance(change, CreateTopic)]

    (accepted,) = (spec for spec in created if spec.name.endswith("accepted"))
    assert [key for key in accepted.config if key.endswith("max.ms") and "timestamp" in key] == limits
    assert {accepted.config[key] for key in limits} == {str(2**63 - 1)}


def test_brokers_that_do_not_tell_of_markers_are_refused_by_their_version() -> None:
    assert version_problems((2, 8)) == version_problems((4, 3)) == ()

    (problem,) = version_problems((2, 6))

    assert (problem.where, problem.what.split(":")[0]) == (
        "brokers",
        "they are Kafka 2.6, and 2.8 is the first that tells whether a transaction is over (DescribeProducers), "
        "without which nothing is exactly once",
    )
