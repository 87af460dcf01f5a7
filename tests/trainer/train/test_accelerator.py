"""What a pass does on an accelerator, told without one: tensors that have a device and no numbers (FakeTensorMode).

Whatever has to be waited for (a number that Python asks for, places that are looked for, a copy from memory that is not
pinned) is an error here, or is noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.training.batches import Batches
from trimtab_trainer.training.methods.batches import PreferenceBatches, Reference
from trimtab_trainer.training.methods.objective import objective_of
from trimtab_trainer.training.network import attention
from trimtab_trainer.training.network.adapter import Adapted
from trimtab_trainer.training.network.rows import RowLayout
from trimtab_trainer.training.network.trained import Trained

from .methods.preferences import random_answers, side
from .runs import adapted, random_rows, run_config, sequences

CUDA = torch.device("cuda", 0)
MICRO_BATCH = 2


class Waits(TorchDispatchMode):
    """Notes what waits for the accelerator: copies from memory that is not pinned, or that are asked to, and sums of
    segments whose lengths are looked at.

    Args:
        pinned: the tensors that are.
    """

    def __init__(self, pinned: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Any] = []
        self.called: set[str] = set()
        self._pinned = pinned

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.called.add(str(function))
        to = torch.device(kwargs.get("device") or "cpu")
        copies = function is torch.ops.aten._to_copy.default and to.type == "cuda" and args[0].device.type == "cpu"
        if copies and not (kwargs.get("non_blocking") and any(each is args[0] for each in self._pinned)):
            self.found.append((args[0].dtype, tuple(args[0].shape)))
        if function is torch.ops.aten.segment_reduce.default and not kwargs.get("unsafe"):
            self.found.append(str(function))
        return function(*args, **kwargs)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The tensors whose memory was pinned, which takes an accelerator."""
    found: list[Tensor] = []

    def pin(self: Tensor) -> Tensor:
        found.append(self)
        return self

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    return found


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> FakeTensorMode:
    """An accelerator of capability 9.0, on which nothing is computed, for what is done within."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return FakeTensorMode(allow_non_fake_inputs=True)


def moved(model: Adapted) -> Adapted:
    """Put a model on the accelerator: sizes and types as they are, and half-precision weights of the base."""
    for module in model.module.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            kind = torch.float32 if parameter.requires_grad else torch.bfloat16
            there = torch.empty(parameter.shape, dtype=kind, device=CUDA)
            setattr(module, name, nn.Parameter(there, requires_grad=parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA))
    return Adapted(model.peft, torch.bfloat16)


@contextmanager
def nothing_is_waited_for(pinned: list[Tensor]) -> Iterator[Waits]:
    with Waits(pinned) as waits:
        yield waits
    assert waits.found == []


def on_accelerator(model: Adapted) -> Adapted:
    model = moved(model)
    assert model.device == CUDA
    model.arithmetic = nullcontext  # type: ignore[method-assign] # torch has no autocast without a device
    model.attend_by_rows()
    return model


def passes(model: Trained, config: Any, split: Batches, pinned: list[Tensor]) -> Waits:
    """Compute all micro-batches of a step, forward: torch has no backward pass of a device that is not there."""
    indices = np.arange(len(split))
    model.module.train()
    step = objective_of(config.training).begin(model, split, indices, MICRO_BATCH, Interruption())
    with nothing_is_waited_for(pinned) as waits, torch.no_grad():
        for batch in split.micro_batches(indices, MICRO_BATCH, model.device):
            step(model.hidden(batch), batch, model.head)
    return waits


def test_packed_micro_batches_wait_for_nothing(
    tiny: Path, tmp_path: Path, accelerator: FakeTensorMode, pinned: list[Tensor]
) -> None:
    config = run_config(tmp_path, quantization={"type": "None"})
    model, rows = adapted(tiny, config), random_rows(7)
    split = Batches(sequences([rows[:2], rows[2:5], rows[5:6], rows[6:]]))
    with accelerator:
        waits = passes(on_accelerator(model), config, split, pinned)
    assert "torch_attn._varlen_attn.default" in waits.called


@pytest.mark.parametrize("method", ["DPO", "ORPO"])
def test_micro_batches_of_pairs_wait_for_nothing(
    tiny: Path, tmp_path: Path, accelerator: FakeTensorMode, pinned: list[Tensor], *, method: str
) -> None:
    config = run_config(tmp_path, quantization={"type": "None"}, training={"method": method})
    model = adapted(tiny, config)
    split = PreferenceBatches(side(random_answers(5, 2)), side_by_side=True, with_prompts=method == "ORPO")
    split.reference = Reference(np.zeros(len(split.wanted), np.float32)) if method == "DPO" else None
    with accelerator:
        waits = passes(on_accelerator(model), config, split, pinned)
    assert "aten.segment_reduce.default" in waits.called


def test_grouped_heads_that_flash_attention_does_not_compute_have_their_keys_repeated(
    monkeypatch: pytest.MonkeyPatch, accelerator: FakeTensorMode
) -> None:
    """On CUDA torch computes grouped heads by FlashAttention or with all scores in memory, and by nothing between."""
    plain, calls = torch.nn.functional.scaled_dot_product_attention, []

    def watched(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        calls.append((query.shape[1] == key.shape[1] == value.shape[1], options["enable_gqa"]))
        return plain(query, key, value, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    with accelerator:
        query = torch.empty(1, 6, 40, 16, device=CUDA, requires_grad=True)
        key, value = (torch.empty(1, 2, 40, 16, device=CUDA, requires_grad=True) for _ in range(2))
        layout = RowLayout(((10, 30),), torch.empty(3, dtype=torch.int32, device=CUDA))
        for window in (None, 7):
            found = attention.by_rows(query, key, value, layout, window=window, scale=None)
            assert found.shape == (1, 40, 6, 16)
    assert calls == [(True, False)] * 4


@pytest.mark.parametrize(
    ("size", "capability", "want"),
    [(192, (8, 6), True), (224, (8, 6), False), (224, (9, 0), True), (256, (12, 0), True), (128, (7, 5), False)],
)
def test_flash_attention_is_asked_for_what_it_has_a_gradient_of(
    monkeypatch: pytest.MonkeyPatch, accelerator: FakeTensorMode, size: int, capability: tuple[int, int], want: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    with accelerator:
        heads = torch.empty(1, 4, 8, size, dtype=torch.bfloat16, device=CUDA)
        assert attention.runs_flash(heads, heads) is want
