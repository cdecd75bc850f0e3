"""A bridge whose log file cannot take another line: that is no reason to stop publishing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pipeline.local.kafka import LocalKafka
from pipeline.service.settings import Settings
from tests.harness.bridge import BridgeProcess, Sent, send
from tests.harness.recount import in_raw


async def test_what_was_spooled_meanwhile_is_published(settings: Settings, kafka: LocalKafka, tmp_path: Path) -> None:
    """/dev/full refuses every byte, as a full disk does; the publisher has to log that Kafka is away."""
    sent = Sent()
    bridge = BridgeProcess(settings, tmp_path, ack_timeout_seconds=0.3)
    bridge.log = Path("/dev/full")
    await bridge.start()
    try:
        kafka.pause()
        await send(bridge.port, [b'{"MediaId":"%d"}' % number for number in range(5)], sent)
        kafka.resume()
        async with asyncio.timeout(120):
            while len(await asyncio.to_thread(in_raw, settings)) < 5:  # noqa: ASYNC110  # Kafka has no event for it.
                await asyncio.sleep(0.2)
    finally:
        kafka.resume()
        bridge.kill()

    assert sent.refused == []
    assert in_raw(settings) >= set(sent.taken)
