"""Which layers of a base model an adapter reaches, told from names and shapes in its weights' headers. No torch.

Not every matrix is a layer that can be adapted. transformers joins the experts of a mixture into one tensor of three
dimensions and routes with a module of its own, whatever the files say. In some mixtures peft (0.21,
`transformers_weight_conversion`) takes the name of an expert's matrix for that tensor wherever it stands, so there a
shared expert's `gate_proj` is out of reach too; and it refuses Mamba's `out_proj`. The joined tensors themselves can be
adapted by name (`lora.targetParameters`). Of a model that also takes images or sounds the text part alone is adapted.
`prepare` counts by these rules, and `train` adapts by them and compares.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Shapes = dict[str, list[int]]

ALL_LINEAR = "all-linear"
CONDITIONAL = "ForConditionalGeneration"
"""How classes are called that make text of other things beside text."""
TEXT_PARTS = ("language_model", "text_model", "llm")
"""What the text part is called in files, where it has a name; elsewhere it is what lies at the top."""
EXPERTS = "experts"
JOINED = ("down_proj", "gate_up_proj")
"""What transformers calls the tensors into which it joins matrices of experts that lie apart in files."""
ROUTERS = ("gate", "router")
NOT_ADAPTED = ("lm_head", "embed_out", "wte", "wpe")
STATE_SPACES = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Model types of which peft adapts no `out_proj`: their kernels take its weights without it."""
NAMES_OF_EXPERTS = ("down_proj", "gate_proj", "up_proj", "w1", "w2", "w3")
PAST_ADAPTER = {
    **dict.fromkeys(("falcon_mamba", "jamba"), "dt_proj"),
    **dict.fromkeys(("bamba", "granitemoehybrid", "zamba2"), "out_proj"),
}
"""By model type a layer of which the weights are used past the adapter, by circumstances: what was learned of it under
some says nothing under others."""
PAST_ADAPTER_WHY = {
    "dt_proj": "which uses its weights past an adapter unless they are quantized",
    "out_proj": "of which fused kernels (mamba_ssm), where they are installed, use its weights past an adapter",
}
IN_TRAINING_ALONE = "out_proj"
"""Of these the layer of which an adapter counts whenever a model computes without gradients."""
# fmt: off
TAKEN_FOR_EXPERTS = frozenset({
    "afmoe", "beam", "cohere2_moe", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "ernie4_5_moe", "exaone_moe",
    "flex_olmo", "glm4_moe", "glm4_moe_lite", "glm4v_moe", "glm_moe_dsa", "hunyuan_v1_moe", "longcat_flash", "mellum",
    "minimax", "minimax_m2", "mixtral", "olmoe", "qwen3_moe", "qwen3_next", "qwen3_omni_moe", "qwen3_omni_moe_thinker",
    "solar_open",
})
# fmt: on
"""Model types in which peft takes the names of experts' matrices for the joined tensor."""
INDEXER = "indexer"
"""Chooses what sparse attention looks at (DeepSeek V3.2): no gradient passes a choice."""
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_AT_THE_TOP = re.compile(r"(?:model\.)?(?:layers|embed_tokens|norm|lm_head)\.")


@dataclass(frozen=True)
class Reach:
    """The layers that can be adapted, sorted by full name, and what is out of reach.

    Attributes:
        layers: names of modules.
        parameters: names of the joined tensors of experts, which are adapted where they are asked for.
        left_out: a module with one of these in its dotted name cannot be adapted.
        expert_weights: numbers that the experts of all layers hold; of `weights` in the whole model.
        other_weights: numbers outside of the text part.
    """

    layers: tuple[str, ...]
    parameters: tuple[str, ...]
    left_out: frozenset[str]
    expert_weights: int
    weights: int
    other_weights: int = 0

    def unreached(self, adapted: int = 0) -> str:
        """Return in words what an adapter of a mixture of experts leaves alone; empty for other models.

        Args:
            adapted: how many of `parameters` are adapted.
        """
        if not self.expert_weights:
            return ""
        others = ", nor layers named as experts' are" if self.left_out.issuperset(NAMES_OF_EXPERTS) else ""
        what = (
            f"not quantized; {adapted} of their {len(self.parameters)} tensors are adapted"
            if adapted
            else "neither quantized nor adapted"
        )
        return (
            f"{self.expert_weights:,} of the base model's {self.weights:,} weights are in experts, which are {what}; "
            f"its routers are not adapted{others}"
        )


def reach(shapes: Shapes, config: Mapping[str, Any]) -> Reach:
    """Return what can be adapted of a language model, of its tensors' shapes by name and its config.json."""
    text = text_config(config)
    ours = text_shapes(shapes, config)
    loaded = {name: shape for name, shape in ours.items() if not is_extra(name, text)}
    experts = {name: shape for name, shape in loaded.items() if is_expert(name, shape)}
    left_out = {EXPERTS, *ROUTERS} if experts else set()
    if experts and config.get("model_type") in TAKEN_FOR_EXPERTS:
        left_out.update(NAMES_OF_EXPERTS)
    if text.get("model_type") in STATE_SPACES:
        left_out.add("out_proj")
    if (past := past_adapter(config)) is not None:
        left_out.add(past)
    if any(INDEXER in name.split(".") for name in loaded):
        left_out.add(INDEXER)
    layers = sorted(
        _module(name)
        for name, shape in loaded.items()
        if name.endswith(".weight") and len(shape) == 2 and not is_embedding(name)
    )
    others = sum(map(math.prod, shapes.values())) - sum(map(math.prod, ours.values()))
    return Reach(
        tuple(name for name in layers if is_reached(name, left_out)),
        tuple(sorted({joined for name, shape in experts.items() for joined in _joined(name, shape)})),
        frozenset(left_out),
        sum(map(math.prod, experts.values())),
        others + sum(map(math.prod, loaded.values())),
        others,
    )


def past_adapter(config: Mapping[str, Any]) -> str | None:
    """Return the name of the layers of which the weights are used past an adapter; None where there are none."""
    return PAST_ADAPTER.get(str(text_config(config).get("model_type")))


def is_conditional(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is of a model that also takes images or sounds."""
    names = config.get("architectures")
    return isinstance(names, list) and any(str(name).endswith(CONDITIONAL) for name in names)


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a config.json says of the text part."""
    text = config.get("text_config")
    return text if is_conditional(config) and isinstance(text, Mapping) else config


def matches(name: str, target: str) -> bool:
    """Tell whether a module or parameter is meant by a name: its own, or its last parts, as in peft."""
    return name == target or name.endswith(f".{target}")


def is_reached(module: str, left_out: frozenset[str] | set[str]) -> bool:
    """Tell whether a linear layer can be adapted, by its name."""
    return left_out.isdisjoint(module.split("."))


def is_embedding(name: str) -> bool:
    """Tell whether a matrix is a table of tokens or the head that is their counterpart, which are not adapted."""
    last = _module(name).rpartition(".")[2]
    return "embed" in last or last in NOT_ADAPTED


def text_shapes(shapes: Shapes, config: Mapping[str, Any]) -> Shapes:
    """Return the tensors of the text part."""
    if not is_conditional(config):
        return shapes
    named = {name: shape for name, shape in shapes.items() if not set(TEXT_PARTS).isdisjoint(name.split("."))}
    return named or {name: shape for name, shape in shapes.items() if _AT_THE_TOP.match(name)}


def _joined(name: str, shape: list[int]) -> list[str]:
    """Return the names that the tensors have in memory of which a tensor of experts is, or becomes part."""
    if len(shape) == 3:
        return [name]
    parts = name.split(".")
    place = parts.index(EXPERTS) if EXPERTS in parts else len(parts)
    if len(shape) != 2 or not parts[place + 1 : place + 2] or not parts[place + 1].isdigit():
        return []
    return [".".join([*parts[: place + 1], joined]) for joined in JOINED]


def is_expert(name: str, shape: list[int]) -> bool:
    """Tell whether a tensor is an expert's matrix, or those of all experts of a layer in one."""
    return EXPERTS in name.split(".") or (len(shape) == 3 and name.endswith(".weight") and "conv" not in name)


def is_extra(name: str, config: Mapping[str, Any]) -> bool:
    """Tell whether a tensor is of layers that predict further tokens, which are published along and never loaded."""
    count = config.get("num_hidden_layers", config.get("n_layer"))
    found = LAYER.search(name)
    return "mtp" in name.split(".") or (isinstance(count, int) and found is not None and int(found[1]) >= count)


def _module(name: str) -> str:
    return name.removesuffix(".weight")
