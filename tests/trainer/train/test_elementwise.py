"""RMSNorm, gated products and rotary embeddings by one kernel each are what transformers computes.

Triton's interpreter runs the kernels on the processor. It cuts a float32 that becomes a bfloat16 where every GPU rounds
it, so here it is made to round (`as_gpus_round`); the tolerances are then those that a GPU has to keep.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from trimtab_trainer.contract import QuantizationSettings
from trimtab_trainer.report import Report
from trimtab_trainer.training.batches import Batches
from trimtab_trainer.training.distributed.checkpoints import newest_first
from trimtab_trainer.training.distributed.world import World
from trimtab_trainer.training.loading import same_kernels
from trimtab_trainer.training.loss import summed_loss
from trimtab_trainer.training.network import elementwise
from trimtab_trainer.training.network.adapter import Adapted, add_adapter
from trimtab_trainer.training.network.elementwise import GATED, NORM, ROTARY, TOLERANCE, fuse_elementwise
from trimtab_trainer.training.network.model import load_base
from trimtab_trainer.training.state import TrainingState

from tests.long import LONG

from .runs import CPU, VOCABULARY, random_rows, run_config, sequences, shake, trainer, unpacked

KERNELS = "trimtab_trainer.training.network.triton_kernels"
with pytest.MonkeyPatch.context() as patch:  # read when a kernel is made
    patch.setenv("TRITON_INTERPRET", "1")
    triton_kernels: Any = importlib.import_module(KERNELS)
    interpreter: Any = importlib.import_module("triton.runtime.interpreter")

KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "sliding_window": 8,
}
LAYERS = SIZES["num_hidden_layers"]
FAMILIES = {  # RMSNorms of a layer, beside the one after all layers
    "llama": 2,
    "mistral": 2,
    "qwen2": 2,
    "qwen3": 4,
    "gemma": 2,
    "gemma2": 4,
    "gemma3_text": 6,
    "olmo2": 4,
    "phi3": 2,
    "glm": 2,
    "gpt_neox": 0,
    "stablelm": 0,
}
HALF_TURNED = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
SETTINGS: dict[str, dict[str, Any]] = {
    "phi3": {"pad_token_id": 0, "rope_parameters": HALF_TURNED},
    "glm": {"pad_token_id": 0},
    "gpt_neox": {"rope_parameters": HALF_TURNED},
}
LEARN = {"float32": ("llama", "gemma", "phi3"), "bfloat16": ("llama", "gpt_neox")}
"""Families that learn in `make test`, which compares each part of all of them by itself: in float32, whose tolerance is
narrow, one of each way to gate, to scale a norm and to turn heads; in bfloat16 one with all kernels, one with one."""
NO_ROTARY = {"olmo2": "it turns heads in float32", "glm": "it turns pairs of neighbours"}


@pytest.fixture(autouse=True)
def as_gpus_round(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = interpreter._convert_float

    def rounded(data: Any, of: Any, to: Any, mode: Any) -> Any:
        if to.name != "bf16" or of.name != "fp32":
            return cut(data, of, to, mode)
        return torch.from_numpy(np.ascontiguousarray(data)).bfloat16().view(torch.int16).numpy().view(np.uint16)

    monkeypatch.setattr(interpreter, "_convert_float", rounded)


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have kernels tried on the processor."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def furthest(one: list[Tensor], other: list[Tensor]) -> float:
    """Return the largest difference, of the largest number of each."""
    return max(
        float((a.float() - b.float()).abs().max() / a.float().abs().max()) for a, b in zip(one, other, strict=True)
    )


def base(family: str, folder: Path) -> Path:
    """Write a tiny model of random weights, none of them what it begins with."""
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES, **SETTINGS.get(family, {})))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.05))
    model.save_pretrained(folder)
    return folder


def adapted(folder: Path, root: Path, kind: torch.dtype) -> Adapted:
    """Return it with an adapter that changes something."""
    config = run_config(root)
    assert config.adapter is not None
    settings = QuantizationSettings.model_validate({"type": "None"})
    model = add_adapter(load_base(folder, settings, kind, CPU), config.adapter, kind, 1)
    shake(model)
    return model


def learned(model: Adapted) -> dict[str, Tensor]:
    """Return the loss of a batch of packed rows, and its gradient."""
    rows = random_rows(4, longest=10)
    batch = Batches(sequences([rows[:2], rows[2:]])).lay(np.arange(2), CPU)
    model.peft.train()
    with model.arithmetic():
        loss = summed_loss(model.hidden(batch), batch.targets, model.head)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.parameters.items() if p.grad is not None}
    model.peft.zero_grad()
    return {**found, "loss": loss.detach()}


def parts_of(family: str) -> dict[str, int]:
    """Return how many parts of each kind are computed by a kernel."""
    norms = {NORM: LAYERS * FAMILIES[family] + 1} if FAMILIES[family] else {}
    gates = {} if family == "gpt_neox" else {GATED: LAYERS}
    return {**norms, **gates, **({} if family in NO_ROTARY else {ROTARY: LAYERS})}


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        pytest.param(family, kind, marks=() if family in LEARN[name] else LONG, id=f"{family}-{name}")
        for family in FAMILIES
        for name, kind in KINDS.items()
    ],
)
def test_a_model_learns_by_kernels_what_it_learns_without(
    family: str, kind: torch.dtype, tmp_path: Path, interpreted: None
) -> None:
    model = adapted(base(family, tmp_path / "base"), tmp_path, kind)
    plain = learned(model)
    fuse_elementwise(model)
    assert model.kernels.trouble == {}
    assert model.kernels.counts() == parts_of(family)
    fused = learned(model)
    assert plain.keys() == fused.keys()
    # In bfloat16 roundings of all layers meet in a gradient: two ways that are equally right are 1 to 3 % apart.
    tolerance = 1e-5 if kind is torch.float32 else 0.05
    assert {n for n, each in plain.items() if furthest([each], [fused[n]]) > tolerance} == set()
    assert furthest([plain["loss"]], [fused["loss"]]) <= TOLERANCE[kind]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_kernel_gives_what_its_module_gives(
    family: str, kind: torch.dtype, tmp_path: Path, interpreted: None
) -> None:
    model = adapted(base(family, tmp_path / "base"), tmp_path, kind)
    kinds = {each.kind: each for each in elementwise.candidates(model)}
    assert len(kinds) >= (1 if family == "gpt_neox" else 2)
    for each in kinds.values():
        plain, kernel = (elementwise._with_gradients(way, each.leaves) for way in (each.plain, each.kernel))
        assert furthest(plain, kernel) <= (1e-5 if kind is torch.float32 else 0.01), each.part
    if kind is torch.float32:
        fuse_elementwise(model)
        assert model.kernels.counts() == parts_of(family)


def test_the_sides_of_a_model_are_computed_twice_by_kernels_too(tmp_path: Path, interpreted: None) -> None:
    model = adapted(base("qwen3", tmp_path / "base"), tmp_path, torch.float32)
    fuse_elementwise(model)
    kept = learned(model)
    model.checkpoint_activations()
    twice = learned(model)
    assert [name for name, each in kept.items() if not torch.equal(twice[name], each)] == []


def test_rows_of_a_batch_are_computed_by_rows_beside_kernels(tmp_path: Path, interpreted: None) -> None:
    model = adapted(base("llama", tmp_path / "base"), tmp_path, torch.float32)
    fuse_elementwise(model)
    masked = learned(model)
    model.attend_by_rows()
    by_rows = learned(model)
    assert furthest([masked[name] for name in masked], [by_rows[name] for name in masked]) <= 1e-5


@pytest.mark.parametrize("width", [1, 7, 64, 100, 3000])
def test_rows_of_any_width_and_number_are_right(width: int) -> None:
    for rows in (1, 3, 33):
        inputs, weight = torch.randn(rows, width), torch.randn(width)
        found = triton_kernels.rms_norm(inputs, weight, 1e-6, offset=0, rounded=True)
        assert furthest([nn.functional.rms_norm(inputs, (width,), weight, 1e-6)], [found]) <= 1e-5


def test_a_row_too_long_for_a_program_is_refused() -> None:
    row = torch.zeros(1, triton_kernels.LONGEST_ROW + 1)
    with pytest.raises(ValueError, match="longer than 65536"):
        triton_kernels.rms_norm(row, row[0], 1e-6, offset=0, rounded=True)


def test_weights_of_a_norm_that_are_trained_get_their_gradient() -> None:
    inputs, upstream = torch.randn(9, 48), torch.randn(9, 48)
    ours, theirs = (torch.linspace(0.5, 2, 48).requires_grad_() for _ in range(2))
    found = triton_kernels.rms_norm(inputs, ours, 1e-6, offset=0, rounded=True)
    want = nn.functional.rms_norm(inputs, (48,), theirs, 1e-6)
    (mine,), (right,) = torch.autograd.grad(found, ours, upstream), torch.autograd.grad(want, theirs, upstream)
    assert furthest([right], [mine]) <= 1e-5


def test_nothing_that_is_given_is_overwritten() -> None:
    gate, up = (torch.randn(5, 40).requires_grad_() for _ in range(2))
    heads = torch.randn(2, 7, 3, 8).transpose(1, 2).requires_grad_()
    cos, sin = torch.randn(2, 7, 8), torch.randn(2, 7, 8)
    given = [gate, up, heads, cos, sin]
    before = [each.detach().clone() for each in given]
    triton_kernels.gated(gate, up, gelu=False).sum().backward()
    triton_kernels.turned(heads, cos, sin).sum().backward()
    assert all(torch.equal(one.detach(), other) for one, other in zip(given, before, strict=True))


WRONG: dict[str, tuple[str, Callable[[Callable[..., Any]], Callable[..., Any]]]] = {
    NORM: ("rms_norm", lambda right: lambda *args, **more: right(*args, **more) * 1.05),
    GATED: ("gated", lambda right: lambda gate, up, **more: right(up, gate, **more)),
    ROTARY: ("turned", lambda right: lambda heads, cos, sin: right(heads, cos, -sin)),
}


@pytest.mark.parametrize("part", WRONG)
def test_a_kernel_that_is_wrong_is_found_out_and_left(
    part: str, tmp_path: Path, interpreted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, spoil = WRONG[part]
    model = adapted(base("qwen3", tmp_path / "base"), tmp_path, torch.float32)
    plain = learned(model)
    monkeypatch.setattr(triton_kernels, name, spoil(getattr(triton_kernels, name)))
    fuse_elementwise(model)
    assert set(model.kernels.parts) == {NORM, GATED, ROTARY} - {part}
    assert set(model.kernels.trouble) == {part}
    assert "it differs from the plain way by" in model.kernels.trouble[part]
    assert furthest(list(plain.values()), list(learned(model).values())) <= 1e-5


@pytest.mark.parametrize("factor", [1.05, float("nan")])
def test_a_kernel_whose_gradient_alone_is_wrong_is_found_out(
    factor: float, tmp_path: Path, interpreted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = triton_kernels._Gated.backward
    monkeypatch.setattr(
        triton_kernels._Gated,
        "backward",
        staticmethod(lambda ctx, above: (right(ctx, above)[0] * factor, *right(ctx, above)[1:])),
    )
    model = adapted(base("llama", tmp_path / "base"), tmp_path, torch.float32)
    fuse_elementwise(model)
    assert set(model.kernels.trouble) == {GATED}


def test_kernels_that_cannot_be_compiled_leave_the_plain_way(
    tmp_path: Path, interpreted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    for name in ("rms_norm", "gated", "turned"):
        monkeypatch.setattr(triton_kernels, name, broken)
    model = adapted(base("llama", tmp_path / "base"), tmp_path, torch.float32)
    fuse_elementwise(model)
    assert model.kernels.parts == ()
    assert set(model.kernels.trouble) == {NORM, GATED, ROTARY}
    assert "RuntimeError: Failed to find C compiler." in model.kernels.trouble[NORM]
    assert [name for name, module in model.causal.named_modules() if "forward" in vars(module)] == []


def test_memory_that_runs_out_in_the_comparison_is_no_trouble_of_the_kernel(
    tmp_path: Path, interpreted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(triton_kernels, "rms_norm", full)
    model = adapted(base("llama", tmp_path / "base"), tmp_path, torch.float32)
    with pytest.raises(torch.OutOfMemoryError):
        fuse_elementwise(model)


def test_classes_and_functions_of_transformers_stay_what_they_are(tmp_path: Path, interpreted: None) -> None:
    from transformers.models.llama import modeling_llama

    before = {name: vars(modeling_llama)[name] for name in dir(modeling_llama)}
    forwards = {name: vars(each).get("forward") for name, each in before.items() if isinstance(each, type)}
    model = adapted(base("llama", tmp_path / "base"), tmp_path, torch.float32)
    other = adapted(base("llama", tmp_path / "other"), tmp_path, torch.float32)
    fuse_elementwise(model)
    assert {name: vars(modeling_llama)[name] for name in dir(modeling_llama)} == before
    assert {n: vars(each).get("forward") for n, each in before.items() if isinstance(each, type)} == forwards
    assert [name for name, module in other.causal.named_modules() if "forward" in vars(module)] == []


def test_an_adapter_taken_off_leaves_no_kernel(tmp_path: Path, interpreted: None) -> None:
    model = adapted(base("llama", tmp_path / "base"), tmp_path, torch.float32)
    fuse_elementwise(model)
    left = model.remove()
    assert [name for name, module in left.named_modules() if "forward" in vars(module)] == []


@pytest.mark.parametrize("began", [(), (NORM,), (NORM, GATED, ROTARY)], ids=["plain", "with norms", "with all"])
def test_a_run_goes_on_by_the_kernels_that_it_began_with(
    began: tuple[str, ...], tmp_path: Path, interpreted: None
) -> None:
    folder, config = base("llama", tmp_path / "base"), run_config(tmp_path, quantization={"type": "None"})
    data, log = unpacked(random_rows(8, longest=8)), io.StringIO()
    runs = [
        trainer(folder, tmp_path, config, data, attempt=number, model=adapted(folder, tmp_path, torch.float32), log=log)
        for number in range(2)
    ]
    for run in runs:
        fuse_elementwise(run.model)
    runs[0].model.kernels.keep(began)
    runs[0].step()
    runs[0].save()
    runs[0].checkpoints.wait(everything=True)
    (checkpoint,) = newest_first(runs[1].checkpoints, World(None), runs[1].stop)
    runs[1].resume(checkpoint)
    assert runs[1].model.kernels.parts == began
    assert "kernels" not in log.getvalue()
    runs[0].step()
    runs[1].step()
    assert [n for n, p in runs[0].model.parameters.items() if not torch.equal(p, runs[1].model.parameters[n])] == []


def test_a_run_that_began_with_kernels_and_finds_none_says_so(tmp_path: Path) -> None:
    folder, log = base("llama", tmp_path / "base"), io.StringIO()
    config = run_config(tmp_path, quantization={"type": "None"})
    run = trainer(folder, tmp_path, config, unpacked(random_rows(8, longest=8)), log=log)
    run.step()
    run.state = run.state.model_copy(update={"kernels": (NORM,)})
    run.save()
    run.checkpoints.wait(everything=True)
    (checkpoint,) = newest_first(run.checkpoints, World(None), run.stop)
    run.resume(checkpoint)
    told = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["parts"] for line in told if "began with kernels" in line["message"]] == [[NORM]]
    run.step()
    assert run.state.kernels == ()


def test_a_state_without_kernels_is_written_as_it_ever_was() -> None:
    assert "kernels" not in TrainingState().model_dump(mode="json")


@pytest.mark.parametrize("others", [(NORM,), (NORM, GATED, ROTARY)], ids=["an image without a compiler", "all alike"])
def test_processes_compute_by_the_kernels_that_all_of_them_have(
    others: tuple[str, ...], tmp_path: Path, interpreted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, log = adapted(base("llama", tmp_path / "base"), tmp_path, torch.float32), io.StringIO()
    lacking = {part: "no C compiler" for part in (NORM, GATED, ROTARY) if part not in others}
    monkeypatch.setattr(World, "gather", lambda _, own: [own, (others, lacking)])
    fuse_elementwise(model)
    same_kernels(model, World(None), Report(stream=log))
    assert model.kernels.parts == others
    told = [json.loads(line) for line in log.getvalue().splitlines()]
    assert {line["part"]: line["reason"] for line in told} == lacking


def test_numbers_of_another_type_than_was_compared_go_the_plain_way(tmp_path: Path, interpreted: None) -> None:
    model = adapted(base("llama", tmp_path / "base"), tmp_path, torch.bfloat16)
    fuse_elementwise(model)
    norm = model.kernels.modules[NORM][0]
    hidden = torch.randn(3, SIZES["hidden_size"])
    assert norm(hidden).dtype is torch.float32
    assert torch.equal(norm(hidden), type(norm).forward(norm, hidden))


def test_a_processor_is_left_alone_and_kernels_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(base("llama", tmp_path / "base"), tmp_path, torch.float32)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delitem(sys.modules, KERNELS)
    fuse_elementwise(model)
    assert (model.kernels.parts, model.kernels.trouble) == ((), {})
    assert [name for name, module in model.causal.named_modules() if "forward" in vars(module)] == []
    assert KERNELS not in sys.modules
