"""How many sequences a forward pass takes, and whether activations are kept: a plan from sizes and memory.

The estimates are rough and on the safe side; when one is wrong, `loop` halves the micro-batch. `train` calls it, and
`estimating` without torch. QLoRA pays for dequantizing the base once a pass, so a pass should have a few thousand
tokens, and more brings nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .contract import TrainingSettings

if TYPE_CHECKING:
    from .adapter import Adapted

CHUNK = 256
"""Positions whose logits exist at the same time."""

TARGET_TOKENS = {"cuda": 16384, "cpu": 2048}
ENOUGH_TOKENS = {"cuda": 4096, "cpu": 512}
"""Tokens of a pass below which computing activations twice is better than smaller passes."""
USABLE = 0.6
"""Share of the memory that the plan spends; the rest is the libraries', the cache's and the estimates' error."""


@dataclass(frozen=True)
class Sizing:
    """Sequences of one forward pass, and whether activations are computed twice instead of kept."""

    micro_batch: int
    checkpoint_activations: bool


@dataclass(frozen=True)
class Costs:
    """Bytes that training takes: for each token with activations kept and not, and whatever the tokens.

    `kept_fixed` is what keeping activations takes beside them: the adapted tensors of experts, which are made anew in
    every pass and of which there is only one layer's at a time where activations are computed twice.
    """

    kept_per_token: int
    recomputed_per_token: int
    fixed: int
    kept_fixed: int = 0


def costs(model: Adapted) -> Costs:
    """Estimate the memory of a forward and backward pass from the sizes of the adapted layers and of experts."""
    from .targets import adapted_layers, adapted_tensors

    width = 2 if model.compute_type.itemsize == 2 else 4
    config = model.causal.config.get_text_config()
    elements = sum(layer.in_features + layer.out_features for layer in adapted_layers(model.causal))
    joined = adapted_tensors(model.causal)
    layers = max(1, int(getattr(config, "num_hidden_layers", 1)))
    embedding = model.causal.get_input_embeddings().weight
    hidden, vocabulary = int(embedding.shape[1]), int(embedding.shape[0])
    kept = elements * (4 + 2 * width)  # inputs and outputs in the compute type, the adapter's inputs in float32
    chosen = getattr(config, "num_experts_per_tok", None) or 1
    experts = [p for p in model.text.parameters() if p.ndim == 3 and not p.requires_grad]
    kept += 2 * width * chosen * sum(sum(p.shape[1:]) for p in experts)
    base = sum(p.numel() * p.element_size() for p in model.peft.parameters())
    adapter = sum(p.numel() for p in model.parameters.values())
    made = [p.numel() * p.element_size() for p in joined]
    return Costs(
        kept_per_token=kept,
        recomputed_per_token=layers * hidden * width + kept // layers,
        # Of a layer's joined tensors: with the adapter on them, the gradient of that, and what the gradient is made of.
        fixed=base + 16 * adapter + 3 * 4 * CHUNK * vocabulary + 3 * sum(made) // layers,
        kept_fixed=sum(made),
    )


def plan(training: TrainingSettings, longest: int, memory: int, cost: Costs, device_type: str) -> Sizing:
    """Return how to cut batches of sequences of up to `longest` tokens for a memory of so many bytes.

    A micro-batch divides the batch. An explicit microBatchSize is taken as it is.
    """
    budget = max(0, int(memory * USABLE) - cost.fixed)
    kept_budget = max(0, budget - cost.kept_fixed)
    divisors = [n for n in range(1, training.batch_size + 1) if training.batch_size % n == 0]
    target = max(1, TARGET_TOKENS[device_type] // longest)

    def largest(per_token: int, budget: int) -> int:
        return max((n for n in divisors if n <= target and n * longest * per_token <= budget), default=0)

    if training.micro_batch_size is not None:
        size = training.micro_batch_size
        return Sizing(size, checkpoint_activations=size * longest * cost.kept_per_token > kept_budget)
    kept, recomputed = largest(cost.kept_per_token, kept_budget), largest(cost.recomputed_per_token, budget)
    if kept == recomputed or kept * longest >= ENOUGH_TOKENS[device_type]:
        return Sizing(max(1, kept), checkpoint_activations=kept == 0)
    return Sizing(max(1, recomputed), checkpoint_activations=True)
