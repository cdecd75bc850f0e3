"""Several bridge processes behind one port, as `bridge --workers 2` runs them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.bridge.spool import Spool
from tests.harness.bridge import BridgeProcess, Sent, send
from tests.harness.recount import read
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.service.settings import Settings

CONNECTIONS = 40
PUBLISHED = 'vod_pipeline_bridge_requests_total{entry="vod.example.com",outcome="published"}'
DRAINED = "vod_pipeline_spool_drained_records_total"
SPOOLED = 'vod_pipeline_bridge_requests_total{entry="vod.example.com",outcome="spooled"}'


@pytest.fixture
def bridge(settings: Settings, tmp_path: Path) -> Iterator[BridgeProcess]:
    process = BridgeProcess(settings, tmp_path, workers=2)
    yield process
    process.kill()


def children_of(process_id: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]


async def send_over_many(bridge: BridgeProcess, name: str) -> Sent:
    sent = Sent()
    bodies = [
        [b'{"MediaId":"%s-%d-%d"}' % (name.encode(), sender, n) for n in range(5)] for sender in range(CONNECTIONS)
    ]
    await asyncio.gather(*(send(bridge.port, each, sent) for each in bodies))
    return sent


async def both_are_ready(bridge: BridgeProcess) -> None:
    async def are_ready() -> bool:
        return await bridge.status("/readyz") == 200

    await until(are_ready)


async def taken_by(bridge: BridgeProcess) -> float:
    """Return how many callbacks both have taken, by the one page that they share."""
    return await bridge.metric(PUBLISHED) + await bridge.metric(SPOOLED)


async def test_both_take_callbacks_and_their_metrics_are_added_up(settings: Settings, bridge: BridgeProcess) -> None:
    await bridge.start()
    await both_are_ready(bridge)

    sent = await send_over_many(bridge, "a")

    assert len(sent.taken) == CONNECTIONS * 5
    assert sorted(path.name for path in bridge.spool.iterdir()) == ["1", "2"]
    assert await taken_by(bridge) == CONNECTIONS * 5
    if not await bridge.metric(SPOOLED):  # A process whose producer was not connected yet publishes later.
        values = {record.value for records in read(settings, settings.kafka.topics.raw) for record in records}
        assert values == set(sent.taken)


async def test_a_worker_process_that_is_killed_comes_back(bridge: BridgeProcess) -> None:
    await bridge.start()
    await both_are_ready(bridge)
    assert len((await send_over_many(bridge, "a")).taken) == CONNECTIONS * 5
    taken = await taken_by(bridge)
    killed, other = children_of(bridge.process_id)
    os.kill(killed, signal.SIGKILL)

    await until(lambda: len(set(children_of(bridge.process_id)) - {killed, other}) == 1)
    assert await taken_by(bridge) == taken == CONNECTIONS * 5
    await both_are_ready(bridge)

    assert len((await send_over_many(bridge, "b")).taken) == CONNECTIONS * 5
    assert await taken_by(bridge) == 2 * taken


async def test_a_worker_process_that_stands_still_takes_nothing_away(bridge: BridgeProcess) -> None:
    await bridge.start()
    await both_are_ready(bridge)
    await send_over_many(bridge, "a")
    taken = await taken_by(bridge)
    workers = children_of(bridge.process_id)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    try:
        assert await taken_by(bridge) == taken == CONNECTIONS * 5
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGCONT)


async def test_what_another_number_of_bridges_left_is_published(settings: Settings, bridge: BridgeProcess) -> None:
    """A single bridge had its spool in the directory itself, and one of three had the third."""
    for folder in (bridge.spool, bridge.spool / "3"):
        with contextlib.closing(Spool(folder, bytes_max=1 << 20)) as spool:
            spool.append([(b"key", folder.name.encode(), b"http", 1, b"")])
    await bridge.start()

    async def are_published() -> bool:
        return await bridge.metric(DRAINED) >= 2

    await until(are_published)

    values = {record.value for records in read(settings, settings.kafka.topics.raw) for record in records}
    assert values == {b"spool", b"3"}


async def test_sigterm_ends_all_in_order(bridge: BridgeProcess) -> None:
    await bridge.start()
    await both_are_ready(bridge)
    workers = children_of(bridge.process_id)

    assert await asyncio.to_thread(bridge.terminate) == 0
    assert len(workers) == 2
    assert not [worker for worker in workers if _is_alive(worker)]


async def test_worker_processes_do_not_outlive_a_killed_parent(bridge: BridgeProcess) -> None:
    """They would keep the port and the spools from the next start."""
    await bridge.start()
    await both_are_ready(bridge)
    workers = children_of(bridge.process_id)

    bridge.kill()

    assert len(workers) == 2
    await until(lambda: not [worker for worker in workers if _is_alive(worker)])


def _is_alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_worker_process_that_cannot_start_ends_all_with_its_message(bridge: BridgeProcess) -> None:
    bridge.spool.parent.joinpath("spool").write_text("a file where the spool's directory should be")

    process = bridge.launch()

    assert await asyncio.to_thread(process.wait, 30) == 1
    assert "the spool directory" in bridge.log.read_text()
    assert "ended at once with exit code 1" in bridge.log.read_text()
