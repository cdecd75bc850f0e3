"""What tests of several rooms build: values of the core, written as their texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pipeline.core.outcome import OutcomeKey


def keyed(totals: Mapping[str, int]) -> Counter[OutcomeKey]:
    """Return totals by outcome, given as ``{"accepted": 5, "rejected/conflict": 2}``."""
    return Counter({OutcomeKey.parse(text): number for text, number in totals.items()})


def named(totals: Mapping[OutcomeKey, int]) -> Counter[str]:
    """Return the inverse of `keyed`."""
    return Counter({str(key): number for key, number in totals.items()})
