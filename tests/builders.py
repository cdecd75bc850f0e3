"""What tests of several rooms build: records, and values of the core written as their texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.outcome import OutcomeKey


def keyed(totals: Mapping[str, int]) -> Counter[OutcomeKey]:
    """Return totals by outcome, given as ``{"accepted": 5, "rejected/conflict": 2}``."""
    return Counter({OutcomeKey.parse(text): number for text, number in totals.items()})


def named(totals: Mapping[OutcomeKey, int]) -> Counter[str]:
    """Return the inverse of `keyed`."""
    return Counter({str(key): number for key, number in totals.items()})


@dataclass
class ClientRecord:
    """
    A record as both Kafka clients hand it out, as far as the product reads it.

    A header's value may be null, whatever its type says.
    """

    key: bytes | None
    value: bytes | None
    timestamp: int
    offset: int = 0
    partition: int = 0
    headers: Any = field(default_factory=list)
