"""
The whole product on one machine: a local Kafka (or the one configured), topics, bridge, worker and live page, stopped
in order.

The parts are the same processes that production runs, started as subprocesses with the environment as their settings.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.admin.topics.apply import reconcile
from pipeline.local.kafka import LocalKafka
from pipeline.service.errors import OperatorError
from pipeline.service.probe import ask, url_of
from pipeline.service.settings import CallbackSettings, Settings
from pipeline.service.settings_source import ENV_PREFIX

DATA = Path(".local")
KEY_FILE = DATA / "auth-key"
JARS = DATA / "kafka-jars"
CALLBACK_PATH = "/vod/callback"
BOOTSTRAP_VARIABLE = f"{ENV_PREFIX}KAFKA__BOOTSTRAP_SERVERS"
INSTANCE_ID = "up"  # Static membership: a killed worker goes on at once.
READY_SECONDS = 60.0
ANSWER_SECONDS_MAX = 2.0
POLL_SECONDS = 0.1
STOP_SECONDS = 25.0
RESTARTS_MAX = 5
RESTARTS_WINDOW_SECONDS = 60.0
USAGE_EXIT_CODE = 2  # A setting is wrong: starting again would not help.


class UpError(OperatorError):
    """The product can't run."""


@dataclass(slots=True)
class Part:
    """
    One of our processes. Its session is its own, so that a terminal's Ctrl-C reaches only us.

    What is not essential shows the pipeline and does not carry it: where it fails, the others go on.
    """

    name: str
    environ: dict[str, str]
    ready_url: str
    is_essential: bool = True
    process: subprocess.Popen[bytes] | None = None
    started_at: list[float] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return DATA / "logs" / f"{self.name}.log"

    def start(self) -> None:
        """Start the process; its log is appended to."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.started_at.append(time.monotonic())
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", self.name],
                env=self.environ,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what takes longer than STOP_SECONDS."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def revive(self) -> str | None:
        """
        Start the process again if it ended; return a line that says so.

        Raises:
            UpError: it ended too often, or because of its settings, and is essential; any other is given up.
        """
        code = self.process.poll() if self.process else None
        if code is None:
            return None
        recent = [at for at in self.started_at if time.monotonic() - at < RESTARTS_WINDOW_SECONDS]
        if code == USAGE_EXIT_CODE or len(recent) > RESTARTS_MAX:
            told = f"the {self.name} ended with {code}: {self.last_words()} (all of it: {self.log})"
            if self.is_essential:
                raise UpError(told)
            self.process = None
            return f"{told}; the rest goes on without it"
        self.start()
        return f"the {self.name} ended with {code} and was started again"

    def last_words(self) -> str:
        """Return the last line of the log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return lines[-1] if lines else "it logged nothing"

    def is_ready(self) -> bool:
        """Ask the process itself."""
        try:
            return ask(self.ready_url, seconds=ANSWER_SECONDS_MAX)[0]
        except OSError:
            return False


def callback_of(settings: Settings) -> CallbackSettings:
    """Return the configured callback, or one made for this machine whose key is kept in .local/auth-key."""
    if settings.bridge.callbacks:
        return settings.bridge.callbacks[0]
    url = f"{settings.bridge.base_url}{CALLBACK_PATH}"
    return CallbackSettings.model_validate({"url": url, "auth_keys": (_own_key(),)})


def _own_key() -> str:
    """Return the key that is kept in .local/auth-key; an empty file is one that was being written."""
    KEY_FILE.parent.mkdir(parents=True, exist_ok=True)
    KEY_FILE.touch(mode=0o600)
    key = KEY_FILE.read_text().strip()
    if not key:
        key = f"Aa1{secrets.token_hex(12)}"  # VOD wants upper case, lower case and digits, at most 32.
        KEY_FILE.write_text(key)
    return key


def curl_line(callback: CallbackSettings, settings: Settings) -> str:
    """Return a shell line that sends one signed callback, now and whenever it is pasted."""
    signed = callback.callback
    sign = (
        f"""-H "X-VOD-TIMESTAMP: $T" -H "X-VOD-SIGNATURE: $(printf %s {shlex.quote(signed.url)}"|$T|"""
        f""""{shlex.quote(signed.auth_keys[0])} | md5sum | cut -c1-32)" """
        if signed.auth_keys
        else ""
    )
    body = (
        '{\\"EventType\\":\\"DeleteMediaComplete\\",\\"EventTime\\":\\"$(date -u +%FT%TZ)\\",\\"Status\\":\\"fail\\",'
        '\\"MediaType\\":\\"video\\",\\"DeleteType\\":\\"all\\",\\"MediaId\\":\\"media-$T\\",'
        '\\"ErrorCode\\":\\"InvalidVideo.NotFound\\"}'
    )
    target = shlex.quote(f"{settings.bridge.base_url}{callback.path}")
    return f"""T=$(date +%s); curl -gsw '%{{http_code}}\\n' {sign}-d "{body}" {target}"""


def parts_of(settings: Settings, environ: dict[str, str], bootstrap_servers: str) -> tuple[Part, ...]:
    """Describe bridge, worker and live page, configured as *settings* are, on *bootstrap_servers*."""
    callback = callback_of(settings)
    keys = [key.get_secret_value() for key in callback.auth_keys]
    base = {**environ, BOOTSTRAP_VARIABLE: bootstrap_servers}
    if not settings.bridge.callbacks:
        base[f"{ENV_PREFIX}BRIDGE__CALLBACKS"] = json.dumps([{"url": callback.url, "auth_keys": keys}])
    worker = dict(base)
    if settings.worker.instance_id is None:
        worker[f"{ENV_PREFIX}WORKER__INSTANCE_ID"] = INSTANCE_ID
    return (
        Part("bridge", base, url_of(settings.bridge.metrics_host, settings.bridge.metrics_port, "/readyz")),
        Part("worker", worker, url_of(settings.worker.metrics_host, settings.worker.metrics_port, "/readyz")),
        Part("dashboard", base, f"{settings.dashboard.base_url}/readyz", is_essential=False),
    )


@contextmanager
def kafka_of(settings: Settings, say: Callable[[str], None]) -> Iterator[str]:
    """Yield bootstrap servers: of the Kafka the environment names, else of a local one that runs meanwhile."""
    if BOOTSTRAP_VARIABLE in os.environ:
        yield settings.kafka.bootstrap_servers
        return
    port = int(settings.kafka.bootstrap_servers.rpartition(":")[2])
    with LocalKafka(jars=JARS, directory=DATA / "kafka", port=port, controller_port=port + 1) as kafka:
        say(f"Kafka 4.3.0 listens on {kafka.bootstrap_servers}")
        try:
            yield kafka.bootstrap_servers
        finally:
            say("stopping Kafka")


def on_kafka_of(parts: tuple[Part, ...], settings: Settings) -> Settings:
    """Return *settings* with the Kafka that *parts* were started on."""
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": parts[0].environ[BOOTSTRAP_VARIABLE]})
    return settings.model_copy(update={"kafka": kafka})


@contextmanager
def running(settings: Settings, say: Callable[[str], None]) -> Iterator[tuple[Part, ...]]:
    """
    Run everything while the context lasts.

    Raises:
        UpError, LocalKafkaError, TopicsError, ClusterError: one line for the operator; nothing is left running.
    """
    with kafka_of(settings, say) as bootstrap_servers:
        at = settings.model_copy(
            update={"kafka": settings.kafka.model_copy(update={"bootstrap_servers": bootstrap_servers})}
        )
        reconcile(at)
        parts = parts_of(settings, dict(os.environ), bootstrap_servers)
        try:
            for part in parts:
                part.start()
            for part in parts:
                try:
                    _wait_until_ready(part)
                except UpError as error:
                    if part.is_essential:
                        raise
                    say(f"{error}; the rest goes on without it")
                    part.stop()
            yield parts
        finally:
            for part in parts:
                say(f"stopping the {part.name}")
                part.stop()


def _wait_until_ready(part: Part) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not part.is_ready():
        code = part.process.poll() if part.process else None
        if code is not None:
            raise UpError(f"the {part.name} did not start: {part.last_words()}")
        if time.monotonic() > deadline:
            raise UpError(f"the {part.name} is not ready after {READY_SECONDS:.0f} s; see {part.log}")
        time.sleep(POLL_SECONDS)
