"""
What `vod-pipeline doctor` finds at Kafka: whether it answers, its version, the topics, what we may do, its clock.

Nothing is written, no group joined and no transaction begun: permissions are what the broker says they are, and how it
refuses the requests of a member and a producer that do not exist.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from pipeline.admin.doctor import CheckResult, fail, ok, warn
from pipeline.admin.topics.apply import plan
from pipeline.admin.topics.contract import contract
from pipeline.admin.topics.diff import ChangeConfig, CreateTopic, Problem
from pipeline.core.contract import transactional_prefix
from pipeline.kafka import permissions
from pipeline.kafka.access import AccessError
from pipeline.kafka.tools.cluster import Cluster, ClusterError, UnreachableError, connect
from pipeline.service.settings import Settings

CONNECT_SECONDS_MAX = 3
SKEW_SECONDS_MAX = 5.0
VERIFIES_TRANSACTIONS = (3, 6)


def examine(settings: Settings) -> Iterator[CheckResult]:
    """Yield all findings; if Kafka is away, that one within a few seconds."""
    kafka = settings.kafka
    try:
        with connect(kafka, timeout_seconds=CONNECT_SECONDS_MAX) as cluster:
            yield ok("kafka", f"{kafka.bootstrap_servers} answers and lets us in")
            yield from check_topics(cluster, settings)
            yield from check_permissions(cluster, settings)
            yield check_clock(cluster, settings)
    except AccessError as error:
        yield fail("kafka", str(error), "set what it names; the rest of Kafka was not looked at")
    except UnreachableError as error:
        yield fail("kafka", str(error), "do that, then ask again; the rest of Kafka was not looked at")
    except ClusterError as error:
        yield fail("kafka", f"it stopped to answer: {error}", "look at the brokers' logs, then ask again")


def check_topics(cluster: Cluster, settings: Settings) -> Iterator[CheckResult]:
    """Compare topics and brokers with what is needed, as `vod-pipeline topics plan` does."""
    try:
        changes, version = plan(cluster, settings), cluster.version()
    except ClusterError as error:
        yield warn("topics", f"they cannot be compared: {error}", "grant Describe and DescribeConfigs on the topics")
        return
    if not any(change.where == "brokers" for change in changes):
        yield _version(version)
    if not changes:
        yield ok("topics", "all five are as they should be")
    for change in changes:
        what = f"{change.where}: {change.what}"
        match change:
            case CreateTopic():
                fix = "vod-pipeline topics apply; if it exists, our user may not see it: grant Describe on it"
                yield fail("topics", f"{change.where} is missing", fix)
            case ChangeConfig():
                yield warn("topics", what, "vod-pipeline topics apply")
            case Problem():
                yield fail("kafka" if change.where == "brokers" else "topics", what, "only you can decide: see there")


def _version(version: tuple[int, ...]) -> CheckResult:
    what = f"the brokers are {'.'.join(map(str, version))}"
    if version >= VERIFIES_TRANSACTIONS:
        return ok("kafka", what)
    return ok(
        "kafka",
        f"{what}: before 3.6 a request that was delayed for long can leave a transaction open, which then waits for "
        "its timeout (KIP-890)",
    )


def check_permissions(cluster: Cluster, settings: Settings) -> Iterator[CheckResult]:
    """Find what our user may not do that bridge and worker do."""
    found = [*_topic_permissions(cluster, settings), *_coordinated_permissions(settings)]
    yield from found or [ok("permissions", "bridge and worker may do with topics, group and transactions what they do")]


def _topic_permissions(cluster: Cluster, settings: Settings) -> Iterator[CheckResult]:
    for name, topic in cluster.topics([spec.name for spec in contract(settings)]).items():
        missing = sorted({"READ", "WRITE"} - topic.operations)
        if missing:
            what = f"user {_user(settings)} may not {' or '.join(missing)} topic {name}"
            yield fail("permissions", what, _grant(settings, missing, f"--topic {name}"))


def _coordinated_permissions(settings: Settings) -> Iterator[CheckResult]:
    kafka, group = settings.kafka, settings.worker.group
    try:
        may_not = asyncio.run(permissions.refused(kafka, group))
    except ClusterError as error:
        fix = (
            "ask again: a new cluster first makes their internal topics; if that stays so, the brokers are fewer than "
            "offsets.topic.replication.factor or transaction.state.log.replication.factor"
        )
        yield fail("permissions", f"group and transactions could not be asked for: {error}", fix)
        return
    if group in may_not:
        what = f"user {_user(settings)} may not READ group {group}"
        yield fail("permissions", what, _grant(settings, ["READ"], f"--group {group}"))
    resource = f"--transactional-id {transactional_prefix(kafka.topics.raw, group)} --resource-pattern-type prefixed"
    for name in permissions.transactional_ids(kafka, group):
        if name in may_not:
            what = f"user {_user(settings)} may not WRITE transactional id {name}"
            yield fail("permissions", what, _grant(settings, ["WRITE"], resource))


def check_clock(cluster: Cluster, settings: Settings) -> CheckResult:
    """
    Compare this machine's clock with that of Kafka's controller.

    A user who may not ask for it gets the newest record of raw, which the broker stamped: it cannot lie in our future.
    """
    before = time.time()
    theirs_ms = cluster.controller_time_ms()
    after = time.time()
    if theirs_ms is None:
        return _clock_by_raw(cluster, settings)
    theirs = theirs_ms / 1000
    # Any instant of the round trip may have been theirs.
    skew_seconds = theirs - after if theirs > after else min(0.0, theirs - before)
    return skew_finding(skew_seconds, settings.bridge.timestamp_tolerance_seconds)


def skew_finding(skew_seconds: float, tolerance_seconds: int) -> CheckResult:
    """Judge how many seconds Kafka's clock is ahead of ours."""
    what = f"Kafka's clock is {abs(skew_seconds):.1f} s {'ahead of' if skew_seconds > 0 else 'behind'} ours"
    fix = "synchronise both with NTP: chronyc tracking, or timedatectl status"
    if abs(skew_seconds) > tolerance_seconds:
        return fail("clock", f"{what}; VOD's signatures are refused from {tolerance_seconds} s on", fix)
    if abs(skew_seconds) > SKEW_SECONDS_MAX:
        return warn("clock", what, fix)
    return ok("clock", f"Kafka's clock is within {SKEW_SECONDS_MAX:.0f} s of ours")


def _clock_by_raw(cluster: Cluster, settings: Settings) -> CheckResult:
    grant = _grant(settings, ["DESCRIBE"], "--cluster")
    try:
        ahead = cluster.newest_timestamp_ms(settings.kafka.topics.raw) / 1000 - time.time()
    except ClusterError as error:
        return warn("clock", f"it cannot be compared with Kafka's: {error}", grant)
    if ahead > SKEW_SECONDS_MAX:
        return skew_finding(ahead, settings.bridge.timestamp_tolerance_seconds)
    return warn("clock", "that it is not ahead is not known: our user may not describe the cluster", grant)


def _user(settings: Settings) -> str:
    return (
        settings.kafka.username or "(by certificate)"
        if settings.kafka.security_protocol != "PLAINTEXT"
        else "ANONYMOUS"
    )


def _grant(settings: Settings, operations: list[str], resource: str) -> str:
    named = " ".join(f"--operation {operation.capitalize()}" for operation in operations)
    return (
        f"kafka-acls.sh --bootstrap-server {settings.kafka.bootstrap_servers} --add"
        f" --allow-principal User:{_user(settings)} {named} {resource}"
    )
