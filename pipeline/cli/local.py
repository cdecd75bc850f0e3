"""The commands that show the product on this machine: everything at once, simulated callbacks, rates as they come."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from pipeline.admin.topics.contract import contract
from pipeline.cli import audit
from pipeline.cli.terminal import FAILURE_EXIT_CODE, Config, LastingOutput, PlainConsole, err, out
from pipeline.local import up as local
from pipeline.local.own_callback import DATA, callback_of, curl_line
from pipeline.local.simulator import Plan
from pipeline.service import settings as configuration
from pipeline.service.lifecycle import interrupted_once
from pipeline.service.plain_text import counted
from pipeline.service.probe import url_of
from pipeline.service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.local.load import Summary

DEMO_SHARES = {"failures": 0.1, "duplicates": 0.1, "malformed": 0.01, "conflicts": 0.01}

Share = Annotated[float, typer.Option(help="Share of all callbacks, 0 to 1.", min=0, max=1)]


def up(
    demo: Annotated[
        bool, typer.Option("--demo", help="Simulate callbacks, show the rates live, audit them, stop.")
    ] = False,
    seconds: Annotated[int, typer.Option(help="How long the demo lasts.", min=1, max=3600)] = 60,
    rate: Annotated[float, typer.Option(help="Callbacks a second in the demo.", min=1, max=10_000)] = 200,
    kafka_port: Annotated[
        int | None, typer.Option(help="Run a local Kafka on this port, whatever the settings name.", min=1, max=65_534)
    ] = None,
    config: Config = None,
) -> None:
    """
    Run everything on this machine: Kafka, topics, bridge, worker, live page. Ctrl-C stops it in order.

    Kafka is a local one, unless kafka.bootstrap_servers names another than 127.0.0.1:9092.

    Example: vod-pipeline up --demo --seconds 30
    """
    from pipeline.local import demo as demonstration  # noqa: PLC0415  # Loads an HTTP client that `up` alone never needs.

    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    settings = configuration.load(config)
    console = PlainConsole(file=LastingOutput())

    def echo(line: str) -> None:
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)

    with interrupted_once():
        try:
            with local.running(settings, echo, config=config, kafka_port=kafka_port) as (kafka, parts):
                _show_where(settings, parts, config, console)
                if demo:
                    plan = Plan(rate=rate, seconds=seconds, **DEMO_SHARES, seed=int(time.time()))
                    at = local.on_kafka_of(parts, settings)
                    summary, report = demonstration.run(at, callback_of(settings), plan, console)
                    console.print(_sent(summary))
                    console.print("A request that repeats one of the same second is answered, and not published again.")
                    console.print(audit.shown(report))
                    if summary.lost_total or not report.agrees:
                        sys.exit(FAILURE_EXIT_CODE)
                else:
                    _watch((kafka, *parts), console)
        except KeyboardInterrupt:
            echo("stopped")


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
    Send signed callbacks to the bridge, as VOD does, and show how they were answered. Exit code 1 if some were lost.

    What became of them, `vod-pipeline audit` tells.

    Example: vod-pipeline simulate --rate 500 --seconds 30 --failures 0.3 --seed 7
    """
    from pipeline.local import demo as demonstration  # noqa: PLC0415  # As above.

    settings = configuration.load(config)
    plan = Plan(
        rate=rate, seconds=seconds, duplicates=duplicates, failures=failures, malformed=malformed,
        conflicts=conflicts, seed=seed,
    )  # fmt: skip
    with Progress(console=err) as progress:
        task = progress.add_task("callbacks", total=plan.total)
        summary = demonstration.send(
            settings, callback_of(settings), plan, lambda done: progress.update(task, completed=done)
        )
    out.print(_sent(summary))
    if summary.lost_total:
        sys.exit(FAILURE_EXIT_CODE)


def rates(
    once: Annotated[bool, typer.Option("--once", help="End with the last row that is there now.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The rows as they are in the topic, one a line.")] = False,
    config: Config = None,
) -> None:
    """
    Follow the failure-rate rows. Ctrl-C ends it.

    Example: vod-pipeline rates --once --json | jq 'select(.complete)'
    """
    from pipeline.local import rates_table  # noqa: PLC0415  # As above.

    lists = rates_table.follow(configuration.load(config).kafka, is_once=once)
    if not as_json:
        rates_table.show(lists, out)
        return
    for rows in lists:
        for row in rows:
            print(row.to_json(), flush=True)


def _sent(summary: Summary) -> Text:
    """Return what was sent and how it was answered."""
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(summary.sent.items()))
    answered = ", ".join(f"{number:,} x {status}" for status, number in summary.answered.items()) or "none"
    return Text.assemble(
        f"\nSent {counted(summary.sent_total, 'callback')} in {summary.wall_seconds:.1f} s, ",
        f"{summary.rate:,.1f} a second: ",
        f"{kinds}.\n",
        f"Answers: {answered}; {summary.unanswered:,} without one, {summary.retries:,} retries, ",
        (f"{summary.lost_total:,} lost", "bold red" if summary.lost_total else ""),
        ".\n",
        f"From when a callback is due to its 200: p50 {_milliseconds(summary.latency_p50_seconds)}, "
        f"p99 {_milliseconds(summary.latency_p99_seconds)}, max {_milliseconds(summary.latency_max_seconds)}.\n",
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"


def _watch(parts: Sequence[local.UsedKafka | local.Part], console: Console) -> None:
    while True:
        for part in parts:
            line = part.restart_if_exited()
            if line:
                console.print(line, style="yellow", markup=False)
        time.sleep(local.POLL_SECONDS)


def _show_where(settings: Settings, parts: tuple[local.Part, ...], config: Path | None, console: Console) -> None:
    bridge_settings, worker_settings = settings.bridge, settings.worker
    callback = callback_of(settings)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    if parts[-1].process is not None:
        table.add_row("live page", f"[bold]{settings.dashboard.base_url}[/bold]")
    table.add_row("callbacks", f"{bridge_settings.base_url}{callback.path}")
    kafka = local.on_kafka_of(parts, settings).kafka
    table.add_row("Kafka", kafka.bootstrap_servers)
    table.add_row("topics", ", ".join(f"{spec.name}" for spec in contract(settings)))
    for name, host, port in (
        ("bridge", bridge_settings.metrics_host, bridge_settings.metrics_port),
        ("worker", worker_settings.metrics_host, worker_settings.metrics_port),
    ):
        table.add_row(f"{name} metrics", url_of(host, port, "/metrics"))
    table.add_row("data and logs", str(DATA))
    console.print(table)
    console.print("\nSend a signed callback:\n")
    console.print(curl_line(callback, settings), markup=False, highlight=False, soft_wrap=True)
    rates_line = [_program(), "rates", *(["--config", str(config)] if config else [])]
    moved = [] if kafka == settings.kafka else [f"{local.BOOTSTRAP_VARIABLE}={kafka.bootstrap_servers}"]
    console.print("\nand see the failure-rate rows (Ctrl-C stops everything):\n")
    console.print(" ".join([*moved, shlex.join(rates_line)]) + "\n", markup=False, highlight=False, soft_wrap=True)


def _program() -> str:
    """Return what to type for `vod-pipeline`: it is beside our Python, which need not be on the path."""
    program = Path(sys.executable).with_name("vod-pipeline")
    return os.path.relpath(program) if program.is_relative_to(Path.cwd()) else str(program)
