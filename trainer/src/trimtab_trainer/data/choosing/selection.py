"""What becomes of each row: which side it is on, how much of it is used, and if it is dropped, why.

Decided on what is known of all rows together; nothing here depends on their order, or on how they were divided into
files. Of a conversation that became several sequences all go the same way, but for their length.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...contract import Cleaning, Handling, NearDuplicates, Reason, StoredDataset, TrainingSettings
from ...errors import DataInvalid
from ..cleaning.clusters import Clusters, connect
from ..cleaning.overlap import Asked, overlapping
from ..fitting import Fitted, fit
from ..rows import Rows
from .linked import common_of, linked, text_of
from .split import TRAINING, Sides, split

Int64 = npt.NDArray[np.int64]
SIDES = ("train", "validation", "test")

NEAR, ASKED, LEAKED, TOO_LONG = "nearDuplicate", "askedInEvaluations", "overlap", "tooLong"
WHY = {
    NEAR: "say nearly what another row says",
    ASKED: "hold rows that Evaluations ask",
    LEAKED: "say what held-out rows say",
    TOO_LONG: "are too long",
}
LENGTH_STEP = 64
KEPT_BY_LENGTH = 0.99


@dataclass(frozen=True)
class Selection:
    """What becomes of the rows.

    Attributes:
        sides: rows that are used, by the names of SIDES.
        dropped: row numbers, by the reasons of WHY.
        clusters: of the rows that the sides were chosen from.
        alike: a number for each row int64[rows], equal where they are near duplicates; None if not looked for.
    """

    sides: dict[str, Fitted]
    dropped: dict[str, Int64]
    clusters: Clusters
    alike: Int64 | None


def select(
    rows: Rows, dataset: StoredDataset, training: TrainingSettings, asked: Iterable[str] | None, scratch: Path
) -> Selection:
    """Decide about all rows.

    Args:
        rows: of all sources.
        dataset, training: the settings.
        asked: what the rows of Evaluations say; None if none are named.
        scratch: a folder.

    Raises:
        DataInvalid: SPLIT_IMPOSSIBLE, no row of a side fits, or none has a column that the settings go by.
    """
    _check_columns(rows, dataset)
    cleaning = dataset.cleaning or Cleaning()
    alike = linked(rows, cleaning.similarity, scratch) if wants_near(dataset, cleaning) else None
    gone = np.zeros(len(rows), np.bool_)
    dropped: dict[str, Int64] = {}
    if cleaning.near_duplicates is NearDuplicates.DROP and alike is not None:
        dropped[NEAR] = _all_but_one(rows, alike)
        gone[dropped[NEAR]] = True
    if asked is not None:
        dropped[ASKED] = np.setdiff1d(_asked(rows, asked), dropped.get(NEAR, np.zeros(0, np.int64)))
        gone[dropped[ASKED]] = True
    there = np.flatnonzero(~gone)
    clusters = _clusters(rows, there, alike, dataset)
    sides = split(
        clusters,
        rows.source[there],
        dataset,
        strata=rows.columns[dataset.stratify_by][there] if dataset.stratify_by is not None else None,
        keep_leaked=cleaning.overlap is Handling.KEEP,
    )
    dropped[LEAKED] = there[sides.leaked]
    fitted = {
        side: fit(rows, there[chosen], training, cleaning.too_long)
        for side, chosen in zip(SIDES, _sides(sides), strict=True)
    }
    for side, each in fitted.items():
        if not len(each.rows) and len(each.dropped):
            raise _none_fits(rows, side, each, training)
    dropped[TOO_LONG] = np.sort(np.concatenate([each.dropped for each in fitted.values()]))
    return Selection(fitted, dropped, clusters, alike)


def wants_near(dataset: StoredDataset, cleaning: Cleaning) -> bool:
    """Tell whether near duplicates are looked for: to be dropped, or because something is held out."""
    held_out = dataset.validation is not None or dataset.test is not None
    return cleaning.near_duplicates is NearDuplicates.DROP or (
        cleaning.near_duplicates is NearDuplicates.KEEP_TOGETHER and held_out
    )


def length_for_most(rows: Rows, fitted: Fitted, answers: int) -> int:
    """Return the maxSequenceLength with which nearly all rows of a side would be whole; `answers` of each."""
    lengths = np.sort(longest(rows, np.concatenate((fitted.rows, fitted.dropped)), answers))
    enough = int(lengths[max(0, math.ceil(KEPT_BY_LENGTH * len(lengths)) - 1)])
    return min(int(lengths[-1]), -(-enough // LENGTH_STEP) * LENGTH_STEP)


def _check_columns(rows: Rows, dataset: StoredDataset) -> None:
    """Refuse a column that no row has: what it is named for would be left undone without a word."""
    empty = {column for column, values in rows.values.items() if not any(values)}
    balanced = dataset.balance.column if dataset.balance is not None else None
    named = {"stratifyBy": dataset.stratify_by, "balance.column": balanced}
    wrong = [setting for setting, column in named.items() if column in empty]
    if dataset.group_by is not None and not rows.groups.any():
        wrong.insert(0, "groupBy")
    if wrong:
        column = (named | {"groupBy": dataset.group_by})[wrong[0]]
        raise DataInvalid(
            f"no row has a value in the column {column}, which dataset.{wrong[0]} names; correct it, or leave it out",
            Reason.DATASET_INVALID,
        )


def _sides(sides: Sides) -> tuple[Int64, Int64, Int64]:
    return sides.training, sides.validation, sides.test


def _all_but_one(rows: Rows, alike: Int64) -> Int64:
    """Return the training rows of each number but the one with the lowest identity, ascending."""
    training = np.flatnonzero((rows.source == TRAINING) & rows.first)
    ordered = rows.in_order(training)
    first = np.unique(alike[ordered], return_index=True)[1]
    dropped = np.ones(len(ordered), np.bool_)
    dropped[first] = False
    return _with_all_turns(rows, ordered[dropped])


def _asked(rows: Rows, asked: Iterable[str]) -> Int64:
    """Return the training rows that hold a row that will be asked, ascending."""
    training = np.flatnonzero((rows.source == TRAINING) & rows.first)
    index = Asked(asked, common_of(rows))
    return _with_all_turns(rows, overlapping(((row, text_of(line)) for row, line in rows.texts(training)), index))


def _with_all_turns(rows: Rows, heads: Int64) -> Int64:
    """Return the numbers of rows and of the sequences that are of the same conversations, ascending."""
    of_head = np.cumsum(rows.first) - 1
    return np.flatnonzero(np.isin(of_head, of_head[heads]))


def _clusters(rows: Rows, there: Int64, alike: Int64 | None, dataset: StoredDataset) -> Clusters:
    answers = rows.answers[there]
    if dataset.stratify_by is not None:
        # Short answers are labels, which are to be on all sides: such a row is tied by what it says as a whole.
        short = rows.short[there]
        answers = answers.copy()
        answers[short] = 0
        answers[short, : rows.identities.shape[1]] = rows.identities[there][short]
    return connect(answers, rows.groups[there], None if alike is None else alike[there])


def longest(rows: Rows, chosen: Int64, answers: int) -> Int64:
    """Return the tokens of each row, of the longest of its answers where several are compared."""
    found: Int64 = rows.lengths[chosen].reshape(-1, answers).max(axis=1)
    return found


def _none_fits(rows: Rows, side: str, fitted: Fitted, training: TrainingSettings) -> DataInvalid:
    lengths = longest(rows, fitted.dropped, training.method.answers)
    return DataInvalid(
        f"all {len(lengths)} rows of the {side} side are longer than training.maxSequenceLength = "
        f"{training.max_sequence_length} tokens: the shortest has {lengths.min()}, the median "
        f"{int(np.median(lengths))}, the longest {lengths.max()}; raise it, or shorten the rows",
        Reason.DATASET_EMPTY,
    )
