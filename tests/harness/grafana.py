"""What Grafana does with a dashboard before it asks Prometheus: it finds the queries and fills in the variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")
_LEGEND = re.compile(r"\{\{(\w+)\}\}")
_SPECIAL = re.compile(r"([$^*{}\[\]'+?.()|])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A query of a panel: what it says, the labels its legend names, and whether it asks for one instant."""

    dashboard: str
    panel: str
    expr: str
    legend: frozenset[str]
    is_instant: bool

    def __str__(self) -> str:
        return f"{self.panel}: {self.expr}"


def panels(dashboard: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the panels that show data: all but the rows' titles."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def targets(dashboard: Mapping[str, Any]) -> Iterator[Target]:
    """Return all queries of the panels."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield Target(
                dashboard=dashboard["title"],
                panel=panel["title"],
                expr=target["expr"],
                legend=frozenset(_LEGEND.findall(target["legendFormat"])),
                is_instant=target.get("instant", False),
            )


def fill_in(expr: str, variables: Mapping[str, str | Sequence[str]]) -> str:
    """
    Replace the variables of *expr* as Grafana's Prometheus data source does.

    Args:
        variables: A text is used as it is. Several chosen values become a regular expression, escaped twice: once for
            it, and once for the string it stands in.

    Raises:
        KeyError: *expr* has a variable that is not among *variables*.

    Source: grafana-prometheus, `interpolateQueryExpr` and `prometheusSpecialRegexEscape`.
    """

    def value(match: re.Match[str]) -> str:
        found = variables[match[1] or match[2]]
        if isinstance(found, str):
            return found
        escaped = [_SPECIAL.sub(r"\\\\\1", each.replace("\\", "\\\\\\\\")) for each in found]
        return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"

    return _VARIABLE.sub(value, expr)
