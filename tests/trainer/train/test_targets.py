"""What prepare tells of layers is what is adapted, and what is adapted is what stock peft loads again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from trimtab_trainer.base.architecture import read_shapes, target_modules
from trimtab_trainer.base.base_model import find_base_model
from trimtab_trainer.base.layers import NAMES_OF_EXPERTS, TAKEN_FOR_EXPERTS, reach
from trimtab_trainer.contract import LoraSettings, QuantizationSettings, Reason, StoredBaseModel
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.publishing.publish import adapter_config
from trimtab_trainer.training.batches import MicroBatch
from trimtab_trainer.training.machine.costs import costs
from trimtab_trainer.training.network.adapter import Adapted, add_adapter, load_adapter
from trimtab_trainer.training.network.model import load_base
from trimtab_trainer.training.network.targets import check_layers, resolve_targets
from trimtab_trainer.training.parts import save_adapter

from .families import Trained, make_family, train_family
from .runs import CPU, plain_base, run_config, shake

EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]

REPRESENTATIVES: dict[str, tuple[dict[str, Any], Trained]] = {
    "llama:LlamaForCausalLM": ({}, Trained(14, 0, True)),
    "gpt2:GPT2LMHeadModel": ({}, Trained(8, 0, True)),
    "phi3:Phi3ForCausalLM": ({"useRslora": True}, Trained(8, 0, True)),
    "qwen3:Qwen3ForCausalLM": ({"useDora": True}, Trained(14, 0, True)),
    "deepseek_v3:DeepseekV3ForCausalLM": ({}, Trained(10, 0, True)),
    "qwen3_next:Qwen3NextForCausalLM": ({}, Trained(8, 0, False)),
    "qwen3_moe:Qwen3MoeForCausalLM": ({"dropout": 0, "targetParameters": EXPERTS}, Trained(8, 4, True)),
    "gpt_oss:GptOssForCausalLM": ({"dropout": 0, "targetParameters": EXPERTS}, Trained(8, 4, False)),
    "falcon_mamba:FalconMambaForCausalLM": ({}, Trained(4, 0, False)),
    "gemma3:Gemma3ForConditionalGeneration": ({}, Trained(14, 0, True)),
    "qwen2_vl:Qwen2VLForConditionalGeneration": ({}, Trained(14, 0, True)),
    "llama4:Llama4ForConditionalGeneration": ({}, Trained(14, 0, True)),
}
"""One of each way in which layers are named, joined, hidden or left out; `make test-architectures` has all families."""


@pytest.mark.parametrize("family", REPRESENTATIVES)
def test_a_gradient_reaches_what_prepare_named_and_nothing_else(tmp_path: Path, tiny: Path, family: str) -> None:
    lora, want = REPRESENTATIVES[family]
    make_family(family, tmp_path)
    assert train_family(tmp_path, **lora) == want


@pytest.mark.parametrize("family", ["falcon_mamba:FalconMambaForCausalLM", "jamba:JambaForCausalLM"])
def test_a_gradient_reaches_the_same_whether_the_base_is_quantized_or_not(tmp_path: Path, family: str) -> None:
    """Both use the weights of `dt_proj` past an adapter of it, but where they are quantized."""
    make_family(family, tmp_path)
    assert train_family(tmp_path, quantization="None") == train_family(tmp_path)


def adapted_family(family: str, folder: Path, **lora: Any) -> tuple[Adapted, LoraSettings]:
    """Return a tiny model of a family with an adapter that changes what it says."""
    make_family(family, folder)
    settings = LoraSettings.model_validate({"rank": 4, "alpha": 8, "dropout": 0, **lora})
    files = find_base_model(StoredBaseModel(uri=folder.as_uri()))
    base = load_base(folder, QuantizationSettings(), torch.float32, CPU)
    model = add_adapter(base, settings, torch.float32, 1, reach(read_shapes(files), files.config).left_out)
    shake(model)
    model.peft.eval()
    return model, settings


def says(model: Adapted) -> torch.Tensor:
    tokens = torch.arange(3, 15)[None]
    with torch.no_grad():
        return model.hidden(MicroBatch(tokens, torch.arange(12)[None], tokens, 12, 12))


STOCK: dict[str, tuple[str, dict[str, Any]]] = {
    "rsLoRA": ("qwen3:Qwen3ForCausalLM", {"useRslora": True}),
    "DoRA": ("qwen3:Qwen3ForCausalLM", {"useDora": True}),
    "experts of Qwen3": ("qwen3_moe:Qwen3MoeForCausalLM", {"targetParameters": EXPERTS}),
    "experts of Mixtral": ("mixtral:MixtralForCausalLM", {"targetParameters": EXPERTS}),
    "experts of gpt-oss": ("gpt_oss:GptOssForCausalLM", {"targetParameters": EXPERTS, "useRslora": True}),
    "the text part of Gemma 3": ("gemma3:Gemma3ForConditionalGeneration", {}),
}


@pytest.mark.parametrize("case", STOCK)
def test_stock_peft_loads_every_shape_of_adapter_and_says_the_same(tmp_path: Path, tiny: Path, case: str) -> None:
    family, lora = STOCK[case]
    model, settings = adapted_family(family, tmp_path / "base", **lora)
    want = says(model)
    config = run_config(tmp_path, lora=settings.to_json())
    written = adapter_config(config, "sha256:" + "0" * 64, model.target_modules, model.target_parameters)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(written))
    save_adapter(model.trained_tensors(), tmp_path / "adapter/adapter_model.safetensors")
    assert (written["use_rslora"], written["use_dora"]) == (settings.use_rslora, settings.use_dora)
    assert written.get("target_parameters") == (sorted(settings.target_parameters or []) or None)
    base = load_base(tmp_path / "base", QuantizationSettings(), torch.float32, CPU)
    again = load_adapter(base, tmp_path / "adapter", torch.float32)
    assert torch.equal(says(again), want)
    with again.peft.disable_adapter():
        assert (says(again) - want).abs().max() > 1e-3


def test_vision_is_loaded_frozen_and_not_adapted(tmp_path: Path, tiny: Path) -> None:
    model, _ = adapted_family("gemma3:Gemma3ForConditionalGeneration", tmp_path)
    names = {name for name, _ in model.peft.named_parameters() if "vision" in name}
    assert names
    assert not any(".lora_" in name for name in names)
    assert not any(p.requires_grad for name, p in model.peft.named_parameters() if ".lora_" not in name)
    assert all(name.startswith("base_model.model.model.language_model.layers.") for name in model.parameters)


def test_a_magnitude_of_dora_is_that_of_the_weights_until_it_is_trained(tmp_path: Path, tiny: Path) -> None:
    make_family("qwen3:Qwen3ForCausalLM", tmp_path)
    base = load_base(tmp_path, QuantizationSettings.model_validate({"type": "None"}), torch.float32, CPU)
    weight = base.get_submodule("model.layers.0.self_attn.q_proj").weight.clone()
    model = add_adapter(base, LoraSettings(rank=4, use_dora=True), torch.float32, 1)
    magnitude = model.parameters["base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"]
    assert torch.allclose(magnitude, weight.norm(dim=1))
    assert magnitude.dtype is torch.float32


def test_experts_that_are_adapted_are_in_the_memory_plan(tmp_path: Path, tiny: Path) -> None:
    model, _ = adapted_family("qwen3_moe:Qwen3MoeForCausalLM", tmp_path / "with", targetParameters=EXPERTS)
    without, _ = adapted_family("qwen3_moe:Qwen3MoeForCausalLM", tmp_path / "without")
    experts = 2 * 4 * 3 * 64 * 32 * 4  # layers, experts, matrices, widths, bytes
    assert (costs(model).kept_fixed, costs(without).kept_fixed) == (experts, 0)
    assert costs(model).fixed > costs(without).fixed + 3 * experts // 2
    dense, _ = adapted_family("qwen3:Qwen3ForCausalLM", tmp_path / "dense", targetModules=["q_proj"])
    alone, _ = adapted_family("qwen3_moe:Qwen3MoeForCausalLM", tmp_path / "alone", targetModules=["q_proj"])
    assert costs(alone).kept_per_token > costs(dense).kept_per_token, "what experts make of a token is kept"


def test_other_layers_than_were_told_are_an_end_by_name(tmp_path: Path, tiny: Path) -> None:
    model, settings = adapted_family("qwen3_moe:Qwen3MoeForCausalLM", tmp_path, targetParameters=EXPERTS[:1])
    files = find_base_model(StoredBaseModel(uri=tmp_path.as_uri()))
    layers = target_modules(read_shapes(files), settings, files.config)
    check_layers(model, layers, ["a.gate_up_proj", "b.gate_up_proj"])
    with pytest.raises(SettingsInvalid, match="targetModules: Qwen3MoeForCausalLM has other layers") as caught:
        check_layers(model, layers[1:], ["a.gate_up_proj", "b.gate_up_proj"])
    assert caught.value.reason is Reason.TARGET_MODULES_NOT_FOUND
    with pytest.raises(SettingsInvalid, match=r"targetParameters: .*gate_up_proj \(1 in its files, 2 adapted\)"):
        check_layers(model, layers, ["a.gate_up_proj"])


def test_the_kinds_in_which_peft_takes_names_for_experts_are_known() -> None:
    """A later peft or transformers may know more of them: then the list has to be written anew."""
    from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN, _MOE_TARGET_MODULE_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    )

    models = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES}
    kinds = {kind for kind, like in _MODEL_TO_CONVERSION_PATTERN.items() if like in _MOE_TARGET_MODULE_MAPPING}
    assert kinds & models == TAKEN_FOR_EXPERTS
    names = {name for mapping in _MOE_TARGET_MODULE_MAPPING.values() for name in mapping}
    assert names == {*NAMES_OF_EXPERTS, "gate"}


def test_what_peft_cannot_adapt_is_an_end_by_name(tmp_path: Path, tiny: Path) -> None:
    """Of a mixture without its names left out peft would wrap the experts, which it cannot with dropout."""
    make_family("deepseek_v3:DeepseekV3ForCausalLM", tmp_path)
    base = load_base(tmp_path, QuantizationSettings(), torch.float32, CPU)
    with pytest.raises(SettingsInvalid, match=r"peft cannot adapt this DeepseekV3ForCausalLM .*dropout") as caught:
        add_adapter(base, LoraSettings(rank=4), torch.float32, 1)
    assert caught.value.reason is Reason.TARGET_MODULES_NOT_FOUND


def test_a_layer_that_is_named_as_a_container_is_named_in_full(tiny: Path) -> None:
    """Gemma 3n has lists of linear layers: `altup_projections.0` ends as `layers.0` does."""
    base = plain_base(tiny)
    base.model.extra = torch.nn.ModuleList([torch.nn.Linear(8, 8)])
    assert "model.extra.0" in resolve_targets(base, ["all-linear"])
    assert "0" not in resolve_targets(base, ["all-linear"])
