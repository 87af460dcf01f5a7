"""The loss on held-out sequences: summed nats over counted tokens, so it does not depend on how they are batched.

`loop` calls it during training and `publish` for the exported adapter. It changes nothing: no dropout, no gradient, no
random numbers, and the model is left in the mode it was in. Where memory runs out, a batch is cut in two.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ..errors import OutOfMemory
from ..interruption import Interruption
from .adapter import Adapted
from .batches import Batches
from .exhausted import is_out_of_memory
from .loss import summed_loss

TOKENS_PER_BATCH = {"cuda": 16384, "cpu": 4096}
"""Tokens of a forward pass without gradients, padding included, where no batch size is set."""


def mean_loss(model: Adapted, split: Batches, stop: Interruption, batch_size: int | None = None) -> float:
    """Return the negative log-likelihood in nats per supervised token of a split.

    Args:
        model: the model, whose active adapter (if any) takes part.
        split: the sequences; at least one token of them is supervised.
        stop: raises `Interrupted` between and inside batches.
        batch_size: sequences of a forward pass; so many as make a few thousand tokens if absent.

    Raises:
        OutOfMemory: a single sequence does not fit.
    """
    size = batch_size or max(1, TOKENS_PER_BATCH[model.device.type] // int(split.lengths.max()))
    order = np.argsort(-split.lengths, kind="stable").astype(np.int64)
    total, was_training = 0.0, model.peft.training
    model.peft.eval()
    try:
        with stop.at_once(), torch.no_grad(), model.arithmetic():
            waiting = order
            while len(waiting):
                stop.check()
                found = _nats(model, split, waiting[:size])
                if isinstance(found, str):
                    size = _smaller(min(size, len(waiting)), split, found)
                    continue
                total += found
                waiting = waiting[size:]
    finally:
        model.peft.train(was_training)
    return total / int(split.supervised.sum())


def _nats(model: Adapted, split: Batches, indices: npt.NDArray[np.int64]) -> float | str:
    """Return the summed nats of some sequences, or with which words memory ran out."""
    try:
        batch = split.lay(indices, model.device)
        return summed_loss(model.hidden(batch), batch.targets, model.head).item() if batch.supervised_tokens else 0.0
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return str(error).partition("\n")[0]


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
