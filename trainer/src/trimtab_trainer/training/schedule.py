"""Which steps a run has, which sequences each sees, and how fast it learns: pure functions of settings and step.

Nothing here has a state, so a resumed run needs to know only its step. `loop` walks it.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

from ..contract import Schedule, TrainingSettings


def steps_per_epoch(training: TrainingSettings, sequences: int) -> int:
    """Return the optimizer steps of one pass over the sequences; the last may see fewer than batchSize."""
    return math.ceil(sequences / training.batch_size)


def sequences_of_step(training: TrainingSettings, sequences: int, step: int) -> npt.NDArray[np.int64]:
    """Return the indices of the sequences that a step (counted from 0) sees.

    Every epoch is a permutation of its own, made of the seed and the epoch, so no sequence is seen twice before each
    was seen once.
    """
    epoch, position = divmod(step, steps_per_epoch(training, sequences))
    order = np.random.Generator(np.random.PCG64([training.seed, epoch])).permutation(sequences)
    return order[position * training.batch_size : (position + 1) * training.batch_size].astype(np.int64)


def learning_rate(training: TrainingSettings, step: int, total: int) -> float:
    """Return the learning rate of a step (counted from 0): linear warm-up to the peak, then the schedule towards 0.

    The cosine is that of arXiv 1608.03983, equation 5, without restarts.
    """
    warmup = math.ceil(training.warmup_ratio * total)
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    if training.schedule is Schedule.CONSTANT:
        return training.learning_rate
    if training.schedule is Schedule.LINEAR:
        return training.learning_rate * (1 - done)
    return training.learning_rate * (1 + math.cos(math.pi * done)) / 2


def step_seed(training: TrainingSettings, step: int, micro_batch: int = 0) -> int:
    """Return the seed of the dropout of a step's micro-batch: a 63-bit number made of the run's seed and its place.

    Dropout is seeded anew for every micro-batch, so that it depends on nothing else: not on whether an evaluation ran
    before, whether the run was resumed, or which of several processes computes it.
    """
    place = f"{training.seed}/{step}" + (f"/{micro_batch}" if micro_batch else "")
    digest = hashlib.sha256(place.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
