"""Whether Kafka has the topics that the stages work on, asked before anything else is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient

from pipeline.kafka.reader import REQUEST_TIMEOUT_MS, STOP_SECONDS
from pipeline.service.lifecycle import close
from pipeline.service.plain_text import counted
from pipeline.service.settings import KafkaSettings, SettingsError

MISSING_SECONDS_MAX = 10.0  # Not every broker knows at once of a topic that was just created.
POLL_SECONDS = 0.5


class TopicsError(SettingsError):
    """The topics are not those of the settings."""


async def require_topics(kafka: KafkaSettings) -> None:
    """
    Ask Kafka whether it has our topics, with as many partitions as the settings say.

    Raises:
        TopicsError: it has not.
        KafkaError, OSError, TimeoutError: none answers.
    """
    admin = AIOKafkaAdminClient(**kafka.client_options(), request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        await admin.start()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + MISSING_SECONDS_MAX
        while missing := missing_of(kafka, found := await _partitions(admin)):
            if loop.time() > deadline:
                raise TopicsError(
                    f"Kafka does not show us {', '.join(missing)}: `vod-pipeline topics apply` creates topics that are "
                    f"missing, `vod-pipeline doctor` names missing permissions"
                )
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await close(admin.close(), seconds=STOP_SECONDS)
    if (problem := problem_of(kafka, found)) is not None:
        raise TopicsError(problem)


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, int]:
    """Return how many partitions each topic has. All are listed: asking for one by name would create it, perhaps."""
    async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
        return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}


def missing_of(kafka: KafkaSettings, partitions: Mapping[str, int]) -> list[str]:
    """Return which topics are not among those that have *partitions*."""
    return [name for name in kafka.topics.partitions(kafka.partitions) if not partitions.get(name)]


def problem_of(kafka: KafkaSettings, partitions: Mapping[str, int]) -> str | None:
    """Say which topic has another number of *partitions* than the settings say; None if none has."""
    for name, wanted in kafka.topics.partitions(kafka.partitions).items():
        if partitions[name] != wanted:
            return (
                f"{name} has {counted(partitions[name], 'partition')}, not {wanted}: see kafka.partitions, and what "
                f"`vod-pipeline topics plan` says"
            )
    return None
