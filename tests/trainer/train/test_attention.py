"""Attention by rows is that under masks: forward and gradient, full, windowed and with grouped heads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from trimtab_trainer.base.architecture import read_shapes
from trimtab_trainer.base.base_model import find_base_model
from trimtab_trainer.base.layers import reach
from trimtab_trainer.contract import LoraSettings, QuantizationSettings, StoredBaseModel
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.probe import check_forward
from trimtab_trainer.training.batches import Batches, MicroBatch
from trimtab_trainer.training.loss import summed_loss
from trimtab_trainer.training.network import attention
from trimtab_trainer.training.network.adapter import Adapted, add_adapter
from trimtab_trainer.training.network.attention import BY_ROWS, UNDER_MASKS, by_lengths, by_rows
from trimtab_trainer.training.network.model import LanguageModel, load_base
from trimtab_trainer.training.network.rows import RowLayout, row_layout

from .families import make_family
from .runs import CPU, adapted, random_rows, run_config, sequences, shake

LENGTHS = ((5, 20, 1, 14), (40,), (17, 23))
HEADS = {"all heads": (4, 4), "grouped heads": (6, 2)}
WINDOWS = {"full": None, "windowed": 7, "a window longer than rows": 30}
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Of the largest value."""


def layout() -> RowLayout:
    positions = np.array([[n for length in line for n in range(length)] for line in LENGTHS])
    found = row_layout(positions, CPU)
    assert found is not None
    return found


def test_a_layout_tells_where_rows_begin() -> None:
    found = layout()
    assert found.lines == LENGTHS
    assert found.longest == 40
    assert found.starts.tolist() == [0, 5, 25, 26, 40, 80, 97, 120]


def test_lines_of_one_row_need_no_layout() -> None:
    assert row_layout(np.arange(6)[None].repeat(2, 0), CPU) is None


def test_padding_belongs_to_the_last_row_of_its_line() -> None:
    rows = random_rows(5, shortest=6, longest=9)
    batch = Batches(sequences([rows[:3], rows[3:]])).lay(np.arange(2), CPU)
    assert batch.rows is not None
    width = batch.tokens.shape[1]
    assert [sum(line) for line in batch.rows.lines] == [width, width]
    assert batch.rows.lines[0] == tuple(len(row) for row in rows[:3])
    assert batch.rows.lines[1][0] == len(rows[3])


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_a_mask_is_causal_within_rows(window: int | None) -> None:
    mask = layout().mask(window)
    assert mask.shape == (3, 1, 40, 40)
    for line, lengths in enumerate(LENGTHS):
        start = 0
        for length in lengths:
            for token in range(length):
                seen = torch.zeros(40, dtype=torch.bool)
                seen[start + max(0, token + 1 - (window or 40)) : start + token + 1] = True
                assert torch.equal(mask[line, 0, start + token], seen)
            start += length


def inputs(heads: tuple[int, int], kind: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(3, count, 40, 16, generator=generator).to(kind).requires_grad_()
        for count in (heads[0], heads[1], heads[1])
    )
    return query, key, value


def under_mask(query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
    """Return what is right, in float64."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    return functional.scaled_dot_product_attention(
        query.double(), key.double(), value.double(), attn_mask=layout().mask(window)
    ).transpose(1, 2)


def assert_alike(found: Tensor, wanted: Tensor, kind: torch.dtype) -> None:
    assert (found.double() - wanted.double()).abs().max() <= TOLERANCE[kind] * wanted.double().abs().max()


@pytest.mark.parametrize("kind", TOLERANCE, ids=str)
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_rows_one_after_another_are_what_the_mask_gives(
    heads: tuple[int, int], window: int | None, kind: torch.dtype
) -> None:
    given, wanted = inputs(heads, kind), inputs(heads, kind)
    output = by_rows(*given, layout(), window=window, scale=None)
    right = under_mask(*wanted, window)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    assert_alike(output, right, kind)
    output.backward(upstream.to(kind))
    right.backward(upstream.double())
    for ours, theirs in zip(given, wanted, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert_alike(ours.grad, theirs.grad, kind)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_the_call_of_variable_lengths_is_given_the_same_rows(
    heads: tuple[int, int], window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch has it on CUDA alone: a reference of its documented contract takes its place here."""

    def reference(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, *rest: Any, **options: Any) -> Tensor:
        assert starts.dtype == torch.int32
        assert options["enable_gqa"] == (query.shape[1] != key.shape[1])
        assert rest == (starts, 40, 40) or (torch.equal(rest[0], starts) and rest[1:] == (40, 40))
        left, right = options["window_size"]
        assert right == 0
        groups, found = query.shape[1] // key.shape[1], []
        for begin, end in zip(starts.tolist(), starts.tolist()[1:], strict=False):
            q, k, v = (each[begin:end].transpose(0, 1) for each in (query, key, value))
            distance = torch.arange(end - begin)[:, None] - torch.arange(end - begin)
            near = (distance >= 0) & ((distance <= left) if left >= 0 else True)
            k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
            found.append(functional.scaled_dot_product_attention(q, k, v, attn_mask=near).transpose(0, 1))
        return torch.cat(found)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", reference)
    given = inputs(heads, torch.float32)
    output = by_lengths(*given, layout(), window=window, scale=None)
    assert_alike(output, under_mask(*given, window), torch.float32)


FAMILIES = {
    "llama": "llama:LlamaForCausalLM",
    "windows": "mistral:MistralForCausalLM",
    "windows in some layers": "gemma3_text:Gemma3ForCausalLM",
    "norms of heads": "qwen3:Qwen3ForCausalLM",
    "experts": "mixtral:MixtralForCausalLM",
}


def model_of(family: str, folder: Path) -> Adapted:
    make_family(family, folder)
    files = find_base_model(StoredBaseModel(uri=folder.as_uri()))
    left_out = reach(read_shapes(files), files.config).left_out
    base = load_base(folder, QuantizationSettings(), torch.float32, CPU)
    model = add_adapter(base, LoraSettings(rank=4, alpha=8, dropout=0.0), torch.float32, 1, left_out)
    shake(model)
    return model


def gradient(model: Adapted, batch: MicroBatch) -> dict[str, Tensor]:
    summed_loss(model.hidden(batch), batch.targets, model.head).backward()
    found = {name: p.grad.clone() for name, p in model.parameters.items() if p.grad is not None}
    model.peft.zero_grad()
    return found


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "computed twice"])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_models_learn_by_rows_what_they_learn_under_masks(family: str, checkpointing: bool, tmp_path: Path) -> None:
    model = model_of(family, tmp_path)
    rows = [[token % 250 for token in row] for row in random_rows(6, shortest=5, longest=25)]  # windows are of 8 tokens
    batch = Batches(sequences([rows[:2], rows[2:]])).lay(np.arange(2), CPU)
    if checkpointing:
        model.checkpoint_activations()
    model.peft.train()
    with torch.no_grad():
        wanted = model.hidden(batch)
    right = gradient(model, batch)
    model.attend_by_rows()
    assert model.attention == "rows"
    check_forward(model, packing=True)
    assert model.attention == "rows"
    model.peft.train()
    with torch.no_grad():
        found = model.hidden(batch)
    assert_alike(found[batch.targets >= 0], wanted[batch.targets >= 0], torch.float32)
    for name, each in gradient(model, batch).items():
        assert_alike(each, right[name], torch.float32)


def test_no_mask_is_made_by_rows(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(tiny, run_config(tmp_path))
    model.attend_by_rows()
    calls = []
    plain = attention.by_rows

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(kwargs["window"])
        return plain(*args, **kwargs)

    monkeypatch.setattr(attention, "by_rows", counted)
    rows = random_rows(4)
    model.hidden(Batches(sequences([rows[:2], rows[2:]])).lay(np.arange(2), CPU))
    assert len(calls) == model.causal.config.num_hidden_layers


def mixture(seed: int) -> LanguageModel:
    """Return a mixture of many experts in bfloat16, under masks, which chooses between near ones."""
    torch.manual_seed(seed)
    config = Qwen3MoeConfig(
        vocab_size=512,
        hidden_size=256,
        moe_intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        num_experts=64,
        num_experts_per_tok=8,
        initializer_range=0.06,
        norm_topk_prob=True,
    )
    return LanguageModel(Qwen3MoeForCausalLM(config).to(torch.bfloat16).requires_grad_(False), torch.bfloat16)


@pytest.mark.parametrize("seed", [0, 1])
def test_what_rounding_makes_a_mixture_choose_is_no_influence(seed: int) -> None:
    check_forward(mixture(seed), packing=True)


def test_an_influence_in_bfloat16_is_found_in_a_mixture_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mixture(0)
    hidden = model.hidden

    def leaking(batch: MicroBatch, *more: Any) -> Tensor:
        found = hidden(batch, *more)
        return found + found[:, :1] * 0.1 if found.shape[1] > 8 else found

    monkeypatch.setattr(model, "hidden", leaking)
    with pytest.raises(SettingsInvalid, match="lets packed rows influence each other"):
        check_forward(model, packing=True)


def test_positions_that_go_on_in_the_next_row_are_found(tiny: Path, tmp_path: Path) -> None:
    model = adapted(tiny, run_config(tmp_path))
    hidden = model.hidden

    def counting(batch: MicroBatch, *more: Any) -> Tensor:
        positions = torch.arange(batch.tokens.shape[1])[None].expand_as(batch.tokens)
        return hidden(batch, *more) + (positions != batch.positions)[..., None] * 0.5

    model.hidden = counting  # type: ignore[method-assign, assignment]
    with pytest.raises(SettingsInvalid, match="lets packed rows influence each other"):
        check_forward(model, packing=True)


def test_soft_caps_stay_under_masks(tmp_path: Path) -> None:
    model = model_of("gemma2:Gemma2ForCausalLM", tmp_path)
    model.attend_by_rows()
    assert model.attention == "eager"
    check_forward(model, packing=True)


def test_a_model_that_keeps_the_layout_from_its_layers_goes_on_under_masks(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "copy")
    model = adapted(folder, run_config(tmp_path))
    model.attend_by_rows()
    for layer in model.text.layers:  # type: ignore[union-attr]
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: (args, {name: value for name, value in kwargs.items() if name != attention.LAYOUT}),
            with_kwargs=True,
        )
    assert model.causal.config._attn_implementation == BY_ROWS
    check_forward(model, packing=True)
    assert model.attention == UNDER_MASKS


def test_an_adapter_taken_off_leaves_the_base_as_it_was(tiny: Path, tmp_path: Path) -> None:
    model = adapted(tiny, run_config(tmp_path))
    model.attend_by_rows()
    assert model.remove().config._attn_implementation == UNDER_MASKS
