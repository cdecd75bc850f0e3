"""The fault suite is not content with a process that ended itself, whatever its exit code."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.worker.exits import ExitCode
from tests.chaos.system import System


class Process:
    """A process of the product that ends with each of *codes*, one after the other, and then runs on."""

    log = Path("bridge.log")

    def __init__(self, *codes: int) -> None:
        self._codes = list(codes)
        self.runs_on = asyncio.Event()

    def is_running(self) -> bool:
        if not self._codes:
            self.runs_on.set()
        return not self._codes

    def wait(self) -> int:
        return self._codes.pop(0)

    def launch(self) -> None:
        """Start it again."""

    def kill(self) -> None:
        """End with SIGKILL, which is among the codes."""


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.setattr("tests.chaos.system.SUPERVISION_SECONDS", 0)
    cluster: Any = SimpleNamespace(bootstrap_servers=lambda *_: "127.0.0.1:9", nodes=[None])
    return System(cluster, tmp_path, name="verdict", seed=0)


async def supervise(system: System, *codes: int, is_killed: bool = False) -> list[str]:
    process: Any = Process(*codes)
    system._wanted = [process]
    if is_killed:
        system.kill(process)
    supervising = asyncio.create_task(system._supervise())
    async with asyncio.timeout(60):
        await process.runs_on.wait()
    supervising.cancel()
    return system.unexpected


@pytest.mark.parametrize("code", [0, 1, ExitCode.KAFKA_UNUSABLE, ExitCode.BUG, -signal.SIGSEGV, -signal.SIGKILL])
async def test_an_exit_that_no_fault_caused_is_a_problem(system: System, code: int) -> None:
    assert await supervise(system, code) == [f"bridge ended itself with {int(code)}"]


async def test_a_kill_of_ours_is_none_and_accounts_for_one_exit(system: System) -> None:
    assert await supervise(system, -signal.SIGKILL, -signal.SIGKILL, is_killed=True) == ["bridge ended itself with -9"]


async def test_an_exit_that_the_fault_is_about_is_none_while_it_lasts(system: System) -> None:
    with system.expecting(ExitCode.OFFSET_AHEAD_OF_LOG):
        assert await supervise(system, ExitCode.OFFSET_AHEAD_OF_LOG) == []

    assert await supervise(system, ExitCode.OFFSET_AHEAD_OF_LOG) == ["bridge ended itself with 70"]
