"""Clusters of rows that must stay on one side of a split: the same answer, or the same group."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .formats import Row

KEY_BYTES = 32
NO_KEY = bytes(KEY_BYTES)


def answer_key(row: Row) -> bytes:
    """Return the hash of what is learned from a row, blind to case, width and spacing."""
    normal = " ".join(unicodedata.normalize("NFKC", row.answer).casefold().split())
    return hashlib.sha256(b"answer\0" + normal.encode()).digest()


def group_key(row: Row) -> bytes:
    """Return the hash of a row's group; `NO_KEY` if it has none."""
    return NO_KEY if row.group is None else hashlib.sha256(b"group\0" + row.group.encode()).digest()


@dataclass(frozen=True)
class Clusters:
    """The cluster of each row int64[rows], and of each cluster its name: its smallest key, whatever the row order."""

    of_row: npt.NDArray[np.int64]
    names: tuple[bytes, ...]


def connect(answers: Iterable[bytes], groups: Iterable[bytes]) -> Clusters:
    """Return the connected components of rows that share an answer or a group (union-find, path halving)."""
    numbers: dict[bytes, int] = {}
    parents: list[int] = []

    def node(key: bytes) -> int:
        number = numbers.setdefault(key, len(parents))
        if number == len(parents):
            parents.append(number)
        return number

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    nodes = []
    for answer, group in zip(answers, groups, strict=True):
        nodes.append(node(answer))
        if group != NO_KEY:
            left, right = root(nodes[-1]), root(node(group))
            parents[max(left, right)] = min(left, right)
    smallest: dict[int, bytes] = {}
    for key, number in numbers.items():
        at = root(number)
        smallest[at] = min(key, smallest.get(at, key))
    order = {number: index for index, number in enumerate(smallest)}
    of_row = np.fromiter((order[root(number)] for number in nodes), np.int64, len(nodes))
    return Clusters(of_row, tuple(smallest.values()))
