"""
Errors that are dealt with, and what they hold.

The trace of an error holds the frames it came through, a frame the session it worked for, and a session the task that
failed with the error: a cycle with all keys of a partition in it, and the cyclic collector hardly ever runs.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress


def forget_trace(error: BaseException | None) -> None:
    """Take the traces off *error*, and off what led to it."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def forget_failure(task: asyncio.Task[None]) -> None:
    """Do the same for the error of a *task* that ended, if it failed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        with suppress(type(error)):
            task.result()  # A task has a reference of its own to the trace until then.
        forget_trace(error)
