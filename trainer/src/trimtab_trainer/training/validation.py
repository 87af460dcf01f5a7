"""The loss on held-out sequences: summed nats over counted tokens, so it does not depend on how they are batched.

`loop` calls it during training and `publish` for the exported adapter. It changes nothing: no dropout, no gradient, no
random numbers, and the model is left in the mode it was in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ..interruption import Interruption
from .adapter import Adapted
from .batches import Batches
from .distributed.world import World
from .loss import summed_loss

TOKENS_PER_BATCH = {"cuda": 16384, "cpu": 4096}
"""Tokens of a forward pass without gradients, padding included, where no batch size is set."""


def mean_loss(
    model: Adapted, split: Batches, stop: Interruption, batch_size: int | None = None, world: World | None = None
) -> float:
    """Return the negative log-likelihood in nats per supervised token of a split.

    Args:
        model: the model, whose active adapter (if any) takes part.
        split: the sequences; at least one token of them is supervised.
        stop: raises `Interrupted` between and inside batches.
        batch_size: sequences of a forward pass; so many as make a few thousand tokens if absent.
        world: the processes that do it together; this one alone if absent.
    """
    world = world or World()
    size = batch_size or max(1, TOKENS_PER_BATCH[model.device.type] // int(split.lengths.max()))
    total, tokens = 0.0, 0.0
    with evaluating(model, stop, world):
        for batch in split.micro_batches(np.arange(len(split)), size, model.device, world.share):
            stop.check()
            if batch.supervised_tokens:
                total += summed_loss(model.hidden(batch), batch.targets, model.head).item()
                tokens += batch.supervised_tokens
    total, tokens = world.sum([total, tokens])
    return total / tokens


@contextmanager
def evaluating(model: Adapted, stop: Interruption, world: World | None = None) -> Iterator[None]:
    """Give forward passes without dropout and gradient, which a signal ends at once; the model's mode is put back.

    `world` are the processes that each do their share: if one is told to stop, all end.
    """
    was_training = model.peft.training
    model.peft.eval()
    try:
        with (world or World()).working(stop), torch.no_grad(), model.arithmetic():
            yield
    finally:
        model.peft.train(was_training)
