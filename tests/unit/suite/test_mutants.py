"""The known bugs that `make test-long` puts into the stages: each must still find its place."""

from __future__ import annotations

import pytest

from tests.mutant_table import MUTANTS, Mutant
from tests.mutants import ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_finds_its_place_exactly_once(mutant: Mutant) -> None:
    """A change of the line it is about has to look at it again, and the long run is not run every day."""
    assert (ROOT / mutant.file).read_text().count(mutant.before) == 1
