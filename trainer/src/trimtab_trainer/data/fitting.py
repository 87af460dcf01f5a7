"""Rows that fit into a sequence: longer ones are dropped, or cut behind the last answer that fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..contract import LossOn, TooLong, TrainingSettings
from .encoding.template import Kind
from .encoding.tokens import is_learned
from .rows import Rows

Int64 = npt.NDArray[np.int64]
READ_ROWS = 256


@dataclass(frozen=True)
class Fitted:
    """Rows of one side that are used and how many tokens of each, int64[n] both, in the order of their identities.

    Attributes:
        dropped: rows that are too long.
        truncated: rows of which only the first answers are used.
        longest: the most tokens that a row of the side has.
    """

    rows: Int64
    lengths: Int64
    dropped: Int64
    truncated: Int64
    longest: int = 0


def fit(rows: Rows, chosen: Int64, training: TrainingSettings, too_long: TooLong) -> Fitted:
    """Return which of the chosen rows are used, and how much of them."""
    chosen = rows.in_order(of_loss(rows, chosen, training.loss_on))
    lengths, capacity = rows.lengths[chosen], training.max_sequence_length
    longest = int(lengths.max(initial=0))
    over = lengths > capacity
    if training.method.is_paired:
        # The two sequences of a pair are neighbours, and one without the other says nothing.
        over = np.repeat(over.reshape(-1, 2).any(axis=1), 2)
        return Fitted(chosen[~over], lengths[~over], chosen[over], chosen[:0], longest)
    if too_long is TooLong.TRUNCATE and over.any():
        lengths = lengths.copy()
        lengths[over] = ends_of_answers(rows, chosen[over], training)
    kept = (lengths > 0) & (lengths <= capacity)
    return Fitted(chosen[kept], lengths[kept], chosen[~kept], chosen[kept & over], longest)


def of_loss(rows: Rows, chosen: Int64, loss_on: LossOn) -> Int64:
    """Return the chosen rows without those that repeat what another one has.

    Of a conversation that became one row a turn only the last one is the whole of it, and has the last turn.
    """
    return chosen if loss_on is LossOn.COMPLETIONS else chosen[rows.whole[chosen]]


def ends_of_answers(rows: Rows, chosen: Int64, training: TrainingSettings) -> Int64:
    """Return for each row the tokens up to the end of the last answer that fits, int64[n]; 0 where none does."""
    ends = np.zeros(len(chosen), np.int64)
    for begin in range(0, len(chosen), READ_ROWS):
        part = chosen[begin : begin + READ_ROWS]
        lengths = np.minimum(rows.lengths[part], training.max_sequence_length + 1)
        kinds = rows.tokens(part, lengths)[1]
        for index, own in enumerate(np.split(kinds, np.cumsum(lengths)[:-1])):
            answers = own == Kind.LAST if training.loss_on is LossOn.LAST_TURN else learned(own, LossOn.COMPLETIONS)
            last = np.flatnonzero(answers[:-1] & ~answers[1:])
            ends[begin + index] = last[-1] + 1 if len(last) else 0
    return ends


def as_used(rows: Rows, sides: Iterable[Fitted], loss_on: LossOn) -> Rows:
    """Return the rows with as many tokens, and tokens that have a loss, as are used of them; for figures alone."""
    lengths, counts = rows.lengths.copy(), rows.learned.copy()
    for side in sides:
        lengths[side.rows] = side.lengths
        others = side.truncated if loss_on is LossOn.COMPLETIONS else side.rows
        for begin in range(0, len(others), READ_ROWS):
            part = others[begin : begin + READ_ROWS]
            starts = np.cumsum(lengths[part]) - lengths[part]
            mask = learned(rows.tokens(part, lengths[part])[1], loss_on)
            mask[starts] = False  # a first token has nothing before it to be predicted from
            counts[part] = np.add.reduceat(mask.astype(np.int64), starts)
    return replace(rows, lengths=lengths, learned=counts)


def learned(kinds: npt.NDArray[np.uint8], loss_on: LossOn) -> npt.NDArray[np.bool_]:
    """Return which tokens are targets of the loss bool[N]; what has the weight 0 never is."""
    mask: npt.NDArray[np.bool_] = {
        LossOn.ALL_TOKENS: kinds != Kind.EXCLUDED,
        LossOn.LAST_TURN: kinds == Kind.LAST,
        LossOn.COMPLETIONS: is_learned(kinds),
    }[loss_on]
    return mask
