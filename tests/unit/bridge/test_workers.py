"""Keeping the processes of a bridge running, whatever becomes of one of them."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.bridge.workers import _Supervised

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def worker() -> AsyncIterator[_Supervised]:
    """One that does nothing, until it is killed."""
    alive, ours = os.pipe()
    with socket.socket() as metrics:
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        yield _Supervised(1, command, metrics, alive)
    os.close(ours)
    os.close(alive)


async def test_a_process_that_cannot_be_made_now_is_made_later(
    worker: _Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine may have no memory or no process to spare for a moment; the others go on meanwhile."""
    monkeypatch.setattr("pipeline.bridge.workers.RESTART_SECONDS", 0)
    make, failures = asyncio.create_subprocess_exec, [errno.EAGAIN, errno.ENOMEM]
    made = asyncio.Event()

    async def make_or_fail(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        if failures:
            number = failures.pop()
            raise OSError(number, os.strerror(number))
        made.set()
        return await make(*arguments, **options)

    monkeypatch.setattr("asyncio.create_subprocess_exec", make_or_fail)
    keeping = asyncio.create_task(worker.keep())
    waiting = asyncio.create_task(made.wait())

    await asyncio.wait([keeping, waiting], timeout=60, return_when=asyncio.FIRST_COMPLETED)

    assert made.is_set()
    assert not keeping.done()
    keeping.cancel()
    await asyncio.wait([keeping])
    if worker.process is not None:
        worker.process.kill()
        await worker.process.wait()


async def test_a_signal_to_a_process_that_has_just_ended_is_none(worker: _Supervised) -> None:
    class Ended:
        """What asyncio has of a process whose end it learns of in a moment."""

        returncode = None

        def send_signal(self, _: int) -> None:
            raise ProcessLookupError

    ended: Any = Ended()
    worker.process = ended

    worker.send(signal.SIGTERM)
