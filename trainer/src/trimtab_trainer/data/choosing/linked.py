"""Near duplicates among the rows of a rows folder: their texts are read from its parts, by all processors there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..cleaning.nearduplicates import Comparing, comparing, join_near_duplicates, sample, write_bands
from ..cleaning.shingles import said
from ..rows import Rows
from ..tokenising import processes

Int64 = npt.NDArray[np.int64]

ALONE_ROWS = 20_000
"""So few rows are done before other processes have started."""


def linked(rows: Rows, threshold: float, scratch: Path) -> Int64:
    """Return a number for each row int64[rows], equal where rows are linked by near duplicates.

    Args:
        rows: of all sources together.
        threshold: least Jaccard similarity of two rows that are near duplicates, from 0.7 to 1.
        scratch: a folder for 256 bytes a row.
    """
    heads = np.flatnonzero(rows.first)
    identities = rows.identities[heads]
    how = common_of(rows)
    scratch.mkdir(parents=True, exist_ok=True)
    jobs = [
        (part.lines, rows.lines[own[rows.first[own]]], how, scratch / f"{part.name}.npy")
        for part in rows.parts
        for own in [np.arange(part.first, part.first + part.rows)]
    ]
    count = min(processes(), len(jobs))
    if count > 1 and len(heads) > ALONE_ROWS:
        with ProcessPoolExecutor(count, get_context("spawn")) as pool:
            list(pool.map(_write_bands, *zip(*jobs, strict=True)))
    else:
        for job in jobs:
            _write_bands(*job)
    components = join_near_duplicates(
        [job[3] for job in jobs], identities, lambda head: text_of(rows.line(int(heads[head]))), how, threshold
    )
    found: Int64 = components.roots()[np.cumsum(rows.first) - 1]
    return found


def common_of(rows: Rows) -> Comparing:
    """Return how rows are compared: without what is common among them."""
    heads = np.flatnonzero(rows.first)
    return comparing(text_of(rows.line(int(row))) for row in heads[sample(rows.identities[heads])])


def text_of(line: bytes) -> str:
    """Return what is said in a row, from its JSON line."""
    return said(json.loads(line))


def _write_bands(lines: Path, starts: Int64, how: Comparing, file: Path) -> None:
    def texts() -> Iterator[str]:
        with lines.open("rb") as opened:
            for start in starts.tolist():
                opened.seek(start)
                yield text_of(opened.readline())

    write_bands(texts(), how, file)
