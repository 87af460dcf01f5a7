"""Lives of sweeps in a cluster where anything goes wrong, each one of its own seed.

`make test-long` plays many more of them.
"""

from __future__ import annotations

import pytest
from trimtab_operator.runtime.rounds.suggesting import Suggesting

from tests.long import long_unless
from tests.unit.lives import sweep

LIVES, MORE = 100, 20_000
CHUNK = 50
STEPS = 14


@pytest.mark.parametrize("first", long_unless(lambda first: first < LIVES, range(0, MORE, CHUNK)))
def test_whatever_goes_wrong_the_same_trials_are_made_once_and_the_same_one_wins(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Suggesting, "points", staticmethod(sweep.in_order))
    monkeypatch.setattr(Suggesting, "importance", staticmethod(sweep.all_alike))
    for seed in range(first, first + CHUNK):
        sweep.live(seed, STEPS)
