"""
A short selection of the fault suite: every kind of fault on one Kafka, in three minutes. `make chaos` plays all of it.

Scenarios that need a Kafka of their own (its disk full, three brokers) are in the long run only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos import faults, kafka_faults
from tests.chaos.scenarios import Scenario, play
from tests.conftest import KAFKA_JARS
from tests.harness.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED = 6

SELECTION = (
    Scenario(
        name="short faults",
        faults=(
            faults.kill_bridge,
            faults.kill_worker,
            faults.kill_report_owner,
            faults.kill_broker,
            faults.kill_while_rebuilding,
            faults.hurt_network_of_bridge,
            faults.reset_connections_of_bridge,
            faults.hurt_network_of_worker,
            faults.fill_disk_of_spool,
            faults.jump_clock_of_bridge,
            kafka_faults.make_rejected_unwritable,
        ),
        rounds=11,
        workers=2,
        proxied=True,
        disk="spool",
        own_clock=True,
    ),
    Scenario(
        name="pauses and rebalances",
        faults=(faults.pause_worker, faults.pause_broker, faults.rebalance, kafka_faults.run_retention),
        rounds=4,
        workers=2,
        static=False,
    ),
)

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker with listeners for proxies; each scenario leaves it running."""
    with Cluster(KAFKA_JARS, tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.mark.parametrize("scenario", SELECTION, ids=lambda scenario: scenario.name)
async def test_nothing_is_lost_and_nothing_doubled(scenario: Scenario, cluster: Cluster, tmp_path: Path) -> None:
    """Each fault once, at moments that the seed decides."""
    result = await play(scenario, tmp_path, seed=SEED, cluster=cluster)

    assert result.problems == ()
    assert (result.lost, result.doubled) == (0, 0)
    assert result.events > 1000
    print(f"\n{result}")
