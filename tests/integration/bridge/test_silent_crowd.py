"""A crowd that connects to the port for TLS and says nothing, against the bridge as production runs it."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl
import time
from typing import TYPE_CHECKING

import pytest
import trustme

from pipeline.core.signature import sign
from tests.harness.bridge import KEY, URL, BridgeProcess
from tests.harness.ports import free_port
from tests.waiting import until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pipeline.service.settings import Settings

DESCRIPTORS_MAX = 256
CROWD = 300
BODY = b'{"MediaId":"honest"}'


class Limited(BridgeProcess):
    """A bridge that may open few files."""

    def launch(self) -> subprocess.Popen[bytes]:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS_MAX, limits[1]))
        try:
            return super().launch()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextlib.asynccontextmanager
async def crowd(port: int) -> AsyncIterator[None]:
    streams = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(CROWD)))
    try:
        yield
    finally:
        for _, writer in streams:
            writer.close()


async def status(port: int, trusting: ssl.SSLContext) -> int:
    """Send a callback, and return its answer; 0 if the bridge takes no connection."""
    timestamp = str(int(time.time()))
    head = (
        f"POST /callback HTTP/1.1\r\nHost: x\r\nX-VOD-TIMESTAMP: {timestamp}\r\n"
        f"X-VOD-SIGNATURE: {sign(URL, timestamp, KEY)}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        writer.write(head.encode() + BODY)
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    except (OSError, asyncio.IncompleteReadError):
        return 0
    return int(answer.split()[1])


@pytest.mark.parametrize("is_kafka_there", [True, False], ids=["Kafka up", "Kafka away"])
async def test_it_shuts_others_out_for_seconds_and_does_not_end_the_bridge(
    is_kafka_there: bool, settings: Settings, tmp_path: Path
) -> None:
    """What Kafka and the monitoring port need is left over, and a handshake has its time and no more."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "bridge.pem", tmp_path / "bridge.key"
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(certificate)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    if not is_kafka_there:
        kafka = settings.kafka.model_copy(update={"bootstrap_servers": f"127.0.0.1:{free_port()}"})
        settings = settings.model_copy(update={"kafka": kafka})
    bridge = Limited(settings, tmp_path, certificate_file=certificate, key_file=key)
    await bridge.start()
    try:

        async def is_served() -> bool:
            return await status(bridge.port, trusting) == 200

        await until(is_served)
        async with crowd(bridge.port):
            assert await status(bridge.port, trusting) == 0
            assert await bridge.status("/healthz") == 200
            await until(is_served, pause_seconds=0.05)

        refused = await bridge.metric('vod_pipeline_bridge_requests_total{entry="",outcome="overloaded"}')
        assert refused >= CROWD - DESCRIPTORS_MAX
        assert await asyncio.to_thread(bridge.terminate) == 0
    finally:
        bridge.kill()
