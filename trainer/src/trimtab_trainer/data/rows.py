"""Tokenised rows: made once for a data set and a tokenizer, stored under their content address, shared by every view.

A rows folder holds, for each source (training, and validation and test where they have a uri of their own), parts of
tokens, what is learned of them and cluster keys (`rows-<source>-00000.safetensors`), the same rows as JSON lines
(`.jsonl`), what was found up to there (`.json`), and audit.json. Tokens and lines stay on disk: what is decided on is
read into memory, about 250 bytes a row.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from ..contract import Reason
from ..errors import DataInvalid
from ..storage.tensor_header import LENGTH_BYTES, header_length, read_header
from .cleaning.clusters import KEY_BYTES
from .cleaning.steps import IDENTITY_BYTES

AUDIT = "audit.json"
SOURCES = ("training", "validation", "test")
MOST_VALUES = 1000
"""Of a column by which rows are counted."""

Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Part:
    """A part of one source's rows, on disk; `first` is the number of its first row among all."""

    folder: Path
    name: str
    first: int
    rows: int

    @property
    def arrays(self) -> Path:
        """The file of tokens, of what is learned of them, and of keys."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def lines(self) -> Path:
        """The file of the rows as JSON lines."""
        return self.folder / f"{self.name}.jsonl"


@dataclass(frozen=True)
class Rows:
    """Rows of all sources, one after the other.

    Attributes:
        parts: where they lie.
        source: int8[R], the place of each one's source in SOURCES.
        lengths, learned: int64[R], tokens of each, and those with a loss.
        offsets, lines: int64[R], where in its part the tokens and the JSON line of each begin.
        first: bool[R]; a row of the files may have become several, next to each other, with one JSON line.
        whole: bool[R], it has the last turn of its row.
        short: bool[R], its answers are a label of a few words.
        identities: uint8[R, 16], hashes of all that is used of each.
        answers, groups: uint8[R, 32], cluster keys.
        languages: uint8[R], places in LANGUAGES.
        files, numbers: int64[R], where each was read: a place in `file_names`, and the line or row.
        columns: of a column that is counted by, a code for each row int64[R], a place in its `values`.
        largest_token: of all of them.
        wanted: bool[R] of rows of preferences, if the answer is the chosen one or has the label true; else None.
    """

    parts: tuple[Part, ...]
    source: npt.NDArray[np.int8]
    lengths: Int64
    learned: Int64
    offsets: Int64
    lines: Int64
    first: npt.NDArray[np.bool_]
    whole: npt.NDArray[np.bool_]
    short: npt.NDArray[np.bool_]
    identities: UInt8
    answers: UInt8
    groups: UInt8
    languages: UInt8
    files: Int64
    numbers: Int64
    columns: dict[str, Int64]
    values: dict[str, tuple[str | None, ...]]
    file_names: tuple[str, ...]
    largest_token: int
    wanted: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def place(self, row: int) -> str:
        """Return where a row stands, in words for a person: `train/a.jsonl line 12`."""
        return f"{self.file_names[self.files[row]]} {self.numbers[row]}"

    def heads(self, chosen: Int64) -> Int64:
        """Return the first rows of the conversations that chosen rows are of, each once, ascending."""
        return np.flatnonzero(self.first)[np.unique(np.cumsum(self.first)[chosen] - 1)]

    def in_order(self, chosen: Int64) -> Int64:
        """Return chosen rows in the order of their identities, which is the same whatever the order of files."""
        keys = self.identities[chosen]
        return chosen[np.lexsort((chosen, *keys.T[::-1]))]

    def tokens(self, chosen: Int64, lengths: Int64) -> tuple[npt.NDArray[np.int32], UInt8]:
        """Return the first `lengths` tokens of each chosen row, one row after the other, and the `Kind` of each."""
        ends = np.cumsum(lengths)
        tokens, kinds = np.empty(int(lengths.sum()), np.int32), np.empty(int(lengths.sum()), np.uint8)
        for part, places in self._by_part(chosen):
            with _Arrays(part) as arrays:
                for place in places.tolist():
                    inside = slice(int(ends[place] - lengths[place]), int(ends[place]))
                    begin = int(self.offsets[chosen[place]])
                    arrays.read("tokens", begin, tokens[inside])
                    arrays.read("kinds", begin, kinds[inside])
        return tokens, kinds

    def texts(self, chosen: Int64) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the JSON line of chosen rows, those of a part together."""
        for part, places in self._by_part(chosen):
            with part.lines.open("rb") as file:
                for row in chosen[places].tolist():
                    file.seek(int(self.lines[row]))
                    yield row, file.readline()

    def line(self, row: int) -> bytes:
        """Return one row as a JSON line."""
        part = self.parts[bisect_right(self.parts, row, key=lambda part: part.first) - 1]
        with part.lines.open("rb") as file:
            file.seek(int(self.lines[row]))
            return file.readline()

    def _by_part(self, chosen: Int64) -> Iterator[tuple[Part, Int64]]:
        """Yield each part of which rows are chosen, and the places of these among the chosen."""
        firsts = np.array([part.first for part in self.parts], np.int64)
        numbers = np.searchsorted(firsts, chosen, side="right") - 1
        order = np.lexsort((chosen, numbers))
        for places in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(order) else ():
            yield self.parts[int(numbers[places[0]])], places


class _Arrays:
    """Reads pieces of a safetensors file into arrays, without mapping it into memory."""

    def __init__(self, part: Part) -> None:
        self._file = os.open(part.arrays, os.O_RDONLY)
        size = os.fstat(self._file).st_size
        length = header_length(os.pread(self._file, LENGTH_BYTES, 0), size)
        begin = LENGTH_BYTES + length
        places = read_header(os.pread(self._file, length, LENGTH_BYTES), size - begin)
        self._begins = {place.name: begin + place.begin for place in places}

    def read(self, name: str, start: int, into: npt.NDArray[Any]) -> None:
        """Fill an array with a tensor's values from `start` on."""
        wanted = memoryview(into.data).cast("B")
        at = self._begins[name] + start * into.itemsize
        while len(wanted):
            count = os.preadv(self._file, [wanted], at)
            if not count:
                raise EOFError(f"{name} ends before it should")
            wanted, at = wanted[count:], at + count

    def __enter__(self) -> _Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def read_rows(folder: Path, columns: Sequence[str] = ()) -> Rows:
    """Return the rows of all sources, but for their tokens and texts, which are read when they are asked for.

    Raises:
        DataInvalid: a column that is counted by has more values than `MOST_VALUES`.
    """
    parts: list[Part] = []
    arrays: dict[str, list[npt.NDArray[Any]]] = {}
    tables: list[dict[str, int]] = [{} for _ in columns]
    values: list[list[str | None]] = [[] for _ in columns]
    names: list[str] = []
    first = largest = 0
    for number, source in enumerate(SOURCES):
        for file in sorted(folder.glob(f"rows-{source}-*.safetensors")):
            with safe_open(file, "numpy") as opened:
                read = {name: opened.get_tensor(name) for name in NAMES}
                if WANTED in opened.keys():  # noqa: SIM118  it is no mapping
                    read[WANTED] = opened.get_tensor(WANTED)
            about = json.loads(file.with_suffix(".json").read_bytes())
            count = len(read["lines"])
            read["lengths"], read["offsets"] = np.diff(read["offsets"]), read["offsets"][:-1]
            read["source"] = np.full(count, number, np.int8)
            codes = read.pop("columns")
            for index, column in enumerate(columns):
                translated = [_code(tables[index], values[index], value, column) for value in about["values"][index]]
                read[f"column {index}"] = np.array(translated or [0], np.int64)[codes[:, index]]
            read["files"] = np.arange(len(names), len(names) + len(about["files"]))[read["files"]]
            names.extend(about["files"])
            for name, array in read.items():
                arrays.setdefault(name, []).append(array)
            parts.append(Part(folder, file.stem, first, count))
            first += count
            largest = max(largest, about["largestToken"])
    joined = {name: np.concatenate(pieces) for name, pieces in arrays.items()}
    for index in range(len(columns)):
        # In the order of the values, which is the same whatever the order of rows.
        order = sorted(range(len(values[index])), key=lambda code: (values[index][code] or "", code))
        joined[f"column {index}"] = np.argsort(order)[joined[f"column {index}"]]
        values[index] = [values[index][code] for code in order]
    return Rows(
        parts=tuple(parts),
        **{
            name: joined[name]
            for name in ("source", "lengths", "learned", "offsets", "lines", "first", "whole", "short", "identities")
        },
        **{name: joined[name] for name in ("answers", "groups", "languages", "files", "numbers")},
        columns={column: joined[f"column {index}"] for index, column in enumerate(columns)},
        values={column: tuple(values[index]) for index, column in enumerate(columns)},
        file_names=tuple(names),
        largest_token=largest,
        wanted=joined.get(WANTED),
    )


WANTED = "wanted"
"""Of rows of preferences alone."""
NAMES = (
    "offsets",
    "learned",
    "lines",
    "first",
    "whole",
    "short",
    "identities",
    "answers",
    "groups",
    "languages",
    "columns",
    "files",
    "numbers",
)
"""Tensors of a part that are read into memory; `tokens` and `kinds` stay on disk."""


def _code(table: dict[str, int], values: list[str | None], value: str | None, column: str) -> int:
    key = json.dumps(value)
    if key not in table:
        if len(values) >= MOST_VALUES:
            raise DataInvalid(
                f"the column {column} has more than {MOST_VALUES} values, so its groups say nothing; name another",
                Reason.DATASET_INVALID,
            )
        table[key] = len(values)
        values.append(value)
    return table[key]


def keys_of(keys: Sequence[bytes], length: int = KEY_BYTES) -> UInt8:
    """Return keys of one length as uint8[keys, length]."""
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, length)


def identities_of(keys: Sequence[bytes]) -> UInt8:
    """Return rows' identities as uint8[rows, 16]."""
    return keys_of(keys, IDENTITY_BYTES)
