"""The optimizers by their names in the settings; the schedule sets their learning rate before every step.

States of the 8-bit ones (arXiv 2110.02861) are quantized blockwise; paged ones move to the processor's memory when the
accelerator's runs out, and are plain 8-bit ones without an accelerator.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from .contract import Optimizer, TrainingSettings

BETAS, EPSILON = (0.9, 0.999), 1e-8


def make_optimizer(training: TrainingSettings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer of the adapter's parameters (order matters for resuming).

    Weight decay is decoupled for the AdamW family (arXiv 1711.05101). SGD has no momentum.
    """
    if training.optimizer is Optimizer.SGD:
        return torch.optim.SGD(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)
    if training.optimizer is Optimizer.ADAMW:
        return torch.optim.AdamW(
            parameters,
            lr=training.learning_rate,
            betas=BETAS,
            eps=EPSILON,
            weight_decay=training.weight_decay,
            fused=True,
        )
    import bitsandbytes

    kind = {
        Optimizer.ADAMW_8BIT: bitsandbytes.optim.AdamW8bit,
        Optimizer.PAGED_ADAMW_8BIT: bitsandbytes.optim.PagedAdamW8bit,
    }[training.optimizer]
    chosen: torch.optim.Optimizer = kind(
        parameters, lr=training.learning_rate, betas=BETAS, eps=EPSILON, weight_decay=training.weight_decay
    )
    return chosen


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
