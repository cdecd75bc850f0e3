"""
What a table of metrics is made of: a line for each, with its kind, name, meaning and labels.

A class that derives from Table gives its instances the metrics themselves, in the registry that they are made with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric. `meaning` tells an operator what it says, and what a rise means."""

    kind: type[Counter | Gauge | Histogram]
    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] | None = None


def counter(name: str, meaning: str, *labels: str) -> Counter:
    """Define a counter; Prometheus shows it as *name* with `_total`."""
    return cast("Counter", Definition(Counter, name, meaning, labels))


def gauge(name: str, meaning: str, *labels: str) -> Gauge:
    """Define a gauge."""
    return cast("Gauge", Definition(Gauge, name, meaning, labels))


def histogram(name: str, meaning: str, *labels: str, buckets: tuple[float, ...] = SECONDS_BUCKETS) -> Histogram:
    """Define a histogram."""
    return cast("Histogram", Definition(Histogram, name, meaning, labels, buckets))


class Table:
    """The metrics that its class defines."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make every metric in *registry*."""
        for attribute, definition in self.definitions():
            buckets: dict[str, Any] = {} if definition.buckets is None else {"buckets": definition.buckets}
            made = definition.kind(definition.name, definition.meaning, definition.labels, registry=registry, **buckets)
            setattr(self, attribute, made)

    @classmethod
    def definitions(cls) -> Iterator[tuple[str, Definition]]:
        """Yield each metric's attribute and definition, in the order of the class."""
        for attribute, definition in vars(cls).items():
            if isinstance(definition, Definition):
                yield attribute, definition
