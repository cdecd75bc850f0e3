"""The console of all commands: its text is plain, its styles are its own, and a pipe gets whole lines."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline.cli.terminal import PlainConsole
from pipeline.service.plain_text import counted

HOSTILE = "\x1b[2J\x9b31m\u202e\u2066a\r\tb"


def shown(*objects: object, **options: Any) -> str:
    file = io.StringIO()
    PlainConsole(file=file, **options).print(*objects)
    return file.getvalue()


@pytest.mark.parametrize(("number", "text"), [(0, "0 warnings"), (1, "1 warning"), (1234, "1,234 warnings")])
def test_one_of_a_kind_is_not_many(number: int, text: str) -> None:
    assert counted(number, "warning") == text


def in_a_group(text: str) -> Group:
    return Group(Text(text), text)


def in_a_table(text: str) -> Table:
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    return table


@pytest.mark.parametrize("wrap", [str, Text, in_a_group, in_a_table])
def test_what_was_not_made_plain_before_is_so_here(wrap: Callable[[str], object]) -> None:
    """It may be forgotten, in any part of the output."""
    written = shown(wrap(HOSTILE))

    assert all(line.isprintable() for line in written.split("\n"))
    assert r"\x1b[2J\x9b31m\u202e\u2066a" in written


def test_its_own_styles_and_line_ends_stay() -> None:
    assert shown("[red]a[/red]\nb", force_terminal=True, color_system="standard") == "\x1b[31ma\x1b[0m\nb\n"


def test_in_a_pipe_lines_are_as_long_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time that is cut to fit 80 columns is none."""
    monkeypatch.delenv("COLUMNS", raising=False)
    wide = [f"{number:0>20}" for number in range(20)]
    table = Table(*wide)
    table.add_row(*wide)

    assert all(cell in shown(table) for cell in wide)
    assert max(map(len, shown(table).splitlines())) < 500
    assert max(map(len, shown(table, width=80).splitlines())) == 80
    assert shown("x" * 1000) == "x" * 1000 + "\n"


def test_columns_of_the_environment_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")

    assert max(map(len, shown("x " * 100).splitlines())) <= 40
