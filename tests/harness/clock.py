"""A clock of a process's own, which a test can set: libfaketime, loaded before everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness.tools import FAKETIME

if TYPE_CHECKING:
    from pathlib import Path


class BridgeClock:
    """The wall clock of a process that is started with `environ`; *file* says how far it is off."""

    def __init__(self, file: Path) -> None:
        assert FAKETIME.exists(), "libfaketime is missing: config/setup.sh tools"
        self._file = file
        self.environ = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",  # It would look again after 10 s only.
            "DONT_FAKE_MONOTONIC": "1",  # Someone who sets a clock does not move the monotonic one.
        }
        self.set(0)

    def set(self, seconds: int) -> None:
        """Put the clock *seconds* ahead of the true time, or behind it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)  # The process may be reading it.
