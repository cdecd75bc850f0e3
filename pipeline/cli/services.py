"""The commands that production runs: one service each, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

import structlog
import typer
import uvloop
from prometheus_client import CollectorRegistry

from pipeline.cli.terminal import Config, Format, LogFormat
from pipeline.kafka import access
from pipeline.service import settings as configuration
from pipeline.service.lifecycle import hangups, on_hangup
from pipeline.service.logging import setup
from pipeline.service.settings import Settings

SERVICES = ("bridge", "worker", "dashboard")

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

EndsWithInput = Annotated[
    bool, typer.Option("--ends-with-input", hidden=True, help="Stop when standard input ends, as with its parent.")
]


def bridge(  # noqa: PLR0917  # Typer reads the options off the parameters.
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes behind the port, one for each core.")] = 1,
    process_number: Annotated[int, typer.Option(hidden=True)] = 0,
    metrics_fd: Annotated[int, typer.Option(hidden=True)] = -1,
    ends_with_input: EndsWithInput = False,
    config: Config = None,
    log_format: Format = LogFormat.CONSOLE,
) -> None:
    """
    Receive callbacks over HTTP, and from MNS queues, and publish them to Kafka. SIGHUP reads callbacks and keys again.

    Example: VOD_PIPELINE_BRIDGE__CALLBACKS='[{"url":"https://a.example/vod","auth_keys":["Key1"]}]' vod-pipeline bridge
    """
    from pipeline.bridge import server  # noqa: PLC0415  # Each service loads only what it needs.
    from pipeline.bridge import workers as worker_processes  # noqa: PLC0415  # Each service loads only what it needs.

    settings = configuration.load(config)
    if workers > 1 and not process_number:
        arguments = ["--log-format", log_format.value, *(["--config", str(config)] if config else [])]
        serve_all = partial(worker_processes.serve, processes=workers, arguments=arguments)
        _serve(serve_all, settings, log_format, ends_with_input=ends_with_input, can_reload=True)
        return
    own = None
    if process_number:
        metrics = socket.socket(fileno=metrics_fd)
        own = worker_processes.WorkerProcess(number=process_number, processes=workers, metrics=metrics)
    serve = partial(server.serve, reload=lambda: configuration.load(config), worker_process=own)
    _serve(serve, settings, log_format, ends_with_input=ends_with_input or bool(process_number), can_reload=True)


def worker(
    ends_with_input: EndsWithInput = False, config: Config = None, log_format: Format = LogFormat.CONSOLE
) -> None:
    """
    Run the Faust agents: validate, deduplicate, count, report.

    Example: VOD_PIPELINE_WORKER__INSTANCE_ID=worker-0 vod-pipeline worker
    """
    from pipeline.worker.service import serve  # noqa: PLC0415  # As above.

    _serve(serve, configuration.load(config), log_format, ends_with_input=ends_with_input)


def dashboard(
    ends_with_input: EndsWithInput = False, config: Config = None, log_format: Format = LogFormat.CONSOLE
) -> None:
    """
    Serve the live page: failure rates, outcomes, lag, spool and the last rejections, as they change. It only reads.

    Example: VOD_PIPELINE_DASHBOARD__PORT=9000 vod-pipeline dashboard
    """
    from pipeline.dashboard.server import serve  # noqa: PLC0415  # As above.

    _serve(serve, configuration.load(config), log_format, ends_with_input=ends_with_input)


def _serve(
    serve: Callable[..., Awaitable[None]],
    settings: Settings,
    log_format: LogFormat,
    *,
    ends_with_input: bool = False,
    can_reload: bool = False,
) -> None:
    """Run a service until SIGTERM or SIGINT, or until its standard input ends at the other end; SIGHUP ends none."""
    setup.configure(json=log_format is LogFormat.JSON)

    async def run() -> None:
        stop = asyncio.Event()

        def end() -> None:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())  # The end stays readable.
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        if ends_with_input:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), end)
        with hangups() as hangup:
            await access.require(settings.kafka)
            serving = partial(serve, settings, stop=stop, registry=CollectorRegistry())
            if can_reload:
                await serving(hangup=hangup)
            else:
                async with on_hangup(hangup, partial(logger.info, "hangup_ignored")):
                    await serving()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
