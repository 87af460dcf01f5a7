"""Where the rows lie in a micro-batch of packed sequences: what attention by rows goes by, instead of a mask."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..machine.transfer import sent


@dataclass(frozen=True)
class RowLayout:
    """The rows of B lines of T tokens, line by line; padding belongs to the last row of its line.

    Attributes:
        lines: numbers of tokens of the rows of each line; each adds up to T.
        starts: int32 [rows + 1] on the device, where rows begin in the joined lines [B * T], and their end.
    """

    lines: tuple[tuple[int, ...], ...]
    starts: Tensor
    _masks: dict[int | None, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(max(line) for line in self.lines)

    def mask(self, window: int | None = None) -> Tensor:
        """Return bool [B, 1, T, T], true where a token (third axis) attends to another of its row (fourth axis).

        Args:
            window: tokens that one attends to at most, itself among them; all before it if absent.
        """
        if window not in self._masks:
            width = sum(self.lines[0])
            where = self.starts.device
            rows = sent(np.stack([np.repeat(np.arange(len(line)), line) for line in self.lines]), where)
            distance = torch.arange(width, device=where)[:, None] - torch.arange(width, device=where)
            near = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
            self._masks[window] = (rows[:, None, :, None] == rows[:, None, None, :]) & near
        return self._masks[window]


def row_layout(positions: npt.NDArray[np.int64], where: torch.device) -> RowLayout | None:
    """Return the layout of rows whose positions int64 [B, T] begin at 0; None where each line is one row."""
    begins = positions == 0
    begins[:, 0] = True
    if int(begins.sum()) == len(positions):
        return None
    width = positions.shape[1]
    lines = tuple(tuple(np.diff([*np.flatnonzero(line).tolist(), width]).tolist()) for line in begins)
    starts = np.concatenate([[0], np.cumsum([length for line in lines for length in line])]).astype(np.int32)
    return RowLayout(lines, sent(starts, where))
