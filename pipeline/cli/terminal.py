"""What all commands share: where they print, how they end, and the options that many have."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from typer import rich_utils

USAGE_EXIT_CODE = 2
FAILURE_EXIT_CODE = 1

# No style at all where NO_COLOR is set, whereas rich alone keeps bold and dim. Source: no-color.org.
COLOR_SYSTEM: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
rich_utils.COLOR_SYSTEM = COLOR_SYSTEM  # Help pages and usage errors.

out = Console(color_system=COLOR_SYSTEM)
err = Console(color_system=COLOR_SYSTEM, stderr=True, highlight=False, soft_wrap=True)


class LogFormat(StrEnum):
    """How log lines look."""

    CONSOLE = "console"
    JSON = "json"


Config = Annotated[Path | None, typer.Option("--config", help="TOML file; default: config/pipeline.toml.")]
Format = Annotated[LogFormat, typer.Option("--log-format", help="Log lines for people or for machines.")]
