"""
From POST to readable in `accepted`, and what that costs, at the rates that users have.

``python -m tests.bench.latency`` posts unique deletions to a bridge at 20, 50 and 500 a second, each for 15 s and
after 15 s that do not count, and reads `accepted` as a consumer downstream does (read_committed). It prints the
percentiles, and the CPU of worker and broker in % of a core; last comes a minute without traffic, with the bytes that
Kafka's log grows by.

``--beside DIR`` takes turns with the worker of another checkout that is set up, such as the commit before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer

from pipeline.admin.topics.apply import reconcile
from pipeline.core.windows import format_time
from pipeline.local.kafka import LocalKafka
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from tests.bench.worker import JARS, cpu_seconds
from tests.harness.bridge import BridgeProcess, Sent, send
from tests.harness.ports import free_port
from tests.harness.recount import eventually
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

RATES = (20, 50, 500)
SECONDS = 15
IDLE_SECONDS = 60
PER_CONNECTION = 250  # Callbacks a second that one connection sends evenly.
LATE_SECONDS_MAX = 30.0


class Clocks:
    """CPU seconds of worker and broker, and the wall clock, since it was made."""

    def __init__(self, worker: WorkerProcess, kafka: LocalKafka) -> None:
        self._processes = (worker.process_id, kafka.process_id or 0)
        self._began = time.monotonic(), *map(cpu_seconds, self._processes)

    def percent(self) -> tuple[float, float]:
        """Return what worker and broker used, in % of a core."""
        wall, *cpu = (
            now - before
            for now, before in zip((time.monotonic(), *map(cpu_seconds, self._processes)), self._began, strict=True)
        )
        return cpu[0] / wall * 100, cpu[1] / wall * 100


def body(media_id: str) -> bytes:
    """Return a deletion that comes once."""
    event = {
        "EventType": "DeleteMediaComplete",
        "EventTime": format_time(int(time.time() * 1000)),
        "Status": "success",
        "MediaType": "video",
        "DeleteType": "all",
        "MediaId": media_id,
    }
    return json.dumps(event).encode()


async def post(port: int, rate: int, sent_at: dict[bytes, float]) -> None:
    """Send *rate* callbacks a second for SECONDS, evenly, and note when each was sent."""
    connections = -(-rate // PER_CONNECTION)
    interval = connections / rate

    class Bodies(list[bytes]):
        def __iter__(self):  # type: ignore[no-untyped-def]  # Made when it is sent.
            for _ in range(SECONDS * rate // connections):
                media_id = uuid.uuid4().hex
                sent_at[media_id.encode()] = time.perf_counter()
                yield body(media_id)

    async def connection(number: int) -> None:
        await asyncio.sleep(number * interval / connections)
        await send(port, Bodies(), Sent(), interval_seconds=interval)

    await asyncio.gather(*(connection(number) for number in range(connections)))


async def read(consumer: AIOKafkaConsumer, seen_at: dict[bytes, float]) -> None:
    """Note when each event of `accepted` became readable, until cancelled."""
    while True:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            now = time.perf_counter()
            for record in records:
                seen_at.setdefault(record.key, now)


async def measure(
    settings: Settings, kafka: LocalKafka, worker: WorkerProcess, bridge: BridgeProcess, rate: int
) -> str:
    """Return a line of what was measured."""
    sent_at: dict[bytes, float] = {}
    seen_at: dict[bytes, float] = {}
    consumer = AIOKafkaConsumer(
        settings.kafka.topics.accepted,
        bootstrap_servers=kafka.bootstrap_servers,
        isolation_level="read_committed",
        auto_offset_reset="latest",
        enable_auto_commit=False,
    )
    await consumer.start()
    await consumer.seek_to_end()
    await asyncio.gather(*(consumer.position(tp) for tp in consumer.assignment()))
    reading = asyncio.create_task(read(consumer, seen_at))
    clocks = Clocks(worker, kafka)
    await post(bridge.port, rate, sent_at)
    cpu = clocks.percent()
    deadline = time.monotonic() + LATE_SECONDS_MAX
    while sent_at.keys() - seen_at.keys() and time.monotonic() < deadline:  # noqa: ASYNC110  # It measures.
        await asyncio.sleep(0.1)
    reading.cancel()
    await consumer.stop()
    lost = len(sent_at.keys() - seen_at.keys())
    milliseconds = [(seen_at[key] - sent) * 1000 for key, sent in sent_at.items() if key in seen_at]
    hundredths = statistics.quantiles(milliseconds, n=100)
    return (
        f"{rate:>5}/s: p50 {hundredths[49]:6.1f} ms, p99 {hundredths[98]:6.1f} ms; worker {cpu[0]:4.1f}%, broker"
        f" {cpu[1]:4.1f}% of a core{f'; {lost} not seen' if lost else ''}"
    )


def _unready(worker: WorkerProcess) -> list[str]:
    said = worker.readiness()
    return [] if said == "ready" else [said]


def log_bytes(directory: Path) -> int:
    """Return what Kafka's logs hold, their indexes left out: those are as long as they may become."""
    return sum(path.stat().st_size for path in directory.rglob("*.log"))


async def compare(kafka: LocalKafka, directory: Path, checkouts: Sequence[Path | None], partitions: int) -> None:
    """Print what was measured of each worker, in turn, with topics of its own."""
    for checkout in checkouts:
        name = f"bench-{uuid.uuid4().hex[:8]}"
        settings = Settings(
            kafka=KafkaSettings(
                bootstrap_servers=kafka.bootstrap_servers, topic_prefix=f"{name}.", partitions=partitions
            ),
            worker=WorkerSettings(group=name),
        )
        reconcile(settings)
        home = directory / name
        home.mkdir()
        print(f"{checkout or 'this checkout'}, {partitions} partitions", flush=True)
        bridge = BridgeProcess(settings, home)
        await bridge.start()
        try:
            with WorkerProcess(settings, home, checkout=checkout) as worker:
                await asyncio.to_thread(eventually, partial(_unready, worker), seconds=60)
                await measure(settings, kafka, worker, bridge, RATES[-1])  # A cold broker interprets its code.
                for rate in RATES:
                    print("  " + await measure(settings, kafka, worker, bridge, rate), flush=True)
                await asyncio.sleep(5)
                clocks, before = Clocks(worker, kafka), log_bytes(directory / "kafka")
                await asyncio.sleep(IDLE_SECONDS)
                grown = (log_bytes(directory / "kafka") - before) * 86_400 / IDLE_SECONDS / 1e6
                idle = clocks.percent()
                print(f"   idle: {grown:.1f} MB of log a day; worker {idle[0]:.1f}%, broker {idle[1]:.1f}%", flush=True)
        finally:
            bridge.kill()


def main() -> None:
    """Start Kafka, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, help="another checkout, to take turns with")
    parser.add_argument("--partitions", type=int, nargs="+", default=[4, 16])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        kafka = LocalKafka(jars=JARS, directory=directory / "kafka", port=free_port(), controller_port=free_port())
        with kafka:
            for partitions in arguments.partitions:
                checkouts = [None, arguments.beside] if arguments.beside else [None]
                asyncio.run(compare(kafka, directory, checkouts, partitions))


if __name__ == "__main__":
    main()
