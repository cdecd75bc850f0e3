"""The commands that compare, show and mend what the services stand on: topics, offsets, settings, the spool."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.admin import migrate
from pipeline.admin import offsets as group_offsets
from pipeline.admin.topics.apply import plan, reconcile
from pipeline.admin.topics.diff import Change, Problem, check
from pipeline.bridge import spool
from pipeline.cli.terminal import FAILURE_EXIT_CODE, Config, err, out
from pipeline.core.windows import format_time
from pipeline.kafka.tools.cluster import connect
from pipeline.service import settings as configuration
from pipeline.service.settings import SettingsError

MIB = 1 << 20


class Edge(StrEnum):
    """An end of a log."""

    EARLIEST = "earliest"
    LATEST = "latest"


def topics_plan(config: Config = None) -> None:
    """
    Compare Kafka's topics with the contract; change nothing. Exit code 1 if something is to do.

    Example: vod-pipeline topics plan
    """
    settings = configuration.load(config)
    with connect(settings.kafka) as cluster:
        changes = plan(cluster, settings)
    if not changes:
        out.print("the topics are as they should be")
        return
    out.print(_plan_table(changes))
    sys.exit(FAILURE_EXIT_CODE)


def topics_apply(config: Config = None) -> None:
    """
    Create the topics and mend their settings; what only you can decide is named, and then nothing is done.

    Example: vod-pipeline topics apply
    """
    changes = reconcile(configuration.load(config))
    out.print(_plan_table(changes) if changes else "the topics are as they should be")


def topics_migrate(
    old_prefix: Annotated[str, typer.Option(help="What the names of the old topics begin with.")],
    config: Config = None,
) -> None:
    """
    Give the topics of the settings in force, which may have more partitions, what was accepted under another prefix.

    docs/operating.md, "More partitions", says when. Example: vod-pipeline topics migrate --old-prefix vod-deletions.
    """
    settings = configuration.load(config)
    if old_prefix == settings.kafka.topic_prefix:
        raise SettingsError("--old-prefix is kafka.topic_prefix: the new topics need a prefix of their own")
    with Progress(TextColumn("carrying over"), MofNCompleteColumn(), TimeElapsedColumn(), console=err) as progress:
        task = progress.add_task("", total=None)
        now_ms = int(time.time() * 1000)
        count = migrate.carry_over(
            settings, old_prefix=old_prefix, now_ms=now_ms, progress=lambda: progress.advance(task)
        )
    out.print(f"{count:,} accepted records of {old_prefix} are in {settings.kafka.topics.raw}")


def config_check(config: Config = None) -> None:
    """
    Check the settings without starting anything.

    Example: vod-pipeline config check --config production.toml
    """
    problems = check(configuration.load(config))
    if problems:
        raise SettingsError("; ".join(problems))
    out.print("the settings are valid")


def config_show(config: Config = None) -> None:
    """
    Show the settings in force, secrets masked.

    Example: vod-pipeline config show
    """
    out.print_json(configuration.load(config).model_dump_json())


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


def spool_status(config: Config = None) -> None:
    """
    Show how many callbacks wait on disk for Kafka, and for how long.

    Example: vod-pipeline spool status
    """
    bridge_settings = configuration.load(config).bridge
    if bridge_settings.spool_directory is None:
        raise SettingsError("bridge.spool_directory: empty, so there is no spool")
    table = Table("spool", "owner", "callbacks", "MiB", "at most", "oldest received")
    for directory in spool.spools_under(bridge_settings.spool_directory):
        try:
            status, owner = spool.status_of(directory)
        except spool.SpoolError as error:  # The others are of interest all the same.
            err.print(f"error: {error}", markup=False)
            continue
        oldest = status.oldest_received_at_ms
        table.add_row(
            str(directory),
            "nobody" if owner is None else f"process {owner}",
            f"{status.records:,}",
            f"{status.bytes / MIB:,.1f}",
            f"{bridge_settings.spool_bytes_max / MIB:,.1f}",
            "-" if oldest is None else format_time(oldest // 1000 * 1000),
        )
    out.print(table)


def _plan_table(changes: tuple[Change, ...]) -> Table:
    table = Table("topic", "change")
    for change in changes:
        style = "red" if isinstance(change, Problem) else ""
        table.add_row(change.where, change.what, style=style)
    return table
