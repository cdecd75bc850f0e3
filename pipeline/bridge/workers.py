"""
Several bridges behind one port: a process for each core, which the kernel spreads connections over (SO_REUSEPORT).

Each worker process is a whole bridge with a spool of its own; the parent keeps them running and adds up their metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from pipeline.bridge.spool_directory import left_behind
from pipeline.bridge.sums import Sums
from pipeline.service.errors import OperatorError
from pipeline.service.lifecycle import on_hangup, until
from pipeline.service.metrics.process import show_ready
from pipeline.service.monitor import monitoring
from pipeline.service.probe import ask, url_of
from pipeline.service.settings import BridgeSettings, Settings, SettingsError
from pipeline.service.web import listen

RESTART_SECONDS = 1.0
START_SECONDS_MIN = 5.0  # One that ends sooner on its first start has a reason that a restart does not change.
ANSWER_SECONDS_MAX = 2.0

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class WorkerProcessError(OperatorError):
    """A worker process cannot run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProcess:
    """What a worker process knows of itself: its number, of how many, and the bound socket of its metrics."""

    number: int
    processes: int
    metrics: socket.socket

    def settings_of(self, settings: Settings) -> Settings:
        """Give it a spool of its own."""
        directory = settings.bridge.spool_directory
        if directory is None:
            return settings
        own: BridgeSettings = settings.bridge.model_copy(update={"spool_directory": directory / str(self.number)})
        return settings.model_copy(update={"bridge": own})


def finder_of_left_behind(own: WorkerProcess | None, bridge: BridgeSettings) -> Callable[[], list[Path]] | None:
    """
    Return what finds the spools that another number of bridges left under the directory of *bridge*.

    None where none can be: without spools; or where the first process looks after them, and this is another one.
    """
    if bridge.spool_directory is None or (own is not None and own.number > 1):
        return None
    return partial(left_behind, bridge.spool_directory, processes=own.processes if own else 0)


@dataclass(slots=True)
class _Supervised:
    """A worker process as its parent has it."""

    number: int
    command: Sequence[str]
    metrics: socket.socket
    alive: int
    """The reading end of a pipe whose other end is the parent's alone: it ends with the parent, however that ends."""
    process: asyncio.subprocess.Process | None = field(default=None, init=False)
    began: float = field(default=0.0, init=False)

    async def keep(self) -> None:
        """Run the process, again and again, until cancelled; raises WorkerProcessError if it cannot start at all."""
        is_first = True
        while True:
            self.began = time.monotonic()
            fd = self.metrics.fileno()
            arguments = [*self.command, "--process-number", str(self.number), "--metrics-fd", str(fd)]
            try:
                self.process = await asyncio.create_subprocess_exec(
                    *arguments, pass_fds=[fd], stdin=self.alive, start_new_session=True
                )
            except OSError as error:  # No memory or no process to spare: the others go on meanwhile.
                logger.error("worker_process_not_started", number=self.number, error=repr(error))
                await asyncio.sleep(RESTART_SECONDS)
                continue
            code = await self.process.wait()
            if is_first and code > 0 and time.monotonic() - self.began < START_SECONDS_MIN:
                raise WorkerProcessError(
                    f"bridge {self.number} ended at once with exit code {code}: see its message above"
                )
            is_first = False
            logger.error("worker_process_ended", number=self.number, exit_code=code)
            await asyncio.sleep(RESTART_SECONDS)

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # It has just ended.
                self.process.send_signal(number)

    def hang_up(self) -> None:
        """Have it read its settings again, but not in the first instants of a process, when SIGHUP would end it."""
        wait = self.began + START_SECONDS_MIN - time.monotonic()
        asyncio.get_running_loop().call_later(max(0.0, wait), self.send, signal.SIGHUP)

    def get(self, path: str) -> str:
        port = self.metrics.getsockname()[1]
        is_success, text = ask(url_of("127.0.0.1", port, path), seconds=ANSWER_SECONDS_MAX)
        if not is_success:
            raise OSError("; ".join(text.splitlines()))
        return text

    def problems(self) -> list[str]:
        try:
            self.get("/readyz")
        except OSError as error:
            return [f"bridge {self.number}: {error}"]
        return []


class _Page(Collector):
    """The worker processes' metrics, added up."""

    def __init__(self, workers: Sequence[_Supervised]) -> None:
        self._workers = workers
        self._sums = Sums()
        self._one_at_a_time = threading.Lock()  # Of two who ask, the later must not be shown an older page.

    def collect(self) -> Iterable[Metric]:
        with self._one_at_a_time:
            for worker in self._workers:
                with contextlib.suppress(OSError):
                    self._sums.take(worker.number, worker.get("/metrics"))
            return self._sums.page()


async def serve(
    settings: Settings,
    *,
    processes: int,
    arguments: Sequence[str],
    stop: asyncio.Event,
    hangup: asyncio.Event,
    registry: CollectorRegistry,
) -> None:
    """
    Run *processes* bridges behind one port until *stop* is set.

    Args:
        settings: As for one bridge; the monitoring port is that of all.
        processes: How many.
        arguments: What follows `vod-pipeline bridge` for each.
        stop, hangup: Set by the one who handles signals.
        registry: Gets the sums of their metrics.

    Raises:
        WorkerProcessError: one ended as soon as it was started.
        ListenError: the port of the metrics is taken.
    """
    bridge = settings.bridge
    if bridge.port == 0:
        raise SettingsError("bridge.port: several processes need a port that is given, not any free one")
    command = [sys.executable, "-m", "pipeline", "bridge", *arguments, "--workers", str(processes)]
    with contextlib.ExitStack() as stack:
        alive, ours = os.pipe()
        stack.callback(os.close, alive)
        stack.callback(os.close, ours)
        workers = [
            _Supervised(number, command, stack.enter_context(listen("127.0.0.1", 0, setting="-")), alive)
            for number in range(1, processes + 1)
        ]
        registry.register(_Page(workers))

        def problems() -> list[str]:
            return ["stopping"] if stop.is_set() else [found for worker in workers for found in worker.problems()]

        show_ready(registry, problems)
        bound = listen(bridge.metrics_host, bridge.metrics_port, setting="bridge.metrics_port")
        async with monitoring(registry, problems, bound, asks_others=True):
            keeping = [asyncio.create_task(worker.keep()) for worker in workers]
            try:
                async with on_hangup(hangup, partial(_hang_up, workers)):
                    await until(stop, *keeping)
            finally:
                await asyncio.gather(*map(_end, workers, keeping))


def _hang_up(workers: Sequence[_Supervised]) -> None:
    for worker in workers:
        worker.hang_up()


async def _end(worker: _Supervised, keeping: asyncio.Task[None]) -> None:
    keeping.cancel()
    if worker.process is not None:
        worker.send(signal.SIGTERM)
        await worker.process.wait()
