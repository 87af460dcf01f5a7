"""Numbers on their way to an accelerator, which is not waited for."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def sent(array: npt.NDArray[Any], where: torch.device) -> Tensor:
    """Return an array on the device, without waiting for an accelerator that still computes what came before."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(where, non_blocking=True) if where.type == "cuda" else tensor.to(where)
