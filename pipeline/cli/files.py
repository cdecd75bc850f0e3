"""The command that writes out what the package carries for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.admin import files
from pipeline.cli.terminal import out


def export(
    directory: Annotated[Path, typer.Argument(help="Where to; made where it is missing.")],
    *,
    overwrite: Annotated[bool, typer.Option(help="Replace files that are there with other content.")] = False,
) -> None:
    """
    Write Prometheus's alerts and rules, Grafana's dashboards and the default settings below DIRECTORY.

    Example: vod-pipeline files export /etc/vod-pipeline
    """
    for path in files.export(directory, overwrite=overwrite):
        out.print(str(path), markup=False, highlight=False, soft_wrap=True)
