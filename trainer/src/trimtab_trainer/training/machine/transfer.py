"""Numbers on their way to an accelerator and back, which is not waited for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def sent(array: npt.NDArray[Any], where: torch.device) -> Tensor:
    """Return an array on the device, without waiting for an accelerator that still computes what came before."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(where, non_blocking=True) if where.type == "cuda" else tensor.to(where)


class Beside:
    """A queue of an accelerator beside that in which a thread computes.

    Without it an accelerator does what both ask in turn, so that a copy waits for what is computed, and that for it.
    Memory is kept by queue, so whoever copies time and again keeps one.
    """

    def __init__(self, where: torch.device) -> None:
        self._where = where
        self._stream = torch.cuda.Stream(where) if where.type == "cuda" else None

    def now(self) -> AbstractContextManager[None]:
        """Return the context of a thread that reads what the calling one has asked of the accelerator so far."""
        if self._stream is None:
            return nullcontext()
        self._stream.wait_stream(torch.cuda.current_stream(self._where))
        return torch.cuda.stream(self._stream)
