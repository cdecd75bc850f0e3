"""An event loop in which time is a number, and which can be stopped at any suspension point of any task."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class StoppedError(BaseException):
    """The loop came to the chosen suspension point."""


class _Steps(selectors.SelectSelector):
    """Asked once before each step of the loop; no socket is ever ready."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.steps_left: int | None = None

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let the time that nothing would happen in pass at once."""
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                self.steps_left = None
                raise StoppedError
        assert timeout is not None, "every task waits for ever"
        self.now += max(0.0, timeout)
        return []


class StepLoop(asyncio.SelectorEventLoop):
    """Runs coroutines until they end or a number of steps was made; each task makes at most one await a step."""

    def __init__(self) -> None:
        self._steps = _Steps()
        super().__init__(self._steps)
        self.set_exception_handler(lambda *_: None)  # What failed in the background failed in a commit, and was seen.

    def time(self) -> float:
        """Return the time that has passed in this loop, in seconds."""
        return self._steps.now

    def run(self, coroutine: Coroutine[Any, Any, T] | asyncio.Task[T], *, steps: int | None = None) -> T:
        """
        Run *coroutine* to its end.

        Raises:
            StoppedError: after *steps* it had not ended. Running the task on is possible, and so is `abandon`.
        """
        task = asyncio.ensure_future(coroutine, loop=self)
        self._steps.steps_left = steps
        try:
            return self.run_until_complete(task)
        except StoppedError:
            if not task.done():
                raise
            # It ended with the last step. What tells the loop so is still to be called, or it would stop the next run.
            self.call_soon(self.stop)
            self.run_forever()
            return task.result()
        finally:
            self._steps.steps_left = None

    def abandon(self) -> None:
        """End all tasks and close; whatever they do meanwhile is none of anybody's business any more."""
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.wait(tasks))
        for task in tasks:
            if not task.cancelled():
                task.exception()
        self.close()
