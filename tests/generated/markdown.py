"""Markdown as the generated pages need it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def notice(source: str) -> str:
    """Return the comment that keeps people from editing a generated page."""
    return f"<!-- Written by `make generate` from {source}: edit that. -->"


def code(text: str) -> str:
    """Return *text* as code; text without characters stays empty."""
    return f"`{text}`" if text else ""


def prose(text: str) -> str:
    """Return *text* with what only looks like a tag as what it is."""
    return text.replace("<", "&lt;")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a bar within a cell is escaped."""
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def joined(*parts: str) -> str:
    """Return a page: its parts with a blank line between them."""
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"
