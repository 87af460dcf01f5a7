"""A tiny random model of each family of language models that transformers has, made from its config.

`tiny_config` shrinks a family's own default configuration by the names that configurations give to sizes; what is
particular to a family stands in `PARTICULARS`. `UNMADE` are those that cannot be made tiny here, and why.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

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
    # pictures
    "image_size": 28, "patch_size": 14,
}  # fmt: skip

PARTICULARS: dict[str, dict[str, Any]] = {}
UNMADE: dict[str, str] = {}


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
    names = set(inspect.signature(config_class.__init__).parameters) | set(default.to_dict() if default else ())
    values = {name: size for name, size in SIZES.items() if name in names}
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
    if issubclass(model_class.config_class, transformers.CONFIG_MAPPING[kind]) is False and hasattr(config, "text_config"):
        config = config.text_config
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
    (folder / "tokenizer.json").touch()
