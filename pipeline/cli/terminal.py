"""What all commands share: where they print, how they end, and the options that many have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

USAGE_EXIT_CODE = 2
FAILURE_EXIT_CODE = 1

out = Console()
err = Console(stderr=True, highlight=False, soft_wrap=True)


class LogFormat(StrEnum):
    """How log lines look."""

    CONSOLE = "console"
    JSON = "json"


Config = Annotated[Path | None, typer.Option("--config", help="TOML file; default: config/pipeline.toml.")]
Format = Annotated[LogFormat, typer.Option("--log-format", help="Log lines for people or for machines.")]
