"""The proof that the simulation would notice: planted bugs are caught, each by a seed that passes without it."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.simulation import simulate
from tests.simulation.test_simulation import SEEDS

pytestmark = pytest.mark.simulation

TRIED = 60
"""Seeds that are tried when the one that is known to catch a mutant does not any more."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_caught(mutant: Mutant) -> None:
    with mutant.planted():
        caught = next((seed for seed in (mutant.seed, *range(TRIED)) if simulate(seed).violation), None)
    assert caught is not None, f"no seed up to {TRIED} catches it"


def test_the_seeds_that_catch_are_among_those_that_must_pass() -> None:
    assert TRIED <= SEEDS
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 12
    assert all(mutant.seed < SEEDS for mutant in MUTANTS)
