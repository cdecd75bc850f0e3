"""A partition of raw without a leader: its callbacks wait on disk, and those of the others go to Kafka."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

import pytest

from pipeline.admin.topics.apply import reconcile
from pipeline.kafka.murmur2 import partitions_of
from pipeline.kafka.tools.cluster import connect
from pipeline.service.settings import KafkaSettings, Settings
from tests.conftest import KAFKA_JARS
from tests.harness.bridge import BridgeProcess, Sent, send
from tests.harness.cluster import Cluster
from tests.harness.recount import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.timeout(400)

SECONDS_MAX = 120
CALLBACKS = 200


async def until_leaderless(settings: Settings, end: Callable[[], None]) -> set[int]:
    """End a broker by *end*, and return the partitions of raw that it takes with it."""
    raw = settings.kafka.topics.raw
    with connect(settings.kafka) as cluster:
        end()
        async with asyncio.timeout(SECONDS_MAX):
            while not (found := (await asyncio.to_thread(cluster.topics, [raw]))[raw].leaderless):  # noqa: ASYNC110  # Kafka's.
                await asyncio.sleep(0.1)
    return set(found)


async def until_spooled(bridge: BridgeProcess, records: int) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while await bridge.metric("vod_pipeline_spool_records") != records:  # noqa: ASYNC110  # Likewise.
            await asyncio.sleep(0.1)


async def test_the_partitions_that_have_a_leader_do_not_notice(tmp_path: Path) -> None:
    """Though their callbacks are sent together with those that wait: each is once in raw."""
    with Cluster(KAFKA_JARS, tmp_path, nodes=3) as cluster:
        settings = Settings(kafka=KafkaSettings(bootstrap_servers=cluster.bootstrap_servers(), replication_factor=1))
        reconcile(settings)
        bridge = BridgeProcess(settings, tmp_path, ack_timeout_seconds=4.9)  # As long as may be, for a slow machine.
        await bridge.start()
        try:
            away = await until_leaderless(settings, cluster.nodes[2].kill)
            bodies = [json.dumps({"MediaId": f"m{number}"}).encode() for number in range(CALLBACKS)]
            partitions = partitions_of([b"m%d" % number for number in range(CALLBACKS)], settings.kafka.partitions)
            waiting = sum(partition in away for partition in partitions)
            assert 0 < waiting < CALLBACKS

            sent = Sent()
            await asyncio.gather(*(send(bridge.port, bodies[start::20], sent) for start in range(20)))
            assert sent.refused == []
            await until_spooled(bridge, waiting)
            spooled = await bridge.metric("vod_pipeline_spool_written_records_total")

            await asyncio.to_thread(cluster.nodes[2].start)
            await until_spooled(bridge, 0)
        finally:
            bridge.kill()
        assert set(sent.taken) == set(bodies)
        found = chain(*await asyncio.to_thread(read, settings, settings.kafka.topics.raw))
        assert spooled == waiting
        assert Counter(record.value for record in found) == Counter(bodies)
