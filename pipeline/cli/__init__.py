"""
The command line: the only place that wires the parts together, and the only one that prints for people.

The commands are functions of this package's modules; here is the table of all of them.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from pipeline import __version__
from pipeline.cli import audit, config, files, local, media, offsets, rejected, services, spool, topics
from pipeline.cli.doctor import doctor
from pipeline.cli.terminal import FAILURE_EXIT_CODE, USAGE_EXIT_CODE, err, out
from pipeline.kafka import clients, lenient_decoding
from pipeline.service.errors import OperatorError
from pipeline.service.plain_text import plain
from pipeline.service.settings import SettingsError

app = typer.Typer(
    name="vod-pipeline",
    help="Exactly-once delete-callback pipeline for ApsaraVideo VOD.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},  # Groups and commands inherit it.
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        out.print(f"vod-pipeline {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _program(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options of the program itself."""
    if context.invoked_subcommand not in services.SERVICES:  # Those see to it themselves.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _group(name: str, help_line: str, **commands: Callable[..., None]) -> None:
    group = typer.Typer(no_args_is_help=True, help=help_line)
    for command, function in commands.items():
        group.command(command)(function)
    app.add_typer(group, name=name)


for function in (
    services.bridge, services.worker, services.dashboard, local.up, local.simulate, local.rates, audit.audit, doctor,
    media.find, media.failures, media.reconcile,
):  # fmt: skip
    app.command()(function)
_group(
    "topics",
    "Create, compare and fix the Kafka topics; give new ones the memory of the old.",
    plan=topics.topics_plan,
    apply=topics.topics_apply,
    migrate=topics.topics_migrate,
)
_group("config", "Check and show the settings.", check=config.config_check, show=config.config_show)
_group("offsets", "See and set where the accept stage goes on.", show=offsets.offsets_show, reset=offsets.offsets_reset)
_group(
    "rejected",
    "See rejected records, and have the worker decide on them again.",
    list=rejected.show_list,
    show=rejected.show_one,
    replay=rejected.replay,
)
_group("spool", "See what the bridge keeps on disk.", status=spool.spool_status)
_group("files", "What the package carries for Prometheus, Grafana and you.", export=files.export)


def main() -> None:
    """Run the command; what can be expected to go wrong is one line on standard error."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # Not where a shell has it ignored.
        # Ctrl-C ends us whatever we wait for. A KeyboardInterrupt may not: kafka-python's event loop takes it for an
        # error of a connection (net/selector.py). Services and `up`, which have more to do, handle it themselves.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    lenient_decoding.install()
    clients.install()
    try:
        app()
    except SettingsError as error:
        err.print(f"error: {plain(str(error))}", markup=False)
        sys.exit(USAGE_EXIT_CODE)
    except OperatorError as error:
        err.print(f"error: {plain(str(error))}", markup=False)
        sys.exit(FAILURE_EXIT_CODE)
