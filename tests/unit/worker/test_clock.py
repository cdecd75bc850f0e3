"""Kafka's clock, as a worker hears of it."""

from __future__ import annotations

import time

from pipeline.core.contract import NO_TIMESTAMP
from pipeline.worker.clock import KafkaClock

YEAR_2001 = 1_000_000_000_000


def test_it_is_not_known_before_it_was_heard() -> None:
    """What a machine believes the time to be is no substitute: a watermark is never taken back."""
    assert KafkaClock().now() is None


def test_it_goes_on_from_the_last_stamp() -> None:
    clock = KafkaClock()
    clock.observe(YEAR_2001 + 86_400_000)
    began = time.monotonic_ns() // 1_000_000
    clock.observe(YEAR_2001)
    now = clock.now()
    elapsed = time.monotonic_ns() // 1_000_000 - began

    assert now is not None
    assert YEAR_2001 <= now <= YEAR_2001 + elapsed


def test_where_nothing_is_stamped_this_machine_has_to_do() -> None:
    """partial-counts of the version before, until `topics apply`."""
    clock = KafkaClock()
    before = time.time_ns() // 1_000_000
    clock.observe(NO_TIMESTAMP)
    now = clock.now()

    assert now is not None
    assert before - 1 <= now <= time.time_ns() // 1_000_000 + 1
