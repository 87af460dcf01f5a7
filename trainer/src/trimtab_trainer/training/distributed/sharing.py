"""Who computes which micro-batch, and how large one may be so that all have something to do. Pure.

A step's sequences are cut into micro-batches as one process would cut them, and dealt out in turn, the longest first:
so each has nearly the same tokens. A micro-batch's dropout depends on its place in the step, not on who computes it, so
where the cuts are the same so is the gradient, whatever the number of processes.
"""

from __future__ import annotations

import math

from ...contract import TrainingSettings
from ...errors import SettingsInvalid


def dealt(rank: int, size: int) -> slice:
    """Return which of all micro-batches are of a rank."""
    return slice(rank, None, size)


def shared_micro_batch(planned: int, batch_size: int, size: int) -> int:
    """Return the largest micro-batch of at most the planned one that leaves nobody waiting longer than is needed.

    It divides batchSize where that is possible at all; the busiest process has as few sequences as can be.
    """

    def busiest(micro_batch: int) -> int:
        return math.ceil(math.ceil(batch_size / micro_batch) / size) * micro_batch

    if size == 1:
        return planned
    allowed = [n for n in range(1, min(planned, batch_size) + 1) if batch_size % n == 0]
    least = min(busiest(n) for n in allowed)
    return max(n for n in allowed if busiest(n) == least)


def check_batch(training: TrainingSettings, size: int) -> None:
    """Refuse a batch that has no sequence for some of the accelerators: they would be held for nothing.

    Raises:
        SettingsInvalid: it is smaller than the number of accelerators, or its micro-batches are too few.
    """
    if size == 1:
        return
    if training.batch_size < size:
        raise SettingsInvalid(
            f"training.batchSize {training.batch_size} is less than the {size} accelerators, and some would be held "
            "for nothing; it counts the sequences of all of them: raise it, or ask for fewer accelerators"
        )
    micro_batch = training.micro_batch_size
    if micro_batch is not None and micro_batch * size > training.batch_size:
        raise SettingsInvalid(
            f"training.microBatchSize {micro_batch} on {size} accelerators is more than training.batchSize "
            f"{training.batch_size}, which counts the sequences of all of them; lower the one or raise the other"
        )


def uneven(training: TrainingSettings, size: int) -> str | None:
    """Return what to tell of a batch that cannot be divided evenly; None if it can."""
    if training.batch_size % size == 0:
        return None
    most = math.ceil(training.batch_size / size)
    return (
        f"training.batchSize {training.batch_size} cannot be divided among {size} accelerators: in each step some wait "
        f"while others compute their {most}th sequence; take a multiple of {size}"
    )
