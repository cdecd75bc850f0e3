"""Every command of the command line, as typer has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from typer.core import TyperGroup
from typer.main import get_command

from pipeline.cli import app

if TYPE_CHECKING:
    from typer.core import TyperCommand

IDS = Path(__file__).parents[1] / "vectors" / "ids.txt"  # What `reconcile` asks for.


def commands() -> Iterator[tuple[tuple[str, ...], TyperGroup | TyperCommand]]:
    """Yield each group and command below the program with its words, such as ("topics", "plan"), in order."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    yield from _below(root, ())


def _below(group: TyperGroup, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], TyperGroup | TyperCommand]]:
    for name, command in group.commands.items():
        yield (*words, name), command  # type: ignore[misc]  # typer makes nothing else.
        if isinstance(command, TyperGroup):
            yield from _below(command, (*words, name))
