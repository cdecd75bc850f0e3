"""How much the laws are tried."""

from __future__ import annotations

import os

import pytest

RUNS = 1000  # 20 s of one core.


@pytest.fixture
def machine_runs() -> int:
    """How many runs of the state machine; `make test-long` sets LAWS_RUNS."""
    return int(os.environ.get("LAWS_RUNS", RUNS))
