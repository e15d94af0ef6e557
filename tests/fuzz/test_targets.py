"""Each target of the fuzzer, for a thousand inputs: `make fuzz` goes on for as long as one likes."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz.targets import TARGETS
from tests.security.mutate import mutated

INPUTS = 1000


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_typed_errors_comes_out(name: str) -> None:
    target, chance = TARGETS[name], Random(name)
    for seed in target.seeds:
        target.run(seed)
    for _ in range(INPUTS):
        data = mutated(chance.choice(target.seeds), chance)
        try:
            target.run(data)
        except Exception as error:
            raise AssertionError(f"{name} does not stand {data!r}") from error
