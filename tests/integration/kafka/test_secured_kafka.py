"""
Kafka with TLS and passwords: everything works in each way to be let in, and one that is not let in hears why and ends.

Bridge, worker and tools are processes configured by the environment alone, so that all they say can be searched.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import structlog
from prometheus_client import CollectorRegistry

from pipeline.admin.topics.apply import reconcile
from pipeline.bridge.server import serve
from pipeline.core.signature import sign
from pipeline.service.settings import Settings, load
from tests.conftest import KAFKA_JARS
from tests.harness.load import deletion
from tests.harness.ports import free_port
from tests.harness.secured_kafka import KEY_PASSWORD, PASSWORD, WAYS, SecuredKafka
from tests.harness.worker import WorkerProcess
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = "https://vod.example.com/callback"
KEY = "Test1Key"
KAFKA = "VOD_PIPELINE_KAFKA__"
WRONG_PASSWORD = "Sesame-4713-wrong"
SECRETS = (PASSWORD, KEY_PASSWORD, WRONG_PASSWORD, KEY)
END_SECONDS = 60  # It takes 2 s on an idle machine; one that is busy with other tests is slow.


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with SecuredKafka(KAFKA_JARS, tmp_path_factory.mktemp("secured")).running() as broker:
        yield broker


def environ_of(secured: SecuredKafka, way: str) -> dict[str, str]:
    """Return all variables of one installation: its own topics, group and ports, and a bridge that speaks TLS."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    return {
        **secured.environ(way),
        "VOD_PIPELINE_CONFIG": os.devnull,
        f"{KAFKA}TOPIC_PREFIX": f"{name}.",
        f"{KAFKA}PARTITIONS": "1",
        "VOD_PIPELINE_WORKER__GROUP": name,
        "VOD_PIPELINE_WORKER__METRICS_PORT": str(free_port()),
        "VOD_PIPELINE_BRIDGE__PORT": str(free_port()),
        "VOD_PIPELINE_BRIDGE__METRICS_PORT": str(free_port()),
        "VOD_PIPELINE_BRIDGE__SPOOL_DIRECTORY": "",  # Readiness is then Kafka's alone.
        "VOD_PIPELINE_BRIDGE__CALLBACKS": json.dumps([{"url": URL, "auth_keys": [KEY]}]),
        "VOD_PIPELINE_BRIDGE__CERTIFICATE_FILE": str(secured.file("broker.pem")),
        "VOD_PIPELINE_BRIDGE__KEY_FILE": str(secured.file("broker.key")),
    }


class Run(NamedTuple):
    """A command that ended: its exit code and all it said."""

    code: int
    said: str


def start(environ: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        env={**os.environ, "COLUMNS": "200", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> Run:
    """Wait until the command has ended by itself, and kill it when it does not."""
    try:
        said, _ = process.communicate(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        raise AssertionError(f"it does not end: {said}") from None
    return Run(process.returncode, said)


@contextlib.contextmanager
def running_bridge(environ: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "bridge"], env={**os.environ, **environ}, stdout=said, stderr=said
        )
    try:
        yield
        process.terminate()
        assert process.wait(END_SECONDS) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def get(url: str) -> str:
    """Return an answer's body, whatever its status; nothing while no one listens."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310  # Our own http URL.
            return str(answer.read().decode())
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.read().decode()
    except OSError:
        return ""


def post(settings: Settings, ca_file: Path) -> int:
    """Send one valid, signed deletion over TLS."""
    timestamp = str(int(time.time()))
    headers = {"X-VOD-TIMESTAMP": timestamp, "X-VOD-SIGNATURE": sign(URL, timestamp, KEY)}
    body = deletion("media-1", datetime.now(UTC)).value
    context = ssl.create_default_context(cafile=ca_file)
    request = urllib.request.Request(f"{settings.bridge.base_url}/callback", body, headers)  # noqa: S310  # Ours.
    with urllib.request.urlopen(request, timeout=60, context=context) as answer:  # noqa: S310  # As above.
        return int(answer.status)


def assert_no_secret_in(text: str) -> None:
    assert [secret for secret in SECRETS if secret in text] == [], text


@pytest.mark.parametrize("way", WAYS)
def test_a_callback_is_accepted_and_no_secret_is_said(secured: SecuredKafka, way: str, tmp_path: Path) -> None:
    """From the callback over TLS, through bridge and worker, to `accepted`; then all they said and show is searched."""
    environ = environ_of(secured, way)
    settings = load(environ=environ)
    reconcile(settings)
    bridge_monitor = f"http://127.0.0.1:{settings.bridge.metrics_port}"
    worker = WorkerProcess(settings, tmp_path)
    worker.environ.update(environ | {"VOD_PIPELINE_WORKER__METRICS_PORT": str(worker.port)})

    with worker, running_bridge(environ, tmp_path / "bridge.log"):
        eventually(lambda: [] if get(f"{bridge_monitor}/readyz") == "ready\n" else ["bridge"])
        status = post(settings, secured.file("ca.pem"))
        worker.wait_until_working()
        records = worker.records()
        shown = get(f"{bridge_monitor}/metrics") + get(f"http://127.0.0.1:{worker.port}/metrics")
        assert worker.terminate() == 0
    said = (tmp_path / "bridge.log").read_text() + worker.log.read_text()

    assert status == 200
    assert {outcome: number for outcome, number in records.items() if number} == {"accepted": 1}
    assert "vod_pipeline_bridge_requests_total" in shown
    uses = set(
        re.findall(r'^vod_pipeline_certificate_not_after_timestamp_seconds{.*use="(.*)"} \d\.\d+e\+\d+$', shown, re.M)
    )
    assert uses == {"bridge", "kafka_ca", *(["kafka_client"] if way == "mTLS" else [])}
    assert "worker_stopped" in said
    assert "Error" not in said
    assert_no_secret_in(said + shown)


@pytest.mark.parametrize("way", ["SCRAM-SHA-512", "mTLS"])
def test_the_tools_work_and_config_show_masks_what_is_secret(secured: SecuredKafka, way: str) -> None:
    environ = environ_of(secured, way)
    applied = ended(start(environ, "topics", "apply"))
    others = [start(environ, *line.split()) for line in ("topics plan", "offsets show", "config show")]
    planned, offsets, shown = [ended(process) for process in others]

    assert (applied.code, planned.code, offsets.code, shown.code) == (0, 0, 0, 0), (applied, planned, offsets)
    assert "create" in applied.said
    assert "the topics are as they should be" in planned.said
    assert "committed" in offsets.said
    assert json.loads(shown.said)["kafka"]["key_password" if way == "mTLS" else "password"] == "**********"
    assert_no_secret_in(applied.said + planned.said + offsets.said + shown.said)


WRONG = {
    "password": (
        "SCRAM-SHA-512",
        {"PASSWORD": WRONG_PASSWORD},
        r"refuses user 'pipeline' (Authentication failed during authentication due to invalid credentials with SASL "
        r"mechanism SCRAM-SHA-512): see kafka.username and kafka.password",
    ),
    "mechanism": ("PLAIN", {"SASL_MECHANISM": "SCRAM-SHA-256"}, "does not offer SCRAM-SHA-256"),
    "authority": (
        "PLAIN",
        {"CA_FILE": "other-ca.pem"},
        "shows a certificate we do not trust (unable to get local issuer certificate): see kafka.ca_file",
    ),
    "certificate": (
        "mTLS",
        {"CERTIFICATE_FILE": "stranger.pem", "KEY_FILE": "stranger.key"},
        "refuses our certificate (SSLV3_ALERT_CERTIFICATE_UNKNOWN): see kafka.certificate_file",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_client_that_is_refused_ends_with_one_line_that_names_the_setting(secured: SecuredKafka, wrong: str) -> None:
    way, changes, message = WRONG[wrong]
    environ = environ_of(secured, way)
    for key, value in changes.items():
        environ.pop(f"{KAFKA}{key}_FILE", None)
        environ[f"{KAFKA}{key}"] = str(secured.file(value)) if key.endswith("FILE") else value
    commands = ("bridge", "worker", "topics apply", "offsets show")
    runs = [ended(process) for process in [start(environ, *command.split()) for command in commands]]

    for run in runs:
        assert run.code == 2, run
        assert message in run.said
        assert run.said.count("\n") == 1, run.said
        assert_no_secret_in(run.said)


async def test_a_bridge_refused_while_it_runs_says_why_and_asks_rarely(secured: SecuredKafka) -> None:
    """The command asks before it starts; this is the service without that, as if the password had changed since."""
    environ = environ_of(secured, "PLAIN") | {f"{KAFKA}PASSWORD": WRONG_PASSWORD}
    del environ[f"{KAFKA}PASSWORD_FILE"]
    settings = load(environ=environ)
    monitor = f"http://127.0.0.1:{settings.bridge.metrics_port}"
    stop = asyncio.Event()

    with structlog.testing.capture_logs() as logs:
        serving = asyncio.create_task(serve(settings, stop=stop, reload=lambda: settings, registry=CollectorRegistry()))
        try:
            await asyncio.to_thread(
                eventually,
                lambda: [] if "see kafka.username" in get(f"{monitor}/readyz") else ["not refused yet"],
            )
            await asyncio.sleep(2.5)  # An ordinary failure would have been tried again by now.
            health = await asyncio.to_thread(get, f"{monitor}/healthz")
            shown = await asyncio.to_thread(get, f"{monitor}/metrics")
        finally:
            stop.set()
            await serving

    assert health == "alive\n"
    assert "vod_pipeline_bridge_kafka_refusals_total 1.0" in shown
    assert [log["event"] for log in logs if log["log_level"] in ("warning", "error")] == ["kafka_refused"]
    assert_no_secret_in(repr(logs))
