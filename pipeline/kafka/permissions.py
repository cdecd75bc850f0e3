"""
Whether our user may do what a worker does with its group and its transactions, asked without doing it.

Kafka lists the operations on a group only if it exists, and to find a coordinator takes no more than Describe. So a
member and a producer that do not exist send a request: it is refused for the missing permission, or because there are
no such ones. A new cluster makes its internal topics when the first coordinator is asked for.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    KafkaError,
    TransactionalIdAuthorizationFailed,
    for_code,
)
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.transaction import EndTxnRequest

from pipeline.core.contract import transactional_prefix
from pipeline.kafka.required_topics import MISSING_SECONDS_MAX, POLL_SECONDS
from pipeline.kafka.tools.cluster import ClusterError
from pipeline.service.settings import KafkaSettings, SettingsError

COORDINATORS_SECONDS_MAX = 5.0
COORDINATOR_PAUSE_SECONDS = 0.2
NO_SUCH = -1  # A generation that no group is in, and an id that no producer has: both count from 0.

logger = structlog.get_logger()

_REFUSED = (GroupAuthorizationFailedError, TransactionalIdAuthorizationFailed)


class PermissionsError(SettingsError):
    """Our user may not do what a worker does."""


def transactional_ids(kafka: KafkaSettings, group: str) -> list[str]:
    """Return an id of each kind: what is granted for one partition or worker is for all."""
    return [f"{transactional_prefix(kafka.topics.raw, group, stage)}0" for stage in ("accept", "report", "worker")]


async def require_permissions(kafka: KafkaSettings, group: str) -> None:
    """
    Ask Kafka whether our user may use *group* and its `transactional_ids`: a consumer that may not join says nothing.

    What is missing is logged at once, and waited for, as not every broker knows at once what was granted.

    Raises:
        PermissionsError: it may not, and still not after MISSING_SECONDS_MAX.
        ClusterError: there is no coordinator to ask.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + MISSING_SECONDS_MAX
    is_said = False
    while names := await refused(kafka, group):
        missing = [f"READ group {group}"] if group in names else []
        missing += [f"WRITE transactional id {name}" for name in sorted(names - {group})]
        what = f"our user may not {', '.join(missing)}: `vod-pipeline doctor` has the kafka-acls.sh commands"
        if loop.time() > deadline:
            raise PermissionsError(what)
        if not is_said:
            logger.warning("permissions_missing", message=what, seconds_max=MISSING_SECONDS_MAX)
            is_said = True
        await asyncio.sleep(POLL_SECONDS)


async def refused(kafka: KafkaSettings, group: str) -> set[str]:
    """
    Return which of *group* (to read as a member) and its `transactional_ids` (to write under) our user may not use.

    Raises:
        ClusterError: there is no coordinator to ask.
    """
    client = AIOKafkaClient(**kafka.client_options())
    found = set()
    try:
        async with asyncio.timeout(COORDINATORS_SECONDS_MAX):
            await client.bootstrap()
            if not await _may(client, CoordinationType.GROUP, group, HeartbeatRequest(group, NO_SUCH, "doctor")):
                found.add(group)
            for name in transactional_ids(kafka, group):
                end = EndTxnRequest(name, NO_SUCH, 0, transaction_result=False)
                if not await _may(client, CoordinationType.TRANSACTION, name, end):
                    found.add(name)
    except TimeoutError as error:
        raise ClusterError(f"no coordinator within {COORDINATORS_SECONDS_MAX:.0f} s") from error
    except (KafkaError, OSError) as error:
        raise ClusterError(repr(error)) from error
    finally:
        await client.close()
    return found


async def _may(client: AIOKafkaClient, kind: CoordinationType, name: str, request: Any) -> bool:
    """Return whether *request* is refused for another reason than a permission."""
    try:
        while True:
            try:
                node = await client.coordinator_lookup(kind, name)
                break
            except GroupCoordinatorNotAvailableError:  # The internal topic is being made.
                await asyncio.sleep(COORDINATOR_PAUSE_SECONDS)
        await client.ready(node)
    except _REFUSED:
        return False
    answer = await client.send(node, request)
    return for_code(answer.error_code) not in _REFUSED
