"""Two thousand lives in a cluster where anything goes wrong, each one of its own seed.

TRIMTAB_LIVES plays more of them: `make test-lives`.
"""

from __future__ import annotations

import os

import pytest

from tests.unit.lives.work import live

LIVES = int(os.environ.get("TRIMTAB_LIVES", "2000"))
CHUNK = 50
STEPS = 14


@pytest.mark.parametrize("first", range(0, LIVES, CHUNK))
def test_whatever_goes_wrong_nothing_is_done_twice_and_every_life_ends(first: int) -> None:
    for seed in range(first, first + CHUNK):
        live("FineTuneJob" if seed % 2 else "Evaluation", seed, STEPS)
