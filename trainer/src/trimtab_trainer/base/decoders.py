"""The shapes that the weights of a decoder built like Llama have, told by its config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SettingsInvalid
from .layers import Shapes

NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
GEMMAS = ("gemma", "gemma2", "gemma3_text")
TIED = ("smollm3", *GEMMAS)
"""Kinds whose output head is the embedding where config.json does not say."""
OWN_HEADS = ("qwen3", *GEMMAS)
"""Kinds in which the size of a head is not what divides the hidden states evenly, where config.json does not say."""
LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3", "granite", "olmo2", *TIED)


def shapes_of_config(config: Mapping[str, Any]) -> Shapes:
    """Return the shapes that a decoder built like Llama has, of its config.json alone.

    Raises:
        SettingsInvalid: it is of another kind, or a size is not there.
    """
    kind = config.get("model_type")
    missing = [name for name in NEEDED if not isinstance(config.get(name), int)]
    if kind not in LLAMA_LIKE or missing:
        why = f"has no {', '.join(missing)}" if kind in LLAMA_LIKE else f"is of model_type {kind!r}"
        raise SettingsInvalid(
            f"config.json {why}, so it alone does not tell the sizes of the weights; give the folder with their files"
        )
    hidden, inner, layers, heads, vocabulary = (int(config[name]) for name in NEEDED)
    head = int(config.get("head_dim") or hidden // heads)
    pairs = int(config.get("num_key_value_heads") or heads)
    shapes: Shapes = {"model.embed_tokens.weight": [vocabulary, hidden], "model.norm.weight": [hidden]}
    if not config.get("tie_word_embeddings", kind in TIED):
        shapes["lm_head.weight"] = [vocabulary, hidden]
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name, outs in (("q", heads * head), ("k", pairs * head), ("v", pairs * head)):
            shapes[f"{at}.self_attn.{name}_proj.weight"] = [outs, hidden]
        shapes[f"{at}.self_attn.o_proj.weight"] = [hidden, heads * head]
        shapes[f"{at}.mlp.gate_proj.weight"] = [inner, hidden]
        shapes[f"{at}.mlp.up_proj.weight"] = [inner, hidden]
        shapes[f"{at}.mlp.down_proj.weight"] = [hidden, inner]
        shapes[f"{at}.input_layernorm.weight"] = [hidden]
        shapes[f"{at}.post_attention_layernorm.weight"] = [hidden]
    return shapes
