"""The sizes of a model that memory and time depend on, of its tensors' shapes.

The shapes are those in the headers of its weights. Of decoders built like Llama, which most are, config.json alone
tells them too (`base.decoders`): attention with q, k, v and o, a gated MLP, two norms a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..base.layers import EXPERTS, LAYER, Shapes, is_embedding, is_expert, matches, reach, text_shapes
from ..contract import LoraSettings

ALL_LINEAR = "all-linear"
EAGER = frozenset({
    "bloom", "codegen", "flint", "gemma2", "gpt_neo", "gpt_neox_japanese", "gpt_oss", "gptj", "granite_swa",
    "granitemoe_swa", "mimo_v2_flash", "mpt", "openai-gpt", "xglm",
})  # fmt: skip
"""Kinds that transformers computes in its own attention, not in torch's: soft caps, sinks, and older ones."""
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
"""What configurations call the number of heads."""
OUTWARD = ("down_proj", "w2")
"""What the matrix of an expert is called whose numbers go back to the residual; the others are joined."""


@dataclass(frozen=True)
class Linear:
    """One linear layer: numbers in and out, and whether it is adapted."""

    ins: int
    outs: int
    adapted: bool


@dataclass(frozen=True)
class Joined:
    """The matrices of all experts of a layer in one tensor [count, ...], and whether it is adapted.

    Attributes:
        sides: rows and columns of one expert's matrix together.
    """

    count: int
    sides: int
    size: int
    adapted: bool


@dataclass(frozen=True)
class Dimensions:
    """The sizes of a model with its adapter.

    Attributes:
        linear: of all layers, but embeddings and output head; these are quantized.
        layers: how many blocks there are.
        hidden, vocabulary: of the embedding.
        heads: of attention, in each block.
        embedding: weights of embeddings and output head, which are not quantized.
        experts: weights of experts, which are not quantized either.
        joined: their tensors as they are in memory, whatever the files say.
        rest: norms, biases and what else there is.
        experts_at_once: experts that a token passes.
        expert_inner: numbers between the matrices of one expert.
        eager: attention keeps a probability for each pair of tokens.
        full: all weights are trained, there is no adapter.
    """

    linear: tuple[Linear, ...]
    layers: int
    hidden: int
    vocabulary: int
    heads: int
    embedding: int
    experts: int
    rest: int
    joined: tuple[Joined, ...] = ()
    experts_at_once: int = 0
    expert_inner: int = 0
    eager: bool = False
    full: bool = False

    @property
    def weights(self) -> int:
        """All numbers of the base model."""
        return sum(each.ins * each.outs for each in self.linear) + self.embedding + self.experts + self.rest

    @property
    def adapted(self) -> tuple[Linear, ...]:
        return tuple(each for each in self.linear if each.adapted)

    @property
    def made_anew(self) -> int:
        """Numbers of the joined tensors that are adapted: each pass makes a copy with the adapter on it."""
        return sum(each.size for each in self.joined if each.adapted)


def dimensions(shapes: Shapes, config: Mapping[str, Any], lora: LoraSettings | None) -> Dimensions:
    """Return the sizes of a model of its shapes, with the adapter of some settings; of None all weights are trained."""
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    assert isinstance(text, Mapping)
    reached = reach(shapes, config)
    layers, own = set(reached.layers), text_shapes(shapes, config)
    linear, embedding, experts, rest, blocks = [], 0, 0, 0, set()
    hidden = vocabulary = 0
    for name, shape in sorted(shapes.items()):
        module, size = name.removesuffix(".weight"), math.prod(shape)
        if (found := LAYER.search(name)) is not None:
            blocks.add(int(found[1]))
        if name.endswith(".weight") and len(shape) == 2 and is_embedding(name):
            embedding += size
            if name in own and shape[0] > vocabulary:
                vocabulary, hidden = shape
        elif module in layers:
            linear.append(Linear(shape[1], shape[0], _adapted(module, lora)))
        elif is_expert(name, shape):
            experts += size
        else:
            rest += size
    at_once = text.get("num_experts_per_tok") if experts else 0
    return Dimensions(
        linear=tuple(linear),
        layers=max(1, len(blocks)),
        hidden=hidden,
        vocabulary=vocabulary,
        heads=next((int(text[name]) for name in HEADS if text.get(name)), 0),
        embedding=embedding,
        experts=experts,
        joined=_joined(shapes, lora),
        rest=rest,
        experts_at_once=int(at_once or 0),
        expert_inner=int(text.get("moe_intermediate_size") or text.get("intermediate_size") or 0) if experts else 0,
        eager=bool(text.get("attn_logit_softcapping")) or text.get("model_type") in EAGER,
        full=lora is None,
    )


def _adapted(module: str, lora: LoraSettings | None) -> bool:
    if lora is None:
        return False
    wanted = lora.target_modules
    return wanted == [ALL_LINEAR] or any(module == name or module.endswith(f".{name}") for name in wanted)


def _joined(shapes: Shapes, lora: LoraSettings | None) -> tuple[Joined, ...]:
    """Return the tensors that experts have in memory, in the order of their names there."""
    matrices: dict[str, list[tuple[int, int, int]]] = {}  # of each tensor: number of the expert, rows, columns
    for name, shape in shapes.items():
        parts = name.split(".")
        place = parts.index(EXPERTS) + 1 if EXPERTS in parts else len(parts)
        if len(shape) == 3 and is_expert(name, shape):
            matrices[name] = [(shape[0] - 1, shape[1], shape[2])]
        elif len(shape) == 2 and parts[place : place + 1] and parts[place].isdigit():
            joined = "down_proj" if parts[place + 1] in OUTWARD else "gate_up_proj"
            matrices.setdefault(".".join([*parts[:place], joined]), []).append((int(parts[place]), shape[0], shape[1]))
    found = []
    for name, each in sorted(matrices.items()):
        last, _, columns = max(each)
        rows = sum(rows for number, rows, _ in each if number == last)
        adapted = any(matches(name, target) for target in (lora.target_parameters if lora is not None else None) or ())
        found.append(Joined(last + 1, rows + columns, (last + 1) * rows * columns, adapted))
    return tuple(found)
