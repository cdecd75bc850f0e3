"""A demonstration on a running product: simulated callbacks, the failure rates live meanwhile, and then the audit."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.progress import Progress

from pipeline import audit
from pipeline.admin import offsets
from pipeline.audit.findings import AuditReport
from pipeline.kafka.tools.cluster import connect
from pipeline.local.load import Summary, Target, simulate
from pipeline.local.rates_table import follow, show
from pipeline.local.simulator import Plan
from pipeline.service.settings import CallbackSettings, Settings

DECIDED_SECONDS_MAX = 20.0
POLL_SECONDS = 0.2


def send(
    settings: Settings, callback: CallbackSettings, plan: Plan, progress: Callable[[int], object] = lambda done: None
) -> Summary:
    """Send what *plan* says to the bridge of *settings*; see `load.simulate`."""
    target = Target(base_url=settings.bridge.base_url, path=callback.path, callback=callback.callback)
    return asyncio.run(simulate(plan, target, progress=progress))


def run(settings: Settings, callback: CallbackSettings, plan: Plan, console: Console) -> tuple[Summary, AuditReport]:
    """
    Send what *plan* says, and show the rates meanwhile.

    Returns:
        What was sent, and what the audit finds of all that raw took since the load began.

    Raises:
        ClusterError: Kafka fails; then nothing is known of what became of the callbacks.
    """
    with connect(settings.kafka):  # Else nothing is sent.
        started_ms = int(time.time() * 1000)
    progress = Progress(console=console)
    task = progress.add_task("callbacks", total=plan.total)
    stop = threading.Event()
    width = settings.worker.window_seconds * 1000
    rates = follow(settings.kafka, since_ms=started_ms - started_ms % width)
    with ThreadPoolExecutor(1) as threads:
        showing = threads.submit(show, rates, console, stop=stop, above=progress)
        try:
            summary = send(settings, callback, plan, lambda done: progress.update(task, completed=done))
            wait_until_decided(settings)
            report = audit.run(
                settings, since_ms=started_ms
            )  # It waits for the rows, so the table has the last ones, too.
        finally:
            stop.set()
        showing.result()
    return summary, report


def wait_until_decided(settings: Settings) -> None:
    """Return once the worker has decided on all of raw, or after DECIDED_SECONDS_MAX: the audit tells what is left."""
    deadline = time.monotonic() + DECIDED_SECONDS_MAX
    while any((at.committed or 0) < at.end for at in offsets.positions(settings)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
