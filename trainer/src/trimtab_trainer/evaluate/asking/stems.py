"""What sequences begin with alike, so that it goes through the model once: a question before its choices, or examples
before all questions.

A stem is a whole number of `MULTIPLE` tokens, so that it needs no padding and what follows it lies where it would lie
without it: the rest of each sequence is computed on the stem's keys and values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from operator import eq

import torch

from ...training.batches import MicroBatch
from ...training.machine.exhausted import is_out_of_memory
from ...training.network.model import LanguageModel

MULTIPLE = 16
"""Widths of batches, and numbers of positions given to the output head, are multiples of this."""
LEAST_SAVED = 0.25
"""A sequence joins others where that saves this share of its tokens: two passes cost more than one."""
MOST_BRANCHES = 16
"""Sequences that share a stem in one pass: each holds a copy of its keys and values."""
ATTENTION = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers whose keys and values can be handed on to several sequences."""
ALIKE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.05}
"""How far hidden states may be apart behind a stem and in one piece, of their norm: rounding, by the compute type."""


@dataclass(frozen=True)
class Branch:
    """Tokens behind a stem, and the sequences (by index) that are answered by what goes through the model.

    Sequences whose inputs are the same, or the beginning of each other, share a branch: choices of one token do.
    """

    tokens: tuple[int, ...]
    members: tuple[int, ...]


@dataclass(frozen=True)
class Stem:
    """Tokens that several branches begin with; none, and a single branch, where nothing is shared."""

    tokens: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def longest(self) -> int:
        """Tokens of its longest sequence."""
        return len(self.tokens) + max(len(branch.tokens) for branch in self.branches)

    def halves(self) -> tuple[Stem, ...]:
        """Return several branches as two stems of the same tokens."""
        middle = len(self.branches) // 2
        return Stem(self.tokens, self.branches[:middle]), Stem(self.tokens, self.branches[middle:])


def shares_stems(model: LanguageModel, longest: int) -> bool:
    """Tell whether a model computes what stands behind a stem from the stem's keys and values.

    Its layers must know nothing else of what came before, and no window may cut into them. That they are used, and used
    rightly, is tried: some models take them and do not look.

    Args:
        longest: tokens of a sequence at most.
    """
    config = model.causal.config.get_text_config()
    layers = frozenset(getattr(config, "layer_types", None) or ATTENTION)
    window = getattr(config, "sliding_window", None)
    if model.position_axes != 1 or not layers <= ATTENTION or getattr(model.causal, "_is_stateful", False):
        return False
    return (window is None or longest <= window) and _computes_alike(model)


def _computes_alike(model: LanguageModel) -> bool:
    """Compare a few tokens behind a stem with the same in one piece."""
    size = int(model.causal.get_input_embeddings().weight.shape[0])
    tokens = tuple(7 * number % size for number in range(3 * MULTIPLE))
    stem, rest = tokens[: 2 * MULTIPLE], tokens[2 * MULTIPLE :]
    whole = model.hidden(lay([tokens], model.device))[:, len(stem) :].float()
    try:
        cache = model.cache()
        model.hidden(lay([stem], model.device), cache)
        # Two copies of what one line left: a cache may keep something that it does not copy.
        cache.batch_select_indices(torch.zeros(2, dtype=torch.int64, device=model.device))
        behind = model.hidden(lay([rest, rest], model.device, behind=len(stem)), cache).float()
    except Exception as error:  # models that keep no such cache raise anything
        if is_out_of_memory(error):
            raise
        return False
    return all(bool((whole[0] - each).norm() <= ALIKE[model.compute_type] * whole.norm()) for each in behind)


def lay(sequences: list[tuple[int, ...]], where: torch.device, behind: int = 0) -> MicroBatch:
    """Return sequences as one batch, padded on the right to a multiple of 16; positions count from `behind`."""
    width = -(-max(1, *(len(tokens) for tokens in sequences)) // MULTIPLE) * MULTIPLE
    tokens = torch.zeros((len(sequences), width), dtype=torch.int64)
    for line, each in enumerate(sequences):
        tokens[line, : len(each)] = torch.tensor(each, dtype=torch.int64)
    positions = torch.arange(behind, behind + width).expand(len(sequences), width)
    return MicroBatch(tokens.to(where), positions.to(where), tokens, sum(map(len, sequences)), 0)


def stems_of(inputs: Sequence[tuple[int, ...]], *, shared: bool) -> list[Stem]:
    """Return what goes through the model for some inputs: each is in one branch of one stem.

    Args:
        inputs: tokens, any of them may be empty.
        shared: whether branches may share a stem.
    """
    found = []
    for tokens, branches in _grouped(_branches(inputs)) if shared else [((), [each]) for each in _branches(inputs)]:
        behind = [Branch(each.tokens[len(tokens) :], each.members) for each in branches]
        found += [Stem(tokens, tuple(behind[at : at + MOST_BRANCHES])) for at in range(0, len(behind), MOST_BRANCHES)]
    # Back to the order of the sequences, so that which ones stand together in a batch is easy to tell.
    return sorted(found, key=lambda stem: stem.branches[0].members[0])


def _branches(inputs: Sequence[tuple[int, ...]]) -> list[Branch]:
    """Group inputs that are the beginning of one another, each group under its longest, in descending order."""
    order = sorted(range(len(inputs)), key=lambda index: inputs[index], reverse=True)
    groups: list[tuple[tuple[int, ...], list[int]]] = []
    for index in order:  # in reverse order what begins with these tokens stands right before them
        if groups and groups[-1][0][: len(inputs[index])] == inputs[index]:
            groups[-1][1].append(index)
        else:
            groups.append((inputs[index], [index]))
    return [Branch(tokens, tuple(sorted(members))) for tokens, members in groups]


def _grouped(branches: list[Branch]) -> Iterator[tuple[tuple[int, ...], list[Branch]]]:
    """Yield a stem and its branches, cut from a list in which each stands beside those that begin most like it."""
    group: list[Branch] = []
    stem = 0
    for branch in branches:
        if group:
            common = _alike(group[-1].tokens, branch.tokens) // MULTIPLE * MULTIPLE
            common = min(common, stem) if len(group) > 1 else common
            saved = common * len(group) - stem * (len(group) - 1)
            if common and saved >= LEAST_SAVED * len(branch.tokens):
                group.append(branch)
                stem = common
                continue
            yield group[0].tokens[:stem], group
        group, stem = [branch], 0
    if group:
        yield group[0].tokens[:stem], group


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Return how many tokens two texts begin with alike."""
    return sum(1 for _ in takewhile(bool, map(eq, one, other)))
