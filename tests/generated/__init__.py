"""
Files that code writes and git keeps: `python -m tests.generated` writes them, and a test compares them.

A new one is one more line in FILES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from tests.generated import commands, configuration, metrics
from tests.generated.grafana.dashboards import dashboards, to_json

ROOT = Path(__file__).parents[2]

FILES: Mapping[str, Callable[[], str]] = {
    "docs/commands.md": commands.page,
    "docs/configuration.md": configuration.page,
    "docs/metrics.md": metrics.page,
    **{f"config/grafana/dashboards/{name}": partial(to_json, dashboard) for name, dashboard in dashboards().items()},
}
