"""
Fuzz the pure entry points: whatever comes in, they answer, and they answer as a plain version of them does.

``python -m tests.fuzz --minutes 10`` (`make fuzz`) gives each target its share of the time, with a new seed each round.
What fails is shrunk and printed; put it into tests/vectors/fuzz.py, which tests/unit/suite/test_fuzz.py replays.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target

ROUND_EXAMPLES = 100
ROUND_SECONDS_MIN = 3


def attack(target: Target, *, examples: int, seed_number: int) -> int:
    """Check *examples* random inputs, shrink what fails and raise it; return how many inputs there were."""
    inputs = 0

    def check(values: tuple[Any, ...]) -> None:
        nonlocal inputs
        inputs += target.check(*values)

    profile = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    seed(seed_number)(profile(given(st.tuples(*target.inputs))(check)))()
    return inputs


def main() -> int:
    """Give each target its share of the time, and say how far it came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", choices=list(TARGETS))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    arguments = parser.parse_args()
    chosen = {name: target for name, target in TARGETS.items() if arguments.only in (None, name)}
    shares = sum(target.share for target in chosen.values())
    print(f"seed {arguments.seed}", flush=True)
    for name, target in chosen.items():
        began, inputs, rounds, examples = time.monotonic(), 0, 0, ROUND_EXAMPLES
        ends = began + arguments.minutes * 60 * target.share / shares
        while time.monotonic() < ends:
            round_began = time.monotonic()
            inputs += attack(target, examples=examples, seed_number=arguments.seed + rounds)
            rounds += 1
            if time.monotonic() - round_began < ROUND_SECONDS_MIN:  # A round has a start that costs the same for any.
                examples *= 2
            if sys.stdout.isatty():
                print(f"\r{name:<12} {inputs:>12,} inputs, {ends - time.monotonic():>4.0f} s left", end="", flush=True)
        print(f"\r{name:<12} {inputs:>12,} inputs in {time.monotonic() - began:.0f} s: no failure", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
