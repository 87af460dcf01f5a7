"""Work under which memory may run out: the batch is then made smaller by who asked, here it is told apart and freed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from ..training.machine.exhausted import is_out_of_memory

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Exhausted:
    """Memory ran out, for this reason."""

    reason: str


def attempted(work: Callable[[], Answer]) -> Answer | Exhausted:
    """Return what `work` returns, or that memory ran out under it; then nothing of it is held any more."""
    try:
        return work()
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
    # Outside of the except block: its traceback would keep the tensors of the work alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return Exhausted(reason)
