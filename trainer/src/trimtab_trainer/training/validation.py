"""The loss on held-out sequences: summed nats over counted tokens, so it does not depend on how they are batched.

`loop` calls it during training and `publish` for the exported adapter. It changes nothing: no dropout, no gradient, no
random numbers, and the model is left in the mode it was in. Where memory runs out, a batch is cut in two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ..errors import OutOfMemory
from ..interruption import Interruption
from .batches import ALL, Batches
from .distributed.world import World
from .loss import summed_loss
from .machine.exhausted import is_out_of_memory
from .network.trained import Trained

Found = TypeVar("Found")

TOKENS_PER_BATCH = {"cuda": 16384, "cpu": 4096}
"""Tokens of a forward pass without gradients, padding included, where no batch size is set."""


def mean_loss(
    model: Trained, split: Batches, stop: Interruption, batch_size: int | None = None, world: World | None = None
) -> float:
    """Return the negative log-likelihood in nats per supervised token of a split.

    Args:
        model: the model, whose active adapter (if any) takes part.
        split: the sequences; at least one token of them is supervised.
        stop: raises `Interrupted` between and inside batches.
        batch_size: sequences of a forward pass; so many as make a few thousand tokens if absent.
        world: the processes that do it together; this one alone if absent.

    Raises:
        OutOfMemory: a single sequence does not fit.
    """
    world = world or World()
    size = batch_size or max(1, TOKENS_PER_BATCH[model.device.type] // int(split.lengths.max()))

    def nats(indices: npt.NDArray[np.int64]) -> float:
        batch = split.lay(indices, model.device)
        return summed_loss(model.hidden(batch), batch.targets, model.head).item() if batch.supervised_tokens else 0.0

    with evaluating(model, stop, world):
        total = sum(in_parts(nats, model, split, np.arange(len(split)), size, stop, world.share))
    (total,) = world.sum([total])
    return total / int(split.supervised.sum())


def in_parts(  # noqa: PLR0917 what is computed, and of what
    found: Callable[[npt.NDArray[np.int64]], Found],
    model: Trained,
    split: Batches,
    indices: npt.NDArray[np.int64],
    size: int,
    stop: Interruption,
    share: slice = ALL,
) -> Iterator[Found]:
    """Yield what is found of `size` sequences at a time, the longest first; of half as many where memory runs out.

    Args:
        found: what is computed of sequences in one forward pass; it keeps nothing when it fails.
        model: that computes; where it is divided, all processes make as many passes as the one with the most.
        split: the sequences.
        indices: those that are taken, int64[n].
        size: of the first part.
        stop: raises `Interrupted` between parts.
        share: which of them, in this order, are this process's.

    Raises:
        OutOfMemory: a single sequence does not fit.
    """
    waiting = indices[np.argsort(-split.lengths[indices], kind="stable")][share]
    while model.holding.together(len(waiting) > 0, stop):
        part = waiting[:size]
        try:
            with model.holding.passing(stop, training=False):
                one = found(part) if len(part) else None
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        else:
            if one is not None:
                yield one
            waiting = waiting[size:]
            continue
        size = _smaller(len(part), split, reason)


@contextmanager
def evaluating(model: Trained, stop: Interruption, world: World | None = None) -> Iterator[None]:
    """Give forward passes without dropout and gradient, which a signal ends at once; the model's mode is put back.

    `world` are the processes that each do their share: if one is told to stop, all end.
    """
    was_training = model.module.training
    model.module.eval()
    try:
        with model.holding.working(stop, world or World()), torch.no_grad(), model.arithmetic():
            yield
    finally:
        model.module.train(was_training)


def _smaller(size: int, split: Batches, reason: str) -> int:
    """Return half of a batch, with the memory of the whole one given back.

    Raises:
        OutOfMemory: it is one sequence already.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if size == 1:
        raise OutOfMemory(
            f"a single sequence of up to {int(split.lengths.max())} tokens does not fit into memory where its loss is "
            f"measured ({reason}); raise the memory limit, or lower training.maxSequenceLength"
        )
    return size // 2
