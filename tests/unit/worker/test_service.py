"""What a worker does beside its partitions: it starts, joins its group, and ends, each within its time."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from pipeline.kafka.required_topics import missing_of, problem_of
from pipeline.service.settings import KafkaSettings
from pipeline.worker import service
from pipeline.worker.exits import ExitCode

STUCK = """
import threading
from pipeline.worker import service
threading.Thread(target=threading.Event().wait).start()
service._end_after(0.1)
threading.Event().wait()
"""
KAFKA = KafkaSettings(topic_prefix="", partitions=2)
RIGHT = {"raw": 2, "accepted": 2, "rejected": 2, "partial-counts": 1, "failure-rates": 1}


class DiedError(BaseException):
    """The worker ended itself."""


def crash(code: ExitCode, message: str) -> NoReturn:
    raise DiedError(code.name, message)


class Client:
    """Holds itself, as aiokafka's do."""

    sender: Client


async def ended(error: Exception | None = None) -> None:
    """A start that is over."""
    if error is not None:
        raise error


async def watch(monkeypatch: pytest.MonkeyPatch, starting: Any, *, is_member: bool) -> None:
    """Watch a worker that no one stops."""
    monkeypatch.setattr(service, "crash", crash)
    monkeypatch.setattr(service, "JOINING_SECONDS_MAX", 0.05)
    monkeypatch.setattr(service, "CRASH_CHECK_SECONDS", 0.01)
    built: Any = SimpleNamespace(faust=SimpleNamespace(crashed=False), is_member=is_member)
    task = asyncio.create_task(starting)
    async with asyncio.timeout(60):
        await service._stopped_or_crashed(built, task, asyncio.Event())


@pytest.mark.parametrize("starting", [ended, asyncio.Event().wait], ids=["started", "starting"])
async def test_a_worker_that_does_not_join_its_group_ends(monkeypatch: pytest.MonkeyPatch, starting: Any) -> None:
    """Without a coordinator it would try for ever; Faust keeps its partitions in a rebalance that does not end."""
    with pytest.raises(DiedError, match="no member of the group"):
        await watch(monkeypatch, starting(), is_member=False)


async def test_what_ends_the_start_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="settings"):
        await watch(monkeypatch, ended(ValueError("settings")), is_member=True)


def test_a_worker_that_cannot_stop_is_ended() -> None:
    """Faust waits for its consumer's thread on the event loop, which then obeys no one."""
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0
    assert "worker_stop_cut_short" in done.stdout + done.stderr


def test_the_topics_of_the_settings_are_no_problem() -> None:
    assert missing_of(KAFKA, {**RIGHT, "others": 7}) == []
    assert problem_of(KAFKA, {**RIGHT, "others": 7}) is None


def test_topics_that_are_missing_are_named() -> None:
    assert missing_of(KAFKA, {"raw": 2, "others": 7}) == ["accepted", "rejected", "partial-counts", "failure-rates"]


def test_a_single_partition_has_no_plural() -> None:
    assert (problem_of(KAFKA, {**RIGHT, "raw": 1}) or "").startswith("raw has 1 partition, not 2: ")


@pytest.mark.parametrize("topic", RIGHT)
def test_another_number_of_partitions_is_a_problem(topic: str) -> None:
    """Windows would never be complete, or be so before all partitions are."""
    problem = problem_of(KAFKA, {**RIGHT, topic: 3})

    assert problem is not None
    assert problem.startswith(f"{topic} has 3 partitions, not {RIGHT[topic]}: see kafka.partitions")


async def test_what_closed_clients_leave_is_collected_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a cycle, and the threshold at which Python looks for them by itself is out of reach."""
    monkeypatch.setattr(service, "COLLECT_SECONDS", 0.01)
    gone = asyncio.Event()
    client = Client()
    client.sender = client
    weakref.finalize(client, gone.set)
    gc.disable()
    try:
        del client
        collecting = asyncio.create_task(service._collect_closed_clients())
        async with asyncio.timeout(60):
            await gone.wait()
        collecting.cancel()
    finally:
        gc.enable()
