"""
The long run: every scenario, or one, and a table of what came of it.

`make chaos`, or `make chaos SEED=7 SCENARIO="broker killed" ROUNDS=3`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from kafka.errors import KafkaError

from pipeline.local.kafka import LocalKafkaError
from tests.chaos.scenarios import SCENARIOS, Result, Scenario, play

SEED_MAX = 1_000_000
# A round that did not end as it should, or a process that did not start: the other scenarios are played all the same.
FAILURES = (AssertionError, OSError, LocalKafkaError, KafkaError)
HEAD = "| Scenario | rounds | events | lost | doubled | longest stall | seed |\n|---|---|---|---|---|---|---|"


def main() -> int:
    """Play what is asked for; returns 0 if every promise was kept."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="decides on every random choice; drawn by default")
    parser.add_argument("--scenario", help="play only this one, or those whose name contains this")
    parser.add_argument("--rounds", type=int, help="instead of each scenario's own number")
    asked = parser.parse_args()
    seed = random.randrange(SEED_MAX) if asked.seed is None else asked.seed
    chosen = [scenario for scenario in SCENARIOS if asked.scenario in (None, scenario.name)]
    chosen = chosen or [scenario for scenario in SCENARIOS if asked.scenario in scenario.name]
    if not chosen:
        parser.error(f"no such scenario; there are: {', '.join(scenario.name for scenario in SCENARIOS)}")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # A broker that is away is what this is about.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    rows = []
    is_kept = True
    for scenario in chosen:
        row, is_one_kept = _row(scenario, seed, asked.rounds)
        rows.append(row)
        is_kept &= is_one_kept
    print("\n".join(["", HEAD, *rows]))
    return 0 if is_kept else 1


def _row(scenario: Scenario, seed: int, rounds: int | None) -> tuple[str, bool]:
    """Play *scenario*; returns its row, and whether the promise was kept. If not, its files are kept and named."""
    print(f"{scenario.name}, {rounds or scenario.rounds} rounds, seed {seed} ...", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    began = time.monotonic()
    try:
        result = asyncio.run(play(scenario, directory, seed=seed, rounds=rounds))
    except FAILURES:
        traceback.print_exc()
        print(f"  failed; its logs are in {directory}", flush=True)
        return f"| {scenario.name} | failed, see above | | | | | {seed} |", False
    print(f"  {time.monotonic() - began:.0f} s", flush=True)
    for problem in result.problems:
        print(f"  {problem}", flush=True)
    if result.problems:
        print(f"  its logs are in {directory}", flush=True)
    else:
        shutil.rmtree(directory)
    return _line(result), not result.problems


def _line(result: Result) -> str:
    return (
        f"| {result.scenario} | {result.rounds} | {result.events:,} | {result.lost} | {result.doubled} "
        f"| {result.stall_seconds:.1f} s | {result.seed} |"
    )


if __name__ == "__main__":
    sys.exit(main())
