"""How tests wait for what has no event: they ask until it is so, and fail where it does not become so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

SECONDS_MAX = 60.0  # It hangs otherwise: far more than anything takes on a machine that has other work.
PAUSE_SECONDS = 0.001  # Between two looks, not instead of one.


async def until(
    condition: Callable[[], bool | Awaitable[bool]],
    *,
    seconds: float = SECONDS_MAX,
    pause_seconds: float = PAUSE_SECONDS,
) -> None:
    """Let others run until *condition* holds; raises TimeoutError after *seconds*."""
    async with asyncio.timeout(seconds):
        while True:
            holds = condition()
            if holds is True or (not isinstance(holds, bool) and await holds):
                return
            await asyncio.sleep(pause_seconds)


def eventually(problems: Callable[[], list[str]], *, seconds: float = SECONDS_MAX) -> None:
    """Ask *problems* until it has none; fails with the last ones after *seconds*."""
    deadline = time.monotonic() + seconds
    while found := problems():
        assert time.monotonic() < deadline, found
        time.sleep(0.1)  # Between two looks, not instead of one.
