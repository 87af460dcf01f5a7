"""Which rows are trained on, validated on and tested on: whole clusters, chosen by hash, so nothing leaks across.

The choice depends on the rows' content and `splitSeed` only, never on their order or on `training.seed`. Test rows are
chosen first: every fold and every validation fraction then leaves them alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..contract import Reason, StoredDataset
from ..errors import DataInvalid
from .clusters import Clusters

Rows = npt.NDArray[np.int64]

TRAINING, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True)
class Sides:
    """Row numbers of each side, ascending; `leaked` rows were taken out because a held-out row has their answer."""

    training: Rows
    validation: Rows
    test: Rows
    leaked: int


def split(clusters: Clusters, source: npt.NDArray[np.int8], dataset: StoredDataset) -> Sides:
    """Divide rows among the sides.

    Args:
        clusters: of all rows of all sources together.
        source: which source each row came from, int8[rows]: TRAINING, VALIDATION or TEST.
        dataset: the settings.

    Raises:
        DataInvalid: SPLIT_IMPOSSIBLE.
    """
    order = np.array(
        sorted(range(len(clusters.names)), key=lambda index: _rank(dataset.split_seed, clusters.names[index])), np.int64
    )
    total = int((source == TRAINING).sum())
    free = np.bincount(clusters.of_row[source == TRAINING], minlength=len(order))
    held_in_test = np.zeros(len(order), np.bool_)
    if dataset.test is not None and dataset.test.fraction is not None:
        held_in_test[_fraction(free, order, dataset.test.fraction * total, "test")] = True
    held_in_test[clusters.of_row[source == TEST]] = True
    free[held_in_test] = 0

    validation = dataset.validation
    held_in_validation = np.zeros(len(order), np.bool_)
    if validation is not None and validation.fraction is not None:
        held_in_validation[_fraction(free, order, validation.fraction * total, "validation")] = True
    elif validation is not None and validation.folds is not None and validation.fold is not None:
        held_in_validation[_fold(free, order, validation.folds, validation.fold)] = True
    held_in_validation[clusters.of_row[source == VALIDATION]] = True

    in_test, in_validation = (
        held_in_test[clusters.of_row],
        held_in_validation[clusters.of_row] & ~held_in_test[clusters.of_row],
    )
    # Where held-out data has a uri of its own, training rows with its answers are on no side at all.
    own_test = dataset.test is not None and dataset.test.uri is not None
    own_validation = validation is not None and validation.uri is not None
    test = np.flatnonzero(in_test & (source == (TEST if own_test else TRAINING)))
    validating = np.flatnonzero(in_validation & (source == (VALIDATION if own_validation else TRAINING)))
    training = np.flatnonzero(~in_test & ~in_validation & (source == TRAINING))
    for name, rows in (("training", training), ("validation", validating), ("test", test)):
        wanted = name == "training" or (validation if name == "validation" else dataset.test) is not None
        if wanted and not len(rows):
            raise _impossible(f"no rows are left for {name}: the others hold all answers and groups there are")
    return Sides(training, validating, test, len(source) - len(training) - len(validating) - len(test))


def _fraction(free: Rows, order: Rows, wanted: float, side: str) -> Rows:
    """Return clusters in hash order, those that fit into the wanted number of rows."""
    target = max(1, round(wanted))
    chosen, rows = [], 0
    for cluster in order:
        size = int(free[cluster])
        if size and rows + size <= target:
            chosen.append(int(cluster))
            rows += size
    if 2 * rows < target:
        raise _impossible(
            f"{side} asks for {target} of {int(free.sum())} rows, but those have only {int((free > 0).sum())} "
            f"distinct answers or groups, the most frequent on {int(free.max(initial=0))} rows"
        )
    return np.array(chosen, np.int64)


def _fold(free: Rows, order: Rows, folds: int, fold: int) -> Rows:
    """Return the clusters of one fold: in hash order, each goes to the fold that has the fewest rows so far."""
    count = int((free > 0).sum())
    if count < folds:
        raise _impossible(f"{folds} folds need as many distinct answers or groups, but there are only {count}")
    sizes = [0] * folds
    chosen = []
    for cluster in order:
        if free[cluster]:
            smallest = sizes.index(min(sizes))
            sizes[smallest] += int(free[cluster])
            if smallest == fold:
                chosen.append(int(cluster))
    return np.array(chosen, np.int64)


def _rank(seed: int, name: bytes) -> bytes:
    return hashlib.sha256(seed.to_bytes(8, "big") + name).digest()


def _impossible(trouble: str) -> DataInvalid:
    return DataInvalid(
        f"the data cannot be split without leaks: {trouble}; add data, hold out less, or give held-out data by uri",
        Reason.SPLIT_IMPOSSIBLE,
    )
