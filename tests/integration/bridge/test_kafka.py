"""The bridge on a real Kafka: real sockets in front, the topic behind, and what happens when Kafka stands still."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry

from pipeline.bridge.server import serve
from pipeline.core.signature import sign
from pipeline.service.settings import BridgeSettings, CallbackSettings, Settings, SettingsError
from pipeline.service.web import ListenError, listen
from tests.harness.ports import free_port
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiokafka import ConsumerRecord

    from pipeline.local.kafka import LocalKafka

URL = "https://vod.example.com/callback"
KEY = "Test1Key"
BODY = b'{"MediaId": "foobar", "EventType":"DeleteMediaComplete"}\n'
ANSWER_SECONDS_MAX = 60.0  # Of any one answer in these tests; Kafka's own deadline is 1 to 3 s.


class Answer(NamedTuple):
    status: int
    head: bytes
    body: bytes


class Connection:
    """A keep-alive HTTP connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, body: bytes, *, announced: int | None = None) -> None:
        timestamp = str(int(time.time()))
        head = (
            "POST /callback HTTP/1.1\r\nHost: forged.example.com\r\n"
            f"X-VOD-TIMESTAMP: {timestamp}\r\nX-VOD-SIGNATURE: {sign(URL, timestamp, KEY)}\r\n"
            f"Content-Length: {len(body) if announced is None else announced}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)

    async def answer(self) -> Answer:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return Answer(int(head.split()[1]), head, await self.reader.readexactly(length))

    async def post(self, body: bytes) -> int:
        self.send(body)
        return (await self.answer()).status


class Bridge:
    """A running bridge: its two ports, and how to stop it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stop = asyncio.Event()
        self.serving = asyncio.create_task(
            serve(settings, stop=self.stop, reload=lambda: settings, registry=CollectorRegistry())
        )

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.settings.bridge.port)
        yield Connection(reader, writer)
        writer.close()

    async def get(self, path: str) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.settings.bridge.metrics_port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = await Connection(reader, writer).answer()
        writer.close()
        return answer

    async def until_ready(self) -> None:
        """Ask /readyz until it says so: the port itself may not be open yet."""

        async def is_ready() -> bool:
            with contextlib.suppress(ConnectionError):
                return (await self.get("/readyz")).status == 200
            return False

        await until(is_ready)


def with_bridge(settings: Settings, **bridge: Any) -> Settings:
    callback = CallbackSettings.model_validate({"url": URL, "auth_keys": ["Old1Key", KEY]})
    section = BridgeSettings(
        callbacks=(callback,), port=free_port(), metrics_port=free_port(), **{"spool_directory": None, **bridge}
    )
    return settings.model_copy(update={"bridge": section})


@contextlib.asynccontextmanager
async def running_bridge(settings: Settings) -> AsyncIterator[Bridge]:
    bridge = Bridge(settings)
    try:
        yield bridge
    finally:
        bridge.stop.set()
        await bridge.serving


async def raw_records(settings: Settings) -> list[ConsumerRecord[bytes | None, bytes]]:
    """Read all of raw, from its beginning to its present end."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(settings.kafka.topics.raw, number) for number in range(settings.kafka.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        records = []
        for partition in partitions:
            while await consumer.position(partition) < ends[partition]:
                records.append(await consumer.getone(partition))
        return records
    finally:
        await consumer.stop()


async def test_a_200_means_the_record_is_in_raw_as_the_contract_says(settings: Settings) -> None:
    async with running_bridge(with_bridge(settings)) as bridge, contextlib.AsyncExitStack() as stack:
        await bridge.until_ready()
        connection = await stack.enter_async_context(bridge.connection())
        before = int(time.time() * 1000)
        connection.send(BODY)
        answer = await connection.answer()
        (record,) = await raw_records(settings)
        after = int(time.time() * 1000)

    assert answer == Answer(200, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"")
    assert (record.key, record.value) == (b"foobar", BODY)
    assert record.partition == 2  # Java: toPositive(murmur2("foobar")) % 4, from UtilsTest's -790332482.
    headers = dict(record.headers)
    assert headers.keys() == {"source", "received-at"}
    assert headers["source"] == b"http"
    assert before <= int(headers["received-at"]) <= after


async def test_what_is_not_json_is_in_raw_without_a_key(settings: Settings) -> None:
    async with running_bridge(with_bridge(settings)) as bridge, contextlib.AsyncExitStack() as stack:
        await bridge.until_ready()
        connection = await stack.enter_async_context(bridge.connection())
        statuses = [await connection.post(b"\xffnot json %d" % number) for number in range(8)]
        records = await raw_records(settings)

    assert statuses == [200] * 8
    assert {record.key for record in records} == {None}
    assert sorted(record.partition for record in records) == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_groups_larger_than_a_batch_may_be_are_all_taken(settings: Settings) -> None:
    """Raw takes batches of 128 KiB: 40 incompressible bodies of the largest size that arrive together are 2.5 MiB."""
    bodies = {os.urandom(65_536) for _ in range(40)}
    async with running_bridge(with_bridge(settings)) as bridge, contextlib.AsyncExitStack() as stack:
        await bridge.until_ready()
        connections = [await stack.enter_async_context(bridge.connection()) for _ in bodies]
        statuses = await asyncio.gather(
            *(connection.post(body) for connection, body in zip(connections, bodies, strict=True))
        )
        records = await raw_records(settings)

    assert statuses == [200] * 40
    assert {record.value for record in records} == bodies


async def test_a_stalled_body_is_cut_off(settings: Settings) -> None:
    async with (
        running_bridge(with_bridge(settings, body_timeout_seconds=1)) as bridge,
        contextlib.AsyncExitStack() as stack,
    ):
        await bridge.until_ready()
        connection = await stack.enter_async_context(bridge.connection())
        connection.send(BODY[:5], announced=len(BODY))
        answer = await connection.answer()
        rest = await connection.reader.read()
        records = await raw_records(settings)

    assert answer.status == 408
    assert rest == b""
    assert records == []


async def test_while_kafka_stands_still_503_comes_in_time_and_publishing_resumes(
    settings: Settings, kafka: LocalKafka
) -> None:
    async with running_bridge(with_bridge(settings)) as bridge, contextlib.AsyncExitStack() as stack:
        await bridge.until_ready()
        connection = await stack.enter_async_context(bridge.connection())
        assert await connection.post(BODY) == 200
        kafka.pause()
        try:
            started_at = time.monotonic()
            refused = [await connection.post(b'{"MediaId":"%d"}' % number) for number in range(2)]
            waited_seconds = time.monotonic() - started_at
            readiness = await bridge.get("/readyz")
        finally:
            kafka.resume()
        await bridge.until_ready()
        resumed = await connection.post(b'{"MediaId":"afterwards"}')
        records = await raw_records(settings)

    assert refused == [503, 503]
    assert 2.5 <= waited_seconds < 20
    assert readiness.status == 503
    assert resumed == 200
    assert b"afterwards" in [record.key for record in records]


async def test_the_bridge_starts_without_kafka_and_becomes_ready_with_it(settings: Settings, kafka: LocalKafka) -> None:
    kafka.pause()
    try:
        bridge = Bridge(with_bridge(settings, ack_timeout_seconds=1))
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(ConnectionError):
                    readiness = await bridge.get("/readyz")
                    break
                await asyncio.sleep(0.02)  # Paces the polling; the open port is what ends it.
        async with bridge.connection() as connection:
            refused = await connection.post(BODY)
            health = await bridge.get("/healthz")
            kafka.resume()
            await bridge.until_ready()
            taken = await connection.post(BODY)
    finally:
        kafka.resume()
        bridge.stop.set()
        await bridge.serving

    assert (readiness.status, health.status) == (503, 200)
    assert (refused, taken) == (503, 200)


async def test_stopping_answers_what_has_begun(settings: Settings, kafka: LocalKafka) -> None:
    """A request in flight when the stop comes gets its 200 once Kafka has it, not a reset."""
    async with running_bridge(with_bridge(settings)) as bridge, contextlib.AsyncExitStack() as stack:
        await bridge.until_ready()
        connection = await stack.enter_async_context(bridge.connection())
        assert await connection.post(BODY) == 200

        async def is_in_flight() -> bool:
            return b"vod_pipeline_bridge_in_flight 1.0" in (await bridge.get("/metrics")).body

        kafka.pause()
        try:
            connection.send(b'{"MediaId":"in flight"}')
            await until(is_in_flight)
            bridge.stop.set()
        finally:
            kafka.resume()
        answer = await connection.answer()
        await bridge.serving

    assert answer.status == 200


async def test_without_callbacks_the_bridge_refuses_to_start() -> None:
    with pytest.raises(SettingsError, match=r"bridge\.callbacks"):
        await serve(Settings(), stop=asyncio.Event(), reload=Settings, registry=CollectorRegistry())


def test_a_taken_port_is_named_with_its_setting() -> None:
    with listen("127.0.0.1", 0, setting="bridge.port") as taken:
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{port} \(bridge\.port\): Address already in use"):
            listen("127.0.0.1", port, setting="bridge.port")
