"""Pairs and labelled answers as micro-batches: each answer behind its prompt, and which target is of which answer.

A sequence of the view is what is compared: the two answers of a pair, the chosen one first, or one labelled answer.
Where rows may be packed both answers of a pair lie in one line, so that nothing is padded between them; else a line
each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..batches import ALL, IGNORED, Batches, MicroBatch, Sequences
from ..machine.transfer import sent
from ..network.rows import row_layout

Int64 = npt.NDArray[np.int64]


class Preferences(Sequences, Protocol):
    """What is read of `data.view.Sequences` of preferences: rows are answers with their prompts."""

    @property
    def rows(self) -> npt.NDArray[np.int32]: ...  # [S], answers of each sequence: 1 or 2
    @property
    def wanted(self) -> npt.NDArray[np.bool_] | None: ...  # of each answer


@dataclass(frozen=True, kw_only=True)
class PreferenceBatch(MicroBatch):
    """R answers of U pairs or labelled rows; targets lie in the order of answers.

    Attributes:
        places: numbers of the answers in their split, int64[R].
        answer_tokens: targets of each answer int64[R].
        asked_tokens: of its prompt, int64[R]; 0 where prompts are not learned.
        is_answer: bool[n] of all targets, those of answers.
        wanted: bool[R].
        unit_weights: what each pair or labelled row counts, float32[U].
    """

    places: Int64
    answer_tokens: Tensor
    asked_tokens: Tensor
    is_answer: Tensor
    wanted: Tensor
    unit_weights: Tensor


@dataclass(frozen=True)
class Reference:
    """Log-probabilities of a split's answers float32[R], in nats; and of KTO's mismatched ones float32[S]."""

    answers: npt.NDArray[np.float32]
    mismatched: npt.NDArray[np.float32] | None = None


class PreferenceBatches(Batches):
    """The pairs or labelled answers of a split.

    Attributes:
        mismatched: KTO's other answers to the same prompts.
        reference: what the model said before training, once that is known.
    """

    def __init__(self, sequences: Preferences, *, side_by_side: bool, with_prompts: bool = False) -> None:
        """Take the sequences.

        Args:
            sequences: of a split.
            side_by_side: both answers of a pair lie in one line.
            with_prompts: of wanted answers the tokens of the prompt are targets too.
        """
        super().__init__(sequences)
        assert sequences.wanted is not None
        self.side_by_side, self.with_prompts = side_by_side, with_prompts
        self.mismatched: PreferenceBatches | None = None
        self.reference: Reference | None = None
        self.wanted: npt.NDArray[np.bool_] = sequences.wanted
        self.starts = np.flatnonzero(sequences.positions == 0)
        self.ends = np.append(self.starts[1:], len(sequences.tokens))
        counts = sequences.rows.astype(np.int64)
        self.first_answer = np.cumsum(counts) - counts
        self.answers = counts
        self.unit_weights = (
            np.ones(len(counts), np.float32) if sequences.weights is None else sequences.weights[self.first_answer]
        )
        if with_prompts:
            following = np.full_like(self.targets, IGNORED)
            inside = sequences.positions[1:] > 0
            following[:-1][inside] = sequences.tokens[1:][inside]
            self.whole_targets = following
            sums = np.concatenate([[0], np.cumsum(following != IGNORED)])
            whole = sums[self.ends] - sums[self.starts]
            self.likelihood_tokens = whole[self.first_answer]
            """Of the chosen answer of each pair with its prompt, int64[S]."""

    @property
    def longest(self) -> int:
        """Most tokens that a pair or a labelled answer takes in a micro-batch, padding included."""
        if self.side_by_side:
            return int(self.lengths.max())
        lengths = self.ends - self.starts
        return int((np.maximum.reduceat(lengths, self.first_answer) * self.answers).max())

    def places(self, indices: Int64) -> Int64:
        """Return the numbers of the answers of these pairs or labelled rows, in their order."""
        firsts = zip(self.first_answer[indices].tolist(), self.answers[indices].tolist(), strict=True)
        return np.concatenate([np.arange(first, first + count) for first, count in firsts])

    def micro_batches(
        self, indices: Int64, size: int, where: torch.device, tokens: int = 0, share: slice = ALL
    ) -> Iterator[PreferenceBatch]:
        """Yield the pairs or labelled answers, `size` at a time, in the order of `Batches.micro_batches`.

        Never more of shorter ones, whatever `tokens` would allow.
        """
        order = indices[np.argsort(-self.lengths[indices], kind="stable")]
        return (self.lay(order[start : start + size], where) for start in range(0, len(order), size)[share])

    def lay(self, indices: Int64, where: torch.device) -> PreferenceBatch:
        """Return one micro-batch of these pairs or labelled answers, on the device."""
        places = self.places(indices)
        spans = [(int(self.starts[place]), int(self.ends[place])) for place in places]
        lines = self._lines(indices, spans)
        width = max(sum(end - start for start, end in line) for line in lines)
        tokens = np.zeros((len(lines), width), dtype=np.int64)
        positions = np.zeros_like(tokens)
        wanted = np.full_like(tokens, IGNORED)
        answered = np.zeros(tokens.shape, np.bool_)
        place = 0
        for number, line in enumerate(lines):
            at = 0
            for start, end in line:
                inside = slice(at, at + end - start)
                tokens[number, inside] = self.sequences.tokens[start:end]
                positions[number, inside] = self.sequences.positions[start:end]
                own = self.targets[start:end]
                asks = self.with_prompts and self.wanted[places[place]]
                wanted[number, inside] = self.whole_targets[start:end] if asks else own
                answered[number, inside] = own != IGNORED
                at, place = at + end - start, place + 1
            # Padding goes on counting, as in `Batches.lay`.
            positions[number, at:] = positions[number, at - 1] + 1 + np.arange(width - at)
        counts = np.array([int((self.targets[start:end] != IGNORED).sum()) for start, end in spans], np.int64)
        asked = np.zeros_like(counts)
        if self.with_prompts:
            whole = np.array([int((self.whole_targets[start:end] != IGNORED).sum()) for start, end in spans], np.int64)
            asked = np.where(self.wanted[places], whole - counts, 0)

        return PreferenceBatch(
            tokens=sent(tokens, where),
            positions=sent(positions, where),
            targets=sent(wanted, where),
            real_tokens=sum(end - start for start, end in spans),
            supervised_tokens=int(counts.sum()),
            rows=row_layout(positions, where),
            chosen=sent(np.flatnonzero(wanted != IGNORED), where),
            places=places,
            answer_tokens=sent(counts, where),
            asked_tokens=sent(asked, where),
            is_answer=sent(answered[wanted != IGNORED], where),
            wanted=sent(self.wanted[places], where),
            unit_weights=sent(self.unit_weights[indices], where),
        )

    def _lines(self, indices: Int64, spans: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        if not self.side_by_side:
            return [[span] for span in spans]
        bounds = np.cumsum(self.answers[indices]).tolist()
        return [spans[first:last] for first, last in zip([0, *bounds], bounds, strict=False)]
