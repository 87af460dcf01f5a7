"""How batches are cut: by tokens, by memory, and always into divisors."""

from __future__ import annotations

from pathlib import Path

import pytest
from trimtab_trainer.contract import TrainingSettings
from trimtab_trainer.training.costs import costs
from trimtab_trainer.training.sizing import Costs, Sizing, plan

from .runs import adapted, run_config

GIB = 1 << 30
COST = Costs(kept_per_token=1 << 20, recomputed_per_token=1 << 17, fixed=GIB)

CASES: dict[str, tuple[dict[str, int], int, float, str, Sizing]] = {
    "plenty of memory: as many as fill a pass": ({"batchSize": 32}, 512, 64, "cpu", Sizing(4, False)),
    "short rows": ({"batchSize": 32}, 16, 64, "cpu", Sizing(32, False)),
    "a batch that only odd numbers divide": ({"batchSize": 15}, 512, 64, "cpu", Sizing(3, False)),
    "long rows go alone": ({"batchSize": 32}, 4096, 64, "cpu", Sizing(1, False)),
    "less memory: fewer, but enough": ({"batchSize": 32}, 512, 4, "cpu", Sizing(2, False)),
    "little memory: one row at a time": ({"batchSize": 32}, 512, 2.6, "cpu", Sizing(1, False)),
    "less than a row: activations are computed twice": ({"batchSize": 32}, 512, 2.3, "cpu", Sizing(4, True)),
    "hardly any": ({"batchSize": 32}, 512, 1.7, "cpu", Sizing(1, True)),
    "an accelerator takes more": ({"batchSize": 32}, 512, 64, "cuda", Sizing(32, False)),
    "told how many": ({"batchSize": 32, "microBatchSize": 8}, 512, 64, "cpu", Sizing(8, False)),
    "told more than fit": ({"batchSize": 32, "microBatchSize": 8}, 512, 4, "cpu", Sizing(8, True)),
}


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str) -> None:
    settings, longest, memory, device, want = CASES[case]
    training = TrainingSettings.model_validate(settings)
    assert plan(training, longest, int(memory * GIB), COST, device) == want


def test_costs_grow_with_the_model(tiny: Path) -> None:
    model = adapted(tiny, run_config(tiny))
    cost = costs(model)
    # two layers; q and o 128+128, k and v 128+64, gate, up and down 128+256; 12 bytes an element in float32
    assert cost.kept_per_token == 2 * (2 * 256 + 2 * 192 + 3 * 384) * 12
    assert 0 < cost.recomputed_per_token < cost.kept_per_token
    assert cost.fixed > 384 * 128 * 4
