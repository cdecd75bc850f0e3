"""
What differs between the contract and the topics that Kafka has, as data that `apply` carries out. Pure.

A difference whose removal would lose data, or break the mapping of keys to partitions, is a Problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.admin.topics.contract import (
    REPLICAS_KEY,
    RETENTION_KEY,
    TWO_LIMITS_VERSION,
    UNLIMITED,
    TopicSpec,
    contract,
    fitting,
)
from pipeline.core.contract import DAY_SECONDS
from pipeline.service.plain_text import counted
from pipeline.service.settings import Settings

# The first with DescribeProducers (KIP-664), by which the worker knows that a transaction is marked.
VERSION_MIN = (2, 8)

# Values that Kafka reports in any order: `compact,delete` is `delete,compact`.
_SET_VALUED = frozenset({"cleanup.policy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicState:
    """One topic as Kafka has it; `config` is what is in force, defaults included."""

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTopic:
    """The topic is missing; `apply` creates it."""

    spec: TopicSpec

    @property
    def where(self) -> str:
        return self.spec.name

    @property
    def what(self) -> str:
        partitions, replicas = self.spec.partitions, self.spec.replication_factor
        return f"create with {counted(partitions, 'partition')}, {counted(replicas, 'replica')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeConfig:
    """The topic has another value than the contract; `apply` sets it. It never shortens a retention."""

    topic: str
    key: str
    before: str
    after: str

    @property
    def where(self) -> str:
        return self.topic

    @property
    def what(self) -> str:
        return f"{self.key}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that only an operator can decide; `what` says how. `apply` refuses while there is one."""

    where: str
    what: str


Change = CreateTopic | ChangeConfig | Problem


def check(settings: Settings) -> tuple[str, ...]:
    """
    Return why the contract of these settings would lose state, one sentence a topic; empty when it would not.

    State is restored from accepted and partial-counts, so both must outlive every raw record that may still be read
    plus the time its key is remembered. Source: docs/contract.md, "Topics".
    """
    specs = {spec.name: spec.config for spec in contract(settings)}
    return tuple(problem.what for problem in _retention_problems(settings, specs))


def compare(
    settings: Settings, states: Mapping[str, TopicState], *, version: tuple[int, ...] = TWO_LIMITS_VERSION
) -> tuple[Change, ...]:
    """
    Return what differs between the contract and *states*, in the contract's order: an empty tuple means nothing.

    Args:
        states: What Kafka has, by topic name; other topics are ignored.
        version: The brokers'.
    """
    changes: list[Change] = []
    in_force: dict[str, Mapping[str, str]] = {}
    for spec in (fitting(spec, version) for spec in contract(settings)):
        state = states.get(spec.name)
        if state is None:
            changes.append(CreateTopic(spec=spec))
            in_force[spec.name] = spec.config
            continue
        config_changes = tuple(_config_changes(spec, state))
        changes.extend(_shape_problems(settings, spec, state))
        changes.extend(config_changes)
        in_force[spec.name] = {**state.config, **{change.key: change.after for change in config_changes}}
    changes.extend(_retention_problems(settings, in_force))
    return tuple(changes)


def version_problems(version: tuple[int, ...]) -> tuple[Problem, ...]:
    """Return what is wrong with brokers of *version*."""
    if version >= VERSION_MIN:
        return ()
    wanted, found = (".".join(map(str, each)) for each in (VERSION_MIN, version))
    what = (
        f"they are Kafka {found}, and {wanted} is the first that tells whether a transaction is over "
        "(DescribeProducers), without which nothing is exactly once: upgrade the brokers"
    )
    return (Problem(where="brokers", what=what),)


def _config_changes(spec: TopicSpec, state: TopicState) -> Iterator[ChangeConfig]:
    for key, after in spec.config.items():
        before = state.config.get(key, "")
        if not satisfies(key, before, after):
            yield ChangeConfig(topic=spec.name, key=key, before=before, after=after)


def satisfies(key: str, value: str, wanted: str) -> bool:
    """Return whether a topic whose *key* has *value* is as good as with the one that is *wanted*."""
    if key == RETENTION_KEY:
        # A longer retention was chosen; setting it back would delete records.
        return _retention(value) >= _retention(wanted)
    if key == REPLICAS_KEY:
        return int(value or 0) >= int(wanted)
    if key in _SET_VALUED:
        return set(value.split(",")) == set(wanted.split(","))
    return value == wanted


def _shape_problems(settings: Settings, spec: TopicSpec, state: TopicState) -> Iterator[Problem]:
    if state.partitions != spec.partitions:
        if spec.name in (settings.kafka.topics.partial_counts, settings.kafka.topics.failure_rates):
            remedy = "one agent merges it in order: stop the pipeline, delete the topic and apply again"
        else:
            remedy = (
                f"a key must stay on its partition, so the number never changes: set kafka.partitions to"
                f" {state.partitions} if raw, accepted and rejected all have it, else use another kafka.topic_prefix"
            )
        yield Problem(
            where=spec.name, what=f"has {counted(state.partitions, 'partition')}, {spec.partitions} wanted; {remedy}"
        )
    if state.replication_factor < spec.replication_factor:
        yield Problem(
            where=spec.name,
            what=f"has {counted(state.replication_factor, 'replica')}, {spec.replication_factor} wanted:"
            " add them with kafka-reassign-partitions.sh",
        )


def _retention_problems(settings: Settings, configs: Mapping[str, Mapping[str, str]]) -> Iterator[Problem]:
    """Check the law retention >= raw's + horizon on *configs*, which hold what is or will be in force by topic name."""
    topics, horizon_seconds = settings.kafka.topics, settings.worker.dedupe_horizon_seconds
    raw = _retention(configs[topics.raw][RETENTION_KEY])
    for name in (topics.accepted, topics.partial_counts):
        kept = _retention(configs[name][RETENTION_KEY])
        if kept < raw + horizon_seconds:
            yield Problem(
                where=name,
                what=f"{name} is kept {_days(kept)}, which is less than the {_days(raw)} of {topics.raw} plus"
                f" worker.dedupe_horizon_seconds ({_days(horizon_seconds)}): keep {topics.raw} shorter or {name} longer"
                " (retention.ms), or lower the horizon",
            )


def _retention(milliseconds: str) -> float:
    """Return seconds; for ever is infinite, and so is as good as any number that is wanted."""
    return float("inf") if milliseconds == UNLIMITED else int(milliseconds or 0) / 1000


def _days(seconds: float) -> str:
    return "for ever" if seconds == float("inf") else f"{seconds / DAY_SECONDS:.3g} days"
