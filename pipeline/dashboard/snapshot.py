"""
The newest state of each section of the page, for any number of readers.

A reader asks what is newer than what it has: one that is slow misses states in between, and nothing is kept for it.
"""

from __future__ import annotations

import asyncio


class Snapshot:
    """What is shown now, by section. For one event loop."""

    def __init__(self) -> None:
        self._version = 0
        self._sections: dict[str, tuple[int, bytes]] = {}
        self._news = asyncio.Event()
        self.is_closed = False

    def show(self, section: str, data: bytes) -> None:
        """Show *data*, one line of ASCII JSON, as the state of *section*; what is shown already is no news."""
        if section in self._sections and self._sections[section][1] == data:
            return
        self._version += 1
        self._sections[section] = (self._version, data)
        self._announce()

    def close(self) -> None:
        """End the wait of all readers, now and from now on."""
        self.is_closed = True
        self._announce()

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def newer_than(self, version: int) -> tuple[int, list[tuple[str, bytes]]]:
        """Return the current version, and each section that changed after *version* (0: before anything)."""
        newer = [(section, data) for section, (changed, data) in self._sections.items() if changed > version]
        return self._version, newer

    async def changed_since(self, version: int) -> None:
        """Wait until there is something newer than *version*, or the snapshot is closed."""
        while self._version <= version and not self.is_closed:
            await self._news.wait()
