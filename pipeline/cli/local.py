"""The commands that show the product on this machine: everything at once, simulated callbacks, rates as they come."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from typing import Annotated

import typer
from rich.table import Table

from pipeline.admin.topics.contract import contract
from pipeline.cli.terminal import Config, out
from pipeline.kafka.tools.cluster import connect
from pipeline.local import up as local
from pipeline.local.simulator import Plan
from pipeline.service import settings as configuration
from pipeline.service.probe import url_of
from pipeline.service.settings import Settings

DEMO_SHARES = {"failures": 0.1, "duplicates": 0.1, "malformed": 0.01, "conflicts": 0.01}

Share = Annotated[float, typer.Option(help="Share of all callbacks, 0 to 1.", min=0, max=1)]


def up(
    demo: Annotated[
        bool, typer.Option("--demo", help="Simulate callbacks, show the rates live, sum up, stop.")
    ] = False,
    seconds: Annotated[int, typer.Option(help="How long the demo lasts.", min=1, max=3600)] = 60,
    rate: Annotated[float, typer.Option(help="Callbacks a second in the demo.", min=1, max=10_000)] = 200,
    config: Config = None,
) -> None:
    """
    Run everything on this machine: Kafka, topics, bridge, worker, live page. Ctrl-C stops it in order.

    Example: vod-pipeline up --demo --seconds 30
    """
    from pipeline.local import demo as demonstration  # noqa: PLC0415  # Loads an HTTP client that `up` alone never needs.

    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    settings = configuration.load(config)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # Not by SIGINT: a shell's background jobs ignore that.
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
    from pipeline.local import demo as demonstration  # noqa: PLC0415  # As above.

    settings = configuration.load(config)
    plan = Plan(
        rate=rate, seconds=seconds, duplicates=duplicates, failures=failures, malformed=malformed,
        conflicts=conflicts, seed=seed,
    )  # fmt: skip
    demonstration.run(settings, local.callback_of(settings), plan, out)


def rates(config: Config = None) -> None:
    """
    Follow the failure-rate rows in the terminal. Ctrl-C ends it.

    Example: vod-pipeline rates
    """
    from pipeline.local.rates_table import LiveRates  # noqa: PLC0415  # As above.

    settings = configuration.load(config)
    with connect(settings.kafka):  # Says in one line if no Kafka answers.
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
    if parts[-1].process is not None:
        table.add_row("live page", f"[bold]{settings.dashboard.base_url}[/bold]")
    table.add_row("callbacks", f"{bridge_settings.base_url}{callback.path}")
    table.add_row("Kafka", parts[0].environ[local.BOOTSTRAP_VARIABLE])
    table.add_row("topics", ", ".join(f"{spec.name}" for spec in contract(settings)))
    for name, host, port in (
        ("bridge", bridge_settings.metrics_host, bridge_settings.metrics_port),
        ("worker", worker_settings.metrics_host, worker_settings.metrics_port),
    ):
        table.add_row(f"{name} metrics", url_of(host, port, "/metrics"))
    table.add_row("data and logs", str(local.DATA))
    out.print(table)
    out.print("\nSend a signed callback:\n")
    out.print(local.curl_line(callback, settings), markup=False, highlight=False, soft_wrap=True)
    out.print(
        "\nand see the failure-rate rows: [bold].venv/bin/vod-pipeline rates[/bold]    (Ctrl-C stops everything)\n"
    )
