"""Clusters of rows that must stay on one side of a split: the same answer, the same group, or near duplicates."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...invisible import without_invisible
from ..reading.formats import Row
from .components import Components

KEY_BYTES = 32
NO_KEY = bytes(KEY_BYTES)
ANSWER_WORDS = 4
"""Answers of fewer words are labels, choices and numbers, which rows share by chance."""


def answer_key(row: Row) -> bytes:
    """Return the hash of what holds a row to one side, its answer or its prompt.

    Blind to case, width and spacing, and to characters that nobody sees.
    """
    return _answer_digest(without_invisible(row.unit))


def answer_keys(row: Row) -> tuple[bytes, ...]:
    """Return all hashes by which a row's answer is known: `answer_key`, and that of it with what nobody sees.

    The latter is in the lists of clusters of adapters that were trained before answers were made plain.
    """
    return tuple(dict.fromkeys((answer_key(row), _answer_digest(row.unit))))


def group_key(row: Row) -> bytes:
    """Return the hash of a row's group; `NO_KEY` if it has none.

    Blanks about it do not count, nor what nobody sees, nor how its letters are composed in Unicode: nobody tells such
    groups apart.
    """
    if row.group is None:
        return NO_KEY
    return _group_digest(unicodedata.normalize("NFC", without_invisible(row.group)).strip())


def group_keys(row: Row) -> tuple[bytes, ...]:
    """Return all hashes by which a row's group is known: `group_key`, and those of before.

    The latter are in the lists of clusters of adapters that were trained before groups were made plain, which have them
    composed and with what nobody sees, or as they are written. None without a group.
    """
    if row.group is None:
        return ()
    composed = unicodedata.normalize("NFC", row.group).strip()
    return tuple(dict.fromkeys((group_key(row), _group_digest(composed), _group_digest(row.group))))


def _answer_digest(text: str) -> bytes:
    normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.sha256(b"answer\0" + normal.encode()).digest()


def _group_digest(group: str) -> bytes:
    return hashlib.sha256(b"group\0" + group.encode()).digest()


@dataclass(frozen=True)
class Clusters:
    """The cluster of each row int64[rows], and the name of each cluster uint8[clusters, 32], whatever the row order.

    A cluster is named for its smallest group, or if it has none for its smallest answer: rows that come later with a
    group or an answer that is there change no name.
    """

    of_row: npt.NDArray[np.int64]
    names: npt.NDArray[np.uint8]


def connect(
    answers: npt.NDArray[np.uint8], groups: npt.NDArray[np.uint8], near: npt.NDArray[np.int64] | None = None
) -> Clusters:
    """Return the connected components of rows that share an answer, a group, or a component of near duplicates.

    Args:
        answers, groups: keys uint8[rows, 32]; `NO_KEY` is nobody's.
        near: a number for each row int64[rows], equal where rows say nearly the same.
    """
    count = len(answers)
    components = Components(count)
    for numbers in (_codes(answers), _codes(groups), near):
        if numbers is None:
            continue
        order = np.argsort(numbers, kind="stable")
        same = (numbers[order][1:] == numbers[order][:-1]) & (numbers[order][1:] >= 0)
        for left, right in zip(order[:-1][same].tolist(), order[1:][same].tolist(), strict=True):
            components.join(left, right)
    first, of_row = np.unique(components.roots(), return_inverse=True)
    names = np.zeros((len(first), KEY_BYTES), np.uint8)
    for keys in (answers, groups):
        has = np.flatnonzero(keys.any(axis=1))
        order = has[np.lexsort((*keys[has].T[::-1], of_row[has]))]
        chosen = np.ones(len(order), np.bool_)
        chosen[1:] = of_row[order[1:]] != of_row[order[:-1]]
        names[of_row[order[chosen]]] = keys[order[chosen]]
    return Clusters(of_row.astype(np.int64), names)


def _codes(keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return a number for each key int64[rows], equal where keys are; -1 where there is none."""
    whole = np.ascontiguousarray(keys).view(f"V{KEY_BYTES}").ravel()
    codes = np.unique(whole, return_inverse=True)[1].astype(np.int64)
    codes[~keys.any(axis=1)] = -1
    return codes
