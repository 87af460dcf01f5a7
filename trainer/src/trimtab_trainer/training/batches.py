"""From stored sequences to the tensors of a forward pass.

A sequence is one row of the data, or several packed ones; positions start again at 0 with each row. Sequences are laid
side by side, one a line of the tensor, padded on the right. `loop` and `validation` call it.

Padding goes on counting the positions of its line. Causal attention already hides what comes later from every real
token, padding is never supervised, and a batch without packed rows so keeps the faster path without a mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .machine.transfer import sent
from .network.rows import RowLayout, row_layout

IGNORED = -100
"""Target of a position that has no loss; the value that torch's cross-entropy ignores."""
ALL = slice(None)
"""Of all micro-batches."""


class Sequences(Protocol):
    """What is read of `data.view.Sequences`: S sequences of N tokens in all."""

    @property
    def tokens(self) -> npt.NDArray[np.int32]: ...  # [N]
    @property
    def positions(self) -> npt.NDArray[np.int32]: ...  # [N], 0 at the start of each row
    @property
    def supervised(self) -> npt.NDArray[np.bool_]: ...  # [N], tokens that are to be predicted
    @property
    def offsets(self) -> npt.NDArray[np.int64]: ...  # [S + 1]
    @property
    def weights(self) -> npt.NDArray[np.float32] | None: ...  # of each packed row, in order


@dataclass(frozen=True)
class MicroBatch:
    """B sequences padded to T tokens; `tokens`, `positions` and `targets` are int64 [B, T].

    `targets[b, t]` is the token that position t has to predict, or IGNORED; `weights[b, t]` float32 is what that
    counts, if not all count alike. `rows` tells where packed rows lie; absent where each sequence is one.
    `chosen` int64 [n] are the places in [B * T] that have a target.
    """

    tokens: Tensor
    positions: Tensor
    targets: Tensor
    real_tokens: int
    supervised_tokens: int
    weights: Tensor | None = None
    rows: RowLayout | None = None
    chosen: Tensor | None = None


def lengths(sequences: Sequences) -> npt.NDArray[np.int64]:
    """Return the number of tokens of each sequence, int64 [S]."""
    return np.diff(sequences.offsets)


def targets(sequences: Sequences) -> npt.NDArray[np.int64]:
    """Return what each position predicts, int64 [N]: the next token of the same row if it is supervised."""
    following = np.full(len(sequences.tokens), IGNORED, dtype=np.int64)
    # The first token of a row has no predecessor in its row: nothing predicts it, even with lossOn AllTokens.
    predicted = sequences.supervised[1:] & (sequences.positions[1:] > 0)
    predicted[sequences.offsets[1:-1] - 1] = False
    following[:-1][predicted] = sequences.tokens[1:][predicted]
    return following


def weights(sequences: Sequences) -> npt.NDArray[np.float32] | None:
    """Return what each position's prediction counts, float32 [N]: as its row; None if all count alike."""
    if sequences.weights is None:
        return None
    row = np.cumsum(sequences.positions == 0) - 1
    found: npt.NDArray[np.float32] = sequences.weights[row]
    return found


class Batches:
    """The sequences of a split, with their targets, ready to be laid into micro-batches."""

    def __init__(self, sequences: Sequences) -> None:
        self.sequences = sequences
        self.lengths = lengths(sequences)
        self.targets = targets(sequences)
        starts = np.concatenate([[0], np.cumsum(self.targets != IGNORED)])
        self.supervised = starts[sequences.offsets[1:]] - starts[sequences.offsets[:-1]]
        """Tokens with a loss of each sequence, int64 [S]."""
        self.weights = weights(sequences)
        """What each position's prediction counts, float32 [N], if not all count alike."""
        self.counted = self.supervised.astype(np.float64)
        """What all predictions of each sequence count together, float64 [S]: their number, if all count alike."""
        if self.weights is not None:
            counting = np.where(self.targets != IGNORED, self.weights, 0)
            sums = np.concatenate([[0.0], np.cumsum(counting, dtype=np.float64)])
            self.counted = sums[sequences.offsets[1:]] - sums[sequences.offsets[:-1]]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """Most tokens that a sequence takes in a micro-batch."""
        return int(self.lengths.max())

    def micro_batches(
        self, indices: npt.NDArray[np.int64], size: int, where: torch.device, tokens: int = 0, share: slice = ALL
    ) -> Iterator[MicroBatch]:
        """Yield the sequences, longest first (least padding, and too little memory shows at once), `size` at a time.

        Of shorter ones more are taken: as many as make up to `tokens`, padding included. `share` tells which of the
        micro-batches.
        """
        order = indices[np.argsort(-self.lengths[indices], kind="stable")]
        starts = [0]
        while starts[-1] < len(order):
            starts.append(starts[-1] + max(size, tokens // int(self.lengths[order[starts[-1]]])))
        for start, end in list(pairwise(starts))[share]:
            yield self.lay(order[start:end], where)

    def lay(self, indices: npt.NDArray[np.int64], where: torch.device) -> MicroBatch:
        """Return one micro-batch of these sequences, on the device."""
        width = int(self.lengths[indices].max())
        tokens = np.zeros((len(indices), width), dtype=np.int64)
        positions = np.zeros_like(tokens)
        wanted = np.full_like(tokens, IGNORED)
        counting = None if self.weights is None else np.ones(tokens.shape, np.float32)
        for line, index in enumerate(indices):
            first, last = self.sequences.offsets[index], self.sequences.offsets[index + 1]
            length = last - first
            tokens[line, :length] = self.sequences.tokens[first:last]
            positions[line, :length] = self.sequences.positions[first:last]
            positions[line, length:] = positions[line, length - 1] + 1 + np.arange(width - length)
            wanted[line, :length] = self.targets[first:last]
            if counting is not None and self.weights is not None:
                counting[line, :length] = self.weights[first:last]
        return MicroBatch(
            tokens=sent(tokens, where),
            positions=sent(positions, where),
            targets=sent(wanted, where),
            real_tokens=int(self.lengths[indices].sum()),
            supervised_tokens=int(self.supervised[indices].sum()),
            weights=None if counting is None else sent(counting, where),
            rows=row_layout(positions, where),
            chosen=sent(np.flatnonzero(wanted != IGNORED), where),
        )
