"""Rows that say nearly the same: found by MinHash with locality-sensitive hashing, banded on disk, then verified.

Candidates are rows with an equal band of their MinHash signature (Broder 1997; Leskovec, Rajaraman, Ullman, Mining of
Massive Datasets, 3.4): `BANDS` bands of `PERMUTATIONS // BANDS` = 6 values find a pair of similarity s with probability
1 - (1 - s^6)^32, which is 0.98 at 0.7 and above 0.9999 at 0.8. Each candidate's similarity is then computed exactly.

Shingles that are in more than `COMMON_SHARE` of the rows are not compared: they are the instruction that all repeat, by
which every row would be every other's duplicate. A row that has fewer than `OWN_SHINGLES` besides is compared whole.

The outcome is a function of the set of rows: it depends neither on their order nor on files, parts or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

from .components import Components
from .shingles import Hashes, Shingler, common_shingles, similarity

PERMUTATIONS, BANDS, SEED = 192, 32, 17
COMMON_SHARE, COMMON_ROWS, OWN_SHINGLES = 0.05, 20, 8
SAMPLE_ROWS = 20_000
"""Rows in which common shingles are looked for: those with the lowest identities."""
WINDOW = 8
"""Rows that have one band in common: each is compared with the first of them and with the next ones, so many each."""
BATCH_ROWS = 512
REMEMBERED_ROWS = 4096

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Comparing:
    """How the shingles of a row are made: those that all rows have in common are left out."""

    common: Hashes

    def of(self, shingles: Hashes) -> Hashes:
        """Return the shingles by which a row is compared."""
        if not len(self.common):
            return shingles
        places = np.minimum(np.searchsorted(self.common, shingles), len(self.common) - 1)
        own = shingles[self.common[places] != shingles]
        return own if len(own) >= OWN_SHINGLES else shingles


def sample(identities: npt.NDArray[np.uint8]) -> Int64:
    """Return the rows in which common shingles are looked for, ascending: the same whatever the order of rows."""
    order = np.lexsort(identities.T[::-1])
    return np.sort(order[:SAMPLE_ROWS])


def comparing(texts: Iterable[str]) -> Comparing:
    """Return how rows are compared, from the texts of a sample."""
    shingler = Shingler()
    return Comparing(common_shingles((shingler(text) for text in texts), COMMON_SHARE, COMMON_ROWS))


def write_bands(texts: Iterable[str], how: Comparing, file: Path) -> None:
    """Write the bands of rows as uint64[BANDS, rows]; of a row that says nothing they are zero."""
    shingler, parts = Shingler(), []
    stream = iter(texts)
    while batch := list(islice(stream, BATCH_ROWS)):
        parts.append(_bands([how.of(shingler(text)) for text in batch]))
    np.save(file, np.concatenate(parts, axis=1) if parts else np.zeros((BANDS, 0), np.uint64))


def _bands(rows: Sequence[Hashes]) -> Hashes:
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(rows), offsets, PERMUTATIONS, SEED)
    signatures = np.array(matrix.to_rows(), np.uint64).reshape(len(rows), BANDS, -1)
    bands = np.zeros((len(rows), BANDS), np.uint64)
    for column in range(signatures.shape[2]):
        bands = (bands ^ signatures[:, :, column]) * np.uint64(0x9E3779B97F4A7C15)
        bands ^= bands >> np.uint64(29)
    bands[np.diff(offsets) == 0] = 0
    return np.ascontiguousarray(bands.T)


def join_near_duplicates(
    bands: Sequence[Path],
    identities: npt.NDArray[np.uint8],
    text: Callable[[int], str],
    how: Comparing,
    threshold: float,
) -> Components:
    """Return the rows as components that are linked by a similarity of at least the threshold.

    Args:
        bands: files of `write_bands`, in the order of the rows.
        identities: hashes of the rows' contents, uint8[rows, n]; rows that are equal are compared like others.
        text: returns what a row says, by its number.
        how: as the bands were written.
        threshold: least Jaccard similarity, from 0.7 to 1.
    """
    shingler = Shingler()

    @lru_cache(REMEMBERED_ROWS)
    def shingles(row: int) -> Hashes:
        return how.of(shingler(text(row)))

    canonical = np.lexsort(identities.T[::-1])
    components = Components(len(identities))
    compared: set[int] = set()
    for band in range(BANDS):
        column = np.concatenate([_read_band(file, band) for file in bands] or [np.zeros(0, np.uint64)])
        for left, right in _candidates(column[canonical]):
            one, other = int(canonical[left]), int(canonical[right])
            if components.root(one) == components.root(other):
                continue
            pair = left * len(canonical) + right
            if pair in compared:
                continue
            if similarity(shingles(one), shingles(other)) >= threshold:
                components.join(one, other)
            elif len(compared) < REMEMBERED_PAIRS:
                compared.add(pair)
    return components


def _read_band(file: Path, band: int) -> Hashes:
    """Return one band of a file of `write_bands`; what is mapped into memory stays there, band after band."""
    mapped = np.load(file, mmap_mode="r")
    return np.array(mapped[band])


REMEMBERED_PAIRS = 1_000_000
"""Pairs that were found different and are not compared again in the next band; about 70 MB."""


def _candidates(band: Hashes) -> Iterator[tuple[int, int]]:
    """Yield pairs of places with the same value, a batch of places at a time."""
    order = np.argsort(band, kind="stable")
    values = band[order]
    first = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1]))) if len(values) else np.zeros(0, int)
    starts = np.repeat(first, np.diff(np.append(first, len(values))))
    for step in range(1, WINDOW + 1):
        same = np.flatnonzero((values[step:] == values[:-step]) & (values[step:] != 0))
        yield from _pairs(order, same, same + step)
    places = np.arange(len(values))
    for head in range(WINDOW):
        behind = np.flatnonzero((places - starts > head + WINDOW) & (values != 0))
        yield from _pairs(order, starts[behind] + head, behind)


def _pairs(order: Int64, left: Int64, right: Int64) -> Iterator[tuple[int, int]]:
    for begin in range(0, len(left), 65536):
        part = slice(begin, begin + 65536)
        yield from zip(order[left[part]].tolist(), order[right[part]].tolist(), strict=True)
