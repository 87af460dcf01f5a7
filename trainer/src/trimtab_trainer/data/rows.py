"""Tokenised rows: made once for a data set and a tokenizer, stored under their content address, shared by every view.

A rows folder holds, for each source (training, and validation and test where they have a uri of their own), parts of
tokens, masks and cluster keys (`rows-<source>-00000.safetensors`), the same rows as JSON lines (`.jsonl`), what was
found up to there (`.json`), and audit.json. Tokens and lines stay on disk: what is decided on is read into memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from ..contract import Reason, canonical_json
from ..errors import DataInvalid
from ..storage.tensor_header import LENGTH_BYTES, header_length, read_header
from .cleaning import IDENTITY_BYTES, Audit
from .clusters import KEY_BYTES

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
        """The file of tokens, masks and keys."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def lines(self) -> Path:
        """The file of the rows as JSON lines."""
        return self.folder / f"{self.name}.jsonl"


@dataclass(frozen=True)
class Rows:
    """Rows of all sources, one after the other.

    source int8[R], its place in SOURCES; lengths and learned int64[R], tokens and those with a loss; offsets and lines
    int64[R], where in its part the tokens and the JSON line of each begin; identities uint8[R, 16], hashes of all that
    is used of each; answers and groups uint8[R, 32], cluster keys; languages uint8[R]; columns, a code for each row
    int64[R] into `values`, by the name of a column that is counted by.
    """

    parts: tuple[Part, ...]
    source: npt.NDArray[np.int8]
    lengths: Int64
    learned: Int64
    offsets: Int64
    lines: Int64
    identities: UInt8
    answers: UInt8
    groups: UInt8
    languages: UInt8
    columns: dict[str, Int64]
    values: dict[str, tuple[str | None, ...]]
    largest_token: int

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens(self, chosen: Int64, lengths: Int64) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Return the first `lengths` tokens of each chosen row, one row after the other, and which are learned."""
        ends = np.cumsum(lengths)
        tokens, supervised = np.empty(int(ends[-1]), np.int32), np.empty(int(ends[-1]), np.bool_)
        for part, places in self._by_part(chosen):
            with _Arrays(part) as arrays:
                for place in places.tolist():
                    inside = slice(int(ends[place] - lengths[place]), int(ends[place]))
                    begin = int(self.offsets[chosen[place]])
                    arrays.read("tokens", begin, tokens[inside])
                    arrays.read("supervised", begin, supervised[inside])
        return tokens, supervised

    def texts(self, chosen: Int64) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the JSON line of chosen rows, those of a part together."""
        for part, places in self._by_part(chosen):
            with part.lines.open("rb") as file:
                for row in chosen[places].tolist():
                    file.seek(int(self.lines[row]))
                    yield row, file.readline()

    def line(self, row: int) -> bytes:
        """Return one row as a JSON line."""
        return next(line for _, line in self.texts(np.array([row], np.int64)))

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
        wanted = memoryview(into).cast("B")
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
    first = largest = 0
    for number, source in enumerate(SOURCES):
        for file in sorted(folder.glob(f"rows-{source}-*.safetensors")):
            with safe_open(file, "numpy") as opened:
                read = {name: opened.get_tensor(name) for name in NAMES}
            about = json.loads(file.with_suffix(".json").read_bytes())
            count = len(read["lines"])
            read["lengths"], read["offsets"] = np.diff(read["offsets"]), read["offsets"][:-1]
            read["source"] = np.full(count, number, np.int8)
            codes = read.pop("columns")
            for index, column in enumerate(columns):
                translated = [_code(tables[index], values[index], value, column) for value in about["values"][index]]
                read[f"column {index}"] = np.array(translated or [0], np.int64)[codes[:, index]]
            for name, array in read.items():
                arrays.setdefault(name, []).append(array)
            parts.append(Part(folder, file.stem, first, count))
            first += count
            largest = max(largest, about["largestToken"])
    joined = {name: np.concatenate(pieces) for name, pieces in arrays.items()}
    return Rows(
        parts=tuple(parts),
        **{name: joined[name] for name in ("source", "lengths", "learned", "offsets", "lines", "identities")},
        **{name: joined[name] for name in ("answers", "groups", "languages")},
        columns={column: joined[f"column {index}"] for index, column in enumerate(columns)},
        values={column: tuple(values[index]) for index, column in enumerate(columns)},
        largest_token=largest,
    )


NAMES = ("offsets", "learned", "lines", "identities", "answers", "groups", "languages", "columns")
"""Tensors of a part that are read into memory; `tokens` and `supervised` stay on disk."""


def _code(table: dict[str, int], values: list[str | None], value: str | None, column: str) -> int:
    key = json.dumps(value)
    if key not in table:
        if len(values) >= MOST_VALUES:
            raise DataInvalid(
                f"the column {column} has more than {MOST_VALUES} values, so its groups say nothing; name another column",
                Reason.DATASET_INVALID,
            )
        table[key] = len(values)
        values.append(value)
    return table[key]


def write_audit(folder: Path, audits: dict[str, Audit]) -> None:
    """Write audit.json: for each source what was read, kept and left out, with a few places."""
    (folder / "audit.json").write_bytes(canonical_json({name: audit.to_json() for name, audit in audits.items()}))


def read_audit(folder: Path) -> dict[str, Any]:
    """Return what `write_audit` wrote."""
    value: dict[str, Any] = json.loads((folder / "audit.json").read_bytes())
    return value


def keys_of(keys: Sequence[bytes], length: int = KEY_BYTES) -> UInt8:
    """Return keys of one length as uint8[keys, length]."""
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, length)


def identities_of(keys: Sequence[bytes]) -> UInt8:
    """Return rows' identities as uint8[rows, 16]."""
    return keys_of(keys, IDENTITY_BYTES)
