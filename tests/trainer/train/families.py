"""A tiny random model of each family of language models that transformers has, made from its config.

`tiny_config` shrinks a family's own default configuration by the names that configurations give to sizes; what is
particular to a family stands in `PARTICULARS`. `UNMADE` are those that cannot be made tiny here, and why.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from trimtab_trainer.base.agreement import check_model
from trimtab_trainer.base.architecture import find_targets
from trimtab_trainer.base.base_model import find_base_model
from trimtab_trainer.base.unsupported import NOT_PACKED
from trimtab_trainer.contract import LoraSettings, QuantizationSettings, StoredBaseModel
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.estimating import memory
from trimtab_trainer.estimating.dimensions import dimensions
from trimtab_trainer.probe import check_forward
from trimtab_trainer.training.batches import MicroBatch
from trimtab_trainer.training.loss import summed_loss
from trimtab_trainer.training.machine.costs import costs
from trimtab_trainer.training.network.adapter import add_adapter
from trimtab_trainer.training.network.model import load_base
from trimtab_trainer.training.network.targets import check_layers

from .runs import CPU

SIZES: dict[str, Any] = {
    # widths and depths
    "hidden_size": 64, "d_model": 64, "n_embd": 64, "embed_dim": 64, "word_embed_proj_dim": 64, "out_hidden_size": 64,
    "intermediate_size": 128, "ffn_hidden_size": 128, "ffn_dim": 128, "n_inner": 128,
    "encoder_ffn_dim": 128, "decoder_ffn_dim": 128,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "encoder_layers": 1, "decoder_layers": 2,
    "depth": 1,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
    # tokens
    "vocab_size": 256, "vocab_size_per_layer_input": 256, "hidden_size_per_layer_input": 8,
    "max_position_embeddings": 256, "n_positions": 256, "sliding_window": 8,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    # mixtures of experts
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2,
    "moe_k": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64, "n_group": 2, "topk_group": 1,
    "first_k_dense_replace": 1,
    # latent attention
    "kv_lora_rank": 16, "q_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
    # state spaces and linear attention
    "state_size": 8, "mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_expand": 2, "ssm_state_size": 8,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    # others
    "rotary_dim": 8, "emb_dim": 64, "n_words": 256, "num_kv_shared_layers": 0, "is_decoder": True,
    # pictures
    "image_size": 28, "patch_size": 14,
}  # fmt: skip

PARTICULARS: dict[str, dict[str, Any]] = {
    "chameleon": {"vocabulary_map": {"<image>": 5}},
    "dbrx": {
        "attn_config": {"clip_qkv": 8.0, "kv_n_heads": 2, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 128, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots1": {"n_shared_experts": 1},
    "dots3_note_text": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 128},
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 16}},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lfm2_vl": {"text_config": {"layer_types": ["conv", "full_attention"]}},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "nemotron_h_omni": {"vision_config": {"video_temporal_patch_size": 2}},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
}


def turned(**more: Any) -> dict[str, Any]:
    """Return rotary embeddings of kinds that have no default of a tiny head's."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **more}}


for _kind in (
    "glm46v", "glm4v", "glm_ocr", "glmga", "hunyuan_vl", "paddleocr_vl", "qwen2_5_omni_thinker",
    "qwen2_5_vl", "qwen2_vl",
):  # fmt: skip
    PARTICULARS[_kind] = {"text_config": turned(mrope_section=[2, 3, 3])}
PARTICULARS["glm4v_moe"] = {"text_config": turned(mrope_section=[1, 1, 2])}
PARTICULARS["cohere_compass_text"] = {"rope_parameters": {"full_attention": turned()["rope_parameters"]}}
PARTICULARS["cohere_compass"] = {"text_config": PARTICULARS["cohere_compass_text"]}

LARGE = "its smallest is too large: sizes of {} are fixed"
NEEDS_TIMM = "it needs the libraries timm and pillow, which this environment has not"
OTHERS_SIZES = "sizes of its vision or audio depend on each other in a way that is not written down here"
UNMADE: dict[str, str] = {
    "blt:BltForCausalLM": LARGE.format("its tables of hashes"),
    "deepseek_ocr2:DeepseekOcr2ForConditionalGeneration": OTHERS_SIZES,
    "dots3_note:Dots3NoteForCausalLM": OTHERS_SIZES,
    "dots3_note:Dots3NoteForConditionalGeneration": OTHERS_SIZES,
    "emu3:Emu3ForConditionalGeneration": LARGE.format("the coder of its pictures"),
    "ernie4_5_vl_moe:Ernie4_5_VLMoeForConditionalGeneration": OTHERS_SIZES,
    "fast_vlm:FastVlmForConditionalGeneration": NEEDS_TIMM,
    "florence2:Florence2ForConditionalGeneration": OTHERS_SIZES,
    "glm5_next:Glm5NextForConditionalGeneration": OTHERS_SIZES,
    "granite4_vision:Granite4VisionForConditionalGeneration": OTHERS_SIZES,
    "granite_speech:GraniteSpeechForConditionalGeneration": LARGE.format("its audio"),
    "granite_speech_plus:GraniteSpeechPlusForConditionalGeneration": LARGE.format("its audio"),
    "janus:JanusForConditionalGeneration": LARGE.format("the coder of its pictures"),
    "kyutai_speech_to_text:KyutaiSpeechToTextForConditionalGeneration": OTHERS_SIZES,
    "molmo2:Molmo2ForConditionalGeneration": OTHERS_SIZES,
    "muse_spark:MuseSparkForConditionalGeneration": OTHERS_SIZES,
    "nemo_speechlm:Nemotron3_5TranscribeForConditionalGeneration": OTHERS_SIZES,
    "perception_lm:PerceptionLMForConditionalGeneration": NEEDS_TIMM,
    "qwen2_5_omni:Qwen2_5OmniForConditionalGeneration": LARGE.format("its speech"),
    "qwen3_omni_moe:Qwen3OmniMoeForConditionalGeneration": OTHERS_SIZES,
    "vibevoice_asr:VibeVoiceAsrForConditionalGeneration": LARGE.format("its audio"),
    "zamba:ZambaForCausalLM": "transformers ties its layers in a way that needs more than two",
}


def families() -> dict[str, str]:
    """Return the class of each kind of language model: causal ones, and those that also take images or sounds."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    )

    found = {}
    for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES):
        for kind, name in mapping.items():
            found[f"{kind}:{name}"] = name
    return dict(sorted(found.items()))


def tiny_config(config_class: type, more: dict[str, Any] | None = None) -> Any:
    """Return a small configuration of a class."""
    try:
        default = config_class()
    except Exception:  # some have no default at all
        default = None
    names = set(inspect.signature(config_class).parameters) | set(default.to_dict() if default else ())
    values = {name: size for name, size in SIZES.items() if name in names}
    if "qk_rope_head_dim" in names and "head_dim" in names:  # latent attention turns these alone, of every head
        values["head_dim"] = SIZES["qk_rope_head_dim"]
    if "qk_rope_head_dim" in names:
        values["num_key_value_heads"] = SIZES["num_attention_heads"]
    more = dict(more or {})
    for name, part in (getattr(config_class, "sub_configs", None) or {}).items():
        if part.__name__ == "AutoConfig":
            part = type(getattr(default, name, None))
        if hasattr(part, "to_dict"):
            values[name] = tiny_config(part, more.pop(name, None)).to_dict()
    return config_class(**{**values, **more})


def make_family(family: str, folder: Path) -> None:
    """Save a tiny random model of a family, with what a base model's folder has to have."""
    import torch
    import transformers

    kind, _, name = family.partition(":")
    config = tiny_config(transformers.CONFIG_MAPPING[kind], PARTICULARS.get(kind))
    model_class = getattr(transformers, name)
    parts = getattr(config, "sub_configs", {})
    if name.endswith("ForCausalLM") and not isinstance(config, model_class.config_class) and "text_config" in parts:
        config = config.text_config
    torch.manual_seed(0)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():  # some begin at zero, where no gradient passes
            parameter.add_(0.02 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    (folder / "tokenizer.json").touch()


@dataclass(frozen=True)
class Trained:
    """What came of a family: how many modules and parameters an adapter reaches, and whether rows may be packed."""

    modules: int
    parameters: int
    packing: bool


def train_family(folder: Path, *, quantization: str = "NF4", **lora: Any) -> Trained:
    """Take a saved model through what `prepare` and `train` do with it, to one gradient.

    Raises:
        SettingsInvalid: it is refused.
        AssertionError: a gradient reaches something else than what prepare named.
    """
    files = find_base_model(StoredBaseModel(uri=folder.as_uri()))
    settings = LoraSettings.model_validate({"rank": 4, "alpha": 8, **lora})
    held = QuantizationSettings.model_validate({"type": quantization})
    shapes = check_model(files)
    targets = find_targets(shapes, settings, files.config)
    base = load_base(folder, held, torch.float32, CPU)
    model = add_adapter(base, settings, torch.float32, 1, targets.reached.left_out)
    check_layers(model, targets.modules, targets.parameters)
    packing = True
    try:
        check_forward(model, packing=True)
    except SettingsInvalid as error:
        if "training.packing: false" not in error.message:
            raise
        check_forward(model, packing=False)
        packing = False
    assert packing == (files.config["model_type"] not in NOT_PACKED), "prepare tells otherwise"
    dims = dimensions(shapes, files.config, settings)
    planned = memory.costs(dims, held, settings.rank, memory.Arithmetic("cpu", 4))
    assert planned.scores == costs(model).scores, "prepare plans with another attention"
    model.peft.train()
    tokens = torch.randint(3, 250, (2, 12), generator=torch.Generator().manual_seed(0))
    batch = MicroBatch(tokens, torch.arange(12).repeat(2, 1), tokens, tokens.numel(), tokens.numel())
    summed_loss(model.hidden(batch), batch.targets, model.head).backward()
    reached = [name for name, parameter in model.parameters.items() if is_trained(name, parameter)]
    assert len(reached) == len(model.parameters), sorted(model.parameters.keys() - set(reached))
    assert len(reached) == (3 if settings.use_dora else 2) * len(targets.modules) + 2 * len(targets.parameters)
    frozen = [name for name, p in base.named_parameters() if ".lora_" not in name and p.grad is not None]
    assert not frozen, frozen
    return Trained(len(targets.modules), len(targets.parameters), packing)


def is_trained(name: str, parameter: torch.Tensor) -> bool:
    """Tell whether a gradient reaches a weight of a fresh adapter; to an inner matrix it is 0 until the outer moves."""
    gradient = parameter.grad
    return gradient is not None and (".lora_A" in name or bool(gradient.any()))
