"""
Sends simulated callbacks over HTTP as VOD does: signed, retried, and given up after three attempts.

Source of the delivery rules: ApsaraVideo VOD, "HTTP callbacks": 5 s, three attempts, 1 s apart, success is exactly 200.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Protocol

import aiohttp
from yarl import URL

from pipeline.core.signature import sign
from pipeline.local.simulator import CallbackKind, Plan, Simulated, callbacks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.core.signature import Callback

ATTEMPTS_MAX = 3
RETRY_PAUSE_SECONDS = 1.0
ANSWER_TIMEOUT_SECONDS = 5.0
DELIVERED = 200
OUTSTANDING_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to send: `base_url` is where the bridge listens, `path` the callback URL's path with its query."""

    base_url: str
    path: str
    callback: Callback


class Clock(Protocol):
    """Time as the sender needs it."""

    def now(self) -> float: ...  # Seconds since the epoch, for signatures.
    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clock."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(asyncio.sleep)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """
    What was sent and how it was answered.

    `answered` counts attempts by HTTP status, `unanswered` those that timed out or broke; `lost` counts callbacks
    without a 200 after all attempts. Latencies run from the instant a callback was due to its 200, retries included,
    so a sender that is held up does not flatter the receiver; 0 when nothing was delivered.
    """

    sent: Mapping[CallbackKind, int]
    answered: Mapping[int, int]
    unanswered: int
    retries: int
    lost: Mapping[CallbackKind, int]
    latency_p50_seconds: float
    latency_p99_seconds: float
    latency_max_seconds: float
    wall_seconds: float

    @property
    def sent_total(self) -> int:
        return sum(self.sent.values())

    @property
    def lost_total(self) -> int:
        return sum(self.lost.values())

    @property
    def rate(self) -> float:
        """Callbacks a second that were really reached."""
        return self.sent_total / self.wall_seconds if self.wall_seconds else 0.0


@dataclass(slots=True)
class _Tally:
    sent: Counter[CallbackKind] = field(default_factory=Counter)
    answered: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0
    retries: int = 0
    lost: Counter[CallbackKind] = field(default_factory=Counter)
    latencies: array[float] = field(default_factory=lambda: array("d"))

    def summary(self, wall_seconds: float) -> Summary:
        latencies = sorted(self.latencies) or [0.0]
        return Summary(
            sent=dict(self.sent),
            answered=dict(sorted(self.answered.items())),
            unanswered=self.unanswered,
            retries=self.retries,
            lost=dict(self.lost),
            latency_p50_seconds=_percentile(latencies, 50),
            latency_p99_seconds=_percentile(latencies, 99),
            latency_max_seconds=latencies[-1],
            wall_seconds=wall_seconds,
        )


def _percentile(ascending: list[float], percent: int) -> float:
    """Return the nearest-rank percentile."""
    return ascending[ceil(len(ascending) * percent / 100) - 1]


async def simulate(
    plan: Plan,
    target: Target,
    *,
    progress: Callable[[int], object] = lambda done: None,
    outstanding_max: int = OUTSTANDING_MAX,
    clock: Clock | None = None,
) -> Summary:
    """
    Send the callbacks of *plan*, each when it is due, whatever the answers to earlier ones take (an open loop).

    Args:
        progress: Called with the number of callbacks that are answered or lost so far, out of `plan.total`.
        outstanding_max: With so many unanswered, sending waits: the rate reached then falls below the planned one.
        clock: The machine's by default.

    Returns:
        The summary, once every callback is answered or lost. A receiver that refuses or is away is no exception.
    """
    clock = clock or SystemClock()
    tally, slots = _Tally(), asyncio.Semaphore(outstanding_max)
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_SECONDS)
    connector = aiohttp.TCPConnector(limit=outstanding_max)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as group:
        sender = _Sender(session, target, clock, tally)
        begin = clock.monotonic()

        async def deliver(simulated: Simulated) -> None:
            try:
                await sender.deliver(simulated, begin + simulated.due_seconds)
            finally:
                slots.release()
            progress(len(tally.latencies) + tally.lost.total())

        for simulated in callbacks(plan, start=int(clock.now() * 1000)):
            await slots.acquire()
            # Against the start, not the last callback: a late one does not delay those that follow.
            wait_seconds = begin + simulated.due_seconds - clock.monotonic()
            if wait_seconds > 0:
                await clock.sleep(wait_seconds)
            tally.sent[simulated.kind] += 1
            group.create_task(deliver(simulated))
    return tally.summary(clock.monotonic() - begin)


class _Sender:
    def __init__(self, session: aiohttp.ClientSession, target: Target, clock: Clock, tally: _Tally) -> None:
        self._session = session
        self._url = URL(target.base_url + target.path, encoded=True)  # The path is sent exactly as it is configured.
        self._callback = target.callback
        self._clock = clock
        self._tally = tally

    async def deliver(self, simulated: Simulated, due: float) -> None:
        """Try as often as VOD does, and count."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            if attempt > 1:
                self._tally.retries += 1
                await self._clock.sleep(RETRY_PAUSE_SECONDS)
            if await self._attempt(simulated.body) == DELIVERED:
                self._tally.latencies.append(self._clock.monotonic() - due)
                return
        self._tally.lost[simulated.kind] += 1

    async def _attempt(self, body: bytes) -> int | None:
        """Return the status, or None where no answer came."""
        try:
            async with self._session.post(
                self._url, data=body, headers=self._headers(), allow_redirects=False
            ) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError):
            self._tally.unanswered += 1
            return None
        self._tally.answered[status] += 1
        return status

    def _headers(self) -> dict[str, str]:
        """Sign this attempt: the timestamp is the attempt's, not the event's."""
        headers = {"Content-Type": "application/json"}
        if self._callback.auth_keys:
            timestamp = str(int(self._clock.now()))
            headers["X-VOD-TIMESTAMP"] = timestamp
            headers["X-VOD-SIGNATURE"] = sign(self._callback.url, timestamp, self._callback.auth_keys[0])
        return headers
