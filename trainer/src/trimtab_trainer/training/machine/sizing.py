"""How many sequences a forward pass takes, and how many layers keep their activations: a plan from sizes and memory.

The estimates are rough and on the safe side; when one is wrong, `loop` halves the micro-batch. `train` calls it with
what `costs` finds of the loaded model, and `estimating` without torch. QLoRA pays for dequantizing the base once a
pass, so a pass should have a few thousand tokens, and more brings nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...contract import TrainingSettings

CHUNK = 256
"""Positions whose logits exist at the same time."""

TARGET_TOKENS = {"cuda": 16384, "cpu": 2048}
ENOUGH_TOKENS = {"cuda": 4096, "cpu": 512}
"""Tokens of a pass below which computing activations twice is better than smaller passes."""
USABLE = 0.6
"""Share that the plan spends of what base model and adapter leave; the rest is for libraries and for errors."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of layers whose activations are computed twice, that are tried in this order."""


@dataclass(frozen=True)
class Sizing:
    """Sequences of one forward pass, and the share of layers whose activations are computed twice instead of kept."""

    micro_batch: int
    recomputed: float


@dataclass(frozen=True)
class Costs:
    """Bytes that training takes: for each token with activations kept and not, and whatever the tokens.

    `kept_fixed` is what keeping activations takes beside them: the adapted tensors of experts, which are made anew in
    every pass and of which there is only one layer's at a time where activations are computed twice. `scores` is what
    eager attention keeps in all layers for each pair of tokens of a sequence, and of a layer `scores_at_once`.
    """

    kept_per_token: int
    recomputed_per_token: int
    fixed: int
    kept_fixed: int = 0
    scores: int = 0
    scores_at_once: int = 0

    def per_token(self, share: float, longest: int) -> float:
        """Return the bytes of a token in a sequence of so many, where a share of layers is computed twice."""
        kept = self.kept_per_token + self.scores * longest
        recomputed = self.recomputed_per_token + self.scores_at_once * longest
        return (1 - share) * kept + share * recomputed


def plan(training: TrainingSettings, longest: int, memory: int, cost: Costs, device_type: str) -> Sizing:
    """Return how to cut batches of sequences of up to `longest` tokens for a memory of so many bytes.

    Base model and adapter are taken off once, and of the rest a share is left for errors. A micro-batch divides the
    batch; it says how many of the longest go into a pass, and of shorter ones more do (`batches`). An explicit
    microBatchSize is taken as it is. No more layers are computed twice than it takes for passes that are long enough.
    """
    budget = max(0.0, (memory - cost.fixed) * USABLE)
    divisors = [n for n in range(1, training.batch_size + 1) if training.batch_size % n == 0]
    target = max(1, TARGET_TOKENS[device_type] // longest)

    def tokens(share: float) -> float:
        """Return how many tokens fit."""
        return max(0.0, budget - (1 - share) * cost.kept_fixed) / cost.per_token(share, longest)

    def largest(share: float) -> int:
        return max((n for n in divisors if n <= target and n * longest <= tokens(share)), default=0)

    if (size := training.micro_batch_size) is not None:
        return Sizing(size, next((share for share in SHARES if size * longest <= tokens(share)), 1.0))
    most = largest(1.0)
    for share in SHARES:
        found = largest(share)
        if found and (found >= most or found * longest >= ENOUGH_TOKENS[device_type]):
            return Sizing(found, share)
    return Sizing(1, 1.0)


def computed_twice(layers: int, share: float) -> list[bool]:
    """Return for each layer whether its activations are computed twice: so large a share, spread evenly."""
    return [math.floor((n + 1) * share) > math.floor(n * share) for n in range(layers)]


def scores_of_layer(heads: int, width: int) -> int:
    """Return the bytes that eager attention keeps in a layer for each pair of tokens of a sequence.

    They are probabilities in float32 and again in the type of products, which has `width` bytes.
    """
    return heads * (4 + width)
