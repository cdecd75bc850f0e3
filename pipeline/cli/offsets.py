"""The commands that show and set where the worker goes on."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from pipeline.admin import offsets as group_offsets
from pipeline.cli.terminal import Config, out
from pipeline.service import settings as configuration


class Place(StrEnum):
    """Where to go on."""

    EARLIEST = "earliest"
    LATEST = "latest"
    COMMITTED = "committed"


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
    to: Annotated[Place, typer.Option(help="An end of its log, or where it is.")] = Place.EARLIEST,
    config: Config = None,
) -> None:
    """
    Set where the worker goes on in a raw partition, after its topic was recreated or lost data. Stop all workers first.

    It forgets the partition's time, and says all its counts again: `--to committed` does only that.

    Example: vod-pipeline offsets reset --partition 2 --to earliest
    """
    position = group_offsets.reset(configuration.load(config), partition, to.value)
    out.print(f"partition {partition} goes on at {position.committed} (log: {position.start} to {position.end})")
