"""The estimate, made without torch, against the loaded model: what `train` plans with, and what autograd keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trimtab_trainer.base.architecture import read_shapes
from trimtab_trainer.base.base_model import find_base_model
from trimtab_trainer.contract import Optimizer, StoredBaseModel
from trimtab_trainer.estimating import memory
from trimtab_trainer.estimating.dimensions import Dimensions, dimensions
from trimtab_trainer.estimating.memory import Arithmetic
from trimtab_trainer.training.batches import MicroBatch
from trimtab_trainer.training.distributed.processes import Place
from trimtab_trainer.training.distributed.world import World
from trimtab_trainer.training.machine.costs import costs
from trimtab_trainer.training.network.adapter import Adapted, add_adapter
from trimtab_trainer.training.network.division import Division
from trimtab_trainer.training.network.model import load_base

from tests.trainer.tiny import make_tiny_experts

from .runs import CPU, full_config, run_config, trained

TOKENS = 64


def both(tiny: Path, compute: torch.dtype, among: int = 1, **lora: Any) -> tuple[Adapted, Dimensions]:
    config = run_config(tiny, lora=lora)
    files = find_base_model(StoredBaseModel(uri=tiny.as_uri()))
    division = Division(World(Place(0, among))) if among > 1 else None
    base = load_base(tiny, config.quantization, compute, CPU, division)
    return add_adapter(base, config.lora, compute, 1), dimensions(read_shapes(files), files.config, config.lora)


def same_costs(folder: Path, compute: torch.dtype, among: int = 1, **lora: Any) -> None:
    model, dims = both(folder, compute, among, **lora)
    told = memory.costs(dims, run_config(folder).quantization, 4, Arithmetic("cpu", compute.itemsize), among)
    found = costs(model)
    assert (told.kept_per_token, told.recomputed_per_token) == (found.kept_per_token, found.recomputed_per_token)
    assert told.kept_fixed == found.kept_fixed
    assert told.fixed == pytest.approx(found.fixed, rel=0.02)


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16, torch.float16])
def test_costs_are_those_that_train_plans_with(tiny: Path, compute: torch.dtype) -> None:
    same_costs(tiny, compute)


@pytest.mark.parametrize("among", [2, 4])
def test_costs_of_a_divided_base_model_are_those_that_train_plans_with(tiny: Path, among: int) -> None:
    same_costs(tiny, torch.float32, among)


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_costs_of_all_weights_are_those_that_train_plans_with(tiny: Path, tmp_path: Path, compute: torch.dtype) -> None:
    config = full_config(tmp_path)
    files = find_base_model(StoredBaseModel(uri=tiny.as_uri()))
    dims = dimensions(read_shapes(files), files.config, config.adapter)
    told = memory.costs(dims, config.quantization, 0, Arithmetic("cpu", compute.itemsize))
    found = costs(trained(tiny, config, compute))
    assert told == found


def test_all_weights_are_counted_with_gradients_and_what_the_optimizer_keeps(tiny: Path, tmp_path: Path) -> None:
    config = full_config(tmp_path)
    files = find_base_model(StoredBaseModel(uri=tiny.as_uri()))
    dims = dimensions(read_shapes(files), files.config, config.adapter)

    def at_peak(optimizer: str) -> memory.Memory:
        training = config.training.model_copy(update={"optimizer": Optimizer(optimizer)})
        return memory.peak(
            dims,
            config.quantization,
            training,
            rank=0,
            dropout=0.0,
            tokens=256,
            recomputed=0.0,
            where=Arithmetic("cuda", 2),
        )

    assert at_peak("AdamW").adapter == 16 * dims.weights
    assert at_peak("SGD").adapter == 8 * dims.weights
    assert at_peak("AdamW").base == 0


@pytest.mark.parametrize("compute", [torch.float32, torch.float16])
@pytest.mark.parametrize("names", [None, ["experts.down_proj"], ["experts.gate_up_proj", "experts.down_proj"]])
def test_costs_of_experts_are_those_that_train_plans_with(
    tmp_path: Path, compute: torch.dtype, names: list[str] | None
) -> None:
    same_costs(make_tiny_experts(tmp_path), compute, targetParameters=names, targetModules=["q_proj", "v_proj"])


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_activations_are_what_autograd_keeps(tiny: Path, compute: torch.dtype, dropout: float) -> None:
    model, dims = both(tiny, compute, dropout=dropout, rank=16)
    told = memory._kept(dims, 16, dropout, Arithmetic("cpu", compute.itemsize))
    assert told == pytest.approx(kept_by_autograd(model) / TOKENS, rel=0.15)


def kept_by_autograd(model: Adapted) -> int:
    """Return the bytes that autograd keeps of a forward pass of TOKENS tokens."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.peft.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)  # or its memory would be another's
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens, positions = torch.arange(TOKENS)[None] % 300, torch.arange(TOKENS)[None]
    model.peft.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), model.arithmetic():
        model.hidden(MicroBatch(tokens, positions, tokens, TOKENS, TOKENS))
    return sum(kept.values())


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_copies_of_adapted_experts_are_kept(tmp_path: Path, compute: torch.dtype) -> None:
    folder = make_tiny_experts(tmp_path)
    names = ["experts.gate_up_proj", "experts.down_proj"]
    model, dims = both(folder, compute, targetParameters=names, targetModules=["q_proj", "v_proj"], rank=2)
    told = memory._kept(dims, 2, 0.0, Arithmetic("cpu", compute.itemsize)) * TOKENS + dims.made_anew * compute.itemsize
    assert told == pytest.approx(kept_by_autograd(model), rel=0.15)
