"""How many sequences a forward pass takes, and whether activations are kept: a plan from sizes and memory.

The estimates are rough and on the safe side; when one is wrong, `loop` halves the micro-batch. `train` calls it with
what `costs` finds of the loaded model, and `estimating` without torch. QLoRA pays for dequantizing the base once a
pass, so a pass should have a few thousand tokens, and more brings nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..contract import TrainingSettings

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
