"""How batches are cut: by tokens, by memory, and always into divisors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from trimtab_trainer.base.decoders import shapes_of_config
from trimtab_trainer.contract import LoraSettings, QuantizationSettings, TrainingSettings
from trimtab_trainer.estimating.devices import find_device
from trimtab_trainer.estimating.dimensions import dimensions
from trimtab_trainer.estimating.memory import Arithmetic, cut, peak
from trimtab_trainer.training.machine.costs import costs
from trimtab_trainer.training.machine.sizing import Costs, Sizing, computed_twice, plan

from .runs import adapted, run_config

GIB = 1 << 30
COST = Costs(kept_per_token=1 << 20, recomputed_per_token=1 << 17, fixed=GIB)

CASES: dict[str, tuple[dict[str, int], int, float, str, Sizing]] = {
    "plenty of memory: as many as fill a pass": ({"batchSize": 32}, 512, 64, "cpu", Sizing(4, 0)),
    "short rows": ({"batchSize": 32}, 16, 64, "cpu", Sizing(32, 0)),
    "a batch that only odd numbers divide": ({"batchSize": 15}, 512, 64, "cpu", Sizing(3, 0)),
    "long rows go alone": ({"batchSize": 32}, 4096, 64, "cpu", Sizing(1, 0)),
    "less memory: fewer, but enough": ({"batchSize": 32}, 512, 4, "cpu", Sizing(2, 0)),
    "little memory: one row at a time": ({"batchSize": 32}, 512, 2.3, "cpu", Sizing(1, 0)),
    "less than a row: every fourth layer is computed twice": ({"batchSize": 32}, 512, 1.7, "cpu", Sizing(1, 0.25)),
    "half a row: most layers": ({"batchSize": 32}, 512, 1.35, "cpu", Sizing(1, 0.75)),
    "hardly any": ({"batchSize": 32}, 512, 1.2, "cpu", Sizing(1, 1)),
    "none at all": ({"batchSize": 32}, 512, 0.5, "cpu", Sizing(1, 1)),
    "an accelerator takes more": ({"batchSize": 32}, 512, 64, "cuda", Sizing(32, 0)),
    "told how many": ({"batchSize": 32, "microBatchSize": 8}, 512, 64, "cpu", Sizing(8, 0)),
    "told more than fit": ({"batchSize": 32, "microBatchSize": 8}, 512, 4, "cpu", Sizing(8, 0.75)),
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


LLAMA_70B = {
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


def test_the_base_is_taken_off_the_memory_once() -> None:
    """A 70B in NF4 takes 38 of 79 GiB: what is left holds more than one sequence of 4,096 tokens."""
    lora, training = LoraSettings(), TrainingSettings.model_validate({"batchSize": 16, "maxSequenceLength": 4096})
    dims = dimensions(shapes_of_config(LLAMA_70B), LLAMA_70B, lora)
    device = find_device("H100-80GB")
    assert device is not None
    where, settings = Arithmetic("cuda", 2), (QuantizationSettings(), training)
    found = cut(dims, *settings, rank=lora.rank, longest=4096, memory=device.memory, where=where)
    assert found.micro_batch > 1
    taken = peak(
        dims,
        *settings,
        rank=lora.rank,
        dropout=0.0,
        tokens=found.micro_batch * 4096,
        recomputed=found.recomputed,
        where=where,
    )
    assert 0.6 * device.memory < taken.peak < 0.95 * device.memory


@pytest.mark.parametrize(("share", "twice"), [(0, 0), (0.25, 20), (0.5, 40), (0.75, 60), (1, 80)])
def test_layers_that_are_computed_twice_are_spread_evenly(share: float, twice: int) -> None:
    found = computed_twice(80, share)
    assert sum(found) == twice
    assert all(sum(found[start : start + 4]) == twice / 20 for start in range(0, 80, 4))


def test_eager_attention_grows_with_the_length() -> None:
    eager = replace(COST, scores=1 << 11, scores_at_once=1 << 7)
    training = TrainingSettings.model_validate({"batchSize": 32})
    assert plan(training, 512, 8 * GIB, COST, "cpu") == Sizing(4, 0)
    assert plan(training, 512, 8 * GIB, eager, "cpu") == Sizing(4, 0) == plan(training, 512, 8 * GIB, COST, "cpu")
    assert plan(training, 1024, 4 * GIB, COST, "cpu") == Sizing(1, 0)
    assert plan(training, 1024, 4 * GIB, eager, "cpu") == Sizing(1, 0.5)


def test_a_soft_cap_is_computed_eagerly() -> None:
    config = {**LLAMA_70B, "model_type": "gemma2", "attn_logit_softcapping": 50.0}
    assert dimensions(shapes_of_config(config), config, LoraSettings()).eager
    assert not dimensions(shapes_of_config(LLAMA_70B), LLAMA_70B, LoraSettings()).eager
