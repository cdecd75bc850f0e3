"""
Load on the worker: events per second and CPU per event on one core, exactly once, on a real Kafka.

``python -m tests.bench.worker`` fills `raw` with 230-byte deletions in 4 partitions (1% malformed, 10% duplicates, 10%
failures), starts a worker on core 0 with the broker on core 1, and looks at its committed totals. What validating one
body takes says how fast this machine is right now: a shared one differs by a factor of two from minute to minute.

``--poison`` takes turns with raw records that are rejected, all of them and for every reason, and compares the two.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from aiokafka import AIOKafkaProducer

from pipeline.admin.topics.apply import reconcile
from pipeline.core.event import validate
from pipeline.core.windows import format_time
from pipeline.kafka.murmur2 import partitions_of
from pipeline.local.kafka import LocalKafka
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from tests.harness.load import CODES
from tests.harness.ports import free_port
from tests.harness.worker import WorkerProcess

EVENTS = 1_000_000
BODY_BYTES = 230
WORKER_CORE, BROKER_CORE = 0, 1
RAW_BATCH_BYTES_MAX = 120_000
LOOK_SECONDS = 0.5
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
JARS = Path(".local/kafka-jars")


def body(rnd: random.Random, now: int) -> tuple[bytes, bytes]:
    """Return the key and the body of one deletion, padded to BODY_BYTES."""
    media_id = f"{rnd.getrandbits(128):032x}"
    at = format_time(now - rnd.randrange(120) * 1000)
    code = f',"ErrorCode":"{rnd.choice(CODES)}"' if rnd.random() < 0.1 else ""
    event = (
        f'{{"EventType":"DeleteMediaComplete","EventTime":"{at}","Status":"{"fail" if code else "success"}",'
        f'"MediaType":"video","DeleteType":"all","MediaId":"{media_id}"{code}'
    )
    return media_id.encode(), f'{event},"ErrorMessage":"{"x" * (BODY_BYTES - len(event) - 18)}"}}'.encode()


def poison(rnd: random.Random, now: int) -> tuple[bytes, bytes]:
    """Return the key and the body of a record that is rejected, of BODY_BYTES; each reason is as likely as another."""
    key, valid = body(rnd, now)
    year = f'"EventTime":"{format_time(now)[:4]}'.encode()
    return rnd.choice(
        (
            (key, valid[:-1] + b" "),
            (key, b"{" + b" " * (BODY_BYTES - 1)),
            (key, b"[" + b" " * (BODY_BYTES - 2) + b"]"),
            (key, b"{" + b" " * (BODY_BYTES - 2) + b"}"),
            (key, valid.replace(b'"Status":"', b'"Status":"x')),
            (key, valid.replace(b'"MediaType":"video"', b'"MediaType":12345.7')),
            (key, valid.replace(b'"DeleteType"', b'"deletetype"')),
            (key, valid.replace(b"T", b" ")),
            (key, valid.replace(year, b'"EventTime":"2199')),
            (key, valid.replace(year, b'"EventTime":"1999')),
            (b"%032x" % rnd.getrandbits(128), valid),
        )
    )


async def fill(settings: Settings, events: int, *, is_poison: bool = False) -> None:
    """Write *events* raw records as the bridge does: partitions, headers, acks."""
    rnd = random.Random(1)
    now = int(time.time() * 1000)
    async with AIOKafkaProducer(
        **settings.kafka.client_options(), enable_idempotence=True, acks="all", max_batch_size=RAW_BATCH_BYTES_MAX
    ) as producer:
        filling = {partition: producer.create_batch() for partition in range(settings.kafka.partitions)}
        earlier: list[tuple[bytes, bytes]] = []
        sent: list[asyncio.Future[object]] = []
        headers = [("source", b"http"), ("received-at", b"%d" % now)]
        for _ in range(events):
            draw = rnd.random()
            if is_poison:
                key, value = poison(rnd, now)
            elif draw < 0.01:
                key, value = b"%032x" % rnd.getrandbits(128), b"{" + b" " * (BODY_BYTES - 1)
            elif draw < 0.11 and earlier:
                key, value = rnd.choice(earlier)
            else:
                key, value = body(rnd, now)
                earlier = [*earlier[-999:], (key, value)] if rnd.random() < 0.01 else earlier or [(key, value)]
            partition = partitions_of([key], settings.kafka.partitions)[0]
            if filling[partition].append(key=key, value=value, timestamp=now, headers=headers) is None:
                sent.append(
                    await producer.send_batch(filling[partition], settings.kafka.topics.raw, partition=partition)
                )
                filling[partition] = producer.create_batch()
                filling[partition].append(key=key, value=value, timestamp=now, headers=headers)
        for partition, batch in filling.items():
            if batch.record_count():
                sent.append(await producer.send_batch(batch, settings.kafka.topics.raw, partition=partition))
        await asyncio.gather(*sent)


def validation_microseconds() -> float:
    """Return what validating one body takes right now: the yardstick for this machine at this minute."""
    _, value = body(random.Random(1), 1_800_000_000_000)
    best = float("inf")
    for _ in range(20):
        began = time.thread_time()
        for _ in range(5000):
            validate(value)
        best = min(best, time.thread_time() - began)
    return best / 5000 * 1e6


def pin(process_id: int | None, core: int) -> None:
    """Keep every thread of a process on one core."""
    for thread in Path(f"/proc/{process_id}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def cpu_seconds(process_id: int) -> float:
    """Return user and system time of a process so far."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


class Look(NamedTuple):
    """What a worker has done so far."""

    at: float
    cpu_seconds: float
    events: int


def _look(worker: WorkerProcess) -> Look:
    return Look(time.perf_counter(), cpu_seconds(worker.process_id), sum(worker.records().values()))


def measure(settings: Settings, directory: Path, events: int) -> tuple[float, float, float]:
    """Return events per second, CPU microseconds per event and resident MiB, between two looks while it was busy."""
    with WorkerProcess(settings, directory) as worker:
        process_id = worker.process_id
        pin(process_id, WORKER_CORE)
        worker.wait_until_working()
        looks = [_look(worker)]
        while looks[-1].events < events:
            time.sleep(LOOK_SECONDS)
            looks.append(_look(worker))
        resident = int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    first, last = looks[0], looks[-2]  # At the last look it may have been done for a while.
    done = last.events - first.events
    return done / (last.at - first.at), (last.cpu_seconds - first.cpu_seconds) / done * 1e6, resident


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--rounds", type=int, default=1, help="how often the same raw records are processed")
    parser.add_argument("--poison", action="store_true", help="compare each round with one of rejected records")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {BROKER_CORE})  # Looking at the worker must not take time from it.
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        kafka = LocalKafka(jars=JARS, directory=directory / "kafka", port=free_port(), controller_port=free_port())
        with kafka:
            pin(kafka.process_id, BROKER_CORE)
            for _ in range(arguments.rounds):
                costs = [_round(kafka, directory, arguments.events)]
                if arguments.poison:
                    costs.append(_round(kafka, directory, arguments.events, is_poison=True))
                    print(f"normal to poison: {costs[0] / costs[1]:.2f} of the speed, by CPU an event", flush=True)


def _round(kafka: LocalKafka, directory: Path, events: int, *, is_poison: bool = False) -> float:
    """Fill topics of their own, measure, print; return CPU microseconds an event."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=f"{name}."),
        worker=WorkerSettings(group=name),
    )
    reconcile(settings)
    asyncio.run(fill(settings, events, is_poison=is_poison))
    yardstick = validation_microseconds()
    per_second, microseconds, resident = measure(settings, directory, events)
    print(
        f"worker, {'poison only' if is_poison else 'exactly once'}: {per_second:,.0f} events/s,"
        f" {microseconds:.2f} us CPU an event, {resident:.0f} MiB (validating one body: {yardstick:.2f} us)",
        flush=True,
    )
    return microseconds


if __name__ == "__main__":
    main()
