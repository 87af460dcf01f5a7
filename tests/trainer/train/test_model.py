"""The base stays what it is, rows stay apart, and what cannot be right is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trimtab_trainer.contract import LoraSettings, QuantizationSettings, Reason
from trimtab_trainer.data.view import Sequences
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.probe import check_forward
from trimtab_trainer.training.batches import Batches
from trimtab_trainer.training.network import checksums as checksums_module
from trimtab_trainer.training.network.adapter import add_adapter
from trimtab_trainer.training.network.checksums import checksums
from trimtab_trainer.training.network.model import frozen_hash, load_base
from trimtab_trainer.training.network.targets import linear_modules
from trimtab_trainer.training.network.trained import Trained
from trimtab_trainer.training.validation import mean_loss

from tests.trainer.tiny import make_tiny_model

from .runs import CPU, adapted, gradients, plain_base, random_rows, run_config, sequences, shake, trainer, unpacked

LAYERS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


def logits(model: Trained, data: Sequences) -> torch.Tensor:
    """Return the logits of every token, in the order of the data."""
    model.module.eval()
    found = []
    with torch.no_grad():
        for index in range(len(data)):
            batch = Batches(data).lay(np.array([index]), CPU)
            found.append(model.head(model.hidden(batch))[0])
    return torch.cat(found)


def test_gradients_after_evaluating_and_generating_are_those_from_before(tiny: Path, tmp_path: Path) -> None:
    """bitsandbytes repacks NF4 weights at the first evaluation on some processors; then gradients vanish."""
    data = unpacked(random_rows(8))
    run = trainer(tiny, tmp_path, run_config(tmp_path), data, data)
    shake(run.model)
    before, base = gradients(run), frozen_hash(run.model.module)
    mean_loss(run.model, Batches(data), Interruption())
    run.model.module.eval()
    with torch.no_grad():
        run.model.causal.generate(
            input_ids=torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False, pad_token_id=2
        )
    after = gradients(run)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(bool(gradient.any()) for gradient in after.values())
    assert frozen_hash(run.model.module) == base


def test_no_nf4_layer_may_repack_itself_on_any_processor(tiny: Path) -> None:
    base = plain_base(tiny)
    import bitsandbytes  # after the process is configured, as the trainer does

    layers = [m for m in base.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 14
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_the_frozen_hash_is_the_same_bare_adapted_and_bare_again_and_sees_a_changed_bit(tiny: Path) -> None:
    base = plain_base(tiny)
    bare = frozen_hash(base)
    assert frozen_hash(plain_base(tiny)) == bare
    model = add_adapter(base, LoraSettings(), torch.float32, 1)
    assert frozen_hash(model.peft) == bare
    again = model.remove()
    assert frozen_hash(again) == bare
    weight = again.get_submodule("model.layers.0.mlp.up_proj").weight
    weight.data[0] ^= 1
    assert frozen_hash(again) != bare


@pytest.mark.parametrize("quantization", ["NF4", "None"])
def test_packed_rows_have_the_logits_they_have_alone(tiny: Path, quantization: str) -> None:
    """transformers separates packed rows only without cache and mask; with either, rows see each other."""
    model = add_adapter(plain_base(tiny, quantization), LoraSettings(), torch.float32, 1)
    shake(model)
    rows = random_rows(6)
    packed = sequences([rows[:3], rows[3:5], rows[5:]])
    assert (logits(model, packed) - logits(model, unpacked(rows))).abs().max() < 1e-5
    batch = Batches(packed).lay(np.array([0]), CPU)
    with torch.no_grad():
        naive = model.causal(input_ids=batch.tokens, position_ids=batch.positions, use_cache=True).logits[0]
    assert (naive - logits(model, packed)[: len(naive)]).abs().max() > 0.01


def test_padding_changes_nothing(tiny: Path) -> None:
    model = adapted(tiny, run_config(tiny))
    shake(model)
    rows = random_rows(4)
    data = sequences([rows[:2], rows[2:3], rows[3:]])
    alone = logits(model, data)
    batch = Batches(data).lay(np.arange(3), CPU)
    with torch.no_grad():
        together = model.head(model.hidden(batch))
    lengths = np.diff(data.offsets)
    real = torch.cat([line[:length] for line, length in zip(together, lengths, strict=True)])
    assert (real - alone).abs().max() < 1e-5


@pytest.mark.parametrize("packing", [True, False])
def test_the_forward_pass_checks_itself(tiny: Path, packing: bool) -> None:
    check_forward(adapted(tiny, run_config(tiny)), packing)


def test_a_model_whose_packed_rows_influence_each_other_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(tiny, run_config(tiny))

    class Contaminated:
        """A backbone that ignores positions, as state-space models do."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __call__(self, input_ids: torch.Tensor, position_ids: torch.Tensor, use_cache: bool) -> Any:
            return self.inner(input_ids=input_ids, use_cache=use_cache)

    monkeypatch.setattr(model, "text", Contaminated(model.text))
    check_forward(model, packing=False)
    with pytest.raises(SettingsInvalid, match=r"training\.packing: false"):
        check_forward(model, packing=True)


def test_a_model_that_sees_what_comes_later_is_refused(tiny: Path) -> None:
    """Its loss would be small because the answer is seen, not because it is learned."""
    import transformers

    torch.manual_seed(0)
    config = transformers.Gemma3TextConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        vocab_size=96,
        pad_token_id=0,
        use_bidirectional_attention=True,
    )
    base = transformers.Gemma3ForCausalLM(config).requires_grad_(False)
    model = add_adapter(base, LoraSettings(), torch.float32, 1)
    with pytest.raises(SettingsInvalid, match="sees what comes after") as caught:
        check_forward(model, packing=False)
    assert caught.value.reason is Reason.BASE_MODEL_INVALID


def heads() -> dict[str, Callable[[], Any]]:
    import transformers

    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": 96,
        "pad_token_id": 0,
    }
    return {
        "Gemma2: soft cap": lambda: transformers.Gemma2ForCausalLM(
            transformers.Gemma2Config(**sizes, final_logit_softcapping=3.0)
        ),
        "Granite: divided": lambda: transformers.GraniteForCausalLM(
            transformers.GraniteConfig(**sizes, logits_scaling=8.0)
        ),
        "Cohere: multiplied": lambda: transformers.CohereForCausalLM(
            transformers.CohereConfig(**{k: v for k, v in sizes.items() if k != "head_dim"}, logit_scale=0.25)
        ),
        "Qwen2": lambda: transformers.Qwen2ForCausalLM(
            transformers.Qwen2Config(**{k: v for k, v in sizes.items() if k != "head_dim"})
        ),
    }


@pytest.mark.parametrize("name", ["Gemma2: soft cap", "Granite: divided", "Cohere: multiplied", "Qwen2"])
def test_heads_that_do_more_than_a_matrix_are_computed_right(tiny: Path, name: str) -> None:
    torch.manual_seed(0)
    base = heads()[name]()
    base.requires_grad_(False)
    base.get_output_embeddings().weight.data.mul_(20)  # so that the scale and the cap matter
    model = add_adapter(base, LoraSettings(), torch.float32, 1)
    check_forward(model, packing=True)
    model.head.factor, model.head.soft_cap = model.head.factor * 7, None
    with pytest.raises(SettingsInvalid, match="output head"):
        check_forward(model, packing=False)


def test_all_linear_is_every_linear_layer_but_the_output_head(tiny: Path) -> None:
    model = adapted(tiny, run_config(tiny))
    assert model.target_modules == LAYERS
    assert len(model.parameters) == 2 * 14
    assert "lm_head" not in linear_modules(model.remove())


def test_target_modules_that_do_not_exist_are_named_with_those_that_do(tiny: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"query, lm_head not among.*down_proj, gate_proj, k_proj") as caught:
        add_adapter(plain_base(tiny), LoraSettings(target_modules=["q_proj", "query", "lm_head"]), torch.float32, 1)
    assert caught.value.reason is Reason.TARGET_MODULES_NOT_FOUND


def test_named_target_modules_are_adapted_and_no_others(tiny: Path) -> None:
    lora = LoraSettings(rank=4, target_modules=["v_proj", "layers.1.mlp.up_proj"])
    model = add_adapter(plain_base(tiny), lora, torch.float32, 1)
    assert sorted({name.rsplit(".", 2)[0].rpartition("model.layers.")[2] for name in model.parameters}) == [
        "0.self_attn.v_proj",
        "1.mlp.up_proj",
        "1.self_attn.v_proj",
    ]


def test_a_fresh_adapter_is_float32_changes_nothing_and_depends_on_the_seed_alone(tiny: Path) -> None:
    one, same, other = (add_adapter(plain_base(tiny), LoraSettings(dropout=0.0), torch.float32, s) for s in (1, 1, 2))
    torch.rand(7)
    assert {p.dtype for p in one.parameters.values()} == {torch.float32}
    weights = [model.trained_tensors() for model in (one, same, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    data = unpacked(random_rows(2))
    with_adapter = logits(one, data)
    with one.peft.disable_adapter():
        assert torch.equal(logits(one, data), with_adapter)


@pytest.mark.parametrize("quantization", ["NF4", "None"])
def test_a_fresh_adapter_is_float32_on_a_base_of_fewer_bits(tiny: Path, quantization: str) -> None:
    """In bfloat16 small updates vanish, and magnitudes of DoRA never move."""
    settings = QuantizationSettings.model_validate({"type": quantization})
    base = load_base(tiny, settings, torch.bfloat16, CPU)
    model = add_adapter(base, LoraSettings(use_dora=True), torch.bfloat16, 1)
    assert {p.dtype for p in model.parameters.values()} == {torch.float32}
    assert sum("magnitude" in name for name in model.parameters) == 14


def test_embeddings_norms_and_head_stay_in_the_compute_type(tiny: Path) -> None:
    base = load_base(tiny, QuantizationSettings(), torch.bfloat16, CPU)
    assert {p.dtype for name, p in base.named_parameters()} == {torch.bfloat16, torch.uint8}
    assert not any(p.requires_grad for p in base.parameters())


def test_nf4_is_nf4_and_double_quantization_can_be_off(tiny: Path) -> None:
    for double in (True, False):
        base = load_base(tiny, QuantizationSettings(double_quantization=double), torch.float32, CPU)
        state = base.get_submodule("model.layers.0.mlp.up_proj").weight.quant_state
        assert (state.quant_type, state.nested) == ("nf4", double)


@pytest.mark.parametrize(("share", "both"), [(1.0, (4, 4)), (0.5, (2, 4))], ids=["all layers", "every other layer"])
def test_checkpointed_activations_give_the_same_gradient(
    share: float, both: tuple[int, int], tiny: Path, tmp_path: Path
) -> None:
    data = unpacked(random_rows(8))
    config = run_config(tmp_path, lora={"dropout": 0.1})
    kept, twice = (trainer(tiny, tmp_path, config, data) for _ in range(2))
    twice.model.checkpoint_activations(share)
    passes = {id(kept): [0, 0], id(twice): [0, 0]}
    for run in (kept, twice):
        shake(run.model)

        for layer in (0, 1):

            def count(*_: object, of: int = id(run), layer: int = layer) -> None:
                passes[of][layer] += 1

            run.model.causal.get_submodule(f"model.layers.{layer}.mlp").register_forward_pre_hook(count)
    one, other = gradients(kept), gradients(twice)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert passes[id(kept)] == [2, 2], "two micro-batches"
    assert passes[id(twice)] == list(both), "each such layer is computed once more to go back"


def test_a_base_model_without_all_its_weights_is_refused(tiny: Path, tmp_path: Path) -> None:
    """transformers would go on with random numbers in their place."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "base"
    shutil.copytree(tiny, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SettingsInvalid, match=r"lacks weights.*layers\.1\.mlp\.up_proj") as caught:
        plain_base(folder)
    assert caught.value.reason is Reason.BASE_MODEL_INVALID


BROKEN: dict[str, Callable[[Path], object]] = {
    "truncated weights": lambda folder: (folder / "model.safetensors").write_bytes(
        (folder / "model.safetensors").read_bytes()[:100_000]
    ),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "unknown kind": lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "teapot"})),
    "pickled weights only": lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_base_model_is_refused_with_a_next_step(tmp_path: Path, case: str) -> None:
    folder = make_tiny_model(tmp_path / "base")
    BROKEN[case](folder)
    with pytest.raises(SettingsInvalid, match=r"must be a causal language model") as caught:
        plain_base(folder)
    assert caught.value.reason is Reason.BASE_MODEL_INVALID


def test_a_model_that_computes_otherwise_is_an_end_by_name(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = add_adapter(plain_base(tiny), LoraSettings(rank=4), torch.float32, 1)

    def fail(*_: object) -> None:
        raise RuntimeError("The size of tensor a (4) must match the size of tensor b (8)")

    monkeypatch.setattr(model, "hidden", fail)
    with pytest.raises(SettingsInvalid, match="does not compute as causal language models do") as caught:
        check_forward(model, packing=False)
    assert caught.value.reason is Reason.BASE_MODEL_INVALID
    monkeypatch.setattr(model, "hidden", lambda *_: (_ for _ in ()).throw(RuntimeError("CUDA error: unspecified")))
    with pytest.raises(RuntimeError, match="CUDA error"):
        check_forward(model, packing=False)


class TestChecksums:
    """What stands for the bytes of the base on an accelerator."""

    def test_any_bit_and_any_exchange_shows(self) -> None:
        tensor = torch.randn(300, 40, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
        found = {tuple(checksums(tensor).tolist())}
        for place in (0, 7, 299):
            changed = tensor.clone()
            changed.view(torch.int16)[place, 3] ^= 1
            found.add(tuple(checksums(changed).tolist()))
            exchanged = tensor.clone()
            exchanged[place, 0], exchanged[place, 1] = tensor[place, 1], tensor[place, 0]
            found.add(tuple(checksums(exchanged).tolist()))
        assert len(found) == 7
        assert torch.equal(checksums(tensor), checksums(tensor.clone()))

    def test_parts_add_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tensor = torch.arange(1000, dtype=torch.int16)
        whole = checksums(tensor)
        monkeypatch.setattr(checksums_module, "CHECKSUM_BYTES", 64)
        assert torch.equal(checksums(tensor), whole)
