"""The loops that production and tools use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[..., object]:
    """Run a coroutine on one of the loops that production and tools use."""

    def run(coroutine: object) -> object:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(coroutine)  # type: ignore[arg-type]

    return run
