"""Pairs and labelled answers made of numbers, as a view has them."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
from trimtab_trainer.data.view import Sequences
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.report import Report
from trimtab_trainer.storage import open_store
from trimtab_trainer.training.methods.batches import PreferenceBatches
from trimtab_trainer.training.methods.reference import References
from trimtab_trainer.training.network.adapter import Adapted

from tests.trainer.train.runs import VOCABULARY

Answer = tuple[list[int], list[int]]
"""Tokens of a prompt, and of an answer to it."""


def random_answers(count: int, each: int, seed: int = 0) -> list[list[Answer]]:
    """Return so many prompts with `each` answers, with lengths all over the place."""
    random = np.random.default_rng(seed)

    def tokens(least: int, most: int) -> list[int]:
        found: list[int] = random.integers(3, VOCABULARY, random.integers(least, most)).tolist()
        return found

    return [[(prompt, tokens(2, 14)) for _ in range(each)] for prompt in (tokens(3, 12) for _ in range(count))]


def side(units: list[list[Answer]], labels: list[bool] | None = None) -> Sequences:
    """Return a side of a view: of pairs the first answer is the chosen one, of labelled answers `labels` tell."""
    rows = [answer for unit in units for answer in unit]
    offsets = np.cumsum([0, *(sum(len(p) + len(a) for p, a in unit) for unit in units)])
    return Sequences(
        tokens=np.array([token for prompt, answer in rows for token in prompt + answer], np.int32),
        positions=np.concatenate([np.arange(len(p) + len(a), dtype=np.int32) for p, a in rows]),
        supervised=np.array([inside for p, a in rows for inside in [False] * len(p) + [True] * len(a)], np.bool_),
        offsets=offsets.astype(np.int64),
        rows=np.array([len(unit) for unit in units], np.int32),
        wanted=np.array(
            labels if labels is not None else [not number for unit in units for number in range(len(unit))], np.bool_
        ),
    )


def weighted(sequences: Sequences, weights: list[float]) -> Sequences:
    """Return the same with a weight for each answer."""
    return dataclasses.replace(sequences, weights=np.array(weights, np.float32))


def references(root: Path, log: io.StringIO | None = None, **identity: str) -> References:
    """Return where references are found, below a folder."""
    store = open_store(f"file://{root}/output", None)
    return References(store, identity, root / "scratch", Interruption(), Report(stream=log or io.StringIO()))


def with_reference(split: PreferenceBatches, model: Adapted, root: Path) -> PreferenceBatches:
    """Give a split what the base alone says of it."""
    references(root).give(model, {"train": split}, with_adapter=False)
    return split
