"""How a worker ends itself."""

from __future__ import annotations

from enum import IntEnum
from typing import NoReturn, Protocol


class ExitCode(IntEnum):
    """Why a worker ended itself."""

    OFFSET_AHEAD_OF_LOG = 70
    MEMBERSHIP_LOST = 71
    KAFKA_UNUSABLE = 72
    BUG = 73


class Crash(Protocol):
    """Ends the process at once, as a kill -9 would: it must be safe at any time anyway."""

    def __call__(self, code: ExitCode, message: str) -> NoReturn: ...
