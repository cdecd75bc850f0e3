"""Integration tests run on the loop that the product runs on: its limits and its errors are not asyncio's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvloop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Mapping


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """Be pytest-asyncio's hook."""
    return {"uvloop": uvloop.new_event_loop}
