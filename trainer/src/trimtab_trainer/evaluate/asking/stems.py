"""What sequences begin with alike, so that it goes through the model once: a question before its choices, or examples
before all questions.

On a processor stems and what follows them stand in one line behind each other, without padding between them
(`in_one_line`). Else each sequence has a line: a stem is then a whole number of `MULTIPLE` tokens, so that it needs no
padding and what follows it lies where it would lie without it, and the rest is computed on its keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from operator import eq
from weakref import WeakKeyDictionary

import torch

from ...training.batches import MicroBatch
from ...training.machine.exhausted import is_out_of_memory
from ...training.network.attention import supports_rows
from ...training.network.model import LanguageModel
from ...training.network.rows import BranchLayout
from ..memory import Exhausted, attempted
from .batching import too_long

MULTIPLE = 16
"""Widths of batches, and numbers of positions given to the output head, are multiples of this."""
LEAST_SAVED = 0.25
"""A sequence joins others where that saves this share of its tokens: two passes cost more than one."""
PROBED = 3 * MULTIPLE
"""Tokens that a model is tried on."""
MOST_BRANCHES = 16
"""Sequences that share a stem in one pass: each holds a copy of its keys and values."""
ATTENTION = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers whose keys and values can be handed on to several sequences."""
ALIKE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.05}
"""How far hidden states may be apart behind a stem and in one piece, of their norm: rounding, by the compute type."""

_computing_in_one_line: WeakKeyDictionary[LanguageModel, dict[bool, bool]] = WeakKeyDictionary()
"""What was found by trial, with the adapter and without it."""


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

    @property
    def share(self) -> int:
        """Tokens that go through the model for each branch, where nothing is padded and the stem goes through once."""
        tokens = len(self.tokens) + sum(len(branch.tokens) for branch in self.branches)
        return -(-tokens // len(self.branches))

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

    Raises:
        OutOfMemory: the few tokens that it is tried on do not fit.
    """
    return _attends_to_all(model, longest) and _tried(_computes_alike, model)


@contextmanager
def in_one_line(model: LanguageModel, longest: int) -> Iterator[bool]:
    """Tell in the block whether a model computes stems and branches in one line, as `lay_in_one_line` lays them.

    On a processor alone, where a product of fewer rows takes less time; an accelerator takes a batch in one call. That
    all layers are given the layout is tried, once.

    Args:
        longest: tokens of a sequence at most.

    Raises:
        OutOfMemory: the few tokens that it is tried on do not fit.
    """
    if model.device.type != "cpu" or not supports_rows(model.causal) or not _attends_to_all(model, longest):
        yield False
        return
    known = _computing_in_one_line.setdefault(model, {})
    adapted = _is_adapted(model)
    try:
        if known.get(adapted, True):
            model.attend_by_rows()
        if adapted not in known:
            known[adapted] = _tried(_computes_alike_in_one_line, model)
        if not known[adapted]:
            model.attend_under_masks()
        yield known[adapted]
    finally:
        model.attend_under_masks()


def _is_adapted(model: LanguageModel) -> bool:
    """Tell whether an adapter takes part."""
    disabled = (getattr(module, "disable_adapters", None) for module in model.causal.modules())
    return any(each is False for each in disabled)


def _tried(computes: Callable[[LanguageModel], bool], model: LanguageModel) -> bool:
    answer = attempted(partial(computes, model))
    if isinstance(answer, Exhausted):
        raise too_long(PROBED, answer.reason)
    return answer


def _attends_to_all(model: LanguageModel, longest: int) -> bool:
    """Tell whether a token's layers know of what came before its keys and values alone, and all of these."""
    config = model.causal.config.get_text_config()
    layers = frozenset(getattr(config, "layer_types", None) or ATTENTION)
    window = getattr(config, "sliding_window", None)
    if model.position_axes != 1 or not layers <= ATTENTION or getattr(model.causal, "_is_stateful", False):
        return False
    if turns_otherwise(model)(longest):
        return False
    return window is None or longest <= window


def turns_otherwise(model: LanguageModel) -> Callable[[int], bool]:
    """Return what tells of a number of tokens whether a batch of them has rotary frequencies of its own.

    That is so from the length on beyond which frequencies go by the longest of a batch, padding included.
    """
    config = model.causal.config.get_text_config()
    found = getattr(config, "rope_parameters", None) or {}
    limits = []
    for each in (found, *found.values()):  # of all layers, or by their kinds
        kind = str(each.get("rope_type", "")) if isinstance(each, dict) else ""
        if kind == "longrope":
            limits.append(int(each["original_max_position_embeddings"]))
        elif "dynamic" in kind:
            limits.append(int(config.max_position_embeddings))
    limit = min(limits, default=None)
    return lambda tokens: limit is not None and -(-tokens // MULTIPLE) * MULTIPLE >= limit


def _probed(model: LanguageModel) -> tuple[tuple[int, ...], tuple[int, ...], torch.Tensor]:
    """Return a stem, what follows it, and the hidden states float32 [1, T, H] of that in one piece."""
    size = int(model.causal.get_input_embeddings().weight.shape[0])
    tokens = tuple(7 * number % size for number in range(PROBED))
    stem, rest = tokens[: 2 * MULTIPLE], tokens[2 * MULTIPLE :]
    return stem, rest, model.hidden(lay([tokens], model.device))[:, len(stem) :].float()


def _computes_alike_in_one_line(model: LanguageModel) -> bool:
    """Compare a few tokens behind a stem, beside others, with the same in one piece."""
    try:
        stem, rest, whole = _probed(model)
        states = model.hidden(
            lay_in_one_line([Stem(stem, (Branch(rest[::-1], (0,)), Branch(rest, (1,))))], model.device)
        )
    except Exception as error:  # models that take no layout raise anything
        if is_out_of_memory(error):
            raise
        return False
    behind = states[0, len(stem) + len(rest) : len(stem) + 2 * len(rest)].float()
    return bool((whole[0] - behind).norm() <= ALIKE[model.compute_type] * whole.norm())


def _computes_alike(model: LanguageModel) -> bool:
    """Compare a few tokens behind a stem with the same in one piece."""
    try:
        stem, rest, whole = _probed(model)
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


def lay(sequences: list[tuple[int, ...]], where: torch.device, behind: int = 0, multiple: int = MULTIPLE) -> MicroBatch:
    """Return sequences as one batch, padded on the right to a multiple of 16; positions count from `behind`."""
    width = -(-max(1, *(len(tokens) for tokens in sequences)) // multiple) * multiple
    tokens = torch.zeros((len(sequences), width), dtype=torch.int64)
    for line, each in enumerate(sequences):
        tokens[line, : len(each)] = torch.tensor(each, dtype=torch.int64)
    positions = torch.arange(behind, behind + width).expand(len(sequences), width)
    return MicroBatch(tokens.to(where), positions.to(where), tokens, sum(map(len, sequences)), 0)


def lay_in_one_line(batch: list[Stem], where: torch.device) -> MicroBatch:
    """Return stems, each with its branches behind it, as one line, padded to a multiple of 16."""
    tokens: list[int] = []
    positions: list[int] = []
    for stem in batch:
        for start, each in [(0, stem.tokens), *((len(stem.tokens), branch.tokens) for branch in stem.branches)]:
            tokens += each
            positions += range(start, start + len(each))
    real = len(tokens)
    spare = -real % MULTIPLE if real else MULTIPLE
    laid = torch.tensor([tokens + [0] * spare], dtype=torch.int64)
    counted = torch.tensor([positions + [0] * spare], dtype=torch.int64)
    layout = BranchLayout(
        tuple((len(stem.tokens), tuple(len(branch.tokens) for branch in stem.branches)) for stem in batch)
    )
    return MicroBatch(laid.to(where), counted.to(where), laid, real, 0, rows=layout)


def stems_of(inputs: Sequence[tuple[int, ...]], *, shared: bool, multiple: int = MULTIPLE) -> list[Stem]:
    """Return what goes through the model for some inputs: each is in one branch of one stem.

    Args:
        inputs: tokens, any of them may be empty.
        shared: whether branches may share a stem.
        multiple: what the tokens of a stem are a whole number of.
    """
    found = []
    alone = _branches(inputs)
    for tokens, branches in _grouped(alone, multiple) if shared else [((), [each]) for each in alone]:
        behind = [Branch(each.tokens[len(tokens) :], each.members) for each in branches]
        found += [Stem(tokens, tuple(behind[at : at + MOST_BRANCHES])) for at in range(0, len(behind), MOST_BRANCHES)]
    # Back to the order of the sequences, so that which ones stand together in a batch is easy to tell.
    return sorted(found, key=lambda stem: stem.branches[0].members[0])


def apart(inputs: Sequence[tuple[int, ...]]) -> list[Stem]:
    """Return the same for models that answer otherwise for a longer input: none but equal ones are in one branch."""
    members: dict[tuple[int, ...], list[int]] = {}
    for index, tokens in enumerate(inputs):
        members.setdefault(tokens, []).append(index)
    return [Stem((), (Branch(tokens, tuple(each)),)) for tokens, each in members.items()]


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


def _grouped(branches: list[Branch], multiple: int) -> Iterator[tuple[tuple[int, ...], list[Branch]]]:
    """Yield a stem and its branches, cut from a list in which each stands beside those that begin most like it."""
    group: list[Branch] = []
    stem = 0
    for branch in branches:
        if group:
            common = _alike(group[-1].tokens, branch.tokens) // multiple * multiple
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
