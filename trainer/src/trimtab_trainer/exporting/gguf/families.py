"""Which models can be written as GGUF, with which settings, and what each of their tensors becomes there.

llama.cpp computes each architecture by code of its own, so a family that is not in this table could be written and
would be computed wrongly; it is refused by its name instead. Where it rotates pairs of neighbours (Llama,
Mistral), rows of queries and keys are in another order than in transformers, which rotates halves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from ...base.layers import Shapes

SUFFIXES = (".weight", ".bias")
LEFT_OUT = re.compile(r".*\.rotary_emb\.inv_freq")
"""Computed again by whoever loads the model."""
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_TURNED = re.compile(r".*\.self_attn\.([qk])_proj\.(?:weight|bias)")


class NotConvertible(ValueError):
    """A model that cannot be written as GGUF; the message says why."""


@dataclass(frozen=True)
class Family:
    """One of transformers' model types.

    Attributes:
        architecture: what llama.cpp knows it as.
        neighbours: whether llama.cpp rotates pairs of neighbours.
    """

    architecture: gguf.MODEL_ARCH
    neighbours: bool = False


FAMILIES: Mapping[str, Family] = {
    "llama": Family(gguf.MODEL_ARCH.LLAMA, neighbours=True),
    "mistral": Family(gguf.MODEL_ARCH.LLAMA, neighbours=True),
    "qwen2": Family(gguf.MODEL_ARCH.QWEN2),
    "qwen3": Family(gguf.MODEL_ARCH.QWEN3),
}
"""Each with a test that computes what was written."""


@dataclass(frozen=True)
class Layout:
    """How a model of a family is written.

    Attributes:
        config: its config.json.
        names: what each tensor of its files is called in GGUF; those that are not there are left out.
    """

    family: Family
    config: Mapping[str, Any]
    names: Mapping[str, str]

    @classmethod
    def of(cls, config: Mapping[str, Any], shapes: Shapes) -> Layout:
        """Return the layout of a model.

        Raises:
            NotConvertible: its family, a setting or a tensor of it is not known.
        """
        kind = str(config.get("model_type"))
        family = FAMILIES.get(kind)
        if family is None:
            raise NotConvertible(
                f"models of model_type {kind!r} cannot be written as GGUF, only {', '.join(FAMILIES)}; export it as "
                "Merged and convert that with llama.cpp's own script"
            )
        _check_settings(config)
        mapping = gguf.get_tensor_name_map(family.architecture, config["num_hidden_layers"])
        names = {}
        for name in shapes:
            if LEFT_OUT.fullmatch(name):
                continue
            found = mapping.get_name(name, try_suffixes=SUFFIXES)
            if found is None:
                raise NotConvertible(f"its tensor {name} is unknown in GGUF's {family.architecture.name.lower()}")
            names[name] = found
        layout = cls(family, config, names)
        layout._check_heads(shapes)
        return layout

    def _check_heads(self, shapes: Shapes) -> None:
        """Refuse heads that the files have otherwise: where config.json is silent, families have their own numbers."""
        for name, shape in shapes.items():
            if (turned := _TURNED.fullmatch(name)) is None:
                continue
            heads = self.heads if turned[1] == "q" else self.key_value_heads
            if shape[0] != heads * self.head_size:
                raise NotConvertible(
                    f"its tensor {name} has {shape[0]} rows, and its config.json does not say of how many heads of "
                    "which size (num_key_value_heads, head_dim)"
                )

    def without(self, name: str) -> Layout:
        """Return the layout without a tensor."""
        return replace(self, names={each: there for each, there in self.names.items() if each != name})

    @property
    def heads(self) -> int:
        """Heads of queries."""
        return int(self.config["num_attention_heads"])

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values."""
        return int(self.config.get("num_key_value_heads") or self.heads)

    @property
    def head_size(self) -> int:
        """Numbers of a head."""
        return int(self.config.get("head_dim") or self.config["hidden_size"] // self.heads)

    def written(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a tensor of the files in the order in which llama.cpp computes with it."""
        turned = _TURNED.fullmatch(name)
        if not self.family.neighbours or turned is None:
            return values
        heads = self.heads if turned[1] == "q" else self.key_value_heads
        return neighboured(values, heads)

    def settings(self, writer: gguf.GGUFWriter) -> None:
        """Write the settings of the architecture."""
        config = self.config
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.key_value_heads)
        writer.add_key_length(self.head_size)
        writer.add_value_length(self.head_size)
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(rotation(config)["rope_theta"])
        if self.family.neighbours:
            writer.add_rope_dimension_count(self.head_size)

    def extra(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """Return tensors that no file has: by what the frequencies of Llama 3.1's rotation are divided."""
        told = rotation(self.config)
        return {"rope_freqs.weight": frequency_factors(told, self.head_size)} if told["rope_type"] == "llama3" else {}


def rotation(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return rope_type, rope_theta and what belongs to the type, from where either generation of config.json has it."""
    told = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = told.get("rope_type") or told.get("type") or "default"
    theta = told.get("rope_theta") or config.get("rope_theta") or 10_000.0
    return {**told, "rope_type": kind, "rope_theta": float(theta)}


def neighboured(values: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Return rows [heads * size, ...] with those of both halves of each head in turns."""
    shape = values.shape
    return values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def frequency_factors(told: Mapping[str, Any], size: int) -> npt.NDArray[np.float32]:
    """Return by what each frequency is divided [size / 2], as in Llama 3.1 (transformers' `rope_type: llama3`).

    Slow ones by `factor`, fast ones by 1, and in between what lies between.
    """
    factor, low, high = told["factor"], told["low_freq_factor"], told["high_freq_factor"]
    context = told["original_max_position_embeddings"]
    frequencies = 1.0 / told["rope_theta"] ** (np.arange(0, size, 2, dtype=np.float64) / size)
    turns = context * frequencies / (2 * math.pi)
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    divided: npt.NDArray[np.float32] = (1.0 / ((1.0 - share) / factor + share)).astype(np.float32)
    return divided


def _check_settings(config: Mapping[str, Any]) -> None:
    told = rotation(config)
    for what, wrong in (
        (f"rope_type {told['rope_type']}", told["rope_type"] not in ("default", "llama3")),
        (f"hidden_act {config.get('hidden_act')}", config.get("hidden_act", "silu") != "silu"),
        ("a sliding window", _slides(config)),
        ("heads that together are not as wide as it", config.get("model_type") == "qwen2" and _widened(config)),
        ("biases of attention", config.get("model_type") == "qwen3" and bool(config.get("attention_bias"))),
        ("rotation of a part of each head", config.get("partial_rotary_factor", 1.0) != 1.0),
    ):
        if wrong:
            raise NotConvertible(f"a model of model_type {config.get('model_type')!r} with {what} cannot be written")


def _widened(config: Mapping[str, Any]) -> bool:
    size, hidden = config.get("head_dim"), int(config["hidden_size"])
    return size is not None and int(size) * int(config["num_attention_heads"]) != hidden


def _slides(config: Mapping[str, Any]) -> bool:
    if config.get("model_type") in ("qwen2", "qwen3"):
        return bool(config.get("use_sliding_window"))
    # MistralConfig has a window where nothing is said of one.
    return bool(config.get("sliding_window", config.get("model_type") == "mistral"))
