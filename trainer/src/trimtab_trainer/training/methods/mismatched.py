"""KTO's other answers: each prompt with the answer of the row before it, from which the KL term is estimated.

As TRL makes them: the answers of a batch go round by one. Here of a whole split, in the order of the view, which is
that of hashes: so they do not depend on batches, and what the reference says of them is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .batches import Preferences


@dataclass(frozen=True)
class Mismatched:
    """The same prompts with other answers, one row a sequence; fields as those of `data.view.Sequences`."""

    tokens: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    supervised: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int32]
    wanted: npt.NDArray[np.bool_] | None
    weights: npt.NDArray[np.float32] | None = None


def mismatched(sequences: Preferences, limit: int) -> Mismatched:
    """Return each prompt with the answer of the row before it, the first with the last one's, cut at `limit` tokens."""
    tokens, masks = [], []
    bounds = list(zip(sequences.offsets[:-1].tolist(), sequences.offsets[1:].tolist(), strict=True))
    begins = [start + int(np.argmax(sequences.supervised[start:end])) for start, end in bounds]
    for number, (start, _) in enumerate(bounds):
        other = number - 1
        prompt = sequences.tokens[start : begins[number]]
        answer = slice(begins[other], bounds[other][1])
        tokens.append(np.concatenate((prompt, sequences.tokens[answer]))[:limit])
        masks.append(np.concatenate((np.zeros(len(prompt), np.bool_), sequences.supervised[answer]))[:limit])
        masks[-1][:1] = False  # a first token has nothing before it to be predicted from
    lengths = np.array([len(each) for each in tokens], np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return Mismatched(
        tokens=np.concatenate(tokens),
        positions=(np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)).astype(np.int32),
        supervised=np.concatenate(masks),
        offsets=offsets,
        rows=np.ones(len(tokens), np.int32),
        wanted=sequences.wanted,
    )
