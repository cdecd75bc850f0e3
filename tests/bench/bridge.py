"""
Load on the bridge: requests per second and CPU per request on one core, beside a bare uvicorn application.

``python -m tests.bench.bridge`` starts what it needs: the server under test on core 0, wrk on core 1, and for the
bridge a topic on the Kafka that VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS names (default 127.0.0.1:9092). Before the first
round the broker gets some seconds of load that do not count. The servers take turns, as a shared machine differs from
minute to minute: compare numbers of one round, or the best and the median of many.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
import uvloop
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from prometheus_client import CollectorRegistry

from pipeline.bridge.server import serve
from pipeline.core.signature import sign
from pipeline.service.settings import BridgeSettings, CallbackSettings, KafkaSettings, Settings
from pipeline.service.web import listen
from tests.bench.worker import cpu_seconds
from tests.harness.ports import free_port

URL = "http://127.0.0.1/vod/callback"
KEY = "Bench1Key"
SERVER_CORE, LOAD_CORE = "0", "1"
CONNECTIONS = 64
BODY_BYTES = 250
LABELS = {"bare": "bare uvicorn", "bridge": "bridge, acks=all", "spool": "bridge, Kafka away"}
START_SECONDS_MAX = 20
WARM_UP_SECONDS = 10  # A broker that has just started interprets its code, and takes several times as long.
CONNECT_SECONDS = 2  # Thrown away of each run: the server connects to Kafka and fills its caches.

LUA = """
local n = 0
local headers = {{["X-VOD-TIMESTAMP"] = "{timestamp}", ["X-VOD-SIGNATURE"] = "{signature}"}}
local pad = string.rep("x", {body_bytes})
request = function()
  n = n + 1
  local body = string.format('{{"EventType":"DeleteMediaComplete","EventTime":"2026-01-01T00:00:00Z",' ..
    '"Status":"success","MediaType":"video","DeleteType":"all","MediaId":"%032x","JobIds":"', n)
  return wrk.format("POST", "/vod/callback", headers, body .. string.sub(pad, 1, {body_bytes} - #body - 2) .. '"}}')
end
"""


class Stats(NamedTuple):
    """What one run measured."""

    requests_per_second: float
    cpu_microseconds: float
    p50_milliseconds: float
    p99_milliseconds: float
    errors: str = ""


def main() -> int:
    """Run the load and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="all servers one after the other, so often")
    parser.add_argument("--serve", choices=tuple(LABELS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--prefix", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        kafka = _kafka(options.prefix)
        if options.serve == "spool":
            kafka = kafka.model_copy(update={"bootstrap_servers": f"127.0.0.1:{free_port()}"})
        uvloop.run(_serve_bare(options.port) if options.serve == "bare" else _serve_bridge(options.port, kafka))
        return 0
    if shutil.which("wrk") is None:
        print("wrk is missing: apt-get install wrk", file=sys.stderr)
        return 1
    prefix = f"bench-{os.getpid()}."
    asyncio.run(_create_topic(prefix))
    try:
        _measure("bridge", seconds=WARM_UP_SECONDS, prefix=prefix)
        print(f"{CONNECTIONS} connections, {BODY_BYTES}-byte bodies, {options.seconds} s, server on one core")
        print(f"{'server':<28} {'requests/s':>11} {'CPU us/request':>15} {'p50 ms':>9} {'p99 ms':>9}  errors")
        found: dict[str, list[Stats]] = {name: [] for name in LABELS}
        for name in [*LABELS] * options.rounds:
            stats = _measure(name, seconds=options.seconds, prefix=prefix)
            found[name].append(stats)
            _show(LABELS[name], stats)
        for name, label in LABELS.items():
            _show(f"{label}, best", _best(found[name]))
            _show(f"{label}, median", _median(found[name]))
    finally:
        asyncio.run(_delete_topic(prefix))
    return 0


def _show(label: str, stats: Stats) -> None:
    print(
        f"{label:<28} {stats.requests_per_second:>11,.0f} {stats.cpu_microseconds:>15.1f} "
        f"{stats.p50_milliseconds:>9.2f} {stats.p99_milliseconds:>9.2f}  {stats.errors}",
        flush=True,
    )


def _best(rounds: list[Stats]) -> Stats:
    """Return the best of each measurement, whichever round it is from."""
    most, *least = zip(*(stats[:-1] for stats in rounds), strict=True)
    return Stats(max(most), *map(min, least))


def _median(rounds: list[Stats]) -> Stats:
    return Stats(*(statistics.median(stats) for stats in zip(*(stats[:-1] for stats in rounds), strict=True)))


def _kafka(prefix: str) -> KafkaSettings:
    servers = os.environ.get("VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9092")
    return KafkaSettings(bootstrap_servers=servers, topic_prefix=prefix)


async def _create_topic(prefix: str) -> None:
    kafka = _kafka(prefix)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    configs = {"max.message.bytes": "131072", "message.timestamp.type": "LogAppendTime"}
    await admin.create_topics([NewTopic(kafka.topics.raw, kafka.partitions, 1, topic_configs=configs)])
    await admin.close()


async def _delete_topic(prefix: str) -> None:
    kafka = _kafka(prefix)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.delete_topics([kafka.topics.raw])
    await admin.close()


async def _serve_bridge(port: int, kafka: KafkaSettings) -> None:
    callbacks = (CallbackSettings.model_validate({"url": URL, "auth_keys": [KEY]}),)
    with tempfile.TemporaryDirectory() as directory:
        bridge = BridgeSettings(
            port=port,
            callbacks=callbacks,
            metrics_port=free_port(),
            timestamp_tolerance_seconds=900,
            spool_directory=Path(directory),
            bodies_per_signature_max=sys.maxsize,  # A second's load has one signature: nothing to warn of.
        )
        settings = Settings(kafka=kafka, bridge=bridge)
        await serve(settings, stop=_stop_on_sigterm(), reload=lambda: settings, registry=CollectorRegistry())


async def _serve_bare(port: int) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
    end = {"type": "http.response.body", "body": b""}

    async def app(_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(start)
        await send(end)

    bound = listen("127.0.0.1", port, setting="--port")
    config = uvicorn.Config(
        app, http="httptools", ws="none", lifespan="off", interface="asgi3", log_config=None, access_log=False,
        server_header=False, date_header=False, timeout_keep_alive=75,
    )  # fmt: skip
    await uvicorn.Server(config).serve(sockets=[bound])


def _stop_on_sigterm() -> asyncio.Event:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return stop


def _measure(name: str, *, seconds: int, prefix: str) -> Stats:
    port = free_port()
    arguments = ["--serve", name, "--port", str(port), "--prefix", prefix]
    command = ["taskset", "-c", SERVER_CORE, sys.executable, "-m", "tests.bench.bridge", *arguments]
    server = subprocess.Popen(command)
    try:
        _wait_for(port)
        _load(port, seconds=CONNECT_SECONDS)
        before = cpu_seconds(server.pid)
        output = _load(port, seconds=seconds)
        used_seconds = cpu_seconds(server.pid) - before
    finally:
        server.terminate()
        server.wait(timeout=30)
    requests = int(_find(r"(\d+) requests in", output))
    errors = "; ".join(line.strip() for line in output.splitlines() if "errors" in line or "Non-2xx" in line) or "none"
    return Stats(
        requests_per_second=float(_find(r"Requests/sec:\s+([\d.]+)", output)),
        cpu_microseconds=used_seconds * 1e6 / requests,
        p50_milliseconds=_milliseconds(_find(r"\n\s+50%\s+(\S+)", output)),
        p99_milliseconds=_milliseconds(_find(r"\n\s+99%\s+(\S+)", output)),
        errors=errors,
    )


def _load(port: int, *, seconds: int) -> str:
    timestamp = str(int(time.time()))
    script = LUA.format(timestamp=timestamp, signature=sign(URL, timestamp, KEY), body_bytes=BODY_BYTES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "load.lua"
        path.write_text(script)
        command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
        run = [*command, "-s", str(path), f"http://127.0.0.1:{port}"]
        return subprocess.run(run, check=True, capture_output=True, text=True).stdout


def _milliseconds(text: str) -> float:
    """Read one of wrk's times: 812.00us, 2.57ms, 1.20s."""
    for unit, milliseconds in (("us", 0.001), ("ms", 1.0), ("s", 1000.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * milliseconds
    raise ValueError(f"wrk's time {text!r} has another unit")


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"no {pattern!r} in wrk's output: {text}")
    return found[1]


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
