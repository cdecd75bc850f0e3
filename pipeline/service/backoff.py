"""How long to wait before the next attempt: longer after each failure, with jitter, up to a bound."""

from __future__ import annotations

import random

DOUBLINGS_MAX = 10


class Backoff:
    """Counts failures in a row."""

    def __init__(self, seconds_min: float, seconds_max: float) -> None:
        self._seconds_min = seconds_min
        self._seconds_max = seconds_max
        self.failures = 0
        """How many there were in a row, DOUBLINGS_MAX at most."""

    def fail(self, *, is_lasting: bool = False) -> float:
        """Count a failure and return how many seconds to wait; *is_lasting*: it will not pass soon."""
        longest = min(self._seconds_min * (1 << self.failures), self._seconds_max)
        self.failures = min(self.failures + 1, DOUBLINGS_MAX)
        return (self._seconds_max if is_lasting else longest) * random.uniform(0.5, 1)  # noqa: S311  # Jitter, no secret.

    def succeed(self) -> None:
        """Begin anew."""
        self.failures = 0
