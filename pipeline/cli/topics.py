"""The commands that compare, create and fix the topics, and give new ones the memory of the old."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pipeline.admin import migrate
from pipeline.admin.topics.apply import plan, reconcile
from pipeline.admin.topics.diff import Change, Problem
from pipeline.cli.terminal import FAILURE_EXIT_CODE, Config, err, out
from pipeline.kafka.tools.cluster import connect
from pipeline.service import settings as configuration
from pipeline.service.plain_text import counted, plain
from pipeline.service.settings import SettingsError


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
    Create the topics and fix their settings; what only you can decide is named, and then nothing is done.

    Example: vod-pipeline topics apply
    """
    changes = reconcile(configuration.load(config))
    if changes:
        out.print(_plan_table(changes))
        out.print(f"{counted(len(changes), 'change')} made")
    out.print("the topics are as they should be")


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
    with Progress(TextColumn("{task.completed:,} carried over"), TimeElapsedColumn(), console=err) as progress:
        task = progress.add_task("", total=None)
        now_ms = int(time.time() * 1000)
        count = migrate.carry_over(
            settings, old_prefix=old_prefix, now_ms=now_ms, progress=lambda: progress.advance(task)
        )
    out.print(f"{count:,} accepted records of {plain(old_prefix)} are in {settings.kafka.topics.raw}", markup=False)


def _plan_table(changes: tuple[Change, ...]) -> Table:
    table = Table("topic", "change")
    for change in changes:
        style = "red" if isinstance(change, Problem) else ""
        table.add_row(Text(plain(change.where)), Text(plain(change.what)), style=style)
    return table
