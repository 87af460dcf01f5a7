"""Tokenised rows: made once for a data set and a tokenizer, stored under their content address, shared by every view.

A rows folder holds, for each source (training, and validation and test where they have a uri of their own), shards of
tokens, what is learned of them and cluster keys, the same rows as JSON lines, and audit.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from ..contract import canonical_json
from .cleaning import FORMAT, Audit
from .clusters import KEY_BYTES, answer_key, group_key
from .formats import Detected
from .tokens import Tokenised

SHARD_TOKENS = 1 << 24
SOURCES = ("training", "validation", "test")


@dataclass(frozen=True)
class Rows:
    """Rows of one source.

    tokens int32[N], kinds uint8[N] (`Kind`), offsets int64[R+1] of the rows, answers and groups uint8[R, 32] (cluster
    keys), first bool[R]: a row of the files may have become several, next to each other, of which this is the first.
    """

    tokens: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    answers: npt.NDArray[np.uint8]
    groups: npt.NDArray[np.uint8]
    first: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.offsets) - 1


class RowsWriter:
    """Writes one source's rows into a folder, a shard at a time."""

    def __init__(self, folder: Path, source: str, shard_tokens: int = SHARD_TOKENS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._source, self._shard_tokens = folder, source, shard_tokens
        self._shards = 0
        self._pending: list[Tokenised] = []
        self._tokens = 0
        self.rows = 0

    def write(self, rows: Iterable[Tokenised], audit: Audit) -> None:
        """Write rows; those in which nothing is learned are counted and left out."""
        for every in _by_row(rows):
            # A sequence's first token has nothing before it to be predicted from.
            learned = [each for each in every if each.supervised[1:].any()]
            if not learned:
                audit.unsupervised.add(every[0].row.place)
                continue
            if every[0].control:
                audit.control.add(every[0].row.place)
            if len(learned) > 1:
                audit.parted.add(every[0].row.place)
            for number, each in enumerate(learned):
                self._pending.append(replace(each, first=not number))
                self._tokens += len(each.tokens)
            self.rows += len(learned)
            if self._tokens >= self._shard_tokens:
                self._flush()
        if self._pending:
            self._flush()

    def _flush(self) -> None:
        name = f"rows-{self._source}-{self._shards:05}"
        rows = self._pending
        save_file(
            {
                "tokens": np.concatenate([row.tokens for row in rows]),
                "kinds": np.concatenate([row.kinds for row in rows]),
                # The same for whoever looks at the rows with a tool of their own; nothing here reads it.
                "supervised": np.concatenate([row.supervised for row in rows]),
                "offsets": np.cumsum([0, *(len(row.tokens) for row in rows)], dtype=np.int64),
                "answers": _keys(answer_key(row.row) for row in rows),
                "groups": _keys(group_key(row.row) for row in rows),
                "first": np.array([row.first for row in rows], np.bool_),
            },
            self._folder / f"{name}.safetensors",
        )
        with (self._folder / f"{name}.jsonl").open("wb") as file:
            file.writelines(row.row.to_json() + b"\n" for row in rows if row.first)
        self._pending, self._tokens = [], 0
        self._shards += 1


def write_audit(folder: Path, audits: dict[str, Audit], detected: Detected) -> None:
    """Write audit.json: for each source what was read, kept and left out, with a few places, and in what format."""
    said = {FORMAT: {"name": detected.format.value, "why": detected.why}}
    (folder / "audit.json").write_bytes(
        canonical_json({name: audit.to_json() | said for name, audit in audits.items()})
    )


def read_audit(folder: Path) -> dict[str, Any]:
    """Return what `write_audit` wrote."""
    value: dict[str, Any] = json.loads((folder / "audit.json").read_bytes())
    return value


def read_rows(folder: Path, source: str) -> Rows:
    """Return a source's rows, all its shards; none if the source has no rows of its own."""
    shards = [load_file(file) for file in sorted(folder.glob(f"rows-{source}-*.safetensors"))]
    empty = np.zeros((0, KEY_BYTES), np.uint8)
    return Rows(
        np.concatenate([shard["tokens"] for shard in shards] or [np.zeros(0, np.int32)]),
        np.concatenate([shard["kinds"] for shard in shards] or [np.zeros(0, np.uint8)]),
        _chain([shard["offsets"] for shard in shards]),
        np.concatenate([shard["answers"] for shard in shards] or [empty]),
        np.concatenate([shard["groups"] for shard in shards] or [empty]),
        np.concatenate([shard["first"] for shard in shards] or [np.zeros(0, np.bool_)]),
    )


def join_rows(parts: list[Rows]) -> Rows:
    """Return the rows of several sources, one after the other."""
    parts = [part for part in parts if len(part)]
    if len(parts) == 1:
        return parts[0]
    return Rows(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.kinds for part in parts]),
        _chain([part.offsets for part in parts]),
        np.concatenate([part.answers for part in parts]),
        np.concatenate([part.groups for part in parts]),
        np.concatenate([part.first for part in parts]),
    )


def read_lines(folder: Path, source: str) -> Iterator[bytes]:
    """Yield a source's rows as JSON lines, in the order of `read_rows`: one for each that is `first`."""
    for path in sorted(folder.glob(f"rows-{source}-*.jsonl")):
        with path.open("rb") as file:
            yield from file


def _by_row(sequences: Iterable[Tokenised]) -> Iterator[list[Tokenised]]:
    of_row: list[Tokenised] = []
    for each in sequences:
        if each.first and of_row:
            yield of_row
            of_row = []
        of_row.append(each)
    if of_row:
        yield of_row


def _chain(offsets: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Return the offsets of arrays that are put one after the other."""
    lengths = np.concatenate([np.diff(part) for part in offsets] or [np.zeros(0, np.int64)])
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def _keys(keys: Iterable[bytes]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
