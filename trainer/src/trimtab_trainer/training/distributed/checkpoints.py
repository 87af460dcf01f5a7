"""Checkpoints where several processes train: the leader writes and reads them, the others have them from it.

What is in one does not depend on how many processes wrote it, so any number goes on from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from torch import Tensor

from ...interruption import Interruption
from ..checkpoint import Checkpoint, Checkpoints
from .world import World


def newest_first(checkpoints: Checkpoints, world: World, stop: Interruption) -> Iterator[Checkpoint]:
    """Yield the checkpoints that are whole, the newest first, the same ones in every process.

    Raises:
        TrainerError: storage cannot be read at all.
    """
    found = checkpoints.newest_first() if world.leads else iter(())
    while (checkpoint := world.from_leader(next(found, None), stop)) is not None:
        yield checkpoint


def check_alike(tensors: Mapping[str, Tensor], world: World, step: int) -> None:
    """Make sure that every process has the same weights.

    Raises:
        RuntimeError: they have drifted apart, so none of them is to be believed.
    """
    if world.size == 1:
        return
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        sha256.update(tensors[name].detach().cpu().contiguous().flatten().numpy().tobytes())
    found = world.gather(sha256.hexdigest())
    if len(set(found)) > 1:
        raise RuntimeError(f"after step {step} not all {world.size} processes have the same weights")
