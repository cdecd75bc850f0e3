"""SIGHUP, which a closed terminal and an operator send: it ends no service, from its first instant to its last."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.cli.services import SERVICES
from pipeline.service.probe import ask, url_of
from tests.harness.ports import free_port
from tests.harness.recount import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.service.settings import Settings

SECONDS_MAX = 120
PACE_SECONDS = 0.002
COMMANDS = {**{name: (name,) for name in SERVICES}, "bridges": ("bridge", "--workers", "2")}
CALLBACKS = '[{"url": "https://vod.example.com/callback", "auth_keys": ["Test1Key"]}]'
HANGUP = 1 << signal.SIGHUP - 1


def has_it_in_hand(process: int) -> bool:
    """Whether SIGHUP is held back, handled or ignored, and so does not end *process*."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in status if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]
    return any(mask & HANGUP for mask in masks)


class Service:
    """One service, whose port of `/readyz` and log are known."""

    def __init__(self, name: str, settings: Settings, directory: Path) -> None:
        self.port = free_port()
        self.log = directory / "log"
        self.says = "callbacks_reloaded" if "bridge" in COMMANDS[name] else "hangup_ignored"
        section = COMMANDS[name][0].upper()
        environ = {
            "VOD_PIPELINE_CONFIG": os.devnull,
            "VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
            "VOD_PIPELINE_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
            "VOD_PIPELINE_WORKER__GROUP": settings.worker.group,
            "VOD_PIPELINE_BRIDGE__CALLBACKS": CALLBACKS,
            "VOD_PIPELINE_BRIDGE__PORT": str(free_port()),
            "VOD_PIPELINE_BRIDGE__SPOOL_DIRECTORY": str(directory / "spool"),
            f"VOD_PIPELINE_{section}__{'PORT' if section == 'DASHBOARD' else 'METRICS_PORT'}": str(self.port),
        }
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "pipeline", *COMMANDS[name]]
            self.process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=log, stderr=log)

    def hang_up(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)

    def is_ready(self) -> bool:
        with suppress(OSError):
            return ask(url_of("127.0.0.1", self.port, "/readyz"), seconds=30)[0]
        return False

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    def hang_up_until(self, is_over: Callable[[], bool]) -> None:
        """Send SIGHUP again and again until it *is_over*; fails if the service ends before."""

        def problems() -> list[str]:
            self.hang_up()
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            return [] if is_over() else [self.log.read_text()[-2000:]]

        eventually(problems, seconds=SECONDS_MAX)

    def hang_up_until_ended(self) -> int:
        """Send SIGHUP again and again, and return the exit code."""
        for _ in range(int(SECONDS_MAX / PACE_SECONDS)):
            self.hang_up()
            with suppress(subprocess.TimeoutExpired):
                return self.process.wait(PACE_SECONDS)
        raise AssertionError(self.log.read_text()[-2000:])


@pytest.fixture(params=COMMANDS)
def service(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[Service]:
    started = Service(request.param, settings, tmp_path)
    yield started
    started.process.kill()
    started.process.wait()


def test_a_hangup_ends_no_service_at_any_moment(service: Service) -> None:
    eventually(lambda: [] if has_it_in_hand(service.process.pid) else ["just begun"], seconds=SECONDS_MAX)

    service.hang_up_until(service.is_ready)
    service.hang_up_until(lambda: service.said(service.says))
    service.process.terminate()

    assert service.hang_up_until_ended() == 0, service.log.read_text()[-2000:]
    assert not service.said("member_ended")


@pytest.mark.parametrize("service", ["bridges"], indirect=True)
def test_a_hangup_ends_no_process_of_a_bridge_that_has_several(service: Service) -> None:
    eventually(lambda: [] if service.is_ready() else [service.log.read_text()[-2000:]], seconds=SECONDS_MAX)

    service.hang_up()

    eventually(
        lambda: [] if service.log.read_text().count("callbacks_reloaded") == 2 else [service.log.read_text()[-2000:]],
        seconds=SECONDS_MAX,
    )
    service.process.terminate()
    assert service.process.wait(SECONDS_MAX) == 0
    assert not service.said("member_ended")
