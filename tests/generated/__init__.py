"""
Files that code writes and git keeps: `python -m tests.generated` writes them, and a test compares them.

A new one is one more line in FILES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.generated import commands, configuration, metrics

ROOT = Path(__file__).parents[2]

FILES: Mapping[str, Callable[[], str]] = {
    "docs/commands.md": commands.page,
    "docs/configuration.md": configuration.page,
    "docs/metrics.md": metrics.page,
}
