"""Rows written in parts, each put into storage when it is whole: who was killed goes on behind the last one.

A part is three files of the rows folder; the last of them, `rows-<source>-00000.json`, names the other two with their
hashes, so what has none is not there. What it says of the rows read so far is enough to go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from ..contract import canonical_json
from ..contract.parsing import Unreadable, read_object
from ..report import Report
from ..storage import FileEntry, ObjectDamaged, ObjectMissing, Store
from .cleaning.clusters import ANSWER_WORDS, answer_key, group_key
from .cleaning.steps import Audit, Kept
from .encoding.control import Held
from .encoding.template import Kind
from .encoding.tokens import is_learned
from .reading.formats import Row
from .rows import identities_of, keys_of

SUFFIXES = ("jsonl", "safetensors")
PART_TOKENS = 1 << 22
"""Tokens from which a part is written: 16 MiB of them."""
PART_ROWS = 1 << 14
"""Rows from which one is written all the same: short ones take more memory than their tokens."""


@dataclass(frozen=True)
class TokenisedRow:
    """A sequence as it is trained on: tokens int32[n], `Kind` of each uint8[n]; `row`: the place of its row.

    `learned`: number of tokens with a loss; a first token has nothing before it to be predicted from.
    """

    row: int
    tokens: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.uint8]
    learned: int
    control: Held
    language: int


@dataclass(frozen=True)
class Block:
    """Records that were read together: what was found in them, the rows that are kept, and their sequences."""

    audit: Audit
    rows: Sequence[Kept]
    sequences: Sequence[TokenisedRow]


class PartWriter:
    """Writes one source's rows into a folder and into storage, a part at a time."""

    def __init__(self, store: Store, prefix: str, folder: Path, source: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._store, self._prefix, self._folder, self._source = store, prefix, folder, source
        self._number = 0
        self._rows: list[tuple[Kept, list[TokenisedRow]]] = []
        self._tokens = 0
        self.audit = Audit()
        self.rows = 0
        self.entries: list[FileEntry] = []

    def resume(self, report: Report) -> list[bytes]:
        """Fetch the parts that are in storage; return the identities of their rows."""
        identities: list[bytes] = []
        while (about := self._fetched()) is not None:
            arrays = load_file(self._file("safetensors"))
            identities.extend(each.tobytes() for each in arrays["identities"])
            self.audit = about
            self.rows += len(arrays["identities"])
            self._number += 1
        if self._number:
            report("goes on with rows", source=self._source, parts=self._number, read=self.audit.read)
        return identities

    def write(self, blocks: Iterable[Block]) -> None:
        """Write blocks; rows in which nothing is learned are counted and left out."""
        for block in blocks:
            self.audit.extend(block.audit)
            found: dict[int, list[TokenisedRow]] = {}
            for sequence in block.sequences:
                found.setdefault(sequence.row, []).append(sequence)
            for number, kept in enumerate(block.rows):
                sequences = [each for each in found.get(number, ()) if each.learned]
                if len(sequences) < max(1, len(kept.row.answers)):
                    self.audit.drop(self.audit.unsupervised, kept.row.place)
                    continue
                held = max(each.control for each in sequences)
                if held is not Held.NOWHERE:
                    self.audit.control.add(kept.row.place)
                if held is Held.NAMES:
                    self.audit.names.add(kept.row.place)
                if kept.row.answers:
                    if have_unlike_prompts(sequences):
                        self.audit.unlike.add(kept.row.place)
                elif len(sequences) > 1:
                    self.audit.parted.add(kept.row.place)
                self._rows.append((kept, sequences))
                self._tokens += sum(len(each.tokens) for each in sequences)
                self.rows += 1
            if self._tokens >= PART_TOKENS or len(self._rows) >= PART_ROWS:
                self._flush()
        if self._rows:
            self._flush()

    def _flush(self) -> None:
        lines = [kept.row.to_json() + b"\n" for kept, _ in self._rows]
        starts = np.cumsum([0, *map(len, lines)], dtype=np.int64)
        self._file("jsonl").write_bytes(b"".join(lines))
        rows = [
            (kept, int(start), each) for (kept, own), start in zip(self._rows, starts, strict=False) for each in own
        ]
        columns, values = _codes([kept.values for kept, _, _ in rows])
        places = [kept.row.place.rpartition(" ") for kept, _, _ in rows]
        files, (table,) = _codes([(file,) for file, _, _ in places])
        tokens = np.concatenate([each.tokens for _, _, each in rows])
        kinds = np.concatenate([each.kinds for _, _, each in rows])
        wanted = [label for kept, own in self._rows for label in labels_of(kept.row, len(own))]
        save_file(
            {
                **({"wanted": np.array(wanted, np.bool_)} if wanted else {}),
                "tokens": tokens,
                "kinds": kinds,
                # The same for whoever looks at the rows with a tool of their own; nothing here reads it.
                "supervised": is_learned(kinds),
                "offsets": np.cumsum([0, *(len(each.tokens) for _, _, each in rows)], dtype=np.int64),
                "learned": np.array([each.learned for _, _, each in rows], np.int64),
                "lines": np.array([start for _, start, _ in rows], np.int64),
                "first": np.array([not number for _, own in self._rows for number in range(len(own))], np.bool_),
                "whole": np.array([bool((each.kinds == Kind.LAST).any()) for _, _, each in rows], np.bool_),
                "short": np.array([len(kept.row.unit.split()) < ANSWER_WORDS for kept, _, _ in rows], np.bool_),
                "identities": identities_of([kept.identity for kept, _, _ in rows]),
                "answers": keys_of([answer_key(kept.row) for kept, _, _ in rows]),
                "groups": keys_of([group_key(kept.row) for kept, _, _ in rows]),
                "languages": np.array([each.language for _, _, each in rows], np.uint8),
                "columns": columns,
                "files": files[:, 0],
                "numbers": np.array([int(number) for _, _, number in places], np.int64),
            },
            self._file("safetensors"),
        )
        self._put({"values": values, "files": table, "largestToken": int(tokens.max())})
        self._rows, self._tokens = [], 0
        self._number += 1

    def _put(self, about: dict[str, Any]) -> None:
        entries = [self._upload(self._file(suffix)) for suffix in SUFFIXES]
        about |= {"audit": self.audit.to_json(), "parts": [entry.to_json() for entry in entries]}
        self._file("json").write_bytes(canonical_json(about))
        self.entries.extend((*entries, self._upload(self._file("json"))))

    def _upload(self, file: Path) -> FileEntry:
        entry = self._store.upload(file, f"{self._prefix}/{file.name}")
        return FileEntry(file.name, entry.size, entry.sha256)

    def _fetched(self) -> Audit | None:
        """Return what was found up to the end of the next part, once its files are here; None if it is not there."""
        file = self._file("json")
        try:
            own = self._store.download(f"{self._prefix}/{file.name}", file)
            about = read_object(file.read_bytes())
            entries = [FileEntry.of(item) for item in about["parts"]]
            if [entry.path for entry in entries] != [self._file(suffix).name for suffix in SUFFIXES]:
                raise Unreadable("it names other files")
            audit = Audit.of(about["audit"])
            for entry in entries:
                path = f"{self._prefix}/{entry.path}"
                self._store.download(path, self._folder / entry.path, sha256=entry.sha256, size=entry.size)
        except (ObjectMissing, ObjectDamaged, Unreadable, KeyError, TypeError):
            return None
        self.entries.extend((*entries, FileEntry(file.name, own.size, own.sha256)))
        return audit

    def _file(self, suffix: str) -> Path:
        return self._folder / f"rows-{self._source}-{self._number:05}.{suffix}"


def have_unlike_prompts(sequences: Sequence[TokenisedRow]) -> bool:
    """Tell whether the tokens before the answers of one prompt differ."""
    prompts = {each.tokens[: int(np.argmax(is_learned(each.kinds)))].tobytes() for each in sequences}
    return len(prompts) > 1


def labels_of(row: Row, sequences: int) -> list[bool]:
    """Return of each sequence of a row of preferences if its answer is wanted; nothing of other rows."""
    if row.label is not None:
        return [row.label] * sequences
    return [not number for number in range(sequences)] if row.answers else []


def _codes(rows: Sequence[tuple[str | None, ...]]) -> tuple[npt.NDArray[np.int32], list[list[str | None]]]:
    """Return a code for each row and column int32[rows, columns], and the values that they stand for."""
    columns = len(rows[0])
    tables: list[dict[str | None, int]] = [{} for _ in range(columns)]
    codes = [[table.setdefault(value, len(table)) for table, value in zip(tables, row, strict=True)] for row in rows]
    return np.array(codes, np.int32).reshape(len(rows), columns), [list(table) for table in tables]
