"""
A real Kafka on this machine: one Apache Kafka node (KRaft) as a subprocess, for `vod-pipeline up` and the tests.

It knows how a broker is formatted, started, stopped, frozen and killed, and nothing of topics or records.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pipeline.kafka.probe import knows_a_live_broker
from pipeline.local.broker_files import (
    last_log_line,
    server_properties,
    try_lock,
    write_configuration,
    write_process_id,
)
from pipeline.service.errors import OperatorError
from pipeline.service.lifecycle import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

HOST = "127.0.0.1"
FORMAT_TIMEOUT_SECONDS = 60.0  # Takes 2 s; a JVM that starts on a busy machine is slow.
START_TIMEOUT_SECONDS = 60.0  # Takes 3 s, and longer after kill -9: every open segment is checked.
STOP_TIMEOUT_SECONDS = 15.0  # A controlled shutdown of one node takes about 1 s.
POLL_SECONDS = 0.05


class LocalKafkaError(OperatorError):
    """The local Kafka can't be used."""


class LocalKafka:
    """
    One Kafka node that keeps its data in a directory between starts.

    The process has a session of its own, so that a terminal's Ctrl-C reaches only us and we stop it in order. It
    inherits a file lock, `broker.lock`: the process that holds it is this directory's broker, also after we were killed
    without a chance to stop it. The next start then ends the orphan first.

    Args:
        jars: Directory with Kafka's jars, as a checkout fetches them.
        directory: Data, configuration and log; created when missing.
        port: Where clients connect, on loopback.
        controller_port: Kafka's own port for its metadata quorum.
        extra: Server properties in addition to ours, or instead of them. Whatever they say, *port* has to answer in
            plain text: that is how the start is noticed.
    """

    def __init__(
        self, *, jars: Path, directory: Path, port: int, controller_port: int, extra: Mapping[str, str] | None = None
    ) -> None:
        self.jars = jars
        self.directory = directory.absolute()
        self.port = port
        self.controller_port = controller_port
        self._extra = dict(extra or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._owner_lock: IO[str] | None = None
        self._log_start = 0

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        return self.directory / "kafka.log"

    @property
    def is_running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def process_id(self) -> int | None:
        return self._process.pid if self._process is not None and self.is_running else None

    def __enter__(self) -> LocalKafka:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """
        Format the data directory if it is new, start the broker, and return when it answers.

        Raises:
            LocalKafkaError: Java or the jars are missing, a port is taken, another process uses the directory, or the
                broker ended or did not answer in time. No process is left behind.
        """
        if self.is_running:
            return
        java = self._java()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock_directory()
        try:
            self._end_orphan()
            for port in (self.port, self.controller_port):
                _require_free(port)
            write_configuration(self.directory, "server.properties", self._properties(self.directory / "data"))
            self._format(java)
            self._launch(java)
            self._wait_until_it_answers(timeout_seconds)
        except BaseException:
            # Ctrl-C in the middle of the start is one way to get here: it must not leave a broker behind.
            self.kill()
            raise

    def stop(self, *, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """Shut the broker down in order; kill it when it takes longer than *timeout_seconds*. Safe to call twice."""
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)  # A paused process handles no SIGTERM.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_seconds)
        self.kill()

    def kill(self) -> None:
        """End the broker at once, as a crash does. What it acknowledged is in the page cache and survives."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._owner_lock is not None:
            self._owner_lock.close()
            self._owner_lock = None

    def restart(self) -> None:
        """Stop in order and start again on the same data and ports."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the broker (SIGSTOP): connections stay open and nothing answers, as in a long collection or a hang."""
        self._signal(signal.SIGSTOP)
        while not self._is_stopped():  # The signal was sent; on a busy machine a thread may go on for a while.
            time.sleep(0.001)

    def _is_stopped(self) -> bool:
        threads = Path(f"/proc/{self.process_id}/task").glob("*/stat")
        try:
            return all(thread.read_text().rpartition(")")[2].split()[0] in "TtZX" for thread in threads)
        except (FileNotFoundError, ProcessLookupError):  # A thread that ended meanwhile.
            return False

    def resume(self) -> None:
        """Let a paused broker go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or not self.is_running:
            raise LocalKafkaError(f"the local Kafka does not run: {number.name} has no process to go to")
        self._process.send_signal(number)

    def _java(self) -> str:
        java = shutil.which("java")
        if java is None:
            raise LocalKafkaError("java is not installed: 17 or newer is needed")
        if not any(self.jars.glob("kafka_*.jar")):
            raise LocalKafkaError(
                f"no Kafka jars in {self.jars}: set up a checkout of the product, which fetches them,"
                " or name a Kafka of your own in kafka.bootstrap_servers"
            )
        return java

    def _lock_directory(self) -> None:
        lock = (self.directory / "owner.lock").open("a+")
        try:
            is_ours = try_lock(lock)
        except OSError as error:
            lock.close()
            raise LocalKafkaError(
                f"{self.directory} cannot be locked ({error.strerror}): start it in a directory on a local disk"
            ) from error
        if not is_ours:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise LocalKafkaError(
                f"{self.directory} is in use by process {holder}: stop the other `vod-pipeline up` first"
            )
        write_process_id(lock, os.getpid())
        self._owner_lock = lock

    def _end_orphan(self) -> None:
        """Stop the broker of an owner that was killed: holding `broker.lock` proves that the process is ours."""
        with (self.directory / "broker.lock").open("a+") as lock:
            deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
            number = signal.SIGTERM
            while not try_lock(lock):
                if time.monotonic() > deadline:
                    number = signal.SIGKILL
                lock.seek(0)
                with suppress(ProcessLookupError, ValueError):
                    os.kill(int(lock.read()), number)
                time.sleep(POLL_SECONDS)

    def _properties(self, data: Path) -> dict[str, str]:
        return server_properties(HOST, self.port, self.controller_port, data) | self._extra

    def _last_log_line(self) -> str:
        return last_log_line(self.log, start=self._log_start)

    def _format(self, java: str) -> None:
        """Write the cluster id under another name and rename: a directory called `data` was formatted to the end."""
        data, unfinished = self.directory / "data", self.directory / "data.unfinished"
        if data.exists():
            return
        shutil.rmtree(unfinished, ignore_errors=True)
        write_configuration(self.directory, "format.properties", self._properties(unfinished))
        arguments = ["format", *self._format_arguments(), "-c", "format.properties"]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            try:
                done = subprocess.run(
                    self._command(java, "kafka.tools.StorageTool", *arguments),
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    timeout=FORMAT_TIMEOUT_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise LocalKafkaError(f"formatting {data} took over {FORMAT_TIMEOUT_SECONDS:.0f} s") from None
        if done.returncode != 0:
            raise LocalKafkaError(f"Kafka cannot format {data}: {self._last_log_line()} (all of it: {self.log})")
        unfinished.rename(data)

    def _format_arguments(self) -> list[str]:
        """Return what makes this node a cluster of its own."""
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # With "=": one id in 64 begins with a hyphen, and would be taken for an option.
        return ["--standalone", f"--cluster-id={cluster_id}"]

    def _launch(self, java: str) -> None:
        with uninterrupted(), self.log.open("ab") as log, (self.directory / "broker.lock").open("a+") as lock:
            self._log_start = log.tell()
            try_lock(lock)
            self._process = subprocess.Popen(
                self._command(java, "kafka.Kafka", "server.properties"),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )
            write_process_id(lock, self._process.pid)

    def _command(self, java: str, main: str, *arguments: str) -> list[str]:
        options = ["-Xmx512m", "-Dlog4j2.configurationFile=file:log4j2.properties"]
        return [java, *options, "-cp", str(self.jars.absolute() / "*"), main, *arguments]

    def _wait_until_it_answers(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not knows_a_live_broker(HOST, self.port):
            if not self.is_running:
                raise LocalKafkaError(f"Kafka ended while starting: {self._last_log_line()} (all of it: {self.log})")
            if time.monotonic() > deadline:
                raise LocalKafkaError(f"Kafka did not answer within {timeout_seconds:.0f} s: see {self.log}")
            time.sleep(POLL_SECONDS)


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        # As the JVM does: without it, connections of the last run in TIME_WAIT count as a taken port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise LocalKafkaError(
                f"port {port} on {HOST} cannot be used by the local Kafka ({error.strerror}): stop what listens there,"
                " move the local Kafka with `vod-pipeline up --kafka-port PORT`, or name a Kafka of your own in"
                " kafka.bootstrap_servers (localhost:PORT, if it is on this machine)"
            ) from None
