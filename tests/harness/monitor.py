"""A monitoring port, and a client that sends it what it likes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from pipeline.service.monitor import monitoring
from pipeline.service.web import listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

GET = b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n"
SHORT_SECONDS = 0.2


@asynccontextmanager
async def served(
    problems: Callable[[], Sequence[str]] = list, *, registry: CollectorRegistry | None = None,
    asks_others: bool = False, seconds_max: float = 30,
) -> AsyncIterator[int]:  # fmt: skip
    bound = listen("127.0.0.1", 0, setting="-")
    port: int = bound.getsockname()[1]
    registry = registry or CollectorRegistry()
    async with monitoring(registry, problems, bound, asks_others=asks_others, seconds_max=seconds_max):
        yield port


async def asked(port: int, request: bytes) -> bytes:
    """Return all that is answered until the other side closes, and b"" if it resets the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of a connection that is silent; whether no byte came before it."""
    try:
        return await asyncio.wait_for(reader.read(1), 60) == b""
    except ConnectionResetError:
        return True
