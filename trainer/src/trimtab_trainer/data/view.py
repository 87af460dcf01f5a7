"""Views: the sequences that are trained, validated and tested on, packed, under their content address.

A view folder holds shards for each side, `test.jsonl` (the held-out rows as they were written), `train-clusters.txt`
and `train.jsonl.gz` (the cluster keys of all rows that are trained on, and these rows: other data can be checked for
leaks; training does not read them); and `chat_template.jinja` where it is not the base model's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from ..contract import Method, TrainingSettings
from ..contract.settings import DEFAULT_EPOCHS
from ..storage import Store, fetch_prepared, prepared_manifest
from ..storage.layout import view_prefix
from .fitting import Fitted, learned
from .packing import pack
from .rows import Rows

SHARD_TOKENS = 1 << 22
SIDES = ("train", "validation", "test")
TEST_ROWS = "test.jsonl"
CHAT_TEMPLATE = "chat_template.jinja"
TRAIN_CLUSTERS = "train-clusters.txt"
TRAIN_ROWS = "train.jsonl.gz"


@dataclass(frozen=True)
class Sequences:
    """Packed rows of one side.

    tokens int32[N]; positions int32[N], from 0 at the first token of each packed row, which is what keeps rows apart;
    supervised bool[N], the token is a target of the loss (never the first of a row); offsets int64[S+1] of the
    sequences; rows int32[S], how many rows each holds; weights float32[rows], of what is learned of each packed row, if
    not all are 1; wanted bool[rows], of preferences: a sequence is a pair, the chosen row first, or one labelled row.
    """

    tokens: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    supervised: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32] | None = None
    wanted: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Return tokens, positions and supervised of one sequence."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.tokens[part], self.positions[part], self.supervised[part]


@dataclass(frozen=True)
class View:
    """What `prepare` made for one run; `manifest` is the view's MANIFEST.json, `folder` its local copy."""

    train: Sequences
    validation: Sequences | None
    test: Sequences | None
    manifest: dict[str, Any]
    folder: Path

    @property
    def test_rows(self) -> Path | None:
        """The held-out rows as JSON lines."""
        file = self.folder / TEST_ROWS
        return file if file.exists() else None

    @property
    def chat_template(self) -> Path | None:
        """The chat template that its rows were rendered with; None if that is the base model's."""
        file = self.folder / CHAT_TEMPLATE
        return file if file.exists() else None


def load_view(store: Store, digest: str, scratch: Path, *, there: bool = False) -> View:
    """Download a view, verify every file, and return it; `there`: another process of this machine did the former.

    Raises:
        PreparedDataMissing: it is not there, or not as it was written.
    """
    prefix = view_prefix(digest)
    folder = scratch / "views" / prefix.rpartition("/")[2]
    manifest = prepared_manifest(store, prefix) if there else fetch_prepared(store, prefix, folder, _is_of_training)
    train = _read(folder, "train")
    assert train is not None
    return View(train, _read(folder, "validation"), _read(folder, "test"), manifest.document, folder)


def _is_of_training(path: str) -> bool:
    return path != TRAIN_ROWS


def total_steps(training: TrainingSettings, sequences: int) -> int:
    """Return the optimizer steps of a run: the last, smaller batch of an epoch is a step too."""
    if training.max_steps is not None:
        return training.max_steps
    return math.ceil(sequences / training.batch_size) * (training.epochs or DEFAULT_EPOCHS)


def write_side(
    folder: Path,
    side: str,
    rows: Rows,
    fitted: Fitted,
    training: TrainingSettings,
    *,
    weights: npt.NDArray[np.float32] | None = None,
) -> dict[str, int]:
    """Write one side's shards from rows that fit into a sequence; return its figures.

    `weights` of the rows float32[n], of what is learned of them, if not all are 1.
    """
    lengths = fitted.lengths
    sequences = _sequences(lengths, training)
    tokens = supervised = 0
    for number, shard in enumerate(_shards(sequences, lengths)):
        places = np.array([index for sequence in shard for index in sequence], np.int64)
        offsets = np.concatenate(([0], np.cumsum(lengths[places]))).astype(np.int64)
        values, kinds = rows.tokens(fitted.rows[places], lengths[places])
        mask = learned(kinds, training.loss_on)
        # A row's first token has nothing before it to be predicted from.
        mask[offsets[:-1]] = False
        tokens += len(mask)
        supervised += int(mask.sum())
        arrays: dict[str, npt.NDArray[Any]] = {
            "tokens": values,
            "supervised": mask,
            "rowOffsets": offsets,
            "rows": np.array([len(sequence) for sequence in shard], np.int32),
        }
        if weights is not None:
            arrays["weights"] = weights[places]
        if rows.wanted is not None:
            arrays["wanted"] = rows.wanted[fitted.rows[places]]
        save_file(arrays, folder / f"{side}-{number:05}.safetensors")
    return {
        "rows": len(lengths) // training.method.answers,
        "tooLong": len(fitted.dropped) // training.method.answers,
        "truncated": len(fitted.truncated),
        "sequences": len(sequences),
        "longest": max((int(lengths[sequence].sum()) for sequence in sequences), default=0),
        "tokens": tokens,
        "supervisedTokens": supervised,
        **({"wanted": int(rows.wanted[fitted.rows].sum())} if rows.wanted is not None else {}),
    }


def _sequences(lengths: npt.NDArray[np.int64], training: TrainingSettings) -> list[list[int]]:
    """Return which rows lie in one sequence: as many as fit where they are packed, of preferences what is compared."""
    if training.method is Method.SFT and training.packing:
        return pack(lengths, training.max_sequence_length)
    size = training.method.answers
    return [[*range(first, first + size)] for first in range(0, len(lengths), size)]


def _shards(sequences: list[list[int]], lengths: npt.NDArray[np.int64]) -> Iterator[list[list[int]]]:
    shard: list[list[int]] = []
    tokens = 0
    for sequence in sequences:
        shard.append(sequence)
        tokens += int(lengths[sequence].sum())
        if tokens >= SHARD_TOKENS:
            yield shard
            shard, tokens = [], 0
    if shard:
        yield shard


def _read(folder: Path, side: str) -> Sequences | None:
    shards = [load_file(file) for file in sorted(folder.glob(f"{side}-*.safetensors"))]
    if not shards:
        return None
    positions, offsets = [], [np.zeros(1, np.int64)]
    for shard in shards:
        starts, counts = shard["rowOffsets"], shard["rows"]
        lengths = np.diff(starts)
        positions.append((np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)).astype(np.int32))
        offsets.append(starts[np.cumsum(counts)] + offsets[-1][-1])
    return Sequences(
        np.concatenate([shard["tokens"] for shard in shards]),
        np.concatenate(positions),
        np.concatenate([shard["supervised"] for shard in shards]),
        np.concatenate(offsets),
        np.concatenate([shard["rows"] for shard in shards]),
        *(
            np.concatenate([shard[name] for shard in shards]) if name in shards[0] else None
            for name in ("weights", "wanted")
        ),
    )
