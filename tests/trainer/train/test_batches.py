"""What a position predicts, and how sequences lie in a micro-batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from trimtab_trainer.training.batches import IGNORED, Batches

from .runs import CPU, random_rows, sequences, unpacked


def test_each_position_predicts_the_next_supervised_token_of_its_own_row() -> None:
    data = sequences([[[10, 11, 12, 13], [20, 21, 22]], [[30, 31]]], prompt=0.5)
    assert Batches(data).targets.tolist() == [IGNORED, 12, 13, IGNORED, 21, 22, IGNORED, 31, IGNORED]


def test_the_first_token_of_a_row_is_predicted_by_nothing_even_when_all_tokens_are_learned() -> None:
    data = sequences([[[10, 11], [20, 21]], [[30, 31]]], prompt=0.0)
    data.supervised[:] = True
    assert Batches(data).targets.tolist() == [11, IGNORED, 21, IGNORED, 31, IGNORED]
    assert Batches(data).supervised.tolist() == [2, 1]


def test_the_end_of_a_turn_is_predicted_though_it_is_the_padding_token_too(tiny: Path) -> None:
    """Whoever masks padding by its id masks this end too, and the model never learns to stop."""
    padding = json.loads((tiny / "config.json").read_text())["pad_token_id"]
    data = unpacked([[1, 10, 11, 12, padding], [1, 20, padding]])
    assert Batches(data).targets.tolist() == [IGNORED, 11, 12, padding, IGNORED, 20, padding, IGNORED]
    assert Batches(data).lay(np.array([0, 1]), CPU).targets[1].tolist() == [20, padding, IGNORED, IGNORED, IGNORED]


def test_padding_is_never_supervised_and_counts_on() -> None:
    data = unpacked([[10, 11, 12, 13, 14], [20, 21, 22]])
    batch = Batches(data).lay(np.array([0, 1]), CPU)
    assert batch.positions[1].tolist() == [0, 1, 2, 3, 4]
    assert batch.targets[1].tolist() == [21, 22, IGNORED, IGNORED, IGNORED]
    assert (batch.real_tokens, batch.supervised_tokens) == (8, 5)


def test_micro_batches_hold_every_sequence_once_the_longest_first() -> None:
    rows = random_rows(11)
    batches = Batches(unpacked(rows))
    parts = list(batches.micro_batches(np.arange(11), 4, CPU))
    assert [len(part.tokens) for part in parts] == [4, 4, 3]
    widths = [part.tokens.shape[1] for part in parts]
    assert widths == sorted(widths, reverse=True)
    assert sum(part.real_tokens for part in parts) == sum(len(row) for row in rows)
    assert sum(int((part.targets != IGNORED).sum()) for part in parts) == int(batches.supervised.sum())


def test_shorter_sequences_fill_a_pass_up_to_its_tokens() -> None:
    rows = [[5] * length for length in (32, 16, 16, 8, 8, 8, 8, 4, 4)]
    batches = Batches(unpacked(rows))
    parts = list(batches.micro_batches(np.arange(9), 1, CPU, tokens=32))
    assert [tuple(part.tokens.shape) for part in parts] == [(1, 32), (2, 16), (4, 8), (2, 4)]
    told = list(batches.micro_batches(np.arange(9), 3, CPU))
    assert [len(part.tokens) for part in told] == [3, 3, 3]
