"""Training rows that hold what an Evaluation will ask: its rows are looked for in theirs, whatever stands around them.

A row of an Evaluation is in a training row if `CONTAINED` of its word 3-grams are (of at least `LEAST_SHINGLES`); those
that are common among the training rows do not count. A shorter one has to be the whole of a training row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ...contract import Reason
from ...errors import DataInvalid
from ..reading.formats import conform, recognise
from ..reading.readers import Record
from .nearduplicates import Comparing
from .shingles import Hashes, Shingler, distinct, said, texts_of

CONTAINED = 0.8
LEAST_SHINGLES = 8
ANSWERS = ("question", "reference", "answer")
"""Keys of Evaluations' rows besides those of training's."""
MOST_SHINGLES = 20_000_000
"""Of all rows of Evaluations, which are held in memory: 12 bytes each."""


class Asked:
    """The shingles of all rows that will be asked: which rows each is of."""

    def __init__(self, texts: Iterable[str], how: Comparing) -> None:
        """Read the texts.

        Raises:
            DataInvalid: they are more than can be held in memory.
        """
        self._shingler = Shingler()
        hashes: list[Hashes] = []
        total = 0
        for text in texts:
            hashes.append(own := self._own(text, how))
            total += len(own)
            if total > MOST_SHINGLES:
                raise DataInvalid(
                    f"dataset.cleaning.evaluationData has more than {MOST_SHINGLES} words; name less of it",
                    Reason.DATASET_INVALID,
                )
        sizes = np.array([len(each) for each in hashes], np.int64)
        self.wanted = np.where(sizes < LEAST_SHINGLES, np.inf, np.ceil(CONTAINED * sizes))
        self._short: dict[bytes, list[int]] = {}
        for number, own in enumerate(hashes):
            if 0 < len(own) < LEAST_SHINGLES:
                self._short.setdefault(own.tobytes(), []).append(number)
        joined = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
        order = np.argsort(joined, kind="stable")
        self._hashes, self._rows = joined[order], np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)[order]
        self._how = how

    def __len__(self) -> int:
        return len(self.wanted)

    def held_by(self, text: str) -> list[int]:
        """Return the numbers of the rows that will be asked which a training row holds, by what is said in it."""
        if not len(self):
            return []
        own = self._shingler(text)
        short = self._short.get(self._how.of(own).tobytes(), []) if self._short else []
        begin, end = np.searchsorted(self._hashes, own, "left"), np.searchsorted(self._hashes, own, "right")
        found = end > begin
        if int(found.sum()) < CONTAINED * LEAST_SHINGLES:
            return short
        rows = np.concatenate([self._rows[a:b] for a, b in zip(begin[found], end[found], strict=True)])
        numbers, counts = np.unique(rows, return_counts=True)
        return [*short, *numbers[counts >= self.wanted[numbers]].tolist()]

    def _own(self, text: str, how: Comparing) -> Hashes:
        return distinct(how.of(self._shingler(text)))


def asked_text(value: Any) -> str:
    """Return what a row of an Evaluation says: its turns, prompt and reference; or if it has none all its texts."""
    if not isinstance(value, dict):
        return ""
    parts = [said(value), *(text for key in ANSWERS for text in texts_of(value.get(key)))]
    return "\n".join(filter(None, parts)) or _converted(value) or "\n".join(_every_text(value))


def _converted(row: dict[str, Any]) -> str:
    """Return what a row of another format says, as it would be stored; empty if it is of none."""
    record = Record(row, "")
    try:
        return said(json.loads(conform(record, recognise(record).format).to_json()))
    except DataInvalid:
        return ""


def _every_text(row: dict[str, Any]) -> Iterator[str]:
    return (text for key in sorted(row) for text in texts_of(row[key]))


def overlapping(lines: Iterable[tuple[int, str]], asked: Asked) -> npt.NDArray[np.int64]:
    """Return the numbers of the rows that hold one that will be asked, ascending, int64[n]."""
    return np.array(sorted(number for number, text in lines if asked.held_by(text)), np.int64)
