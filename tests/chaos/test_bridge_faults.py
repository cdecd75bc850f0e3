"""Kafka away from the bridge under load: whatever got a 200 is in raw afterwards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pipeline.admin.topics.apply import reconcile
from tests.conftest import new_kafka
from tests.harness.bridge import BridgeProcess, Sent, send
from tests.harness.recount import read

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.local.kafka import LocalKafka
    from pipeline.service.settings import Settings

SENDERS = 10
AWAY_SECONDS = 60
CALLBACKS_PER_SECOND = 300
DRAIN_SECONDS = 60

pytestmark = pytest.mark.timeout(240)


def bodies(name: str, count: int) -> list[bytes]:
    return [b'{"MediaId":"%s-%d"}' % (name.encode(), number) for number in range(count)]


async def until_in_raw(settings: Settings, taken: list[bytes]) -> None:
    wanted = set(taken)
    async with asyncio.timeout(DRAIN_SECONDS):
        while True:
            found = await asyncio.to_thread(read, settings, settings.kafka.topics.raw)
            if wanted <= {record.value for records in found for record in records}:
                return
            await asyncio.sleep(0.2)  # Between two looks, not instead of one.


async def test_a_broker_that_is_killed_and_gone_for_a_minute_costs_no_callback(
    fresh_settings: Settings, tmp_path: Path
) -> None:
    """At 300 callbacks/s each is answered 200 in under 3 s, as VOD would not wait longer, and all are in raw later."""
    (tmp_path / "kafka").mkdir()
    sent = Sent()
    with new_kafka(tmp_path / "kafka") as broker:
        own = fresh_settings.model_copy(
            update={"kafka": fresh_settings.kafka.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})}
        )
        reconcile(own)
        bridge = BridgeProcess(own, tmp_path)
        await bridge.start()
        try:
            count = (AWAY_SECONDS + 10) * CALLBACKS_PER_SECOND // SENDERS
            senders = [
                asyncio.create_task(
                    send(
                        bridge.port,
                        bodies(f"s{sender}", count),
                        sent,
                        interval_seconds=SENDERS / CALLBACKS_PER_SECOND,
                    )
                )
                for sender in range(SENDERS)
            ]
            await asyncio.sleep(2)  # Load with Kafka there; then, for a minute, without.
            broker.kill()
            await asyncio.sleep(AWAY_SECONDS)
            await asyncio.to_thread(broker.start)
            await asyncio.gather(*senders)
            await until_in_raw(own, sent.taken)
        finally:
            bridge.kill()

    assert sent.refused == []
    assert len(sent.taken) == count * SENDERS
    assert sent.seconds_max < 3
    print(f"\nbroker away for {AWAY_SECONDS} s: {len(sent.taken)} callbacks, slowest answer {sent.seconds_max:.2f} s")


async def test_five_times_what_it_takes_is_refused_at_once_and_full_speed_comes_back(
    settings: Settings, kafka: LocalKafka, tmp_path: Path
) -> None:
    """Kafka stands still, there is no spool, and 1,000 callbacks arrive where 200 may wait."""
    in_flight_max, callbacks = 200, 1000
    waiting, refused, after = Sent(), Sent(), Sent()
    held_seconds = 4.9  # As long as may be, for a slow machine.
    bridge = BridgeProcess(
        settings, tmp_path, in_flight_max=in_flight_max, spool_directory="", ack_timeout_seconds=held_seconds
    )
    await bridge.start()
    try:
        await send(bridge.port, bodies("first", 1), after)
        before_bytes = bridge.resident_bytes()
        kafka.pause()
        held = [asyncio.create_task(send(bridge.port, [body], waiting)) for body in bodies("held", in_flight_max)]
        async with asyncio.timeout(10):
            while await bridge.metric("vod_pipeline_bridge_in_flight") < in_flight_max:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # Between two looks, not instead of one.
        more = bodies("more", callbacks - in_flight_max)
        await asyncio.gather(*(send(bridge.port, [body], refused) for body in more))
        grown_bytes = bridge.resident_bytes() - before_bytes
        await asyncio.gather(*held)
        kafka.resume()
        await until_taken(bridge, after)
        await asyncio.gather(*(send(bridge.port, bodies(f"after{number}", 50), after) for number in range(SENDERS)))
    finally:
        kafka.resume()
        bridge.kill()

    assert refused.refused == [503] * len(more)
    assert refused.seconds_max < held_seconds
    assert waiting.refused == [503] * in_flight_max
    assert len(after.taken) >= SENDERS * 50
    assert grown_bytes < 50 << 20
    print(f"\n{callbacks} callbacks at once: refused within {refused.seconds_max:.2f} s, {grown_bytes >> 20} MiB more")


async def until_taken(bridge: BridgeProcess, sent: Sent) -> None:
    """Send callbacks until one gets a 200 again."""
    before = len(sent.taken)
    async with asyncio.timeout(30):
        for number in range(1_000_000):
            await send(bridge.port, bodies(f"probe{number}", 1), sent, interval_seconds=0.05)
            if len(sent.taken) > before:
                return
