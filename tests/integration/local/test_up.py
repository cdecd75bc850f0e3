"""`vod-pipeline up` as a process: its parts have its settings, and however it ends, none of them is left."""

from __future__ import annotations

import os
import pty
import random
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.local.kafka import HOST
from pipeline.service.probe import ask, url_of
from tests.conftest import KAFKA_JARS
from tests.harness.ports import free_port
from tests.harness.tools import DEAD_PROXY
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.local.kafka import LocalKafka

START_SECONDS = 120  # Takes 6 s; a machine that is busy with other tests is slow.
URL = "https://vod.example.com/vod callback/$(id)?tenant=7&token=t0k'en;x".replace(" ", "%20")


class Up:
    """A directory with a configuration, and `up` in it."""

    def __init__(self, directory: Path, bootstrap_servers: str | None) -> None:
        self.directory = directory
        (directory / ".local").mkdir()
        (directory / ".local" / "kafka-jars").symlink_to(KAFKA_JARS)
        self.ports = {name: free_port() for name in ("port", "bridge", "worker", "dashboard")}
        self.name = f"test-{uuid.uuid4().hex[:12]}"
        servers = f'bootstrap_servers = "{bootstrap_servers}"' if bootstrap_servers else ""
        (directory / "my.toml").write_text(
            f'[kafka]\n{servers}\ntopic_prefix = "{self.name}."\n'
            f"[bridge]\nport = {self.ports['port']}\nmetrics_port = {self.ports['bridge']}\n"
            f'callbacks = [{{url = "{URL}", auth_keys = ["Test1Key"]}}]\n'
            f'[worker]\ngroup = "{self.name}"\nmetrics_port = {self.ports["worker"]}\n'
            f"[dashboard]\nport = {self.ports['dashboard']}\n"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, output: int, inside: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Start it with *output* as its terminal or pipe, *inside* another program."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("VOD_PIPELINE_")}
        self.process = subprocess.Popen(
            [*inside, sys.executable, "-m", "pipeline", "up", "--config", "my.toml", *arguments],
            cwd=self.directory,
            env={**environ, "http_proxy": DEAD_PROXY, "PYTHONPATH": str(Path(__file__).parents[3])},
            stdin=output if inside else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=None if inside else 0,
        )
        os.close(output)
        return self.process

    def is_ready(self) -> bool:
        """Whether each part answers at the port that the configuration gives it, and is ready."""
        try:
            return all(
                ask(url_of("127.0.0.1", self.ports[name], "/readyz"), seconds=30)[0]
                for name in ("bridge", "worker", "dashboard")
            )
        except OSError:
            return False

    def processes(self) -> list[int]:
        """Return what runs in the directory: up, its parts, its Kafka."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if Path(os.readlink(process / "cwd")).is_relative_to(self.directory):
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def kafka(self) -> int:
        """Return the process of its own Kafka."""
        return int((self.directory / ".local" / "kafka" / "broker.lock").read_text())

    def logs(self) -> list[str]:
        return [path.read_text()[-2000:] for path in (self.directory / ".local" / "logs").glob("*")]


@contextmanager
def ended(up: Up) -> Iterator[Up]:
    """Leave nothing behind where a test fails."""
    yield up
    for process in up.processes():
        os.kill(process, signal.SIGKILL)


@pytest.fixture
def up(tmp_path: Path, kafka: LocalKafka) -> Iterator[Up]:
    """On the Kafka that all tests share."""
    with ended(Up(tmp_path, kafka.bootstrap_servers)) as started:
        yield started


@pytest.fixture
def up_alone(tmp_path: Path) -> Iterator[Up]:
    """With a Kafka of its own."""
    with ended(Up(tmp_path, None)) as started:
        yield started


def free_pair() -> int:
    """Return a port that is free, as is the next; neither is one that outgoing connections get."""
    while True:
        port = random.randrange(20_000, 32_000, 2)
        with suppress(OSError), socket.create_server((HOST, port)), socket.create_server((HOST, port + 1)):
            return port


def read_until(source: int, text: bytes) -> bytes:
    """Return all output up to *text*; fails if it ends before."""
    read = b""
    while text not in read:
        more = os.read(source, 4096)
        assert more, read.decode(errors="replace")
        read += more
    return read


def until_ready(up: Up, source: int) -> str:
    """Return what it prints before it waits."""
    printed = read_until(source, b"vod-pipeline rates")
    assert up.is_ready(), up.logs()
    return printed.decode()


def until_gone(up: Up) -> None:
    assert up.process is not None
    up.process.wait(START_SECONDS)
    eventually(lambda: [f"{up.processes()} {up.logs()}"] if up.processes() else [], seconds=START_SECONDS)


def test_its_parts_have_its_settings_and_a_broken_pipe_does_not_keep_it_from_stopping_them(up: Up) -> None:
    """`make run | tee log`: Ctrl-C ends tee first."""
    source, output = os.pipe()
    process = up.start(output=output)
    printed = until_ready(up, source)

    (line,) = (line for line in printed.splitlines() if line.startswith("T=$(date"))
    sent = subprocess.run(["/bin/bash", "-c", line], capture_output=True, check=True, text=True)
    assert sent.stdout == "200\n", sent
    assert f"{up.name}.raw" in printed
    assert "which kafka.bootstrap_servers names" in printed

    os.close(source)
    process.send_signal(signal.SIGINT)

    until_gone(up)
    assert process.returncode == 0


def test_a_terminal_that_is_closed_stops_it(up: Up) -> None:
    master, terminal = pty.openpty()
    setsid = shutil.which("setsid")
    assert setsid is not None
    up.start(output=terminal, inside=(setsid, "--ctty"))
    until_ready(up, master)

    os.close(master)

    until_gone(up)


def test_a_second_signal_does_not_cut_the_stop_off_and_its_own_kafka_is_stopped_too(up_alone: Up) -> None:
    """make hands its SIGTERM on to what has got one already."""
    up = up_alone
    source, output = os.pipe()
    port = free_pair()
    process = up.start("--kafka-port", str(port), output=output)
    printed = until_ready(up, source)
    assert f"127.0.0.1:{port}" in printed
    assert f"VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS=127.0.0.1:{port} " in printed  # For `rates`.

    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.killpg(process.pid, number)
    assert b"stopped" in read_until(source, b"stopped")

    until_gone(up)
    assert process.returncode == 0
    os.close(source)


def test_its_own_kafka_is_started_again_and_given_up_where_that_does_not_help(up_alone: Up) -> None:
    up = up_alone
    source, output = os.pipe()
    process = up.start("--kafka-port", str(free_pair()), output=output)
    until_ready(up, source)

    os.kill(up.kafka(), signal.SIGKILL)

    read_until(source, b"the local Kafka ended and was started again")
    eventually(lambda: [] if up.is_ready() else up.logs())

    (up.directory / ".local" / "kafka-jars").unlink()
    os.kill(up.kafka(), signal.SIGKILL)

    read_until(source, b"error: no Kafka jars in")
    until_gone(up)
    assert process.returncode == 1
    os.close(source)


def test_the_demonstration_goes_on_when_its_own_kafka_ends(up_alone: Up) -> None:
    """What is not in raw by then waits in the spool; the audit finds all of it."""
    up = up_alone
    source, output = os.pipe()
    process = up.start("--kafka-port", str(free_pair()), "--demo", "--seconds", "10", "--rate", "50", output=output)
    read_until(source, b"Failure rates by event time")

    os.kill(up.kafka(), signal.SIGKILL)

    printed = read_until(source, b"stopping Kafka")
    until_gone(up)
    printed += os.read(source, 65_536)
    assert b"the local Kafka ended and was started again" in printed
    assert process.returncode == 0, printed.decode()
    os.close(source)


def test_an_interrupt_ends_the_demonstration(up: Up) -> None:
    source, output = os.pipe()
    process = up.start("--demo", "--rate", "50", output=output)
    read_until(source, b"Failure rates by event time")

    process.send_signal(signal.SIGINT)

    assert b"stopped" in read_until(source, b"stopped")
    until_gone(up)
    assert process.returncode == 0
    os.close(source)


@pytest.mark.parametrize("is_ready", [True, False], ids=["when all is ready", "in the middle of the start"])
def test_its_parts_end_with_it_however_it_ends(up: Up, is_ready: bool) -> None:
    source, output = os.pipe()
    process = up.start(output=output)
    if is_ready:
        until_ready(up, source)
    else:
        eventually(lambda: [] if len(up.processes()) > 1 else [f"{up.processes()}"], seconds=START_SECONDS)

    process.kill()

    until_gone(up)
    os.close(source)
