"""Which layers of a base model an adapter reaches, told from names and shapes in its weights' headers. No torch.

Not every matrix is a layer that can be adapted. transformers joins the experts of a mixture into one tensor of three
dimensions and routes with a module of its own, whatever the files say. In some mixtures peft (0.21,
`transformers_weight_conversion`) takes the name of an expert's matrix for that tensor wherever it stands, so there a
shared expert's `gate_proj` is out of reach too; and it refuses Mamba's `out_proj`. `prepare` counts by these rules, and
`train` adapts by them and compares.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Shapes = dict[str, list[int]]

EXPERTS = "experts"
ROUTERS = ("gate", "router")
NOT_ADAPTED = ("lm_head", "embed_out", "wte", "wpe")
STATE_SPACES = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Model types of which peft adapts no `out_proj`: their kernels take its weights without it."""
NAMES_OF_EXPERTS = ("down_proj", "gate_proj", "up_proj", "w1", "w2", "w3")
# fmt: off
TAKEN_FOR_EXPERTS = frozenset({
    "afmoe", "beam", "cohere2_moe", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "ernie4_5_moe", "exaone_moe",
    "flex_olmo", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "hunyuan_v1_moe", "longcat_flash", "mellum", "minimax",
    "minimax_m2", "mixtral", "olmoe", "qwen3_moe", "qwen3_next", "solar_open",
})
# fmt: on
"""Model types in which peft takes the names of experts' matrices for the joined tensor."""
INDEXER = "indexer"
"""Chooses what sparse attention looks at (DeepSeek V3.2): no gradient passes a choice."""
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class Reach:
    """The layers that can be adapted, sorted by full name, and what is out of reach.

    Attributes:
        layers: names of modules.
        left_out: a module with one of these in its dotted name cannot be adapted.
        expert_weights: numbers that the experts of all layers hold; of `weights` in the whole model.
    """

    layers: tuple[str, ...]
    left_out: frozenset[str]
    expert_weights: int
    weights: int

    @property
    def unreached(self) -> str:
        """Return in words what an adapter of a mixture of experts leaves alone; empty for other models."""
        if not self.expert_weights:
            return ""
        others = ", nor layers named as experts' are" if self.left_out.issuperset(NAMES_OF_EXPERTS) else ""
        return (
            f"{self.expert_weights:,} of the base model's {self.weights:,} weights are in experts, which are neither "
            f"quantized nor adapted; its routers are not adapted{others}"
        )


def reach(shapes: Shapes, config: Mapping[str, Any]) -> Reach:
    """Return what can be adapted of a causal language model, of its tensors' shapes by name."""
    loaded = {name: shape for name, shape in shapes.items() if not _is_extra(name, config)}
    experts = {name: shape for name, shape in loaded.items() if _is_expert(name, shape)}
    left_out = {EXPERTS, *ROUTERS} if experts else set()
    if experts and config.get("model_type") in TAKEN_FOR_EXPERTS:
        left_out.update(NAMES_OF_EXPERTS)
    if config.get("model_type") in STATE_SPACES:
        left_out.add("out_proj")
    if any(INDEXER in name.split(".") for name in loaded):
        left_out.add(INDEXER)
    layers = sorted(
        _module(name)
        for name, shape in loaded.items()
        if name.endswith(".weight") and len(shape) == 2 and not is_embedding(name)
    )
    return Reach(
        tuple(name for name in layers if is_reached(name, left_out)),
        frozenset(left_out),
        sum(map(math.prod, experts.values())),
        sum(map(math.prod, loaded.values())),
    )


def is_reached(module: str, left_out: frozenset[str] | set[str]) -> bool:
    """Tell whether a linear layer can be adapted, by its name."""
    return left_out.isdisjoint(module.split("."))


def is_embedding(name: str) -> bool:
    """Tell whether a matrix is a table of tokens or the head that is their counterpart, which are not adapted."""
    last = _module(name).rpartition(".")[2]
    return "embed" in last or last in NOT_ADAPTED


def _is_expert(name: str, shape: list[int]) -> bool:
    """Tell whether a tensor is an expert's matrix, or those of all experts of a layer in one."""
    return EXPERTS in name.split(".") or (len(shape) == 3 and name.endswith(".weight") and "conv" not in name)


def _is_extra(name: str, config: Mapping[str, Any]) -> bool:
    """Tell whether a tensor is of layers that predict further tokens, which are published along and never loaded."""
    count = config.get("num_hidden_layers", config.get("n_layer"))
    found = _LAYER.search(name)
    return "mtp" in name.split(".") or (isinstance(count, int) and found is not None and int(found[1]) >= count)


def _module(name: str) -> str:
    return name.removesuffix(".weight")
