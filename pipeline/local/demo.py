"""A demonstration on a running product: simulated callbacks, the failure rates live, and a closing summary."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress

from rich.console import Console
from rich.progress import Progress

from pipeline.local.closing import Outcomes, closing, read_outcomes
from pipeline.local.load import Summary, Target, simulate
from pipeline.local.rates_table import LiveRates
from pipeline.local.simulator import Plan
from pipeline.service.probe import ask, url_of
from pipeline.service.settings import CallbackSettings, Settings

SETTLE_SECONDS = 20.0
POLL_SECONDS = 0.1


def target_of(settings: Settings, callback: CallbackSettings) -> Target:
    """Return where the bridge of *settings* takes *callback*."""
    return Target(base_url=settings.bridge.base_url, path=callback.path, callback=callback.callback)


def run(settings: Settings, callback: CallbackSettings, plan: Plan, console: Console) -> None:
    """Send what *plan* says, show the rates meanwhile, and say in the end whether all was decided on exactly once."""
    width = settings.worker.window_seconds * 1000
    now = int(time.time() * 1000)
    before = _outcomes(settings)
    progress = Progress(console=console)
    task = progress.add_task("callbacks", total=plan.total)
    stop = threading.Event()
    live = LiveRates(settings.kafka, since=now - now % width, console=console)
    shown = threading.Thread(target=live.run, args=(stop,), kwargs={"above": progress})
    shown.start()
    try:
        summary = asyncio.run(
            simulate(plan, target_of(settings, callback), progress=lambda done: progress.update(task, completed=done))
        )
        after = _settled(settings, before, summary)
    finally:
        stop.set()
        shown.join()
    console.print()
    console.print(closing(summary, after))


def _settled(settings: Settings, before: Outcomes, summary: Summary) -> Outcomes:
    """Return what the worker decided since *before*, once that is as much as was delivered (or does not become so)."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        since = _outcomes(settings).since(before)
        if since.received >= summary.sent_total - summary.lost_total or time.monotonic() > deadline:
            return since
        time.sleep(POLL_SECONDS)


def _outcomes(settings: Settings) -> Outcomes:
    bridge, worker = settings.bridge, settings.worker
    pages = ""
    for host, port in ((bridge.metrics_host, bridge.metrics_port), (worker.metrics_host, worker.metrics_port)):
        with suppress(OSError):  # Nothing is decided while they do not answer.
            pages += ask(url_of(host, port, "/metrics"))[1] + "\n"
    return read_outcomes(pages)
