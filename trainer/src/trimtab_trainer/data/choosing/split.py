"""Which rows are trained on, validated on and tested on: whole clusters, chosen by hash, so nothing leaks across.

Every cluster has a rank in [0, 1), the hash of its name and `splitSeed`. Test is what lies below the test fraction,
validation what lies in the next part of the line, the folds divide what is not tested by a second hash. So the choice
depends on neither the order of rows nor `training.seed`, a larger fraction holds a smaller one, and rows that come
later move no other: only one that ties clusters together may, or one by which a cluster becomes as large as a side.

By chance alone a small side may be far from what was asked: it is filled up to half of it in the order of ranks. With
`stratifyBy`, each value of the column has its own line, cut at its own share of rows, which moves a little as it grows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...contract import Reason, StoredDataset
from ...errors import DataInvalid
from ..cleaning.clusters import Clusters

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

TRAINING, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True)
class Sides:
    """Row numbers of each side, ascending; `leaked` rows are on none because a held-out row says what they say."""

    training: Int64
    validation: Int64
    test: Int64
    leaked: Int64


def split(
    clusters: Clusters,
    source: npt.NDArray[np.int8],
    dataset: StoredDataset,
    *,
    strata: Int64 | None = None,
    keep_leaked: bool = False,
) -> Sides:
    """Divide rows among the sides.

    Args:
        clusters: of all rows of all sources together.
        source: which source each row came from, int8[rows]: TRAINING, VALIDATION or TEST.
        dataset: the settings.
        strata: a number for each row int64[rows], of which each side is to have its share.
        keep_leaked: training rows that say what held-out rows say stay, where these have a uri of their own.

    Raises:
        DataInvalid: SPLIT_IMPOSSIBLE.
    """
    count = len(clusters.names)
    total = int((source == TRAINING).sum())
    free = np.bincount(clusters.of_row[source == TRAINING], minlength=count)
    line = _Line(clusters, free, dataset.split_seed, strata, source)
    validation, test = dataset.validation, dataset.test
    tested = np.zeros(count, np.bool_)
    cut = test.fraction if test is not None and test.fraction is not None else 0.0
    if cut:
        tested = line.taken(0.0, cut, cut * total, "test")
    tested[clusters.of_row[source == TEST]] = True

    validated = np.zeros(count, np.bool_)
    if validation is not None and validation.fraction is not None:
        end = cut + validation.fraction
        validated = line.without(tested).taken(cut, end, validation.fraction * total, "validation")
    elif validation is not None and validation.folds is not None and validation.fold is not None:
        validated = line.without(tested).fold(validation.folds, validation.fold)
    validated[clusters.of_row[source == VALIDATION]] = True

    in_test = tested[clusters.of_row]
    in_validation = validated[clusters.of_row] & ~in_test
    # Where held-out data has a uri of its own, training rows that say the same are on no side at all.
    own_test = test is not None and test.uri is not None
    own_validation = validation is not None and validation.uri is not None
    tests = np.flatnonzero(in_test & (source == (TEST if own_test else TRAINING)))
    validating = np.flatnonzero(in_validation & (source == (VALIDATION if own_validation else TRAINING)))
    held = (in_test & (not (own_test and keep_leaked))) | (in_validation & (not (own_validation and keep_leaked)))
    training = np.flatnonzero(~held & (source == TRAINING))
    for name, rows in (("training", training), ("validation", validating), ("test", tests)):
        wanted = name == "training" or (validation if name == "validation" else test) is not None
        if wanted and not len(rows):
            raise _impossible(f"no rows are left for {name}: the others hold all answers and groups there are")
    on_none = np.ones(len(source), np.bool_)
    for rows in (training, validating, tests):
        on_none[rows] = False
    return Sides(training, validating, tests, np.flatnonzero(on_none))


class _Line:
    """Clusters by their ranks, with the training rows that each has."""

    def __init__(
        self, clusters: Clusters, free: Int64, seed: int, strata: Int64 | None, source: npt.NDArray[np.int8]
    ) -> None:
        self._names, self._free, self._seed = clusters.names, free, seed
        self._ranks = _ranks(clusters.names, lambda name: seed.to_bytes(8, "big") + name)
        self._strata = np.zeros(len(free), np.int64) if strata is None else _first_of(clusters, strata, source)
        self._stratified = strata is not None

    def without(self, taken: Bool) -> _Line:
        """Return the line without clusters that are taken."""
        rest = object.__new__(_Line)
        rest.__dict__.update(self.__dict__)
        rest._free = np.where(taken, 0, self._free)
        return rest

    def taken(self, begin: float, end: float, wanted: float, side: str) -> Bool:
        """Return the clusters bool[clusters] of one part of the line, or of the like share of each stratum."""
        target = max(1, round(wanted))
        fits = (self._free > 0) & (self._free <= target)
        chosen = np.zeros(len(self._free), np.bool_)
        if self._stratified:
            for stratum in np.unique(self._strata[fits]).tolist():
                inside = fits & (self._strata == stratum)
                rows = int(self._free[self._strata == stratum].sum())
                share = round(rows * wanted / max(1, int(self._free.sum())))
                self._fill(chosen, inside, share)
        else:
            chosen |= fits & (self._ranks >= begin) & (self._ranks < end)
        half = -(-target // 2)
        self._fill(chosen, fits & ~chosen, half - int(self._free[chosen].sum()))
        # Clusters of several rows each, such as pairs of answers, may make less than half of it, or more, but not half.
        self._fill(chosen, fits & ~chosen, half - int(self._free[chosen].sum()), most=target)
        if 2 * int(self._free[chosen].sum()) < target:
            raise _impossible(
                f"{side} asks for {target} of {int(self._free.sum())} rows, but those have only "
                f"{int((self._free > 0).sum())} distinct answers or groups, the most frequent on "
                f"{int(self._free.max(initial=0))} rows"
            )
        return chosen

    def fold(self, folds: int, fold: int) -> Bool:
        """Return the clusters bool[clusters] of one fold."""
        there = self._free > 0
        count = int(there.sum())
        if count < folds:
            raise _impossible(f"{folds} folds need as many distinct answers or groups, but there are only {count}")
        ranks = _ranks(self._names, lambda name: b"fold" + self._seed.to_bytes(8, "big") + name)
        numbers = np.minimum((ranks * folds).astype(np.int64), folds - 1)
        sizes = np.bincount(numbers[there], weights=self._free[there], minlength=folds)
        if self._stratified or 2 * sizes.min() < self._free.sum() / folds:
            numbers = self._dealt(folds)
        chosen: Bool = there & (numbers == fold)
        return chosen

    def _dealt(self, folds: int) -> Int64:
        """Return the fold of each cluster: in the order of ranks, each goes to the fold with the fewest rows so far.

        Fewest of its stratum, then of all.
        """
        numbers = np.zeros(len(self._free), np.int64)
        whole = [0] * folds
        sizes: dict[int, list[int]] = {}
        for cluster in self._order(np.flatnonzero(self._free)):
            of_stratum = sizes.setdefault(int(self._strata[cluster]), [0] * folds)
            smallest = min(range(folds), key=lambda fold: (of_stratum[fold], whole[fold]))
            numbers[cluster] = smallest
            of_stratum[smallest] += int(self._free[cluster])
            whole[smallest] += int(self._free[cluster])
        return numbers

    def _fill(self, chosen: Bool, among: Bool, rows: int, most: int | None = None) -> None:
        """Choose clusters in the order of their ranks until they make so many rows.

        Those that fit into what is lacking; where there is a `most`, those that do not make more than that in all.
        """
        room = rows if most is None else most - int(self._free[chosen].sum())
        for cluster in self._order(np.flatnonzero(among)):
            size = int(self._free[cluster])
            if rows > 0 and size <= room:
                chosen[cluster] = True
                rows, room = rows - size, room - size

    def _order(self, clusters: Int64) -> list[int]:
        order: list[int] = clusters[np.argsort(self._ranks[clusters], kind="stable")].tolist()
        return order


def _ranks(names: npt.NDArray[np.uint8], hashed: Callable[[bytes], bytes]) -> Float64:
    """Return a number in [0, 1) for each name, float64[clusters]."""
    heads = b"".join(hashlib.sha256(hashed(name.tobytes())).digest()[:8] for name in names)
    # 53 bits are exact in a float64, and below 1.
    return (np.frombuffer(heads, ">u8").astype(np.uint64) >> np.uint64(11)).astype(np.float64) / 2**53


def _first_of(clusters: Clusters, strata: Int64, source: npt.NDArray[np.int8]) -> Int64:
    """Return the stratum of each cluster: the most frequent of its training rows', the lowest of several."""
    rows = source == TRAINING
    pairs, counts = np.unique(np.stack((clusters.of_row[rows], strata[rows])), axis=1, return_counts=True)
    order = np.lexsort((-pairs[1], counts, pairs[0]))
    found = np.zeros(len(clusters.names), np.int64)
    found[pairs[0][order]] = pairs[1][order]  # the last of each cluster stays
    return found


def _impossible(trouble: str) -> DataInvalid:
    return DataInvalid(
        f"the data cannot be split without leaks: {trouble}; add data, hold out less, or give held-out data by uri",
        Reason.SPLIT_IMPOSSIBLE,
    )
