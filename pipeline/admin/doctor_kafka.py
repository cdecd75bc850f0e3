"""
What `vod-pipeline doctor` finds at Kafka: whether it answers, its version, the topics, what we may do, its clock.

Nothing is written, no group joined and no transaction begun: permissions are what the broker says they are, and how it
refuses the requests of a member and a producer that do not exist.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    TransactionalIdAuthorizationFailed,
    for_code,
)
from aiokafka.errors import KafkaError as AIOKafkaError
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.transaction import EndTxnRequest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import ClusterAuthorizationFailedError, KafkaError

from pipeline.admin import topics as kafka_topics
from pipeline.admin.doctor import Finding, fail, ok, warn
from pipeline.admin.topics import TopicsError
from pipeline.core.contract import transactional_prefix
from pipeline.kafka import access
from pipeline.service.settings import Settings

CONNECT_SECONDS_MAX = 3
COORDINATORS_SECONDS_MAX = 5.0
COORDINATOR_PAUSE_SECONDS = 0.2
SKEW_SECONDS_OK = 5.0
NOBODY = -1  # A generation that no group is in, and an id that no producer has: both count from 0.


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield all findings; if Kafka is away, that one within a few seconds."""
    kafka = settings.kafka
    try:
        with kafka_topics.connect(settings, timeout_seconds=CONNECT_SECONDS_MAX) as admin:
            yield ok("kafka", f"{kafka.bootstrap_servers} answers and lets us in")
            yield from check_topics(admin, settings)
            yield from check_permissions(admin, settings)
            yield check_clock(admin, settings)
    except access.AccessError as error:
        yield fail("kafka", str(error), "set what it names; the rest of Kafka was not looked at")
    except TopicsError as error:
        mend = "start it, or set kafka.bootstrap_servers; the rest of Kafka was not looked at"
        yield fail("kafka", str(error), mend)
    except KafkaError as error:
        yield fail("kafka", f"it stopped to answer: {error}", "look at the brokers' logs, then ask again")


def check_topics(admin: KafkaAdminClient, settings: Settings) -> Iterator[Finding]:
    """Compare the topics with the contract, as `vod-pipeline topics plan` does; brokers before 4.0 are found, too."""
    try:
        changes = kafka_topics.plan(admin, settings)
    except TopicsError as error:
        yield warn("topics", f"they cannot be compared: {error}", "grant Describe and DescribeConfigs on the topics")
        return
    if not any(change.where == "brokers" for change in changes):
        yield ok("kafka", "the brokers are 4.0 or newer")
    if not changes:
        yield ok("topics", "all five are as they should be")
    for change in changes:
        what = f"{change.where}: {change.what}"
        match change:
            case kafka_topics.CreateTopic():
                mend = "vod-pipeline topics apply; if it exists, our user may not see it: grant Describe on it"
                yield fail("topics", f"{change.where} is missing", mend)
            case kafka_topics.ChangeConfig():
                yield warn("topics", what, "vod-pipeline topics apply")
            case kafka_topics.Problem():
                yield fail("kafka" if change.where == "brokers" else "topics", what, "only you can decide: see there")


def check_permissions(admin: KafkaAdminClient, settings: Settings) -> Iterator[Finding]:
    """Say what our user may not do that bridge and worker do."""
    found = [*_topic_permissions(admin, settings), *asyncio.run(_coordinated_permissions(settings))]
    yield from found or [ok("permissions", "bridge and worker may do with topics, group and transactions what they do")]


def _topic_permissions(admin: KafkaAdminClient, settings: Settings) -> Iterator[Finding]:
    names = [spec.name for spec in kafka_topics.contract(settings)]
    # All that we may see are listed: asking by name can create a topic where brokers create them automatically.
    for topic in admin.describe_topics():
        missing = sorted({"READ", "WRITE"} - set(topic["authorized_operations"] or ()))
        if topic["name"] in names and missing:
            what = f"user {_user(settings)} may not {' or '.join(missing)} topic {topic['name']}"
            yield fail("permissions", what, _grant(settings, missing, f"--topic {topic['name']}"))


async def _coordinated_permissions(settings: Settings) -> list[Finding]:
    """
    Ask as a member, and as a producer, that do not exist: who may not is told so, anybody else that there is none.

    To be told the group's operations, it would have to exist; to find a coordinator takes no more than Describe. A new
    cluster makes its internal topics of groups and transactions when the first coordinator is asked for.
    """
    kafka, group = settings.kafka, settings.worker.group
    prefix = transactional_prefix(kafka.topics.raw, group)
    client = AIOKafkaClient(**kafka.client_options())
    found = []
    try:
        async with asyncio.timeout(COORDINATORS_SECONDS_MAX):
            await client.bootstrap()
            heartbeat = HeartbeatRequest(group, NOBODY, "doctor")
            if not await _may(client, CoordinationType.GROUP, group, heartbeat):
                what = f"user {_user(settings)} may not READ group {group}"
                found.append(fail("permissions", what, _grant(settings, ["READ"], f"--group {group}")))
            for stage in ("accept", "report"):
                name = f"{transactional_prefix(kafka.topics.raw, group, stage)}0"
                end = EndTxnRequest(name, NOBODY, 0, transaction_result=False)
                if not await _may(client, CoordinationType.TRANSACTION, name, end):
                    what = f"user {_user(settings)} may not WRITE transactional id {name}"
                    resource = f"--transactional-id {prefix} --resource-pattern-type prefixed"
                    found.append(fail("permissions", what, _grant(settings, ["WRITE"], resource)))
    except (AIOKafkaError, OSError, TimeoutError) as error:
        why = (
            f"no coordinator within {COORDINATORS_SECONDS_MAX:.0f} s"
            if isinstance(error, TimeoutError)
            else repr(error)
        )
        mend = (
            "ask again: a new cluster first makes their internal topics; if that stays so, the brokers are fewer than "
            "offsets.topic.replication.factor or transaction.state.log.replication.factor"
        )
        found.append(fail("permissions", f"group and transactions could not be asked for: {why}", mend))
    finally:
        await client.close()
    return found


async def _may(client: AIOKafkaClient, kind: CoordinationType, name: str, request: Any) -> bool:
    """Return whether *request* is refused for another reason than a permission."""
    refused = (GroupAuthorizationFailedError, TransactionalIdAuthorizationFailed)
    try:
        while True:
            try:
                node = await client.coordinator_lookup(kind, name)
                break
            except GroupCoordinatorNotAvailableError:  # The internal topic is being made.
                await asyncio.sleep(COORDINATOR_PAUSE_SECONDS)
        await client.ready(node)
    except refused:
        return False
    answer = await client.send(node, request)
    return for_code(answer.error_code) not in refused


def check_clock(admin: KafkaAdminClient, settings: Settings) -> Finding:
    """
    Compare this machine's clock with that of Kafka's controller.

    The leader of the metadata quorum says of itself that it has caught up "now" (KIP-836): a clock that can be read
    without writing anything. Who may not ask gets the newest record of raw, which the broker stamped: it cannot lie in
    our future.
    """
    before = time.time()
    try:
        quorum = admin.describe_metadata_quorum()["topics"][0]["partitions"][0]
    except ClusterAuthorizationFailedError:
        return _clock_by_raw(admin, settings)
    after = time.time()
    leader = next(voter for voter in quorum["current_voters"] if voter["replica_id"] == quorum["leader_id"])
    theirs = leader["last_caught_up_timestamp"] / 1000
    # Any instant of the round trip may have been theirs.
    skew = theirs - after if theirs > after else min(0.0, theirs - before)
    return skew_finding(skew, settings.bridge.timestamp_tolerance_seconds)


def skew_finding(skew: float, tolerance_seconds: int) -> Finding:
    """Judge how many seconds Kafka's clock is ahead of ours."""
    what = f"Kafka's clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} ours"
    mend = "synchronise both with NTP: chronyc tracking, or timedatectl status"
    if abs(skew) > tolerance_seconds:
        return fail("clock", f"{what}; VOD's signatures are refused from {tolerance_seconds} s on", mend)
    if abs(skew) > SKEW_SECONDS_OK:
        return warn("clock", what, mend)
    return ok("clock", f"Kafka's clock is within {SKEW_SECONDS_OK:.0f} s of ours")


def _clock_by_raw(admin: KafkaAdminClient, settings: Settings) -> Finding:
    grant = _grant(settings, ["DESCRIBE"], "--cluster")
    tps = [TopicPartition(settings.kafka.topics.raw, number) for number in range(settings.kafka.partitions)]
    try:
        newest = admin.list_partition_offsets(dict.fromkeys(tps, OffsetSpec.MAX_TIMESTAMP))
    except KafkaError as error:
        return warn("clock", f"it cannot be compared with Kafka's: {error}", grant)
    ahead = max(found.timestamp for found in newest.values()) / 1000 - time.time()
    if ahead > SKEW_SECONDS_OK:
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
