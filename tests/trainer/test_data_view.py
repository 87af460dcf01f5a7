"""Views: what is loaded is what was prepared, rows are isolated, and shards are verified."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from trimtab_trainer.contract import LossOn, TrainingSettings
from trimtab_trainer.data import Sequences, load_view, total_steps, view
from trimtab_trainer.data.rows import Rows
from trimtab_trainer.data.template import Kind
from trimtab_trainer.data.view import write_side
from trimtab_trainer.errors import PreparedDataMissing, StorageFailed
from trimtab_trainer.storage import Store, commit, upload_folder
from trimtab_trainer.storage.layout import view_prefix

DIGEST = "sha256:" + "0" * 64


def rows_of(lengths: list[int]) -> Rows:
    """Return rows whose tokens say which row they are of, each with its second half learned."""
    tokens = [np.full(length, row, np.int32) for row, length in enumerate(lengths)]
    kinds = [np.where(np.arange(length) >= length // 2, Kind.LAST, Kind.GIVEN).astype(np.uint8) for length in lengths]
    keys = np.zeros((len(lengths), 32), np.uint8)
    return Rows(
        np.concatenate(tokens),
        np.concatenate(kinds),
        np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        keys,
        keys,
        np.ones(len(lengths), np.bool_),
    )


def stored(store: Store, folder: Path, lengths: list[int], training: TrainingSettings) -> Sequences:
    folder.mkdir()
    rows = rows_of(lengths)
    write_side(folder, "train", rows, np.arange(len(rows)), training)
    files = upload_folder(store, folder, view_prefix(DIGEST))
    commit(store, view_prefix(DIGEST), {"files": [entry.to_json() for entry in files]})
    return load_view(store, DIGEST, folder.parent / "scratch").train


def each(sequences: Sequences) -> Iterator[tuple[list[int], list[int], list[bool]]]:
    for index in range(len(sequences)):
        tokens, positions, supervised = sequences[index]
        yield tokens.tolist(), positions.tolist(), supervised.tolist()


def test_positions_restart_at_every_row_and_its_first_token_is_never_learned(store: Store, tmp_path: Path) -> None:
    lengths = [1, 5, 2, 6, 3, 8, 8]
    sequences = stored(store, tmp_path / "view", lengths, TrainingSettings(max_sequence_length=8))
    assert sequences.tokens.dtype == sequences.positions.dtype == sequences.rows.dtype == np.int32
    assert sequences.supervised.dtype == np.bool_
    assert sequences.offsets.dtype == np.int64
    assert sequences.rows.sum() == len(lengths)
    assert len(sequences) == 5
    seen = []
    for count, (tokens, positions, supervised) in zip(sequences.rows, each(sequences), strict=True):
        starts = [index for index, position in enumerate(positions) if position == 0]
        assert len(starts) == count
        for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
            row = tokens[start]
            seen.append(row)
            assert tokens[start:end] == [row] * lengths[row]
            assert positions[start:end] == list(range(lengths[row]))
            assert supervised[start:end] == [n > 0 and n >= lengths[row] // 2 for n in range(lengths[row])]
    assert sorted(seen) == list(range(len(lengths)))
    with pytest.raises(IndexError):
        sequences[5]


def test_without_packing_each_row_is_a_sequence_and_all_tokens_may_be_learned(store: Store, tmp_path: Path) -> None:
    training = TrainingSettings(max_sequence_length=8, packing=False, loss_on=LossOn.ALL_TOKENS)
    sequences = stored(store, tmp_path / "view", [3, 9, 2], training)
    assert list(each(sequences)) == [
        ([0, 0, 0], [0, 1, 2], [False, True, True]),
        ([2, 2], [0, 1], [False, True]),
    ]


def test_shards_join_to_the_same_sequences(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.random.default_rng(3).integers(2, 9, 60).tolist()
    one = stored(store, tmp_path / "one", lengths, TrainingSettings(max_sequence_length=16))
    monkeypatch.setattr(view, "SHARD_TOKENS", 40)
    folder = tmp_path / "many"
    folder.mkdir()
    write_side(folder, "train", rows_of(lengths), np.arange(60), TrainingSettings(max_sequence_length=16))
    assert len(list(folder.iterdir())) > 3
    many = view._read(folder, "train")
    assert many is not None
    assert list(each(many)) == list(each(one))
    assert many.rows.tolist() == one.rows.tolist()


def test_shards_have_no_metadata_whose_order_could_change_their_hash(tmp_path: Path) -> None:
    write_side(tmp_path, "train", rows_of([3]), np.arange(1), TrainingSettings(max_sequence_length=8))
    with safe_open(tmp_path / "train-00000.safetensors", "numpy") as shard:
        assert not shard.metadata()


def test_a_view_that_is_damaged_or_missing_is_never_loaded(store: Store, tmp_path: Path) -> None:
    with pytest.raises(PreparedDataMissing, match="prepare stage has to run again"):
        load_view(store, DIGEST, tmp_path / "scratch")
    stored(store, tmp_path / "view", [3], TrainingSettings(max_sequence_length=8))
    path = f"{view_prefix(DIGEST)}/train-00000.safetensors"
    data = bytearray(store.read(path))
    data[-1] ^= 1
    store.put(path, bytes(data))
    with pytest.raises(PreparedDataMissing, match="train-00000"):
        load_view(store, DIGEST, tmp_path / "again")
    assert issubclass(PreparedDataMissing, StorageFailed)


@pytest.mark.parametrize(
    ("settings", "sequences", "steps"),
    [
        ({"epochs": 2, "batch_size": 4}, 9, 6),
        ({"batch_size": 4}, 8, 6),
        ({"batch_size": 32}, 3, 3),
        ({"max_steps": 7, "batch_size": 4}, 1000, 7),
    ],
)
def test_the_last_smaller_batch_of_an_epoch_is_a_step(settings: dict[str, int], sequences: int, steps: int) -> None:
    assert total_steps(TrainingSettings(**settings), sequences) == steps
