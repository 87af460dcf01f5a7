"""Two thousand lives in a cluster where anything goes wrong, each one of its own seed.

`make test-long` plays eighteen thousand more.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.long import long_unless
from tests.unit.lives import rollout, work
from tests.unit.runtime.serving import new_key

LIVES, MORE = 2_000, 20_000
CHUNK = 50
STEPS = 14
KINDS = ("FineTuneJob", "Evaluation", "AdapterExport", "FineTuneJob", "AdapterRollout")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the keys that documents are signed with."""
    folder = tmp_path_factory.mktemp("lives") / "keys"
    new_key(folder, "key-1.pem")
    return folder


@pytest.mark.parametrize("first", long_unless(lambda first: first < LIVES, range(0, MORE, CHUNK)))
def test_whatever_goes_wrong_nothing_is_done_twice_and_every_life_comes_to_rest(first: int, keys: Path) -> None:
    for seed in range(first, first + CHUNK):
        match KINDS[seed % len(KINDS)]:
            case "AdapterRollout":
                rollout.live(seed, STEPS, keys)
            case kind:
                work.live(kind, seed, STEPS)
