"""A linear layer with LoRA in one step is the layer that peft computes in several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from trimtab_trainer.contract import QuantizationSettings
from trimtab_trainer.training.batches import Batches
from trimtab_trainer.training.loss import summed_loss
from trimtab_trainer.training.network import product
from trimtab_trainer.training.network.adapter import Adapted, add_adapter
from trimtab_trainer.training.network.model import load_base

from .runs import CPU, random_rows, run_config, shake, unpacked

KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PRODUCTS = 14
"""Adapted layers of the tiny model."""


def adapted(folder: Path, root: Path, kind: torch.dtype, quantization: str, **lora: Any) -> Adapted:
    config = run_config(root, lora=lora)
    settings = QuantizationSettings.model_validate({"type": quantization})
    model = add_adapter(load_base(folder, settings, kind, CPU), config.lora, kind, 1)
    shake(model)
    return model


def learned(model: Adapted, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the gradients of a batch, and its loss."""
    batch = Batches(unpacked(random_rows(4))).lay(np.arange(4), CPU)
    model.peft.train()
    torch.manual_seed(seed)
    with model.arithmetic():
        loss = summed_loss(model.hidden(batch), batch.targets, model.head)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.parameters.items() if p.grad is not None}
    model.peft.zero_grad()
    return {**found, "loss": loss.detach()}


@pytest.mark.parametrize("dropout", [0.0, 0.3], ids=["all of it", "with dropout"])
@pytest.mark.parametrize("quantization", ["NF4", "None"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_one_step_learns_what_several_do(
    kind: torch.dtype, quantization: str, dropout: float, tiny: Path, tmp_path: Path
) -> None:
    model = adapted(tiny, tmp_path, kind, quantization, dropout=dropout)
    if dropout:  # numbers are dropped in another order: the layer's own dropout takes the place of the function's
        drop_alike(model)
    several = learned(model)
    assert product.fuse(model.peft) == PRODUCTS
    one = learned(model)
    tolerance = 1e-5 if kind is torch.float32 else 0.03
    assert one.keys() == several.keys()
    for name, each in several.items():
        assert (one[name] - each).abs().max() <= tolerance * each.abs().max(), name


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_one_step_learns_the_same_where_activations_are_computed_twice(
    dropout: float, tiny: Path, tmp_path: Path
) -> None:
    model = adapted(tiny, tmp_path, torch.float32, "NF4", dropout=dropout)
    product.fuse(model.peft)
    kept = learned(model)
    model.checkpoint_activations()
    twice = learned(model)
    assert [name for name, each in kept.items() if not torch.equal(twice[name], each)] == []


def drop_alike(model: Adapted) -> None:
    """Make dropout a function of the numbers alone, so that shapes and order do not matter."""

    def drop(self: torch.nn.Dropout, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * keeps(inputs, self.p)

    for module in model.peft.modules():
        if isinstance(module, torch.nn.Dropout):
            module.forward = drop.__get__(module)  # type: ignore[method-assign]


def keeps(inputs: torch.Tensor, share: float) -> torch.Tensor:
    kept = torch.rand(inputs.shape[-1], generator=torch.Generator().manual_seed(3)) >= share
    return kept.to(inputs.dtype) / (1 - share)


@pytest.fixture(autouse=True)
def dropout_of_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "dropout", lambda inputs, share, *_, **__: inputs * keeps(inputs, share))


def test_nothing_is_dropped_while_evaluating(tiny: Path, tmp_path: Path) -> None:
    model = adapted(tiny, tmp_path, torch.float32, "NF4", dropout=0.5)
    product.fuse(model.peft)
    batch = Batches(unpacked(random_rows(2))).lay(np.arange(2), CPU)
    model.peft.eval()
    with torch.no_grad():
        first = model.hidden(batch)
        model.peft.disable_adapter_layers()
        without = model.hidden(batch)
        model.peft.enable_adapter_layers()
        assert torch.equal(model.hidden(batch), first)
    assert not torch.equal(first, without)


def test_adapters_of_another_kind_stay_with_peft(tiny: Path, tmp_path: Path) -> None:
    assert product.fuse(adapted(tiny, tmp_path, torch.float32, "NF4", useDora=True).peft) == 0


def test_a_layer_that_comes_out_otherwise_stays_with_peft(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted(tiny, tmp_path, torch.float32, "NF4")
    right = product.base_weight
    monkeypatch.setattr(product, "base_weight", lambda base, kind: right(base, kind) * 1.01)
    assert product.fuse(model.peft) == 0


def test_an_adapter_taken_off_leaves_no_fused_layer(tiny: Path, tmp_path: Path) -> None:
    model = adapted(tiny, tmp_path, torch.float32, "NF4")
    product.fuse(model.peft)
    base = model.remove()
    assert not [name for name, module in base.named_modules() if "forward" in vars(module)]
