"""
The whole product on one machine: a local Kafka (or the one configured), topics, bridge, worker and live page, stopped
in order.

The parts are the same processes that production runs, started as subprocesses with our settings. Their standard input
is a pipe of ours: it ends with us, however we end, and they end with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.admin.topics.apply import reconcile
from pipeline.local.kafka import LocalKafka
from pipeline.local.own_callback import DATA, callback_of
from pipeline.service.errors import OperatorError
from pipeline.service.lifecycle import uninterrupted
from pipeline.service.probe import ask, url_of
from pipeline.service.settings import KafkaSettings, Settings
from pipeline.service.settings_source import CONFIG_VARIABLE, ENV_PREFIX, FILE_SUFFIX

JARS = DATA / "kafka-jars"
BOOTSTRAP_VARIABLE = f"{ENV_PREFIX}KAFKA__BOOTSTRAP_SERVERS"
DEFAULT_SERVERS: str = KafkaSettings.model_fields["bootstrap_servers"].default
INSTANCE_ID = "up"  # Static membership: a killed worker goes on at once.
READY_SECONDS = 60.0
ANSWER_SECONDS_MAX = 2.0
POLL_SECONDS = 0.1
# Together under 20 s. The parts are stopped at the same time; what is killed instead loses nothing.
STOP_SECONDS = 10.0
KAFKA_STOP_SECONDS = 8.0
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
    alive: int | None = None
    """A pipe that ends with us; the process does so when its standard input, which is that, does."""
    process: subprocess.Popen[bytes] | None = None
    started_at: list[float] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return DATA / "logs" / f"{self.name}.log"

    def start(self) -> None:
        """Start the process; its log is appended to."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.started_at.append(time.monotonic())
        with uninterrupted(), self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "pipeline",
                    self.name,
                    *(["--ends-with-input"] if self.alive is not None else []),
                ],
                env=self.environ,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL if self.alive is None else self.alive,
                start_new_session=True,
            )

    def restart_if_exited(self) -> str | None:
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
            message = f"the {self.name} ended with {code}: {self.last_log_line()} (all of it: {self.log})"
            if self.is_essential:
                raise UpError(message)
            self.process = None
            return f"{message}; the rest goes on without it"
        self.start()
        return f"the {self.name} ended with {code} and was started again"

    def last_log_line(self) -> str:
        """Return the last line of the log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return lines[-1] if lines else "it logged nothing"

    def is_ready(self) -> bool:
        """Ask the process itself."""
        try:
            return ask(self.ready_url, seconds=ANSWER_SECONDS_MAX)[0]
        except OSError:
            return False


def stop(parts: Iterable[Part], echo: Callable[[str], None], *, seconds: float = STOP_SECONDS) -> None:
    """SIGTERM to all of *parts*, and SIGKILL for what is not gone after *seconds*."""
    running = [(part, part.process) for part in parts if part.process is not None]
    for part, process in running:
        echo(f"stopping the {part.name}")
        process.terminate()
    deadline = time.monotonic() + seconds
    for part, process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        part.process = None


def parts_of(
    settings: Settings,
    environ: Mapping[str, str],
    bootstrap_servers: str,
    *,
    config: Path | None = None,
    alive: int | None = None,
) -> tuple[Part, ...]:
    """
    Describe bridge, worker and live page, configured as *settings* are, on *bootstrap_servers*.

    Args:
        settings: What *config* and *environ* say.
        environ: The environment that they were read from.
        bootstrap_servers: The Kafka to use instead of theirs.
        config: The file that they were read from, where the environment does not name it.
        alive: See `Part`.
    """
    callback = callback_of(settings)
    base = {**environ, **({CONFIG_VARIABLE: str(config)} if config else {})}
    _set(base, BOOTSTRAP_VARIABLE, bootstrap_servers)
    if not settings.bridge.callbacks:
        keys = [key.get_secret_value() for key in callback.auth_keys]
        _set(base, f"{ENV_PREFIX}BRIDGE__CALLBACKS", json.dumps([{"url": callback.url, "auth_keys": keys}]))
    worker = dict(base)
    if settings.worker.instance_id is None:
        _set(worker, f"{ENV_PREFIX}WORKER__INSTANCE_ID", INSTANCE_ID)
    metrics = {
        "bridge": url_of(settings.bridge.metrics_host, settings.bridge.metrics_port, "/readyz"),
        "worker": url_of(settings.worker.metrics_host, settings.worker.metrics_port, "/readyz"),
    }
    return (
        Part("bridge", base, metrics["bridge"], alive=alive),
        Part("worker", worker, metrics["worker"], alive=alive),
        Part("dashboard", base, f"{settings.dashboard.base_url}/readyz", is_essential=False, alive=alive),
    )


def _set(environ: dict[str, str], name: str, value: str) -> None:
    """Set a setting, which may come from a file otherwise."""
    environ.pop(f"{name}{FILE_SUFFIX}", None)
    environ[name] = value


@dataclass(slots=True)
class UsedKafka:
    """The Kafka that everything is on, and the process of it if that is ours."""

    servers: str
    local: LocalKafka | None = None
    started_at: list[float] = field(default_factory=list)

    def restart_if_exited(self) -> str | None:
        """
        Start a local Kafka again if its process ended; return a line that says so.

        Raises:
            UpError: it ended too often.
            LocalKafkaError: it does not start.
        """
        if self.local is None or self.local.is_running:
            return None
        recent = [at for at in self.started_at if time.monotonic() - at < RESTARTS_WINDOW_SECONDS]
        if len(recent) >= RESTARTS_MAX:
            raise UpError(f"the local Kafka ends again and again: see {self.local.log}")
        self.started_at.append(time.monotonic())
        self.local.restart()
        return "the local Kafka ended and was started again"


@contextmanager
def kafka_of(settings: Settings, echo: Callable[[str], None], *, port: int | None = None) -> Iterator[UsedKafka]:
    """
    Yield the Kafka that the settings name, else a local one that runs meanwhile.

    Args:
        settings: Name a Kafka if their bootstrap_servers are others than the default.
        echo: Prints a line.
        port: Given, there is a local Kafka on it in any case.
    """
    servers = settings.kafka.bootstrap_servers
    if port is None and servers != DEFAULT_SERVERS:
        echo(f"using the Kafka at {servers}, which kafka.bootstrap_servers names")
        yield UsedKafka(servers)
        return
    port = port or int(DEFAULT_SERVERS.rpartition(":")[2])
    with LocalKafka(jars=JARS, directory=DATA / "kafka", port=port, controller_port=port + 1) as kafka:
        echo(f"a local Kafka 4.3.0 listens on {kafka.bootstrap_servers} (--kafka-port moves it)")
        try:
            yield UsedKafka(kafka.bootstrap_servers, kafka)
        finally:
            with uninterrupted():
                echo("stopping Kafka")
                kafka.stop(timeout_seconds=KAFKA_STOP_SECONDS)


def on_kafka_of(parts: tuple[Part, ...], settings: Settings) -> Settings:
    """Return *settings* with the Kafka that *parts* were started on."""
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": parts[0].environ[BOOTSTRAP_VARIABLE]})
    return settings.model_copy(update={"kafka": kafka})


@contextmanager
def running(
    settings: Settings, echo: Callable[[str], None], *, config: Path | None = None, kafka_port: int | None = None
) -> Iterator[tuple[UsedKafka, tuple[Part, ...]]]:
    """
    Run everything while the context lasts; yields what may have to be started again.

    Args:
        settings: As *config* and the environment have them.
        echo: Prints a line; it must not raise.
        config: The file that was named for this command.
        kafka_port: See `kafka_of`.

    Raises:
        UpError, LocalKafkaError, TopicContractError, ClusterError: one line for the operator; nothing is left running.
    """
    with kafka_of(settings, echo, port=kafka_port) as kafka, _pipe() as alive:
        parts = parts_of(settings, os.environ, kafka.servers, config=config, alive=alive)
        reconcile(on_kafka_of(parts, settings))
        try:
            for part in parts:
                part.start()
            for part in parts:
                try:
                    _wait_until_ready(part)
                except UpError as error:
                    if part.is_essential:
                        raise
                    echo(f"{error}; the rest goes on without it")
                    stop([part], echo)
            yield kafka, parts
        finally:
            with uninterrupted():
                stop(parts, echo)


@contextmanager
def _pipe() -> Iterator[int]:
    """Yield the reading end of a pipe whose other end is ours alone."""
    alive, ours = os.pipe()
    try:
        yield alive
    finally:
        os.close(ours)
        os.close(alive)


def _wait_until_ready(part: Part) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not part.is_ready():
        code = part.process.poll() if part.process else None
        if code is not None:
            raise UpError(f"the {part.name} did not start: {part.last_log_line()}")
        if time.monotonic() > deadline:
            raise UpError(f"the {part.name} is not ready after {READY_SECONDS:.0f} s; see {part.log}")
        time.sleep(POLL_SECONDS)
