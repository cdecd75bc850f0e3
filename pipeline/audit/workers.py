"""The partitions' passes: in this process while there is little to read, else in as many as there are cores."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from queue import Empty
from typing import Any

from pipeline.audit.partition import Result, Scope, audit_partition
from pipeline.kafka import clients, lenient_decoding
from pipeline.service.settings import Settings

OFFSETS_ALONE_MAX = 50_000  # More takes longer than it takes to start a process, about 1 s.
POLL_SECONDS = 0.2
GC_THRESHOLD = 1_000_000  # Tens of thousands of records are alive, in no cycles: the collector finds nothing there.

_judged_offsets: Any = None


def audit_partitions(settings: Settings, scopes: list[Scope], progress: Callable[[int, int], None]) -> list[Result]:
    """
    Judge each partition of *scopes*.

    Args:
        progress: Called with how many raw offsets have been judged, and of how many.

    Raises:
        ClusterError: Kafka fails.
    """
    total = sum(scope.stop - scope.start for scope in scopes)
    done = 0

    def more(offsets: int) -> None:
        nonlocal done
        done += offsets
        progress(done, total)

    processes = min(len(scopes), os.cpu_count() or 1)
    if total <= OFFSETS_ALONE_MAX or processes == 1:
        return [audit_partition(settings, scope, more) for scope in scopes]
    # Spawned, as a fork would inherit whatever threads and sockets this process has.
    context = multiprocessing.get_context("spawn")
    judged_offsets = context.Queue()
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(judged_offsets,)) as pool:
        futures = [pool.submit(_audit_one, settings, scope) for scope in scopes]
        while wait(futures, timeout=POLL_SECONDS).not_done:
            _drain(judged_offsets, more)
            if any(future.done() and future.exception() for future in futures):
                pool.shutdown(wait=False, cancel_futures=True)
                break
        _drain(judged_offsets, more)
        return [future.result() for future in futures if not future.cancelled()]


def _begin(judged_offsets: Any) -> None:
    global _judged_offsets  # noqa: PLW0603  # A queue reaches a pool's process only through its initializer.
    _judged_offsets = judged_offsets
    threading.Thread(target=_end_with_parent, daemon=True).start()
    lenient_decoding.install()  # A spawned process has not come through the command line.
    clients.install()
    gc.set_threshold(GC_THRESHOLD)


def _end_with_parent() -> None:
    """End at once when the command does, however that ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _audit_one(settings: Settings, scope: Scope) -> Result:
    return audit_partition(settings, scope, _judged_offsets.put)


def _drain(judged_offsets: Any, more: Callable[[int], None]) -> None:
    try:
        while True:
            more(judged_offsets.get_nowait())
    except Empty:
        return
