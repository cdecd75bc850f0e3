"""How much the laws are tried."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog

RUNS = 3000  # Half a minute to a minute of one core.


@pytest.fixture
def machine_runs() -> int:
    """How many runs of the state machine; `make test-long` sets LAWS_RUNS."""
    return int(os.environ.get("LAWS_RUNS", RUNS))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep the log of thousands of failures off the screen."""
    with structlog.testing.capture_logs():
        yield
