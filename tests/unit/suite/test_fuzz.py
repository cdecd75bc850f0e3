"""The targets of tests/fuzz: what they found before, and a taste of what `make fuzz` does for 10 minutes."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import attack
from tests.fuzz.targets import TARGETS
from tests.vectors.fuzz import CASES


@pytest.mark.parametrize(("name", "values"), [(name, values) for name, cases in CASES.items() for values in cases])
def test_what_fuzzing_found_stays_fixed(name: str, values: tuple[object, ...]) -> None:
    assert TARGETS[name].check(*values) >= 1


@pytest.mark.parametrize("name", list(TARGETS))
def test_a_target_holds_for_some_inputs(name: str) -> None:
    """Few, and the same each time: the search itself is `make fuzz`."""
    assert attack(TARGETS[name], examples=40, seed_number=1) >= 40


def test_every_target_has_cases() -> None:
    assert set(CASES) == set(TARGETS)
