"""Sums over the bytes of tensors, computed where these are, so that an accelerator's weights do not leave it."""

from __future__ import annotations

import torch
from torch import Tensor

CHECKSUM_BYTES = 1 << 24
"""Of a tensor, at once: each takes some 40 bytes while it is summed."""
CHECKSUM_FACTORS = (-7046029254386353131, -4417276706812531889)
"""Odd 64-bit numbers without a pattern: those of xxHash64 and of the golden ratio, as signed ones."""


def checksums(tensor: Tensor) -> Tensor:
    """Return int64 [2] of a tensor's bytes, on its device: sums modulo 2^64 with two weights for each place.

    They change with any byte and with places that change hands; they are no protection from somebody who wants them
    equal, which is what the sha256 of the files is for.
    """
    data = tensor.detach().contiguous().flatten().view(torch.uint8)
    total = torch.zeros(2, dtype=torch.int64, device=data.device)
    for start in range(0, len(data), CHECKSUM_BYTES):
        part = data[start : start + CHECKSUM_BYTES].to(torch.int64) + 1
        places = torch.arange(start + 1, start + 1 + len(part), device=data.device)
        for index, factor in enumerate(CHECKSUM_FACTORS):
            weights = places * factor
            weights = (weights ^ (weights >> 29)) * factor
            total[index] += (part * weights).sum()
    return total
