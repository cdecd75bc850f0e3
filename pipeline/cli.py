"""The command line: the only place that wires the parts together, and the only one that prints for people."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from pipeline import access, logs
from pipeline import settings as configuration
from pipeline.bridge import spool
from pipeline.bridge.fleet import FleetError
from pipeline.core.windows import format_time
from pipeline.monitor import ListenError
from pipeline.ops import offsets as group_offsets
from pipeline.ops import topics as kafka_topics
from pipeline.ops import up as local
from pipeline.ops.kafka import LocalKafkaError
from pipeline.ops.simulate import Plan, PlanError
from pipeline.settings import Settings, SettingsError

USAGE_EXIT_CODE = 2
FAILURE_EXIT_CODE = 1
MIB = 1 << 20
EXPECTED = (
    ListenError,
    LocalKafkaError,
    PlanError,
    local.UpError,
    kafka_topics.TopicsError,
    group_offsets.OffsetsError,
    spool.SpoolError,
    FleetError,
)
DEMO_SHARES = {"failures": 0.1, "duplicates": 0.1, "malformed": 0.01, "conflicts": 0.01}

out = Console()
err = Console(stderr=True, highlight=False, soft_wrap=True)

app = typer.Typer(
    name="vod-pipeline",
    help="Exactly-once delete-callback pipeline for ApsaraVideo VOD.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
topics_app = typer.Typer(no_args_is_help=True, help="Create, compare and mend the Kafka topics.")
config_app = typer.Typer(no_args_is_help=True, help="Check and show the settings.")
spool_app = typer.Typer(no_args_is_help=True, help="See what the bridge keeps on disk.")
offsets_app = typer.Typer(no_args_is_help=True, help="See and set where the accept stage goes on.")
app.add_typer(topics_app, name="topics")
app.add_typer(config_app, name="config")
app.add_typer(offsets_app, name="offsets")
app.add_typer(spool_app, name="spool")


class Edge(StrEnum):
    """An end of a log."""

    EARLIEST = "earliest"
    LATEST = "latest"


class LogFormat(StrEnum):
    """How log lines look."""

    CONSOLE = "console"
    JSON = "json"


Config = Annotated[Path | None, typer.Option("--config", help="TOML file; default: config/pipeline.toml.")]
Format = Annotated[LogFormat, typer.Option("--log-format", help="Log lines for people or for machines.")]


def main() -> None:
    """Run the command; what can be expected to go wrong is one line on standard error."""
    try:
        app()
    except SettingsError as error:
        err.print(f"error: {error}", markup=False)
        sys.exit(USAGE_EXIT_CODE)
    except EXPECTED as error:
        err.print(f"error: {error}", markup=False)
        sys.exit(FAILURE_EXIT_CODE)


def _serve(
    serve: Callable[..., Awaitable[None]], settings: Settings, log_format: LogFormat, *, ends_with_input: bool = False
) -> None:
    """Run a service until SIGTERM or SIGINT, or until whoever holds the other end of its standard input is gone."""
    logs.configure(json=log_format is LogFormat.JSON)

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        if ends_with_input:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
        await access.require(settings.kafka)
        await serve(settings, stop=stop, registry=CollectorRegistry())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@app.command()
def bridge(
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes behind the port, one for each core.")] = 1,
    member: Annotated[int, typer.Option(hidden=True)] = 0,
    metrics_fd: Annotated[int, typer.Option(hidden=True)] = -1,
    config: Config = None,
    log_format: Format = LogFormat.CONSOLE,
) -> None:
    """
    Receive callbacks over HTTP, and from MNS queues, and publish them to Kafka. SIGHUP reads callbacks and keys again.

    Example: VOD_PIPELINE_BRIDGE__CALLBACKS='[{"url":"https://a.example/vod","auth_keys":["Key1"]}]' vod-pipeline bridge
    """
    from pipeline.bridge import fleet, server  # noqa: PLC0415  # Each service loads only what it needs.

    settings = configuration.load(config)
    if workers > 1:
        arguments = ["--log-format", log_format.value, *(["--config", str(config)] if config else [])]
        _serve(partial(fleet.serve, members=workers, arguments=arguments), settings, log_format)
        return
    membership = None
    if member:
        membership = fleet.Membership(number=member, metrics=socket.socket(fileno=metrics_fd))
    serve = partial(server.serve, reload=lambda: configuration.load(config), membership=membership)
    _serve(serve, settings, log_format, ends_with_input=bool(member))


@app.command()
def worker(config: Config = None, log_format: Format = LogFormat.CONSOLE) -> None:
    """
    Run the Faust agents: validate, deduplicate, count, report.

    Example: VOD_PIPELINE_WORKER__INSTANCE_ID=worker-0 vod-pipeline worker
    """
    from pipeline.stream.worker import serve  # noqa: PLC0415  # As above.

    _serve(serve, configuration.load(config), log_format)


@app.command()
def up(
    demo: Annotated[
        bool, typer.Option("--demo", help="Simulate callbacks, show the rates live, sum up, stop.")
    ] = False,
    seconds: Annotated[int, typer.Option(help="How long the demo lasts.", min=1, max=3600)] = 60,
    rate: Annotated[float, typer.Option(help="Callbacks a second in the demo.", min=1, max=10_000)] = 200,
    config: Config = None,
) -> None:
    """
    Run everything on this machine: Kafka, topics, bridge, worker. Ctrl-C stops it in order.

    Example: vod-pipeline up --demo --seconds 30
    """
    from pipeline.ops import demo as demonstration  # noqa: PLC0415  # Loads an HTTP client that `up` alone never needs.

    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    settings = configuration.load(config)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with local.running(settings, lambda line: out.print(f"[dim]{line}[/dim]")) as parts:
            _say_where(settings, parts)
            if demo:
                plan = Plan(rate=rate, seconds=seconds, **DEMO_SHARES, seed=int(time.time()))
                demonstration.run(local.on_kafka_of(parts, settings), local.callback_of(settings), plan, out)
            else:
                _watch(parts)
    except KeyboardInterrupt:
        out.print("[dim]stopped[/dim]")


Share = Annotated[float, typer.Option(help="Share of all callbacks, 0 to 1.", min=0, max=1)]


@app.command()
def simulate(  # noqa: PLR0917  # Typer reads the options off the parameters.
    rate: Annotated[float, typer.Option(help="Callbacks a second.", min=0.1, max=100_000)] = 100,
    seconds: Annotated[float, typer.Option(help="How long.", min=0.1, max=86_400)] = 10,
    duplicates: Share = DEMO_SHARES["duplicates"],
    failures: Share = DEMO_SHARES["failures"],
    malformed: Share = DEMO_SHARES["malformed"],
    conflicts: Share = DEMO_SHARES["conflicts"],
    seed: Annotated[int, typer.Option(help="The same seed sends the same callbacks.")] = 0,
    config: Config = None,
) -> None:
    """
    Send signed callbacks to the bridge, as VOD does, and compare what was sent with what the worker decided.

    Example: vod-pipeline simulate --rate 500 --seconds 30 --failures 0.3 --seed 7
    """
    from pipeline.ops import demo as demonstration  # noqa: PLC0415  # As above.

    settings = configuration.load(config)
    plan = Plan(
        rate=rate, seconds=seconds, duplicates=duplicates, failures=failures, malformed=malformed,
        conflicts=conflicts, seed=seed,
    )  # fmt: skip
    demonstration.run(settings, local.callback_of(settings), plan, out)


@app.command()
def rates(config: Config = None) -> None:
    """
    Follow the failure-rate rows in the terminal. Ctrl-C ends it.

    Example: vod-pipeline rates
    """
    from pipeline.ops.live import LiveRates  # noqa: PLC0415  # As above.

    settings = configuration.load(config)
    with kafka_topics.connect(settings):  # Says in one line if no Kafka answers.
        pass
    with contextlib.suppress(KeyboardInterrupt):
        LiveRates(settings.kafka, console=out).run(threading.Event())


def _watch(parts: tuple[local.Part, ...]) -> None:
    while True:
        for part in parts:
            line = part.revive()
            if line:
                out.print(f"[yellow]{line}[/yellow]")
        time.sleep(local.POLL_SECONDS)


def _say_where(settings: Settings, parts: tuple[local.Part, ...]) -> None:
    bridge_settings, worker_settings = settings.bridge, settings.worker
    callback = local.callback_of(settings)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("callbacks", f"{bridge_settings.base_url}{callback.path}")
    table.add_row("Kafka", parts[0].environ[local.BOOTSTRAP_VARIABLE])
    table.add_row("topics", ", ".join(f"{spec.name}" for spec in kafka_topics.contract(settings)))
    for name, host, port in (
        ("bridge", bridge_settings.metrics_host, bridge_settings.metrics_port),
        ("worker", worker_settings.metrics_host, worker_settings.metrics_port),
    ):
        table.add_row(f"{name} metrics", f"http://{host}:{port}/metrics")
    table.add_row("data and logs", str(local.DATA))
    out.print(table)
    out.print("\nSend a signed callback:\n")
    out.print(local.curl_line(callback, settings), markup=False, highlight=False, soft_wrap=True)
    out.print(
        "\nand see the failure-rate rows: [bold].venv/bin/vod-pipeline rates[/bold]    (Ctrl-C stops everything)\n"
    )


def _plan_table(changes: tuple[kafka_topics.Change, ...]) -> Table:
    table = Table("topic", "change")
    for change in changes:
        style = "red" if isinstance(change, kafka_topics.Problem) else ""
        table.add_row(change.where, change.what, style=style)
    return table


@topics_app.command("plan")
def topics_plan(config: Config = None) -> None:
    """
    Compare Kafka's topics with the contract; change nothing. Exit code 1 if something is to do.

    Example: vod-pipeline topics plan
    """
    settings = configuration.load(config)
    with kafka_topics.connect(settings) as admin:
        changes = kafka_topics.plan(admin, settings)
    if not changes:
        out.print("the topics are as they should be")
        return
    out.print(_plan_table(changes))
    sys.exit(FAILURE_EXIT_CODE)


@topics_app.command("apply")
def topics_apply(config: Config = None) -> None:
    """
    Create the topics and mend their settings; what only you can decide is named, and then nothing is done.

    Example: vod-pipeline topics apply
    """
    settings = configuration.load(config)
    with kafka_topics.connect(settings) as admin:
        changes = kafka_topics.plan(admin, settings)
        kafka_topics.apply(admin, changes)
    out.print(_plan_table(changes) if changes else "the topics are as they should be")


@config_app.command("check")
def config_check(config: Config = None) -> None:
    """
    Check the settings without starting anything.

    Example: vod-pipeline config check --config production.toml
    """
    problems = kafka_topics.check(configuration.load(config))
    if problems:
        raise SettingsError("; ".join(problems))
    out.print("the settings are valid")


@config_app.command("show")
def config_show(config: Config = None) -> None:
    """
    Show the settings in force, secrets masked.

    Example: vod-pipeline config show
    """
    out.print_json(configuration.load(config).model_dump_json())


@offsets_app.command("show")
def offsets_show(config: Config = None) -> None:
    """
    Show what each raw partition holds and where the worker goes on.

    Example: vod-pipeline offsets show
    """
    table = Table("partition", "log start", "log end", "committed", "lag")
    for position in group_offsets.positions(configuration.load(config)):
        committed = position.committed
        lag = position.end - (position.start if committed is None else committed)
        shown = "none" if committed is None else str(committed)
        table.add_row(str(position.partition), str(position.start), str(position.end), shown, str(lag))
    out.print(table)


@offsets_app.command("reset")
def offsets_reset(
    partition: Annotated[int, typer.Option(min=0, help="The raw partition.")],
    to: Annotated[Edge, typer.Option(help="The end of its log to go on at.")] = Edge.EARLIEST,
    config: Config = None,
) -> None:
    """
    Set where the worker goes on in a raw partition, after its topic was recreated or lost data. Stop all workers first.

    Example: vod-pipeline offsets reset --partition 2 --to earliest
    """
    position = group_offsets.reset(configuration.load(config), partition, to.value)
    out.print(f"partition {partition} goes on at {position.committed} (log: {position.start} to {position.end})")


@spool_app.command("status")
def spool_status(config: Config = None) -> None:
    """
    Show how many callbacks wait on disk for Kafka, and for how long.

    Example: vod-pipeline spool status
    """
    bridge_settings = configuration.load(config).bridge
    if bridge_settings.spool_directory is None:
        raise SettingsError("bridge.spool_directory: empty, so there is no spool")
    status, owner = spool.status_of(bridge_settings.spool_directory)
    table = Table("spool", "owner", "callbacks", "MiB", "at most", "oldest received")
    oldest = status.oldest_received_at_ms
    table.add_row(
        str(bridge_settings.spool_directory),
        "nobody" if owner is None else f"process {owner}",
        f"{status.records:,}",
        f"{status.bytes / MIB:,.1f}",
        f"{bridge_settings.spool_bytes_max / MIB:,.1f}",
        "-" if oldest is None else format_time(oldest // 1000 * 1000),
    )
    out.print(table)
